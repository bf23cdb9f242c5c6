"""Which messages a page holds: cursors over a room's ascending IDs.

Knows numbers only. IDs are no positions, they have gaps (other rooms' messages), and a cursor need not be in the room:
a page is defined by order alone, so it stays right while messages are posted and removed.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Page:
    ids: Sequence[int]
    """Ascending."""
    older: int | None
    """Cursor: `before` this ID there is more. None: nothing older."""
    newer: int | None
    """Cursor: `after` this ID there is more. None: nothing newer."""


def newest(ids: Sequence[int], limit: int) -> Page:
    return _page(ids, max(0, len(ids) - limit), len(ids))


def before(ids: Sequence[int], cursor: int, limit: int) -> Page:
    """The last `limit` IDs below `cursor`."""
    stop = bisect.bisect_left(ids, cursor)
    return _page(ids, max(0, stop - limit), stop, cursor=cursor)


def after(ids: Sequence[int], cursor: int, limit: int) -> Page:
    """The first `limit` IDs above `cursor`."""
    start = bisect.bisect_right(ids, cursor)
    return _page(ids, start, min(len(ids), start + limit), cursor=cursor)


def around(ids: Sequence[int], cursor: int, limit: int) -> Page:
    """`limit` IDs with `cursor`, or where it would be, in the middle; fewer only where the room ends."""
    middle = bisect.bisect_left(ids, cursor)
    start = max(0, min(middle - limit // 2, len(ids) - limit))
    return _page(ids, start, min(len(ids), start + limit), cursor=cursor)


def _page(ids: Sequence[int], start: int, stop: int, cursor: int | None = None) -> Page:
    selected = ids[start:stop]
    if not selected:
        # Nothing on the asked side of the cursor; the other side may still hold something.
        return Page(
            selected,
            older=cursor + 1 if cursor is not None and start > 0 else None,
            newer=max(0, cursor - 1) if cursor is not None and stop < len(ids) else None,
        )
    return Page(
        selected,
        older=selected[0] if start > 0 else None,
        newer=selected[-1] if stop < len(ids) else None,
    )

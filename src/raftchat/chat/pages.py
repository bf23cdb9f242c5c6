"""Which messages a page holds: cursors over a room's ascending IDs, which the log looks up.

Knows numbers only. IDs are no positions, they have gaps (other rooms' messages), and a cursor need not be in the room:
a page is defined by order alone, so it stays right while messages are posted and removed.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from raftchat.chat.room import Room


class Source(Protocol):
    """The part of `_log.LogReader` that is needed: IDs of a room's posts, ascending."""

    def below(self, key: bytes, index: int, limit: int, floor: int) -> Sequence[int]:
        """The last `limit` with floor ≤ ID < index."""

    def above(self, key: bytes, index: int, limit: int, last_index: int) -> Sequence[int]:
        """The first `limit` with index < ID ≤ last_index."""


@dataclass(frozen=True, slots=True)
class Page:
    ids: Sequence[int]
    """Ascending."""
    older: int | None
    """Cursor: `before` this ID there is more. None: nothing older."""
    newer: int | None
    """Cursor: `after` this ID there is more. None: nothing newer."""


def select(source: Source, room: Room, key: bytes, last_index: int, how: str, cursor: int, limit: int) -> Page:
    """One page of a room, whose state is that after entry `last_index`. Raises what reading the log may raise.

    `how`: `newest`; `before` or `after` the ID `cursor`, which need not exist; `around`: with it, or where it would be,
    in the middle, and fewer than `limit` only where the room ends.
    """
    assert room.last_id <= last_index
    end = last_index + 1

    def older(index: int) -> Sequence[int]:
        return source.below(key, index, limit, room.floor)

    def newer(index: int) -> Sequence[int]:
        return source.above(key, max(index, room.floor - 1), limit, last_index)

    if not room.count:
        return Page((), None, None)
    if how == "newest":
        return part(room, older(end))
    if how == "before":
        return part(room, older(min(cursor, end))) if cursor > room.first_id else Page((), None, max(0, cursor - 1))
    if how == "after":
        return part(room, newer(cursor)) if cursor < room.last_id else Page((), cursor + 1, None)
    assert how == "around", how
    left, right = older(min(cursor, end)), newer(min(cursor, end) - 1)
    used = min(len(left), max(limit // 2, limit - len(right)))
    return part(room, [*left[len(left) - used :], *right[: limit - used]])


def part(room: Room, ids: Sequence[int]) -> Page:
    """The page of these IDs, which follow each other in the room.

    None of them: the log is ahead of this state, and has already let go of what is still to be removed here.
    """
    if not ids:
        return Page(ids, None, None)
    return Page(
        ids,
        older=ids[0] if ids[0] > room.first_id else None,
        newer=ids[-1] if ids[-1] < room.last_id else None,
    )


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

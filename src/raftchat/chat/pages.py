"""Which messages a page holds: cursors over a room's ascending IDs, which the log looks up.

Knows numbers only. IDs are no positions, they have gaps (other rooms' messages), and a cursor need not be in the room:
a page is defined by order alone, so it stays right while messages are posted and removed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from raftchat.chat.room import Room


class Source(Protocol):
    """The part of `_log.LogReader` that is needed: IDs of a room's posts, ascending."""

    def below(self, key: bytes, index: int, limit: int, floor: int) -> Sequence[int]:
        """The last `limit` with floor ≤ ID < index."""

    def above(self, key: bytes, index: int, limit: int, last_index: int) -> Sequence[int]:
        """The first `limit` with index < ID ≤ last_index."""


class Page(NamedTuple):
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

"""Which sealed segments are let go of or rewritten next, by how much of them lives. Numbers in, a decision out.

Like a log-structured merge tree's tiers: a segment that is mostly dead is rewritten, and takes along neighbours that
are small beside it, so that each byte is rewritten a logarithmic number of times and small files do not pile up.
Knows neither files nor rooms.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

SMALL_FILES_MIN = 4
"""So many small neighbours are merged although nothing in them is dead."""
HEADER_MAX_BYTES = 256
"""A file that is no larger cannot become smaller."""
SPAN_MAX_ENTRIES = 2**32
"""From the first to the last that a compacted segment stands for (docs/log-format.md, "Compacted segment")."""


class Segment(Protocol):
    @property
    def base_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...


class Sealed(NamedTuple):
    segment: Segment
    live_bytes: int | None
    """What its living records occupy. None: not known, or not to be touched."""


class Drop(NamedTuple):
    """The oldest segments hold nothing that lives."""

    segments: int
    """So many."""


class Rewrite(NamedTuple):
    """`[start, stop)` become one."""

    start: int
    stop: int


def plan(sealed: Sequence[Sealed], segment_size_bytes: int, live_max_percent: int) -> Drop | Rewrite | None:
    """What to do with the oldest segments of a log, which a snapshot covers. None: nothing is worth it.

    Dead ones at the very beginning are dropped; else the first that is worth it is rewritten.
    """
    dead = 0
    while dead < len(sealed) and sealed[dead].live_bytes == 0:
        dead += 1
    if dead:
        return Drop(dead)
    for at, one in enumerate(sealed):
        if _is_mostly_dead(one, live_max_percent):
            return _with_neighbours(sealed, at, segment_size_bytes, live_max_percent)
    return _small_ones(sealed, segment_size_bytes)


def _is_mostly_dead(one: Sealed, live_max_percent: int) -> bool:
    if one.live_bytes is None:
        return False
    return one.live_bytes * 100 < (one.segment.size_bytes - HEADER_MAX_BYTES) * live_max_percent


def _with_neighbours(sealed: Sequence[Sealed], at: int, segment_size_bytes: int, live_max_percent: int) -> Rewrite:
    start, stop = at, at + 1
    gathered = sealed[at].live_bytes or 0
    while stop < len(sealed) and (
        _fits(sealed[stop], gathered, segment_size_bytes)
        and _spans(sealed[start], sealed[stop])
        and (_is_mostly_dead(sealed[stop], live_max_percent) or _is_small(sealed[stop], gathered))
    ):
        gathered += sealed[stop].live_bytes or 0
        stop += 1
    while (
        start > 0
        and _fits(sealed[start - 1], gathered, segment_size_bytes)
        and _spans(sealed[start - 1], sealed[stop - 1])
        and _is_small(sealed[start - 1], gathered)
    ):
        start -= 1
        gathered += sealed[start].live_bytes or 0
    return Rewrite(start, stop)


def _fits(one: Sealed, gathered: int, segment_size_bytes: int) -> bool:
    return one.live_bytes is not None and gathered + one.live_bytes <= segment_size_bytes


def _spans(first: Sealed, last: Sealed) -> bool:
    """Whether one segment can stand for all from the first to the last: its postings count in 32 bits."""
    return last.segment.last_index - first.segment.base_index < SPAN_MAX_ENTRIES


def _is_small(one: Sealed, gathered: int) -> bool:
    """Taking it along at most doubles the work."""
    return one.live_bytes is not None and one.segment.size_bytes <= max(gathered, HEADER_MAX_BYTES)


def _small_ones(sealed: Sequence[Sealed], segment_size_bytes: int) -> Rewrite | None:
    """Neighbours that fit into one file, none at the ends larger than all others together."""
    start = 0
    while start < len(sealed):
        stop, total = start, 0
        while (
            stop < len(sealed)
            and _may_join(sealed[stop], total, segment_size_bytes)
            and _spans(sealed[start], sealed[stop])
        ):
            total += sealed[stop].segment.size_bytes
            stop += 1
        first, last = start, stop
        while last - first >= SMALL_FILES_MIN:
            ends = sealed[first].segment.size_bytes, sealed[last - 1].segment.size_bytes
            if 2 * max(ends) <= max(total, 2 * HEADER_MAX_BYTES):
                return Rewrite(first, last)
            total -= max(ends)
            first, last = (first + 1, last) if ends[0] >= ends[1] else (first, last - 1)
        start = max(stop, start + 1)
    return None


def _may_join(one: Sealed, total: int, segment_size_bytes: int) -> bool:
    if one.live_bytes is None or one.segment.size_bytes > segment_size_bytes // SMALL_FILES_MIN:
        return False
    return total + one.segment.size_bytes <= segment_size_bytes

"""Checks records of any file of a log, in C, without opening the log: for `verify` and for copies.

Knows bytes (docs/log-format.md, "Record"): which segment they are from, and what may follow what, its caller says.
Never follows a size out of the data.
"""

from typing import NamedTuple

Buffer = bytes | bytearray | memoryview

class Place(NamedTuple):
    """Between two records."""

    offset: int
    """Of the next record, in the data that was given."""
    index: int  # type: ignore[assignment]  # hides tuple.index
    """Of the next entry; in a compacted segment, at least this."""
    term: int
    """Of the record before, as is `time_ms`."""
    time_ms: int
    records: int
    """How many were found good so far."""

def walk(data: Buffer, place: Place, segment_id: int, last_index: int, gaps: bool = False) -> tuple[Place, str | None]:
    """Check records from a place on: where that ended, and why (None: `last_index`, or with gaps the end of the data,
    was reached). With `gaps`, as in a compacted segment, indexes ascend and all records are posts."""

def find(data: Buffer, offset: int, segment_id: int, index: int, last_index: int) -> tuple[int, int, int] | None:
    """The first valid record beyond `offset` of an entry in (index, last_index], at any multiple of 8: its offset,
    index and `synced`. None: there is none."""

"""Segments as a reader knows them, in plain Python: each with its index, or with notes of its own in place of one.

An index that turns out to be rotten is let go and never asked again, until its owner makes a new one. Does not know
what records say, nor what is committed.
"""

from __future__ import annotations

import bisect
import contextlib

from raftchat.log_disk import Disk
from raftchat.log_header import segment_path
from raftchat.log_index import Index, Notes, Postings, Posts, Rotten, open_index, records_of
from raftchat.log_records import INDEX_MAX, Header
from raftchat.log_segment import SegmentFile

_UNBOUNDED = 2**64


class Part:
    """One segment."""

    def __init__(self, disk: Disk, directory: str, sequence: int, base_index: int, revision: int) -> None:
        """One that is gone already is not an error until it is read. Raises as `SegmentFile.open`."""
        self.sequence = sequence
        self.base_index = base_index
        self.revision = revision
        self.last_index = _UNBOUNDED
        """The last entry that may lie here."""
        self.index: Index | None = None
        self.notes: Notes | None = None
        self.bad_index = False
        """One that we were told of cannot be believed."""
        self._disk = disk
        self._path = segment_path(directory, sequence, base_index, revision)
        self._segment: SegmentFile | None = None
        with contextlib.suppress(FileNotFoundError):
            self._segment = SegmentFile.open(disk, directory, sequence, base_index, False, revision)

    @property
    def starts_here(self) -> bool:
        """Nothing older counts."""
        return self._segment is not None and self._segment.header.prev_sequence == 0

    def file(self) -> SegmentFile:
        """Raises FileNotFoundError if it was gone before we came."""
        if self._segment is None:
            raise FileNotFoundError(2, "the segment is gone", self._path)
        return self._segment

    def bound(self, last_index: int) -> None:
        """The last entry that may lie here is that one, or an earlier one."""
        if self.revision and self._segment is not None:
            last_index = min(last_index, self._segment.header.last_index)
        if self.index is not None and last_index != self.last_index:
            self.distrust()
        self.last_index = last_index

    def use_index(self) -> bool:
        """Look for an index: whether there is one that can be used."""
        self.index, self.bad_index = None, False
        try:
            self.index = open_index(self._disk, self.file(), self.last_index)
        except (Rotten, FileNotFoundError):
            self.distrust()
            return False
        self.notes = None
        return True

    def distrust(self) -> None:
        self.index, self.bad_index = None, True

    def postings(self, last_index: int) -> Postings:
        """What tells where posts lie, at least up to that entry. Raises CorruptLog, FileNotFoundError."""
        if self.index is not None:
            return self.index
        if self.notes is None:
            self.notes = Notes(self.file())
        self.notes.read(last_index)
        return self.notes

    def note(self, index: int) -> None:
        """Note an entry if it is the next one."""
        if self.notes is None:
            self.notes = Notes(self.file())
        if index == self.notes.next_index:
            self.notes.read(index)

    def look_up(self, key: bytes, last_index: int) -> Posts | None:
        """Where the posts of a room lie, at least those up to that entry."""
        try:
            return self.postings(last_index).find(key)
        except Rotten:
            self.distrust()
            return self.postings(last_index).find(key)

    def next(self, index: int, last_index: int) -> tuple[bytes, Header] | None:
        """The first entry here from that one on, checked; None: none up to `last_index`. Raises CorruptLog."""
        segment = self.file()
        if not segment.header.revision:
            return segment.record(index)
        for _, data, header in records_of(segment, segment.seek(index), index, last_index):
            return data, header
        return None


class Parts:
    """What a reader knows of a log: its segments in order, without those that others took the place of."""

    def __init__(self) -> None:
        self.known: list[Part] = []

    def add(self, disk: Disk, directory: str, sequence: int, base_index: int, revision: int) -> None:
        """Every known one with a sequence up to this and a base index from this on is let go. Raises ValueError."""
        for other in self.known:
            if other.sequence >= sequence and (
                not revision
                or (other.base_index <= base_index and (other.sequence, other.revision) >= (sequence, revision))
            ):
                raise ValueError(f"segment {sequence} comes after segment {other.sequence}")
        part = Part(disk, directory, sequence, base_index, revision)
        kept = [
            other
            for other in self.known
            if other.sequence > sequence or (other.base_index < base_index and not part.starts_here)
        ]
        self.known = sorted([*kept, part], key=lambda known: known.base_index)
        last_index = _UNBOUNDED
        for other in reversed(self.known):
            other.bound(last_index)
            last_index = other.base_index - 1

    def sealed(self, sequence: int) -> Part | None:
        for part in self.known:
            if part.sequence == sequence and part.last_index <= INDEX_MAX:
                return part
        return None

    def at(self, index: int) -> int:
        """Where in `known` the one is that an entry lies in, or that ends before it; -1: it is below all."""
        return bisect.bisect_right(self.known, index, key=lambda part: part.base_index) - 1

    def holder(self, index: int) -> Part:
        """Raises IndexError, FileNotFoundError."""
        at = self.at(index)
        if at >= 0 and self.known[at].file() and index <= self.known[at].last_index:
            return self.known[at]
        raise IndexError(f"entry {index} is not in the log")

    def record(self, index: int) -> tuple[bytes, Header]:
        """An entry. Raises IndexError, also if it was left out of a compacted segment."""
        return self.holder(index).file().record(index)

    def next(self, index: int, last_index: int) -> tuple[bytes, Header] | None:
        """The first entry from `index` on that was not left out, None if there is none."""
        while index <= last_index:
            part = self.holder(index)
            found = part.next(index, min(last_index, part.last_index))
            if found is not None:
                return found
            index = part.last_index + 1
        return None

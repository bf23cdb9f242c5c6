"""One segment file of the reference log: its records, and what is found when it is opened.

Implements docs/log-format.md, "Segment", "Compacted segment" and steps 3 and 4 of "Opening".
Knows nothing of the segments around it.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final, NamedTuple

from raftchat.log_disk import Disk, File
from raftchat.log_header import (
    COMPACTED_HEADER_BYTES,
    SEGMENT_HEADER_BYTES,
    CorruptLog,
    LogError,
    SegmentHeader,
    read_header,
    segment_path,
)
from raftchat.log_records import HEADER_LAYOUT, KIND_POST, RECORD_HEADER_BYTES, BadRecord, Header, check_record

__all__ = ["CorruptLog", "LogError", "SegmentFile", "Tail", "segment_path"]

_WORD_AT_INDEX: Final = 24 // 8


class Tail(NamedTuple):
    """Where the records of an active segment end."""

    last_index: int
    last_term: int
    last_time_ms: int
    end: int
    """Offset."""
    torn: bool
    """It cannot be appended to: something is behind its end, the file is shorter than it was, or it is compacted."""
    dropped_bytes: int
    """From the end up to the last byte that is not zero."""


class SegmentFile:
    """An open segment. `indexes[i]` is the entry that lies at `offsets[i]`; the last offset ends what was walked."""

    __slots__ = ("base_index", "file", "header", "indexes", "offsets", "path", "reserved")

    def __init__(self, path: str, header: SegmentHeader, file: File, reserved: bool) -> None:
        self.path = path
        self.header = header
        self.file = file
        self.reserved = reserved
        """All blocks of the file are known to be set aside."""
        self.base_index = header.base_index
        self.indexes: list[int] = []
        self.offsets = [self.start]

    @classmethod
    def open(
        cls, disk: Disk, directory: str, sequence: int, base_index: int, writable: bool, revision: int = 0
    ) -> SegmentFile:
        """Raises OSError, CorruptLog, ForeignFile, NewerFormat."""
        path = segment_path(directory, sequence, base_index, revision)
        segment = cls.open_path(disk, path, writable)
        if segment.header.name != (sequence, base_index, revision):
            raise CorruptLog(path, 0, "the file name disagrees with the segment header")
        return segment

    @classmethod
    def open_path(cls, disk: Disk, path: str, writable: bool = False) -> SegmentFile:
        """The same, whatever its name."""
        file = disk.open(path, writable)
        return cls(path, read_header(path, file), file, reserved=False)

    @property
    def start(self) -> int:
        """Offset of the first record."""
        return COMPACTED_HEADER_BYTES if self.header.revision else SEGMENT_HEADER_BYTES

    @property
    def end(self) -> int:
        """Offset of the next record, in a segment that was walked to its last one."""
        return self.offsets[-1]

    def note(self, index: int, size: int) -> None:
        """An entry follows the last one that is known."""
        self.indexes.append(index)
        self.offsets.append(self.offsets[-1] + size)

    def walk(self, last_index: int) -> None:
        """Find every offset up to that entry, by headers alone; in a compacted segment all. Raises CorruptLog."""
        compacted, size_bytes = self.header.revision != 0, self.header.size_bytes
        if compacted:
            last_index = self.header.last_index
            complete = len(self.indexes) == self.header.records and self.offsets[-1] == size_bytes
        else:
            complete = self.base_index + len(self.indexes) > last_index
        while not complete:
            offset = self.offsets[-1]
            above = self.indexes[-1] if self.indexes else self.base_index - 1
            raw = self.file.read(offset, RECORD_HEADER_BYTES)
            header = Header(*HEADER_LAYOUT.unpack(raw)) if len(raw) == RECORD_HEADER_BYTES else None
            if (
                header is None
                or not header.kind
                or not above < header.index <= (last_index if compacted else above + 1)
                or offset + header.size > size_bytes
                or (compacted and len(self.indexes) == self.header.records)
            ):
                raise self.first_fault(last_index)
            self.note(header.index, header.size)
            if compacted:
                complete = self.offsets[-1] == size_bytes
                if complete and len(self.indexes) != self.header.records:
                    raise self.first_fault(last_index)
            else:
                complete = header.index == last_index

    def seek(self, index: int) -> int:
        """Where the first entry at or above an index lies; in a compacted segment its end, if there is none.

        The index must not be above the last entry that counts here. Raises CorruptLog.
        """
        self.walk(index)
        return self.offsets[bisect_left(self.indexes, index)]

    def record(self, index: int) -> tuple[bytes, Header]:
        """The bytes of an entry, checked. Raises CorruptLog, IndexError if it was left out of a compacted segment."""
        self.walk(index)
        at = bisect_left(self.indexes, index)
        if at == len(self.indexes) or self.indexes[at] != index:
            raise IndexError(f"entry {index} is not in the log")
        offset, end = self.offsets[at], self.offsets[at + 1]
        data = self.file.read(offset, end - offset)
        try:
            return data, check_record(data, 0, self.header.segment_id, index)
        except BadRecord as error:
            raise CorruptLog(self.path, offset, str(error)) from None

    def first_fault(self, last_index: int) -> CorruptLog:
        """Where and what the first fault is, once it is known that there is one."""
        faults = self.verify(last_index)[1]
        return faults[0] if faults else CorruptLog(self.path, self.end, "it does not read the same twice")

    def check(self, data: bytes, offset: int, index: int, last_index: int, term: int = 0, time_ms: int = 0) -> Header:
        """The header of the record at `offset`: of entry `index`, or if compacted from there on. Raises BadRecord."""
        if not self.header.revision:
            return check_record(data, offset, self.header.segment_id, index, term, time_ms)
        header = check_record(data, offset, self.header.segment_id, None, term, time_ms)
        if not index <= header.index <= last_index:
            raise BadRecord("the index is not the expected one")
        if header.kind != KIND_POST:
            raise BadRecord("its kind is not a command")
        return header

    def verify(self, last_index: int) -> tuple[int, list[CorruptLog]]:
        """Read all up to that entry: how many are good, and each fault. After one, goes on at the next valid record."""
        data, compacted = self.file.read(0, self.header.size_bytes), self.header.revision != 0
        good, faults = 0, list[CorruptLog]()
        offset, index = self.start, self.base_index
        term, time_ms = self.header.prev_term, self.header.prev_time_ms
        while index <= last_index and not (compacted and offset == len(data)):
            try:
                header = self.check(data, offset, index, last_index, term, time_ms)
            except BadRecord as error:
                faults.append(CorruptLog(self.path, offset, str(error)))
                found = self.next_valid(data, offset, index - compacted, last_index)
                if found is None:
                    break
                offset, header = found
            good += 1
            index, term, time_ms = header.index + 1, header.term, header.time_ms
            offset += header.size
        if compacted and not faults:
            if offset != len(data):
                faults.append(CorruptLog(self.path, offset, "something is behind the last record"))
            elif good != self.header.records:
                reason = f"it holds {good} records, its header says {self.header.records}"
                faults.append(CorruptLog(self.path, None, reason))
        return good, faults

    def next_valid(self, data: bytes, offset: int, index: int, last_index: int) -> tuple[int, Header] | None:
        """The first valid record beyond `offset` of an entry in (index, last_index]."""
        words = memoryview(data)[: len(data) & -8].cast("Q")
        first = offset // 8 + 1
        for at, word in enumerate(words[first + _WORD_AT_INDEX :], first):
            if index < word <= last_index:
                try:
                    return at * 8, check_record(data, at * 8, self.header.segment_id, None)
                except BadRecord:
                    continue
        return None

    def recover(self, durable_hint: int) -> Tail:
        """Check every record of the active segment and find where they end. Raises CorruptLog."""
        if self.header.revision:
            if self.header.last_index < durable_hint:
                reason = f"entry {durable_hint} was committed here, but the log ends before it"
                raise CorruptLog(self.path, None, reason)
            end, end_index = self.header.size_bytes, self.header.last_index
            return Tail(end_index, self.header.last_term, self.header.last_time_ms, end, torn=True, dropped_bytes=0)
        data = self.file.read(0, self.header.size_bytes)
        offset, index = self.start, self.base_index
        term, time_ms = self.header.prev_term, self.header.prev_time_ms
        self.indexes, self.offsets = [], [offset]
        reason = ""
        while offset + RECORD_HEADER_BYTES <= len(data):
            try:
                header = check_record(data, offset, self.header.segment_id, index, term, time_ms)
            except BadRecord as error:
                reason = str(error)
                break
            self.note(index, header.size)
            index, term, time_ms = header.index + 1, header.term, header.time_ms
            offset += header.size
        short = len(data) < self.header.size_bytes
        used = len(data[offset:].rstrip(b"\0")) if reason or short else 0
        if used and (index <= durable_hint or self._was_durable(data, offset, index)):
            raise CorruptLog(self.path, offset, reason or "the header is cut off")
        if index <= durable_hint:
            raise CorruptLog(self.path, offset, f"entry {durable_hint} was committed here, but the log ends before it")
        return Tail(index - 1, term, time_ms, offset, used > 0 or short, used)

    def _was_durable(self, data: bytes, offset: int, index: int) -> bool:
        """Whether a later valid record says that this entry was durable when it was written."""
        last = index + len(data) // RECORD_HEADER_BYTES
        while (found := self.next_valid(data, offset, index, last)) is not None:
            offset, header = found
            if header.synced >= index:
                return True
        return False

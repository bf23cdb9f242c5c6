"""One segment file of the reference log: its header, its records, and what is found when it is opened.

Implements docs/log-format.md, "Segment" and steps 3 and 4 of "Opening". Knows nothing of the segments around it.
"""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple

from xxhash import xxh3_64_intdigest

from raftchat.log_disk import Disk, File
from raftchat.log_records import INDEX_MAX, RECORD_HEADER_BYTES, BadRecord, Header, check_record

SEGMENT_HEADER_BYTES: Final = 64
SEGMENT_VERSION: Final = 1
SEGMENT_MAGIC: Final = b"rc-log\n"

_HEADER = struct.Struct("<B7sQIIQQQQ")
_CHECKSUM = struct.Struct("<Q")
_WORD_AT_INDEX: Final = 24 // 8
_NAME = re.compile(r"(\d{8,10})-(\d{20})\.log")


class LogError(Exception):
    """What is wrong with a log, and where: `path`, `offset` (bytes, None if the whole file) and `reason`."""

    def __init__(self, path: str, offset: int | None, reason: str) -> None:
        self.path = path
        self.offset = offset
        self.reason = reason
        super().__init__(path, offset, reason)

    def __str__(self) -> str:
        where = "" if self.offset is None else f", byte {self.offset}"
        return f"{self.path}{where}: {self.reason}"


class CorruptLog(LogError):
    pass


class ForeignFile(LogError):
    pass


class NewerFormat(LogError):
    pass


class SegmentHeader(NamedTuple):
    segment_id: int
    sequence: int
    prev_sequence: int
    """Of the segment that holds entry base_index - 1; 0: the log starts here."""
    base_index: int
    prev_term: int
    prev_time_ms: int
    size_bytes: int

    def pack(self) -> bytes:
        packed = _HEADER.pack(SEGMENT_VERSION, SEGMENT_MAGIC, *self)
        return packed + _CHECKSUM.pack(xxh3_64_intdigest(packed))


class Tail(NamedTuple):
    """Where the records of an active segment end."""

    last_index: int
    last_term: int
    last_time_ms: int
    end: int
    """Offset."""
    torn: bool
    """The segment cannot be appended to: there is something behind its end, or the file is shorter than it was."""
    dropped_bytes: int
    """From the end up to the last byte that is not zero."""


def segment_path(directory: str, sequence: int, base_index: int) -> str:
    return f"{directory}/{sequence:08}-{base_index:020}.log"


def parse_segment_name(directory: str, name: str) -> tuple[int, int]:
    """(sequence, base index). Raises ForeignFile."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ForeignFile(f"{directory}/{name}", None, "not the name of a segment")
    return int(match[1]), int(match[2])


class SegmentFile:
    """An open segment. `offsets[i]` is where entry `base_index + i` lies; the last one ends what was walked."""

    __slots__ = ("base_index", "file", "header", "offsets", "path", "reserved")

    def __init__(self, path: str, header: SegmentHeader, file: File, reserved: bool) -> None:
        self.path = path
        self.header = header
        self.file = file
        self.reserved = reserved
        """All blocks of the file are known to be set aside."""
        self.base_index = header.base_index
        self.offsets = [SEGMENT_HEADER_BYTES]

    @classmethod
    def open(cls, disk: Disk, directory: str, sequence: int, base_index: int, writable: bool) -> SegmentFile:
        """Raises OSError, CorruptLog, ForeignFile, NewerFormat."""
        path = segment_path(directory, sequence, base_index)
        file = disk.open(path, writable)
        raw = file.read(0, SEGMENT_HEADER_BYTES)
        if len(raw) < SEGMENT_HEADER_BYTES:
            raise CorruptLog(path, 0, "the file is shorter than a segment header")
        if not any(raw):
            raise CorruptLog(path, 0, "the segment header is zero")
        if raw[1:8] != SEGMENT_MAGIC:
            raise ForeignFile(path, 0, "not a segment of raft-chat")
        if raw[0] > SEGMENT_VERSION:
            raise NewerFormat(path, 0, f"format version {raw[0]}, this program knows {SEGMENT_VERSION}")
        if raw[0] != SEGMENT_VERSION or _CHECKSUM.unpack_from(raw, 56)[0] != xxh3_64_intdigest(raw[:56]):
            raise CorruptLog(path, 0, "the checksum of the segment header does not match")
        header = SegmentHeader(*_HEADER.unpack_from(raw)[2:])
        if (header.sequence, header.base_index) != (sequence, base_index):
            raise CorruptLog(path, 0, "the file name disagrees with the segment header")
        if header.segment_id == 0 or sequence <= header.prev_sequence or not 1 <= base_index <= INDEX_MAX:
            raise CorruptLog(path, 0, "the segment header makes no sense")
        if header.size_bytes < file.size or header.size_bytes % 8:
            raise CorruptLog(path, None, f"the file has {file.size} bytes, its header says {header.size_bytes}")
        return cls(path, header, file, reserved=False)

    @property
    def end(self) -> int:
        """Offset of the next record, in a segment that was walked to its last one."""
        return self.offsets[-1]

    def walk(self, last_index: int) -> None:
        """Find every offset up to that entry, by headers alone. Raises CorruptLog."""
        offset, size_bytes = self.offsets[-1], self.header.size_bytes
        for index in range(self.base_index + len(self.offsets) - 1, last_index + 1):
            raw = self.file.read(offset, RECORD_HEADER_BYTES)
            size = self._size_if_plausible(raw, index)
            if size == 0 or offset + size > size_bytes:
                raise self.first_fault(last_index)
            offset += size
            self.offsets.append(offset)

    @staticmethod
    def _size_if_plausible(raw: bytes, index: int) -> int:
        if len(raw) < RECORD_HEADER_BYTES:
            return 0
        header = Header(*struct.unpack("<QQIBBHQQQ", raw))
        return header.size if header.kind and header.index == index else 0

    def record(self, index: int) -> tuple[bytes, Header]:
        """The bytes of an entry, checked. Raises CorruptLog."""
        self.walk(index)
        at = index - self.base_index
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

    def verify(self, last_index: int) -> tuple[int, list[CorruptLog]]:
        """Read all up to that entry: how many are good, and each fault. After one, goes on at the next valid record."""
        data = self.file.read(0, self.header.size_bytes)
        good, faults = 0, []
        offset, index = SEGMENT_HEADER_BYTES, self.base_index
        term, time_ms = self.header.prev_term, self.header.prev_time_ms
        while index <= last_index:
            try:
                header = check_record(data, offset, self.header.segment_id, index, term, time_ms)
            except BadRecord as error:
                faults.append(CorruptLog(self.path, offset, str(error)))
                found = self.next_valid(data, offset, index, last_index)
                if found is None:
                    break
                offset, header = found
            good += 1
            index, term, time_ms = header.index + 1, header.term, header.time_ms
            offset += header.size
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
        data = self.file.read(0, self.header.size_bytes)
        offset, index = SEGMENT_HEADER_BYTES, self.base_index
        term, time_ms = self.header.prev_term, self.header.prev_time_ms
        self.offsets = [offset]
        reason = ""
        while offset + RECORD_HEADER_BYTES <= len(data):
            try:
                header = check_record(data, offset, self.header.segment_id, index, term, time_ms)
            except BadRecord as error:
                reason = str(error)
                break
            index, term, time_ms = header.index + 1, header.term, header.time_ms
            offset += header.size
            self.offsets.append(offset)
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

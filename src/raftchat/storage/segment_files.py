"""The files of a log as they lie there, read without owning or changing anything: headers, which count, every record.

For `verify`, `backup` and `restore`, of a directory that is stopped, running, or a copy of either (docs/log-format.md).
Reads with pread, not through a mapping: a bad sector is an OSError here. Does not know what a record means.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from struct import Struct

import xxhash

from raftchat._log import CorruptLog, ForeignFile, NewerFormat
from raftchat._log_check import Place, find, walk

INDEX_MAX = 2**63 - 1
WINDOW_BYTES = 4 * 1024 * 1024
"""Of a file, so much is in memory at once."""

_PLAIN = Struct("<B7sQIIQQQQ")
_COMPACTED = Struct("<B7sQIIQQQQQQQIIQ")
_CHECKSUM = Struct("<Q")
_NAME = re.compile(r"(\d{8,10})-(\d{20})(?:-(\d{4,10}))?\.log")
_CUT = ("the header is cut off", "the body is cut off")


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A segment's name and header, both believed."""

    path: str
    sequence: int
    prev_sequence: int
    base_index: int
    prev_term: int
    prev_time_ms: int
    segment_id: int
    size_bytes: int
    """As the header says; a copy that broke off is shorter."""
    revision: int
    """0: as it was written; above: compacted."""
    last_index: int
    """Of a compacted segment: it stands for all entries up to here, as `last_term` and `last_time_ms` tell. Else 0."""
    last_term: int
    last_time_ms: int
    records: int
    """Of a compacted segment, how many it holds. Else 0."""

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def start(self) -> Place:
        """Before the first record."""
        offset = (_COMPACTED if self.revision else _PLAIN).size + _CHECKSUM.size
        return Place(offset, self.base_index, self.prev_term, self.prev_time_ms, 0)


def is_segment(name: str) -> bool:
    """Whether a file of the log directory is meant to be a segment."""
    return name.endswith(".log")


def read_header(path: str) -> SegmentFile:
    """Raises CorruptLog, ForeignFile, NewerFormat, OSError."""
    match = _NAME.fullmatch(os.path.basename(path))
    if match is None:
        raise ForeignFile(path, None, "not the name of a segment")
    with open(path, "rb") as file:
        raw = file.read(_COMPACTED.size + _CHECKSUM.size)
        size = os.fstat(file.fileno()).st_size
    if len(raw) < _PLAIN.size + _CHECKSUM.size:
        raise CorruptLog(path, 0, "the file is shorter than a segment header")
    if not any(raw[: _PLAIN.size]):
        raise CorruptLog(path, 0, "the segment header is zero")
    if raw[1:8] != b"rc-log\n":
        raise ForeignFile(path, 0, "not a segment of raft-chat")
    version = raw[0]
    layout = _COMPACTED if version == 2 else _PLAIN
    sums = len(raw) >= layout.size + _CHECKSUM.size and (
        _CHECKSUM.unpack_from(raw, layout.size)[0] == xxhash.xxh3_64_intdigest(raw[: layout.size])
    )
    if version > 2:
        raise NewerFormat(path, 0, f"format version {version}, this program knows 2")
    if not version or not sums:
        raise CorruptLog(path, 0, "the checksum of the segment header does not match")
    _, _, segment_id, sequence, prev_sequence, base_index, prev_term, prev_time_ms, size_bytes, *more = (
        layout.unpack_from(raw)
    )
    last_index, last_term, last_time_ms, revision, zero, records = more or (0, 0, 0, 0, 0, 0)
    if (sequence, base_index, revision) != (int(match[1]), int(match[2]), int(match[3] or 0)):
        raise CorruptLog(path, 0, "the file name disagrees with the segment header")
    sane = segment_id and prev_sequence < sequence and 1 <= base_index <= INDEX_MAX and size_bytes % 8 == 0 and not zero
    if not sane or (version == 2 and not base_index <= last_index <= INDEX_MAX):
        raise CorruptLog(path, 0, "the segment header makes no sense")
    if size_bytes < size or (version == 2 and size_bytes != size):
        raise CorruptLog(path, None, f"the file has {size} bytes, its header says {size_bytes}")
    return SegmentFile(
        path, sequence, prev_sequence, base_index, prev_term, prev_time_ms, segment_id, size_bytes, revision,
        last_index, last_term, last_time_ms, records,
    )  # fmt: skip


def chain(files: Sequence[SegmentFile]) -> tuple[list[SegmentFile], list[SegmentFile]]:
    """Which segments count, oldest first, and which do not, as "Opening", step 2, tells.

    Raises CorruptLog for a segment of which it cannot be told, as another one is missing.
    """
    counts: dict[int, SegmentFile] = {}
    for file in sorted(files, key=lambda file: (file.sequence, file.revision)):
        if counts.get(file.sequence, file).revision == file.revision and file.sequence in counts:
            raise CorruptLog(file.path, None, "another segment has the same sequence")
        counts[file.sequence] = file
    if not counts:
        return [], []
    live = [counts[max(counts)]]
    while (previous := counts.get(live[-1].prev_sequence)) is not None:
        if previous.base_index >= live[-1].base_index:
            raise CorruptLog(live[-1].path, 0, "its base index is not above that of the segment before it")
        live.append(previous)
    live.reverse()
    others = [file for file in files if file not in live]
    for file in others:
        overridden = any(
            (file.sequence, file.revision) < (later.sequence, later.revision) and later.base_index <= file.base_index
            for later in live
        )
        if not overridden and not (live[0].prev_sequence == 0 and file.sequence < live[0].sequence):
            raise CorruptLog(file.path, None, "a segment is missing between this one and the next")
    return live, others


@dataclass(slots=True)
class Fault:
    """A record that is not what was written."""

    offset: int
    index: int
    """The entry that was expected there."""
    reason: str


class Records:
    """Walks through the records of one file. `place.offset` is that in the file."""

    def __init__(self, file: SegmentFile, *, on_bytes: Callable[[int], None] = lambda count: None) -> None:
        """`on_bytes(count)`: so many more are done. Raises OSError."""
        self.file = file
        self.place = file.start
        self._on_bytes = on_bytes
        self._told = 0
        self._fd = os.open(file.path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> Records:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    def forget_cache(self) -> None:
        """What is read next comes from the disk."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def walk(self, last_index: int = INDEX_MAX) -> Fault | None:
        """Check on, up to an entry; what stopped it before. Raises OSError."""
        file, window_bytes = self.file, WINDOW_BYTES
        while True:
            start = self.place.offset
            window = self._read(start, window_bytes)
            at_end = len(window) < window_bytes
            place, reason = walk(
                window, self.place._replace(offset=0), file.segment_id, last_index, gaps=file.revision > 0
            )
            self.place = place._replace(offset=start + place.offset)
            self._tell(self.place.offset)
            if reason is None and (place.index > last_index or at_end):
                return None
            if at_end or (reason is not None and place.offset == 0 and reason not in _CUT):
                assert reason is not None
                return Fault(self.place.offset, self.place.index, reason)
            window_bytes = 2 * window_bytes if place.offset == 0 else WINDOW_BYTES

    def later(self, last_index: int = INDEX_MAX) -> Iterator[tuple[Place, int]]:
        """Valid records beyond this place, of later entries: where each is, and what it says had been durable."""
        offset, index = self.place.offset, self.place.index
        rest = self._read(offset, max(self.file.size_bytes - offset, 0))
        at = 0
        while (found := find(rest, at, self.file.segment_id, index, last_index)) is not None:
            at, index, synced = found
            yield Place(offset + at, index, self.place.term, self.place.time_ms, self.place.records), synced

    def used_bytes(self) -> int:
        """From this place to the last byte that is not zero."""
        used, offset = 0, self.place.offset
        while data := self._read(offset, WINDOW_BYTES):
            if length := len(data.rstrip(b"\0")):
                used = offset + length - self.place.offset
            offset += len(data)
        return used

    def contents(self) -> Iterator[bytes]:
        """The file from its header up to this place."""
        offset = 0
        while offset < self.place.offset:
            data = self._read(offset, min(WINDOW_BYTES, self.place.offset - offset))
            offset += len(data)
            yield data

    def finish(self) -> None:
        """The rest is not looked at."""
        self._tell(self.file.size_bytes)

    def _read(self, offset: int, size: int) -> bytes:
        parts = []
        while size > 0 and (data := os.pread(self._fd, size, offset)):
            parts.append(data)
            offset += len(data)
            size -= len(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _tell(self, offset: int) -> None:
        if offset > self._told:
            self._on_bytes(offset - self._told)
            self._told = offset


def check_sealed(records: Records, last_index: int) -> list[Fault]:
    """Read a segment that was durable up to that entry: each fault. After one, goes on at the next valid record."""
    faults = []
    while (fault := records.walk(last_index)) is not None:
        faults.append(fault)
        following = next(records.later(last_index), None)
        if following is None:
            break
        records.place = following[0]
    if records.file.revision and not faults and records.place.records != records.file.records:
        reason = f"it holds {records.place.records} records, its header says {records.file.records}"
        faults.append(Fault(0, records.file.base_index, reason))
    return faults


def check_tail(records: Records, durable_hint: int) -> tuple[Fault | None, int]:
    """Read an active segment to its end, by step 4 of "Opening": a fault, and the bytes behind the end that never
    became durable (torn by a power loss, or being written just now). An owner may go on writing meanwhile."""
    while True:
        fault = records.walk()
        assert fault is not None, "it ends before the last index there can be"
        if not (used := records.used_bytes()):
            break
        if fault.index > durable_hint and not any(synced >= fault.index for _, synced in records.later()):
            break
        # What looks lost may have been written while we read: now it is there.
        before = records.place.offset
        if (fault := records.walk()) is None or records.place.offset == before:
            return fault, used
    if fault.index <= durable_hint:
        fault.reason = f"entry {durable_hint} was committed here, but the log ends before it"
        return fault, used
    return None, used

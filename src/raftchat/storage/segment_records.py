"""The records of one segment file, every one checked, without owning or changing anything.

For `verify`, `backup` and `restore`, of a directory that is stopped, running, or a copy of either (docs/log-format.md).
Reads with pread, not through a mapping: a bad sector is an OSError here. Does not know what a record means.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from raftchat._log import RECORD_HEADER_BYTES
from raftchat._log_check import Place, find, walk
from raftchat.storage.segment_files import INDEX_MAX, SegmentFile

PAGE_BYTES = 4096
"""What a copy sees of a file that is being written is as a whole page was at one moment, or older."""
ZEROS_BYTES = 16
WINDOW_BYTES = 4 * 1024 * 1024
"""Of a file, so much is in memory at once."""

_CUT = ("the header is cut off", "the body is cut off")


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

    def copied_too_early(self) -> bool:
        """Whether what lies here looks as if some of it had been copied before it was written: as zeros."""
        offset = self.place.offset
        following = next(self.later(), None)
        if following is None:
            header = self._read(offset, RECORD_HEADER_BYTES)
            whole_bytes = RECORD_HEADER_BYTES + int.from_bytes(header[16:20], "little")
            return not any(header) or whole_bytes > self.used_bytes() + 8
        size = following[0].offset - offset
        data = self._read(offset, size)
        ends = range(PAGE_BYTES - offset % PAGE_BYTES, size + 1, PAGE_BYTES)
        return not any(data[:RECORD_HEADER_BYTES]) or any(
            end >= ZEROS_BYTES and not any(data[end - ZEROS_BYTES : end]) for end in ends
        )

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


def check_copied(records: Records, last_index: int) -> tuple[list[Fault], Fault | None]:
    """Read a segment that may have been copied while it was written: faults, and where the copy was too early.

    What comes after such a place is not looked at: nobody can tell what it should be.
    """
    faults: list[Fault] = []
    while (fault := records.walk(last_index)) is not None:
        if records.copied_too_early():
            return faults, fault
        faults.append(fault)
        following = next(records.later(last_index), None)
        if following is None:
            break
        records.place = following[0]
    return faults, None


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

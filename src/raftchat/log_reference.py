"""The segmented log in plain Python: docs/log-format.md as code, and the twin that `_log` is tested against.

It has the API of `_log.pyi`, with one more argument: `disk` (see `log_disk`), so that the simulator runs this very
class on a disk that loses what was not synced. It reads a file whenever it needs something and keeps nothing but
offsets.
Does not know Raft's rules, rooms, processes or clocks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from raftchat.log_disk import Disk, File, OsDisk
from raftchat.log_reader import KeyRun, LogReader
from raftchat.log_records import (
    INDEX_MAX,
    KIND_MEMBERSHIP,
    KIND_NOOP,
    KIND_POST,
    RECORD_HEADER_BYTES,
    TIME_MAX_MS,
    BadBatch,
    Batch,
    Buffer,
    Entry,
    as_bytes_view,
    check_unstamped,
    entry_at,
    move,
    pack,
    parse_batch,
    split,
    stamp,
)
from raftchat.log_segment import (
    SEGMENT_HEADER_BYTES,
    CorruptLog,
    ForeignFile,
    LogError,
    NewerFormat,
    SegmentFile,
    SegmentHeader,
    parse_segment_name,
    segment_path,
)

__all__ = [
    "KIND_MEMBERSHIP",
    "KIND_NOOP",
    "KIND_POST",
    "RECORD_HEADER_BYTES",
    "SEGMENT_HEADER_BYTES",
    "BadBatch",
    "Batch",
    "CorruptLog",
    "Entry",
    "ForeignFile",
    "KeyRun",
    "Log",
    "LogError",
    "LogReader",
    "NewerFormat",
    "Recovery",
    "Segment",
    "SyncPoint",
    "check_unstamped",
    "pack",
    "parse_batch",
]

UNLIMITED = 2**62


class Segment(NamedTuple):
    sequence: int
    base_index: int
    segment_id: int
    path: str


class Recovery(NamedTuple):
    """What opening found. `torn` = a tail that never became durable was cut at `offset` of `path`."""

    torn: bool
    path: str
    offset: int
    dropped_bytes: int


class SyncPoint:
    """An fdatasync to be made: begun by `Log.begin_sync`, waited for in any thread, ended by `Log.end_sync`."""

    __slots__ = ("_done", "_file", "generation", "last_index")

    def __init__(self, last_index: int, generation: int, file: File | None) -> None:
        self.last_index = last_index
        self.generation = generation
        self._file = file
        self._done = False

    def wait(self) -> None:
        """Flush. Raises OSError; then the process must end (assumption 5)."""
        if self._file is not None:
            self._file.sync()
            self._file = None
        self._done = True


class Log:
    def __init__(
        self,
        directory: str,
        *,
        new_segment_id: Callable[[], int],
        segment_size_bytes: int,
        durable_hint: int = 0,
        disk: Disk | None = None,
    ) -> None:
        """Open or create, as "Opening" tells. Raises CorruptLog, ForeignFile, NewerFormat, OSError."""
        if segment_size_bytes <= SEGMENT_HEADER_BYTES + RECORD_HEADER_BYTES or segment_size_bytes % 8:
            raise ValueError(f"segment size is {segment_size_bytes} bytes, must be a multiple of 8 and hold a record")
        self._disk = disk if disk is not None else OsDisk()
        self._directory = directory
        self._new_segment_id = new_segment_id
        self._segment_size_bytes = segment_size_bytes
        self._segments: list[SegmentFile] = []
        self._closed = False
        self._failure: OSError | None = None
        self.generation = 0
        self.recovery: Recovery | None = None
        self._open(durable_hint)

    # Opening

    def _open(self, durable_hint: int) -> None:
        self._disk.make_directory(self._directory)
        names = self._disk.list_directory(self._directory)
        for name in names:
            if name.endswith(".tmp"):
                self._unlink(f"{self._directory}/{name}")
        found = sorted(parse_segment_name(self._directory, name) for name in names if name.endswith(".log"))
        files = [SegmentFile.open(self._disk, self._directory, *key, writable=key == found[-1]) for key in found]
        # A rename of a process that died may so far be in memory only.
        self._disk.sync_directory(self._directory)
        if not files:
            if durable_hint:
                raise CorruptLog(self._directory, None, f"entry {durable_hint} was committed here, but there is no log")
            self._sequence = 0
            self._continue_after(0, 0, 0)
            return
        self._sequence = files[-1].header.sequence
        self._segments, dead = self._chain(files)
        active = self._segments[-1]
        tail = active.recover(durable_hint)
        self.last_index, self.last_term, self.last_time_ms = tail.last_index, tail.last_term, tail.last_time_ms
        self.synced_index = 0
        self.recovery = Recovery(tail.dropped_bytes > 0, active.path, tail.end, tail.dropped_bytes)
        if tail.dropped_bytes:
            self._continue_after(tail.last_index, tail.last_term, tail.last_time_ms)
        else:
            active.file.sync()
        self.synced_index = self.last_index
        for segment in dead:
            self._unlink(segment.path)

    def _chain(self, files: list[SegmentFile]) -> tuple[list[SegmentFile], list[SegmentFile]]:
        """(live, dead) of all segments in order of sequence: the live ones are found by `prev_sequence` from the last.

        Raises CorruptLog for two of one sequence, and for a segment that is neither live nor overridden.
        """
        by_sequence: dict[int, SegmentFile] = {}
        for segment in files:
            if by_sequence.setdefault(segment.header.sequence, segment) is not segment:
                raise CorruptLog(segment.path, None, "another segment has the same sequence")
        live = [files[-1]]
        while (previous := by_sequence.get(live[-1].header.prev_sequence)) is not None:
            if previous.base_index >= live[-1].base_index:
                raise CorruptLog(live[-1].path, 0, "its base index is not above that of the segment before it")
            live.append(previous)
        live.reverse()
        starts_here = live[0].header.prev_sequence == 0
        dead, override = [], INDEX_MAX
        for segment in reversed(files):
            if segment in live:
                override = segment.base_index
            elif (starts_here and segment.header.sequence < live[0].header.sequence) or segment.base_index >= override:
                dead.append(segment)
            else:
                raise CorruptLog(segment.path, None, "a segment is missing between this one and the next")
        return live, dead

    # Making and removing segments

    def _spare_path(self, number: int) -> str:
        return f"{self._directory}/spare{f'-{number}' if number else ''}.tmp"

    def _spares(self, count: int) -> list[File]:
        """All the files that are needed, or none: what a full disk may still refuse is refused here."""
        spares: list[File] = []
        try:
            for number in range(count):
                spares.append(self._disk.create(self._spare_path(number), self._segment_size_bytes))
        except OSError:
            for number, spare in enumerate(spares):
                self._discard(spare, number)
            raise
        return spares

    def _discard(self, spare: File, number: int) -> None:
        spare.close()
        with contextlib.suppress(OSError):
            self._unlink(self._spare_path(number))

    def _unlink(self, path: str) -> None:
        self._disk.unlink(path)
        self._disk.sync_directory(self._directory)

    def _continue_after(
        self, last_index: int, last_term: int, last_time_ms: int, keep: bool = True, cut: bool = False
    ) -> None:
        (spare,) = self._spares(1)
        self._make_active(spare, 0, last_index, last_term, last_time_ms, keep, cut)

    def _make_active(
        self, spare: File, number: int, last_index: int, last_term: int, last_time_ms: int, keep: bool, cut: bool
    ) -> None:
        """Turn a spare into the active segment, which goes on after `last_index`.

        What it overrides is unlinked; all that was, unless `keep`. Raises OSError; before the rename, nothing changed.
        """
        segment_id = self._new_segment_id()
        if not 0 < segment_id < 2**64:
            raise ValueError(f"segment id is {segment_id}, must be 1 to 2**64 - 1")
        live = [segment for segment in self._segments if keep and segment.base_index <= last_index]
        dead = self._segments[len(live) :]
        sequence = self._sequence + 1
        prev_sequence = live[-1].header.sequence if live else 0
        header = SegmentHeader(
            segment_id, sequence, prev_sequence, last_index + 1, last_term, last_time_ms, self._segment_size_bytes
        )
        path = segment_path(self._directory, sequence, header.base_index)
        try:
            spare.write(0, header.pack())
            spare.sync()
            if self._segments:
                with self._no_return():
                    self._segments[-1].file.sync()
            self._disk.rename(self._spare_path(number), path)
        except OSError:
            self._discard(spare, number)
            raise
        with self._no_return():
            self._disk.sync_directory(self._directory)
        self._sequence = sequence
        self._segments = [*live, SegmentFile(path, header, spare, reserved=True)]
        self.last_index, self.last_term, self.last_time_ms = last_index, last_term, last_time_ms
        self.synced_index = last_index
        self.generation += cut
        for segment in dead:
            self._unlink(segment.path)

    @contextlib.contextmanager
    def _no_return(self) -> Iterator[None]:
        """What fails in here leaves it open what is on disk: the log refuses to be written to from then on."""
        try:
            yield
        except OSError as error:
            self._failure = error
            raise

    # State

    @property
    def first_index(self) -> int:
        """Lowest index kept; `last_index + 1` when empty."""
        return self._segments[0].base_index

    @property
    def active_sequence(self) -> int:
        return self._segments[-1].header.sequence

    def _require_usable(self) -> None:
        if self._closed:
            raise ValueError("the log is closed")
        if self._failure is not None:
            raise OSError(self._failure.errno, "the log cannot go on after a failed sync") from self._failure

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("the log is closed")

    def _holder(self, index: int) -> SegmentFile:
        """The segment an entry lies in. Raises IndexError."""
        if not self.first_index <= index <= self.last_index:
            raise IndexError(f"entry {index} is not in the log ({self.first_index} to {self.last_index})")
        return next(segment for segment in reversed(self._segments) if segment.base_index <= index)

    def _ranges(self) -> Iterator[tuple[SegmentFile, int]]:
        """Each live segment and the last entry that counts in it."""
        for at, segment in enumerate(self._segments):
            following = self._segments[at + 1].base_index if at + 1 < len(self._segments) else self.last_index + 1
            yield segment, following - 1

    def segments(self) -> list[Segment]:
        self._require_open()
        return [Segment(s.header.sequence, s.base_index, s.header.segment_id, s.path) for s in self._segments]

    # Appending

    def append(self, records: Buffer, term: int, time_ms: int) -> tuple[int, int]:
        """Stamp unstamped records and append them: first and last index.

        `time_ms` below `last_time_ms` is raised to it. Raises OSError (ENOSPC) when no segment can be made; then
        nothing was appended. Raises BadBatch if `records` are not whole records, or one is larger than a segment.
        """
        self._require_usable()
        if not max(self.last_term, 1) <= term <= INDEX_MAX:
            raise ValueError(f"term is {term}, the last entry's is {self.last_term}")
        if not 0 <= time_ms <= TIME_MAX_MS:
            raise ValueError(f"time is {time_ms} ms, must be 0 to {TIME_MAX_MS}")
        data = as_bytes_view(records)
        parts = [data[offset : offset + header.size] for offset, header in split(data)]
        if not parts:
            raise BadBatch("no records")
        time_ms = max(time_ms, self.last_time_ms)
        first_index = self.last_index + 1

        def stamped(part: Buffer, index: int) -> bytes:
            return stamp(part, self._segments[-1].header.segment_id, self.synced_index, index, term, time_ms)

        self._write(parts, stamped, [(term, time_ms)] * len(parts))
        return first_index, self.last_index

    def append_batch(self, batch: Batch, from_index: int) -> None:
        """Append the records of a checked batch from `from_index`, which must be `last_index + 1`, as they are.

        Raises BadBatch if term or time would go back, OSError as `append` does.
        """
        self._require_usable()
        if from_index != self.last_index + 1 or not batch.first_index <= from_index <= batch.last_index:
            raise ValueError(f"cannot append from {from_index} of {batch!r} after entry {self.last_index}")
        parts, times = [], [(self.last_term, self.last_time_ms)]
        for index, (offset, header) in enumerate(split(batch.data), batch.first_index):
            if index < from_index:
                continue
            if header.index != index or header.term < times[-1][0] or header.time_ms < times[-1][1]:
                raise BadBatch(f"entry {index} does not follow the log: index, term or time goes back")
            parts.append(batch.data[offset : offset + header.size])
            times.append((header.term, header.time_ms))

        def moved(part: Buffer, index: int) -> bytes:
            return move(part, batch.segment_id, self._segments[-1].header.segment_id, self.synced_index)

        self._write(parts, moved, times[1:])

    def _write(
        self, parts: list[memoryview], finish: Callable[[Buffer, int], bytes], times: list[tuple[int, int]]
    ) -> None:
        """Append records, all or none; `finish` makes the bytes of one for the then active segment."""
        if self.last_index + len(parts) > INDEX_MAX:
            raise OverflowError("no index is left")
        rooms = self._place([len(part) for part in parts])
        active = self._segments[-1]
        if not active.reserved:
            active.file.reserve()
            active.reserved = True
        spares = self._spares(len(rooms) - 1)
        at = rooms[0]
        if at:
            self._write_here(parts[:at], finish, times[at - 1])
        for number, (spare, count) in enumerate(zip(spares, rooms[1:], strict=True)):
            # Once some of these records are in the log, there is no going back.
            with self._no_return() if at else contextlib.nullcontext():
                try:
                    self._make_active(spare, number, self.last_index, self.last_term, self.last_time_ms, True, False)
                except OSError:
                    for left in range(number + 1, len(spares)):
                        self._discard(spares[left], left)
                    raise
            self._write_here(parts[at : at + count], finish, times[at + count - 1])
            at += count

    def _write_here(
        self, parts: list[memoryview], finish: Callable[[Buffer, int], bytes], last: tuple[int, int]
    ) -> None:
        active = self._segments[-1]
        data = [finish(part, index) for index, part in enumerate(parts, self.last_index + 1)]
        with self._no_return():
            active.file.write(active.end, b"".join(data))
        for record in data:
            active.offsets.append(active.end + len(record))
        self.last_index += len(parts)
        self.last_term, self.last_time_ms = last

    def _place(self, sizes: list[int]) -> list[int]:
        """How many of these records go into the active segment, and into each new one after it.

        Records that fit into one segment are not divided, so that a single roll comes before all of them. Only what
        is larger than a segment is cut, and then every file is set aside beforehand.
        """
        active = self._segments[-1]
        room, capacity = active.header.size_bytes - active.end, self._segment_size_bytes - SEGMENT_HEADER_BYTES
        if sum(sizes) <= room:
            return [len(sizes)]
        rooms, left = [0], 0
        if self.last_index < active.base_index:  # An empty segment is as good as a new one.
            left = room
        for size in sizes:
            if size > capacity:
                raise BadBatch(f"a record of {size} bytes does not fit into a segment")
            if size > left:
                rooms.append(0)
                left = capacity
            rooms[-1] += 1
            left -= size
        return rooms

    # Syncing

    def begin_sync(self) -> SyncPoint:
        """Older segments were synced when they were left, so the active one is all there is to flush."""
        self._require_usable()
        file = self._segments[-1].file if self.last_index > self.synced_index else None
        return SyncPoint(self.last_index, self.generation, file)

    def end_sync(self, point: SyncPoint) -> None:
        """Advance `synced_index` to the point's, unless the tail was cut since. Raises ValueError before `wait`."""
        if not point._done:
            raise ValueError("the sync was not waited for, or failed")
        if point.generation == self.generation:
            self.synced_index = max(self.synced_index, point.last_index)

    # Reading. Every record that is read is checked; CorruptLog tells where one is bad.

    def term_at(self, index: int) -> int:
        """Term of an entry; also of `first_index - 1`; 0 for index 0. Raises IndexError elsewhere."""
        self._require_open()
        if index == self.last_index:
            return self.last_term
        if index == 0:
            return 0
        if index == self.first_index - 1:
            return self._segments[0].header.prev_term
        return self._holder(index).record(index)[1].term

    def slice(self, first_index: int, max_bytes: int) -> Batch | None:
        """The longest batch from `first_index` within `max_bytes`, but at least one entry; None past the end."""
        self._require_open()
        if first_index > self.last_index:
            return None
        segment = self._holder(first_index)
        last_index = next(last for candidate, last in self._ranges() if candidate is segment)
        parts: list[bytes] = []
        size, term, membership = 0, 0, None
        for index in range(first_index, last_index + 1):
            data, header = segment.record(index)
            single = header.kind == KIND_MEMBERSHIP
            if parts and (header.term != term or single or size + header.size > max_bytes):
                break
            parts.append(data)
            size, term = size + header.size, header.term
            if single:
                membership = entry_at(data, 0, header).value
                break
        data = b"".join(parts)
        return Batch(
            first_index, first_index + len(parts) - 1, term, segment.header.segment_id, memoryview(data), membership
        )

    def entries(self, first_index: int, last_index: int, max_bytes: int = UNLIMITED) -> list[Entry]:
        """The entries of a range, as many as fit into `max_bytes` of log, but at least one. Raises IndexError."""
        self._require_open()
        found: list[Entry] = []
        for index in range(first_index, last_index + 1):
            data, header = self._holder(index).record(index)
            max_bytes -= header.size
            if found and max_bytes < 0:
                break
            found.append(entry_at(data, 0, header))
        return found

    def find_kind(self, kind: int) -> list[Entry]:
        """All entries of one kind (walks every header: for opening, and kinds that are rare)."""
        self._require_open()
        found = []
        for segment, last_index in self._ranges():
            segment.walk(last_index)
            for index in range(segment.base_index, last_index + 1):
                if segment.file.read(segment.offsets[index - segment.base_index] + 20, 1)[0] == kind:
                    data, header = segment.record(index)
                    found.append(entry_at(data, 0, header))
        return found

    # Cutting

    def truncate_suffix(self, last_index: int) -> None:
        """Keep up to `last_index`: a new segment is made, nothing is shrunk. Durable on return.

        Raises IndexError outside first_index - 1 to last_index, OSError if no segment can be made; then nothing is cut.
        """
        self._require_usable()
        if not self.first_index - 1 <= last_index <= self.last_index:
            raise IndexError(f"cannot cut after {last_index}: the log is {self.first_index} to {self.last_index}")
        if last_index == self.last_index:
            return
        if last_index >= self.first_index:
            header = self._holder(last_index).record(last_index)[1]
            self._continue_after(last_index, header.term, header.time_ms, cut=True)
        else:
            start = self._segments[0].header
            self._continue_after(last_index, start.prev_term, start.prev_time_ms, cut=True)

    def drop_prefix(self, first_index: int) -> None:
        """Unlink sealed segments that hold nothing from `first_index` on."""
        self._require_usable()
        while len(self._segments) > 1 and self._segments[1].base_index <= first_index:
            self._unlink(self._segments[0].path)
            del self._segments[0]

    def reset(self, last_index: int, last_term: int, last_time_ms: int) -> None:
        """Forget everything and continue after `last_index` (an installed snapshot)."""
        self._require_usable()
        if not (0 <= last_index < INDEX_MAX and 0 <= last_term <= INDEX_MAX and 0 <= last_time_ms <= TIME_MAX_MS):
            raise ValueError("index, term or time is out of range")
        self._continue_after(last_index, last_term, last_time_ms, keep=False, cut=True)

    # Whole

    def verify(self, on_progress: Callable[[int, int], None] | None = None) -> tuple[int, list[LogError]]:
        """Read everything: records found good, and each fault. `on_progress(bytes done, bytes in all)`."""
        self._require_open()
        good, done, faults = 0, 0, list[LogError]()
        total = sum(segment.header.size_bytes for segment in self._segments)
        for segment, last_index in self._ranges():
            found, bad = segment.verify(last_index)
            good += found
            faults += bad
            done += segment.header.size_bytes
            if on_progress is not None:
                on_progress(done, total)
        return good, faults

    def close(self) -> None:
        """Batches that were handed out stay readable. Nothing is synced."""
        self._closed = True

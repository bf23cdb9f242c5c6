"""The segmented log in plain Python: docs/log-format.md as code, and the twin that `_log` is tested against.

It has the API of `_log.pyi`, with one more argument: `disk` (see `log_disk`), so that the simulator runs this very
class on a disk that loses what was not synced. It reads a file whenever it needs something and keeps nothing but
offsets.
Does not know Raft's rules, rooms, processes or clocks.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from raftchat.log_compact import Compacted, Segment, compact
from raftchat.log_directory import Directory
from raftchat.log_disk import Disk, OsDisk
from raftchat.log_header import SEGMENT_HEADER_BYTES, CorruptLog, ForeignFile, LogError, NewerFormat
from raftchat.log_index import has_index, write_index
from raftchat.log_lookup import Trim
from raftchat.log_reader import KeyRun, LogReader
from raftchat.log_records import (
    INDEX_MAX,
    KIND_MEMBERSHIP,
    KIND_NOOP,
    KIND_POST,
    KIND_REMOVE_ROOM,
    KIND_RETENTION,
    KIND_TRIM,
    RECORD_HEADER_BYTES,
    TIME_MAX_MS,
    BadBatch,
    Batch,
    Buffer,
    Entry,
    Header,
    as_bytes_view,
    check_unstamped,
    entry_at,
    move,
    pack,
    parse_batch,
    split,
    stamp,
)
from raftchat.log_segment import SegmentFile
from raftchat.log_sync import Recovery, SyncPoint

__all__ = [
    "KIND_MEMBERSHIP",
    "KIND_NOOP",
    "KIND_POST",
    "KIND_REMOVE_ROOM",
    "KIND_RETENTION",
    "KIND_TRIM",
    "RECORD_HEADER_BYTES",
    "SEGMENT_HEADER_BYTES",
    "BadBatch",
    "Batch",
    "Compacted",
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
    "Trim",
    "check_unstamped",
    "compact",
    "has_index",
    "pack",
    "parse_batch",
    "write_index",
]

UNLIMITED = 2**62


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
        self._directory = Directory(
            directory, disk if disk is not None else OsDisk(), new_segment_id, segment_size_bytes
        )
        self._closed = False
        self.generation = 0
        """Number of tail cuts since opening: an index means the same entry only within one generation."""
        self.recovery: Recovery | None = None
        self._open(durable_hint)

    def _open(self, durable_hint: int) -> None:
        if not self._directory.open():
            if durable_hint:
                reason = f"entry {durable_hint} was committed here, but there is no log"
                raise CorruptLog(self._directory.path, None, reason)
            self._continue_after(0, 0, 0)
            return
        active = self._directory.active
        tail = active.recover(durable_hint)
        self.recovery = Recovery(tail.torn, active.path, tail.end, tail.dropped_bytes)
        if tail.torn:
            self._continue_after(tail.last_index, tail.last_term, tail.last_time_ms)
            return
        active.file.sync()
        self._at(tail.last_index, tail.last_term, tail.last_time_ms)
        self.synced_index = self.last_index
        self._directory.unlink_dead()

    # State

    @property
    def active_used_bytes(self) -> int:
        """How far the active segment is filled, its header included."""
        return 0 if self._closed else self._directory.active.end

    @property
    def active_sequence(self) -> int:
        return self._directory.active.header.sequence

    def _at(self, last_index: int, last_term: int, last_time_ms: int) -> None:
        self.last_index, self.last_term, self.last_time_ms = last_index, last_term, last_time_ms
        self.first_index = self._directory.first.base_index
        """Lowest index of the log without gaps, behind the last compacted segment; `last_index + 1` when empty."""

    def _continue_after(self, last_index: int, term: int, time_ms: int, keep: bool = True, cut: bool = False) -> None:
        """Go on after `last_index` in a new segment. What is overridden is unlinked; all that was, unless `keep`."""
        self._directory.continue_after(last_index, term, time_ms, self._directory.spares(1), keep=keep)
        self._at(last_index, term, time_ms)
        self.synced_index = last_index
        self.generation += cut
        self._directory.unlink_dead()

    @property
    def size_bytes(self) -> int:
        """Of the files of all segments, as they were when they were opened or made."""
        return sum(segment.header.size_bytes for segment in self._directory.live)

    @property
    def failed(self) -> bool:
        """What is on disk is not known any more: nothing can be written, and the process must end."""
        return self._directory.failure is not None

    def _require_usable(self) -> None:
        self._require_open()
        failure = self._directory.failure
        if failure is not None:
            raise OSError(failure.errno, "the log cannot go on after a failed sync") from failure

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("the log is closed")

    def _holder(self, index: int) -> tuple[SegmentFile, int]:
        """The segment an entry lies in, and the last entry that counts there. Raises IndexError."""
        if not self.first_index <= index <= self.last_index:
            raise IndexError(f"entry {index} is not in the log ({self.first_index} to {self.last_index})")
        return self._directory.holder(index, self.last_index)

    def _record(self, index: int) -> tuple[bytes, Header]:
        return self._holder(index)[0].record(index)

    def segments(self) -> list[Segment]:
        self._require_open()
        return [_described(segment, last_index) for segment, last_index in self._directory.ranges(self.last_index)]

    def retired(self) -> list[Segment]:
        """Files that were found at open or left by `install` and `drop_prefix`, and not unlinked yet."""
        self._require_open()
        return [_described(segment, last_index) for segment, last_index in self._directory.retired]

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
            return stamp(part, self._directory.active.header.segment_id, self.synced_index, index, term, time_ms)

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
            return move(part, batch.segment_id, self._directory.active.header.segment_id, self.synced_index)

        self._write(parts, moved, times[1:])

    def _write(
        self, parts: list[memoryview], finish: Callable[[Buffer, int], bytes], times: list[tuple[int, int]]
    ) -> None:
        """Append records, all or none; `finish` makes the bytes of one for the then active segment."""
        if self.last_index + len(parts) > INDEX_MAX:
            raise OverflowError("no index is left")
        rooms = self._directory.place([len(part) for part in parts], self.last_index)
        self._directory.reserve_active()
        spares = self._directory.spares(len(rooms) - 1)
        at = 0
        for number, count in enumerate(rooms):
            if number > 0:
                # Once some of these records are in the log, there is no going back.
                with self._directory.no_return() if at else contextlib.nullcontext():
                    self._directory.continue_after(
                        self.last_index, self.last_term, self.last_time_ms, spares, number - 1
                    )
                    self.synced_index = self.last_index
                    self._directory.unlink_dead()
            if count:
                self._write_here(parts[at : at + count], finish, times[at + count - 1])
            at += count

    def _write_here(
        self, parts: list[memoryview], finish: Callable[[Buffer, int], bytes], last: tuple[int, int]
    ) -> None:
        active = self._directory.active
        data = [finish(part, index) for index, part in enumerate(parts, self.last_index + 1)]
        with self._directory.no_return():
            active.file.write(active.end, b"".join(data))
        for index, record in enumerate(data, self.last_index + 1):
            active.note(index, len(record))
        self._at(self.last_index + len(parts), *last)

    # Syncing

    def begin_sync(self) -> SyncPoint:
        """Older segments were synced when they were left, so the active one is all there is to flush."""
        self._require_usable()
        file = self._directory.active.file if self.last_index > self.synced_index else None
        return SyncPoint(self.last_index, self.generation, file, self._directory)

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
            return self._directory.first.header.prev_term
        return self._record(index)[1].term

    def slice(self, first_index: int, max_bytes: int) -> Batch | None:
        """The longest batch from `first_index` within `max_bytes`, but at least one entry; None past the end.

        It ends before an entry that is corrupt; only if that is the first, CorruptLog is raised.
        """
        self._require_open()
        if first_index > self.last_index:
            return None
        segment, last_index = self._holder(first_index)
        parts: list[bytes] = []
        size, term, membership = 0, 0, None
        for index in range(first_index, last_index + 1):
            try:
                data, header = segment.record(index)
            except CorruptLog:
                if not parts:
                    raise
                break
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
            data, header = self._record(index)
            max_bytes -= header.size
            if found and max_bytes < 0:
                break
            found.append(entry_at(data, 0, header))
        return found

    def find_kind(self, kind: int, first_index: int = 0) -> list[Entry]:
        """All entries of one kind from an index on (walks every header there: for opening, and kinds that are rare)."""
        self._require_open()
        found = []
        for segment, last_index in self._directory.ranges(self.last_index):
            if last_index < max(first_index, self.first_index):
                continue
            segment.walk(last_index)
            for index in range(max(first_index, segment.base_index), last_index + 1):
                if segment.file.read(segment.seek(index) + 20, 1)[0] == kind:
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
            header = self._record(last_index)[1]
            self._continue_after(last_index, header.term, header.time_ms, cut=True)
        else:
            start = self._directory.first.header
            self._continue_after(last_index, start.prev_term, start.prev_time_ms, cut=True)

    def drop_prefix(self, first_index: int) -> list[Segment]:
        """Let go of sealed segments that hold nothing from `first_index` on: they are retired, their files stay."""
        self._require_usable()
        dropped = self._directory.drop_prefix(first_index)
        self.first_index = self._directory.first.base_index
        return [_described(segment, last_index) for segment, last_index in dropped]

    def reset(self, last_index: int, last_term: int, last_time_ms: int) -> None:
        """Forget everything and continue after `last_index` (an installed snapshot)."""
        self._require_usable()
        if not (0 <= last_index < INDEX_MAX and 0 <= last_term <= INDEX_MAX and 0 <= last_time_ms <= TIME_MAX_MS):
            raise ValueError("index, term or time is out of range")
        self._continue_after(last_index, last_term, last_time_ms, keep=False, cut=True)

    # Segments

    def roll(self) -> None:
        """Seal the active segment, unless it is empty, and begin a new one. Raises OSError; then nothing changed."""
        self._require_usable()
        if self.last_index >= self._directory.active.base_index:
            self._continue_after(self.last_index, self.last_term, self.last_time_ms)

    def prepare(self) -> None:
        """Set the next segment's file aside, so that a roll need not wait for it. In any thread. Raises OSError."""
        self._require_open()
        self._directory.prepare()

    def install(self, compacted: Compacted) -> list[Segment]:
        """Put a compacted segment in place of those it was made of: the retired ones, which stay. Durable on return.

        Raises ValueError if those are not live any more, OSError if it could not be renamed; then nothing changed, and
        the compacted file is gone.
        """
        self._require_usable()
        replaced = self._directory.install(compacted)
        self.first_index = self._directory.first.base_index
        return [_described(segment, last_index) for segment, last_index in replaced]

    def unlink(self, retired: Sequence[Segment]) -> None:
        """Remove retired files and their indexes, the oldest first, each durably. In any thread, one at a time.

        Raises OSError, ValueError if one is not retired, or older ones must go before it.
        """
        self._require_open()
        self._directory.unlink_retired([segment.path for segment in retired])

    # Whole

    def verify(self, on_progress: Callable[[int, int], None] | None = None) -> tuple[int, list[LogError]]:
        """Read everything: records found good, and each fault. `on_progress(bytes done, bytes in all)`."""
        self._require_open()
        return self._directory.verify(self.last_index, on_progress)

    def close(self) -> None:
        """Batches that were handed out stay readable. Nothing is synced."""
        self._closed = True
        self._directory.live, self._directory.retired = [], []


def _described(segment: SegmentFile, last_index: int) -> Segment:
    header = segment.header
    return Segment(
        header.sequence,
        header.base_index,
        header.segment_id,
        segment.path,
        header.revision,
        last_index,
        segment.file.size,
    )

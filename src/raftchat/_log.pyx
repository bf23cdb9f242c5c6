"""The segmented log in C speed. `docs/log-format.md` is its specification, `log_reference` its plain twin.

Knows segments and how they follow each other. Does not know Raft's rules, rooms, processes or clocks.
One process owns a directory (`Log`); any number may read what is committed (`LogReader`). Neither is thread-safe, except
for `SyncPoint.wait`.
"""

cimport cython
from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint32_t, uint64_t

from raftchat._log_append cimport Source, copy_records
from raftchat._log_directory cimport Directory
from raftchat._log_record cimport (
    FINE, GIL_FREE_BYTES, HEADER_BYTES, INDEX_MAX, KIND_MEMBERSHIP_, TIME_MAX_MS, Batch as CheckedBatch, Fault, Record,
    Salt, entry_of, hash_function, new_batch, reason_of, record_fault, record_hash, record_size, records_fault, salt_of,
    salt_start, sizes_fault
)
from raftchat._log_header cimport SEGMENT_HEADER_SIZE
from raftchat._log_segment cimport Segment as SegmentFile
from raftchat._log_sync cimport SyncPoint as SyncPoint_

import os
from collections import namedtuple

from raftchat._log_compact import Compacted, compact
from raftchat._log_header import SEGMENT_HEADER_BYTES, CorruptLog, ForeignFile, LogError, NewerFormat, Segment
from raftchat._log_index import has_index
from raftchat._log_index_writer import write_index
from raftchat._log_lookup import Trim
from raftchat._log_reader import LogReader
from raftchat._log_record import BadBatch, Batch, Entry, check_unstamped, pack, parse_batch
from raftchat._log_record import (
    KIND_MEMBERSHIP, KIND_NOOP, KIND_POST, KIND_REMOVE_ROOM, KIND_RETENTION, KIND_TRIM, RECORD_HEADER_BYTES
)
from raftchat._log_scan import KeyRun
from raftchat._log_sync import SyncPoint, SyncThread

Recovery = namedtuple("Recovery", "torn path offset dropped_bytes")

cdef uint64_t UNLIMITED = 1ULL << 62


cdef object described(SegmentFile segment, last_index):
    return Segment(
        segment.sequence, segment.base_index, segment.segment_id, segment.path, segment.revision, last_index, segment.size
    )


@cython.final
cdef class Log:
    cdef readonly uint64_t first_index
    cdef readonly uint64_t last_index
    cdef readonly uint64_t last_term
    cdef readonly uint64_t last_time_ms
    cdef readonly uint64_t synced_index
    cdef readonly uint64_t generation
    cdef readonly object recovery
    cdef Directory directory
    cdef Salt salt                      # for writing into the active segment
    cdef bint closed

    def __init__(self, str directory, *, new_segment_id, size_t segment_size_bytes, uint64_t durable_hint=0):
        """Open or create, as "Opening" tells. Raises CorruptLog, ForeignFile, NewerFormat, OSError."""
        cdef SegmentFile active
        if not SEGMENT_HEADER_SIZE + HEADER_BYTES < segment_size_bytes < 1ULL << 35 or segment_size_bytes % 8:
            raise ValueError(f"segment size is {segment_size_bytes} bytes, must be a multiple of 8 and hold a record")
        self.directory = Directory(directory, new_segment_id, segment_size_bytes)
        if not self.directory.open():
            if durable_hint:
                raise CorruptLog(directory, None, f"entry {durable_hint} was committed here, but there is no log")
            self._continue_after(0, 0, 0, True, False)
            return
        active = self.directory.active
        last_index, last_term, last_time_ms, end, torn, dropped_bytes = active.recover(durable_hint)
        self.recovery = Recovery(torn, active.path, end, dropped_bytes)
        if torn:
            self._continue_after(last_index, last_term, last_time_ms, True, False)
            return
        os.fdatasync(active.file.fd)
        self._at(last_index, last_term, last_time_ms)
        self.directory.unlink_dead()

    # State

    @property
    def active_sequence(self):
        return self.directory.sequence

    @property
    def active_used_bytes(self):
        return self.directory.active.end if not self.closed else 0

    @property
    def size_bytes(self):
        return sum([(<SegmentFile>known).size for known in self.directory.live])

    @property
    def failed(self):
        return self.directory.failure is not None

    cdef int _at(self, uint64_t last_index, uint64_t last_term, uint64_t last_time_ms) except -1:
        """A segment that was just opened or made is the active one, and all before it is durable."""
        self.first_index = self.directory.first.base_index
        self.last_index = last_index
        self.last_term = last_term
        self.last_time_ms = last_time_ms
        self.synced_index = last_index
        salt_start(&self.salt, hash_function(), self.directory.active.segment_id)
        return 0

    cdef int _continue_after(self, uint64_t last_index, uint64_t term, uint64_t time_ms, bint keep, bint cut) except -1:
        """Go on after `last_index` in a new segment. What is overridden is unlinked; all that was, unless `keep`."""
        self.directory.continue_after(last_index, term, time_ms, self.directory.spares(1), 0, keep)
        self._at(last_index, term, time_ms)
        self.generation += cut
        self.directory.unlink_dead()
        return 0

    cdef int _require_open(self) except -1:
        if self.closed:
            raise ValueError("the log is closed")
        return 0

    cdef int _require_usable(self) except -1:
        self._require_open()
        failure = self.directory.failure
        if failure is not None:
            raise OSError(failure.errno, "the log cannot go on after a failed sync") from failure
        return 0

    cdef SegmentFile _holder(self, uint64_t index, uint64_t *last_index):
        """The segment an entry lies in, and the last entry that counts there. Raises IndexError."""
        if not self.first_index <= index <= self.last_index:
            raise IndexError(f"entry {index} is not in the log ({self.first_index} to {self.last_index})")
        last_index[0] = self.last_index
        return self.directory.holder(index, last_index)

    cdef const Record *_record(self, uint64_t index) except NULL:
        cdef uint64_t last_index
        return self._holder(index, &last_index).record(index)

    def segments(self):
        self._require_open()
        live = self.directory.live
        lasts = [known.base_index - 1 for known in live[1:]] + [self.last_index]
        return [described(known, last) for known, last in zip(live, lasts)]

    def retired(self):
        """Files that were found at open or left by `install` and `drop_prefix`, and not unlinked yet."""
        self._require_open()
        return [described(known, last) for known, last in self.directory.retired]

    # Appending

    def append(self, records, uint64_t term, uint64_t time_ms):
        """Stamp unstamped records and append them: first and last index. One pass, no copy but into the mapping.

        `time_ms` below `last_time_ms` is raised to it. Raises OSError (ENOSPC) when no segment can be made; then
        nothing was appended. Raises BadBatch if `records` are not whole records, or one is larger than a segment.
        """
        cdef Py_buffer buffer
        cdef Source source
        cdef Fault fault
        cdef size_t count, at = 0
        cdef uint64_t first_index = self.last_index + 1
        self._require_usable()
        if not max(self.last_term, <uint64_t>1) <= term <= INDEX_MAX:
            raise ValueError(f"term is {term}, the last entry's is {self.last_term}")
        if time_ms > TIME_MAX_MS:
            raise ValueError(f"time is {time_ms} ms, must be 0 to {TIME_MAX_MS}")
        PyObject_GetBuffer(records, &buffer, PyBUF_SIMPLE)
        try:
            source.data = <const char *>buffer.buf
            source.size = buffer.len
            source.stamped = False
            source.segment_id = 0
            source.term = term
            source.time_ms = max(time_ms, self.last_time_ms)
            fault = records_fault(source.data, source.size, &count, &at)
            if fault != FINE:
                raise BadBatch(f"record at byte {at}: {reason_of(fault)}")
            if count == 0:
                raise BadBatch("no records")
            self._write(&source, count)
        finally:
            PyBuffer_Release(&buffer)
        return first_index, self.last_index

    def append_batch(self, CheckedBatch batch not None, uint64_t from_index):
        """Append the records of a checked batch from `from_index`, which must be `last_index + 1`, as they are.

        Raises BadBatch if term or time would go back, OSError as `append` does.
        """
        cdef Py_buffer buffer
        cdef Source source
        cdef const Record *record
        cdef Fault fault
        cdef size_t count, at = 0
        cdef uint64_t index, term = self.last_term, time_ms = self.last_time_ms
        self._require_usable()
        if from_index != self.last_index + 1 or not batch.first_index <= from_index <= batch.last_index:
            raise ValueError(f"cannot append from {from_index} of {batch!r} after entry {self.last_index}")
        PyObject_GetBuffer(batch.data, &buffer, PyBUF_SIMPLE)
        try:
            source.data = <const char *>buffer.buf
            source.size = buffer.len
            source.stamped = True
            source.segment_id = batch.segment_id
            fault = records_fault(source.data, source.size, &count, &at)
            if fault != FINE:
                raise BadBatch(f"record at byte {at}: {reason_of(fault)}")
            at = 0
            for index in range(batch.first_index, batch.first_index + count):
                record = <const Record *>(source.data + at)
                at += record_size(record)
                if index < from_index:
                    source.data += at
                    source.size -= at
                    at = 0
                    continue
                if record.index != index or record.term < term or record.time_ms < time_ms:
                    raise BadBatch(f"entry {index} does not follow the log: index, term or time goes back")
                term = record.term
                time_ms = record.time_ms
            self._write(&source, batch.first_index + count - from_index)
        finally:
            PyBuffer_Release(&buffer)

    cdef int _write(self, Source *source, size_t count) except -1:
        """Append that many records, all or none. They are known to be whole."""
        if count > INDEX_MAX - self.last_index:
            raise OverflowError("no index is left")
        cdef SegmentFile active = self.directory.active
        cdef Source part = source[0]
        self.directory.reserve_active()
        if source.size <= active.size - active.end:
            self._write_here(source, count)
            return 0
        rooms = self.directory.place(source.data, source.size, self.last_index)
        spares = self.directory.spares(len(rooms) - 1)
        first_index = self.last_index + 1
        for number, (count, size) in enumerate(rooms):
            if number > 0:
                try:
                    self.directory.continue_after(
                        self.last_index, self.last_term, self.last_time_ms, spares, number - 1, True
                    )
                    self._at(self.last_index, self.last_term, self.last_time_ms)
                    self.directory.unlink_dead()
                except OSError as error:
                    if self.last_index >= first_index:  # Some of these records are in the log: there is no going back.
                        self.directory.fail(error)
                    raise
            if count:
                part.size = size
                self._write_here(&part, count)
                part.data += <size_t>size
        return 0

    cdef int _write_here(self, Source *source, size_t count) except -1:
        """Append records that fit into the active segment."""
        cdef SegmentFile active = self.directory.active
        active.make_room(self.last_index + count - active.base_index + 1)
        if source.size >= GIL_FREE_BYTES:
            with nogil:
                copy_records(active, source, &self.salt, self.synced_index)
        else:
            copy_records(active, source, &self.salt, self.synced_index)
        self.last_index += count
        self.last_term = source.term
        self.last_time_ms = source.time_ms
        return 0

    # Syncing

    def begin_sync(self):
        """Older segments were synced when they were left, so the active one is all there is to flush."""
        cdef SyncPoint_ point = SyncPoint_.__new__(SyncPoint_)
        self._require_usable()
        point.last_index = self.last_index
        point.generation = self.generation
        point.directory = self.directory
        point.lock = self.directory.syncing
        point.file = self.directory.active.file if self.last_index > self.synced_index else None
        return point

    def end_sync(self, SyncPoint_ point not None):
        """Advance `synced_index` to the point's, unless the tail was cut since. Raises ValueError before `wait`."""
        if not point.done:
            raise ValueError("the sync was not waited for, or failed")
        if point.generation == self.generation:
            self.synced_index = max(self.synced_index, point.last_index)

    # Reading. Every record that is read is checked; CorruptLog tells where one is bad.

    def term_at(self, index):
        """Term of an entry; also of `first_index - 1`; 0 for index 0. Raises IndexError elsewhere."""
        self._require_open()
        if index == self.last_index:
            return self.last_term
        if index == 0:
            return 0
        if index == self.first_index - 1:
            return self.directory.first.prev_term
        if not self.first_index <= index <= self.last_index:
            raise IndexError(f"entry {index} is not in the log ({self.first_index} to {self.last_index})")
        return self._record(index).term

    def slice(self, uint64_t first_index, size_t max_bytes):
        """The longest batch from `first_index` within `max_bytes`, but at least one entry; None past the end. No copy.

        It ends before an entry that is corrupt; only if that is the first, CorruptLog is raised.
        """
        cdef SegmentFile segment
        cdef const Record *first
        cdef const Record *record
        cdef uint64_t last_index, index
        cdef size_t start, offset
        self._require_open()
        if first_index > self.last_index:
            return None
        segment = self._holder(first_index, &last_index)
        first = segment.record(first_index)
        start = segment.offset_of(first_index)
        offset = start + record_size(first)
        index = first_index + 1
        if first.kind == KIND_MEMBERSHIP_:
            return new_batch(first_index, first_index, first.term, segment.segment_id, segment.view[start:offset],
                             entry_of(first).value)
        while index <= last_index:
            record = <const Record *>(segment.data + offset)
            if sizes_fault(record, segment.size - offset) != FINE or offset - start + record_size(record) > max_bytes:
                break
            if record.term != first.term or record.kind == KIND_MEMBERSHIP_:
                break
            if record_fault(record, segment.size - offset, &segment.salt, index, 0, 0) != FINE:
                break
            offset += record_size(record)
            index += 1
        return new_batch(first_index, index - 1, first.term, segment.segment_id, segment.view[start:offset], None)

    def entries(self, uint64_t first_index, uint64_t last_index, uint64_t max_bytes=UNLIMITED):
        """The entries of a range, as many as fit into `max_bytes` of log, but at least one. Raises IndexError."""
        cdef const Record *record
        cdef uint64_t index = first_index, size
        self._require_open()
        found = []
        while index <= last_index:
            record = self._record(index)
            size = record_size(record)
            if found and size > max_bytes:
                break
            max_bytes -= min(size, max_bytes)
            found.append(entry_of(record))
            index += 1
        return found

    def find_kind(self, int kind, uint64_t first_index=0):
        """All entries of one kind from an index on (walks every header there: for opening, and kinds that are rare)."""
        cdef SegmentFile segment
        cdef uint64_t index = max(first_index, self.first_index), last_index
        self._require_open()
        found = []
        while index <= self.last_index:
            segment = self._holder(index, &last_index)
            segment.find_kind(kind, index, last_index, found)
            index = last_index + 1
        return found

    # Cutting

    def truncate_suffix(self, uint64_t last_index):
        """Keep up to `last_index`: a new segment is made, nothing is shrunk. Durable on return.

        Raises IndexError outside first_index - 1 to last_index, OSError if no segment can be made; then nothing is cut.
        """
        cdef const Record *record
        cdef SegmentFile first
        self._require_usable()
        if not self.first_index - 1 <= last_index <= self.last_index:
            raise IndexError(f"cannot cut after {last_index}: the log is {self.first_index} to {self.last_index}")
        if last_index == self.last_index:
            return
        if last_index >= self.first_index:
            record = self._record(last_index)
            self._continue_after(last_index, record.term, record.time_ms, True, True)
        else:
            first = self.directory.first
            self._continue_after(last_index, first.prev_term, first.prev_time_ms, True, True)

    def drop_prefix(self, uint64_t first_index):
        """Let go of sealed segments that hold nothing from `first_index` on: they are retired, their files stay."""
        self._require_usable()
        dropped = self.directory.drop_prefix(first_index)
        self.first_index = self.directory.first.base_index
        return [described(known, last) for known, last in dropped]

    def reset(self, uint64_t last_index, uint64_t last_term, uint64_t last_time_ms):
        """Forget everything and continue after `last_index` (an installed snapshot)."""
        self._require_usable()
        if last_index >= INDEX_MAX or last_term > INDEX_MAX or last_time_ms > TIME_MAX_MS:
            raise ValueError("index, term or time is out of range")
        self._continue_after(last_index, last_term, last_time_ms, False, True)

    # Segments

    def roll(self):
        """Seal the active segment, unless it is empty, and begin a new one. Raises OSError; then nothing changed."""
        self._require_usable()
        if self.last_index >= self.directory.active.base_index:
            self._continue_after(self.last_index, self.last_term, self.last_time_ms, True, False)

    def prepare(self):
        """Set the next segment's file aside, so that a roll need not wait for it. In any thread. Raises OSError."""
        self._require_open()
        self.directory.prepare()

    def install(self, compacted):
        """Put a compacted segment in place of those it was made of: the retired ones, whose files stay. Durable on return.

        Raises ValueError if those are not live any more, OSError if it could not be renamed; then nothing changed, and
        the compacted file is gone.
        """
        self._require_usable()
        replaced = self.directory.install(compacted)
        self.first_index = self.directory.first.base_index
        return [described(known, last) for known, last in replaced]

    def unlink(self, retired):
        """Remove retired files and their indexes, the oldest first, each durably. In any thread, one at a time.

        Raises OSError, ValueError if one is not retired, or older ones must go before it.
        """
        self._require_open()
        self.directory.unlink_retired([known.path for known in retired])

    # Whole

    def verify(self, on_progress=None):
        """Read everything: records found good, and each fault. `on_progress(bytes done, bytes in all)`."""
        self._require_open()
        return self.directory.verify(self.last_index, on_progress)

    def close(self):
        """Batches that were handed out stay readable. Nothing is synced."""
        self.closed = True
        self.directory.close()

"""Compaction: what lives of adjacent sealed segments, written to one file (docs/log-format.md, "Compacted segment").

Works beside the owner of the log, in any thread: it opens what it reads itself. Does not know which segments are worth it, nor
puts the new file in their place (`Log.install`).
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetFromErrno
from libc.stdint cimport uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy

from raftchat._log_header cimport COMPACTED_HEADER_SIZE, pack_header
from raftchat._log_record cimport (
    FINE, HEADER_BYTES, INDEX, KIND_POST_, Fault, HashFunction, Record, Salt, hash_function, reason_of, record_fault,
    record_size, salt_of, salt_start
)
from raftchat._log_segment cimport Descriptor, Segment, hold, open_file

import contextlib
import os
from collections import namedtuple

from raftchat._log_header import CorruptLog, Header

cdef extern from "unistd.h" nogil:
    ssize_t pwrite(int fd, const void *data, size_t size, long long offset)
    int fdatasync(int fd)

Compacted = namedtuple(
    "Compacted", "path sequence base_index revision last_index segment_id records size_bytes", module="raftchat._log"
)

cdef size_t BUFFER_BYTES = 1024 * 1024
SPAN_MAX_ENTRIES = 2**32                # postings count from the first index in 32 bits
cdef size_t STEP_BYTES = 4 * 1024 * 1024    # read: so often somebody is told; written: so often it is flushed


cdef struct Floor:
    const char *key                     # NULL: the slot is free
    size_t size
    uint64_t index


@cython.final
cdef class Floors:
    """The floor of each room, for look-ups without the GIL."""

    cdef Floor *slots                   # open addressing
    cdef size_t mask
    cdef HashFunction hash
    cdef dict floors                    # holds the keys

    def __init__(self, floors):
        cdef size_t count = 0
        self.floors = dict(floors)
        self.hash = hash_function()
        self.mask = 63
        while self.mask < 2 * <size_t>len(self.floors):
            self.mask = 2 * self.mask + 1
        self.slots = <Floor *>calloc(self.mask + 1, sizeof(Floor))
        if self.slots == NULL:
            raise MemoryError
        for key, index in self.floors.items():
            self.add(key, index)
            count += 1
            if count % 4096 == 0:
                with nogil:             # Others may run.
                    pass

    cdef int add(self, bytes key, uint64_t index) except -1:
        cdef const char *data = PyBytes_AS_STRING(key)
        cdef size_t size = PyBytes_GET_SIZE(key), at = self.hash(data, size) & self.mask
        while self.slots[at].key != NULL:
            at = (at + 1) & self.mask
        self.slots[at] = Floor(data, size, index)
        return 0

    cdef bint lives(self, const Record *record) noexcept nogil:
        cdef const char *key = <const char *>record + HEADER_BYTES
        cdef size_t size = record.key_size, at
        cdef Floor *floor
        if record.kind != KIND_POST_:
            return False
        at = self.hash(key, size) & self.mask
        while self.slots[at].key != NULL:
            floor = &self.slots[at]
            if floor.size == size and memcmp(floor.key, key, size) == 0:
                return record.index >= floor.index
            at = (at + 1) & self.mask
        return False

    def __dealloc__(self):
        free(self.slots)


@cython.final
cdef class Writer:
    """The new file: records are gathered, salted for it, and written in large pieces."""

    cdef Descriptor file
    cdef Salt salt
    cdef uint64_t synced                # of every record: all that came before this file is durable
    cdef char *data
    cdef size_t used
    cdef size_t room
    cdef size_t offset                  # in the file, of what is gathered
    cdef size_t unsynced
    cdef uint64_t records

    def __cinit__(self):
        self.room = BUFFER_BYTES
        self.data = <char *>malloc(self.room)
        if self.data == NULL:
            raise MemoryError
        self.offset = COMPACTED_HEADER_SIZE

    def __dealloc__(self):
        free(self.data)

    cdef bint take(self, const Record *source, size_t size, Salt *senders) noexcept nogil:
        """Gather a record; False: there is no room left."""
        cdef Record *record = <Record *>(self.data + self.used)
        if size > self.room - self.used:
            return False
        memcpy(record, source, size)
        record.checksum ^= salt_of(senders, record.synced) ^ salt_of(&self.salt, self.synced)
        record.synced = self.synced
        self.used += size
        self.records += 1
        return True

    cdef int flush(self, size_t needed) except -1:
        """Write what was gathered, and have room for that many bytes afterwards. Raises OSError."""
        cdef void *grown
        self.write(self.data, self.used, self.offset)
        self.offset += self.used
        self.unsynced += self.used
        self.used = 0
        # Little at a time, so that nobody else's flush has to wait for much of it.
        if self.unsynced >= STEP_BYTES:
            self.sync()
        if needed > self.room:
            grown = realloc(self.data, needed)
            if grown == NULL:
                raise MemoryError
            self.data = <char *>grown
            self.room = needed
        return 0

    cdef int write(self, const char *data, size_t size, size_t offset) except -1:
        cdef ssize_t written
        while size:
            with nogil:
                written = pwrite(self.file.fd, data, size, offset)
            if written < 0:
                PyErr_SetFromErrno(OSError)
            data += written
            size -= written
            offset += written
        return 0

    cdef int sync(self) except -1:
        cdef int failed
        with nogil:
            failed = fdatasync(self.file.fd)
        if failed:
            PyErr_SetFromErrno(OSError)
        self.unsynced = 0
        return 0


cdef int copy_living(Segment source, uint64_t last_index, Floors floors, Writer writer, on_progress) except -1:
    """Check all records of a segment up to that entry and gather those that live. `on_progress(bytes)`."""
    cdef const Record *record
    cdef Fault fault = FINE
    cdef Salt salt = source.salt
    cdef bint compacted = source.revision != 0, full
    cdef uint64_t index = source.base_index, term = source.prev_term, time_ms = source.prev_time_ms, found = 0
    cdef size_t offset = source.start, size = 0, pause = STEP_BYTES
    while index <= last_index and not (compacted and offset == source.size):
        full = False
        with nogil:
            while index <= last_index and offset < pause and not (compacted and offset == source.size):
                record = <const Record *>(source.data + offset)
                fault = record_fault(record, source.size - offset, &salt, 0 if compacted else index, term, time_ms)
                if fault == FINE and not index <= record.index <= last_index:
                    fault = INDEX
                if fault != FINE:
                    break
                size = record_size(record)
                if floors.lives(record) and not writer.take(record, size, &salt):
                    full = True
                    break
                term = record.term
                time_ms = record.time_ms
                index = record.index + 1
                offset += size
                found += 1
        if fault != FINE:
            raise CorruptLog(source.path, offset, reason_of(fault))
        if full:
            writer.flush(size)
        elif offset >= pause:
            pause = offset + STEP_BYTES
            if on_progress is not None:
                on_progress(offset)
    if compacted and (offset != source.size or found != source.records):
        raise CorruptLog(source.path, None, f"it holds {found} records, its header says {source.records}")
    return 0


def compact(str directory, segments, floors, *, new_segment_id, on_progress=None):
    """Write what lives of adjacent sealed segments, in order, to one `.tmp` file; flushed. In any thread, mostly without
    the GIL. A post lives if `floors` has its key and its index is not below that floor; nothing else does.

    `on_progress(bytes done, bytes in all)` is called every few MiB and may sleep or raise. Raises CorruptLog where a record
    is bad, OSError, ValueError for 2**32 entries and more; then nothing is left behind.
    """
    cdef Segment source
    cdef Floors known = Floors(floors)
    cdef Writer writer = Writer()
    segments = list(segments)
    sources = open_sources(segments)
    segment_id = new_segment_id()
    if not 1 <= segment_id <= 0xFFFFFFFFFFFFFFFF:
        raise ValueError(f"segment id is {segment_id}, must be 1 to 2**64 - 1")
    salt_start(&writer.salt, hash_function(), segment_id)
    writer.synced = segments[0].base_index - 1
    path = f"{directory}/compact-{segment_id:016x}.tmp"
    writer.file = hold(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        done, total = 0, sum([source.size for source in sources])
        for source, described in zip(sources, segments):
            progress = None if on_progress is None else lambda part: on_progress(done + part, total)
            copy_living(source, described.last_index, known, writer, progress)
            done += source.size
        writer.flush(0)
        header = header_of(sources, segments, segment_id, writer.offset, writer.records)
        packed = pack_header(header)
        writer.write(PyBytes_AS_STRING(packed), PyBytes_GET_SIZE(packed), 0)
        writer.sync()
        if on_progress is not None:
            on_progress(total, total)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    return Compacted(path, header.sequence, header.base_index, header.revision, header.last_index, segment_id,
                     header.records, header.size_bytes)


cdef list open_sources(list segments):
    """Raises ValueError unless they are sealed ones that follow each other, CorruptLog if a file is another one."""
    cdef Segment source
    sources = []
    for described in segments:
        source = open_file(described.path, False)
        its = (source.sequence, source.base_index, source.revision, source.segment_id)
        if its != (described.sequence, described.base_index, described.revision, described.segment_id) or (
            source.revision and source.last_index != described.last_index
        ):
            raise CorruptLog(described.path, 0, "it is another segment than it was")
        if sources and (source.prev_sequence, source.base_index) != (
            (<Segment>sources[-1]).sequence, segments[len(sources) - 1].last_index + 1
        ):
            raise ValueError(f"{described.path} does not follow the one before it")
        sources.append(source)
    if not sources:
        raise ValueError("no segments")
    if segments[-1].last_index - segments[0].base_index >= SPAN_MAX_ENTRIES:
        raise ValueError(f"a compacted segment cannot stand for {SPAN_MAX_ENTRIES} entries and more")
    return sources


cdef object header_of(list sources, list segments, segment_id, size_bytes, records):
    cdef Segment first = sources[0], last = sources[-1]
    cdef const Record *record
    cdef uint64_t last_index = segments[-1].last_index, last_term = last.last_term, last_time_ms = last.last_time_ms
    if last.revision == 0:
        record = last.record(last_index)
        last_term = record.term
        last_time_ms = record.time_ms
    return Header(
        segment_id, last.sequence, first.prev_sequence, first.base_index, first.prev_term, first.prev_time_ms, size_bytes,
        last_index, last_term, last_time_ms, max([(<Segment>known).revision for known in sources]) + 1, records,
    )

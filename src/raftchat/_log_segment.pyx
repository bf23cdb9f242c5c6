"""One segment file, mapped: its header, its records, what is found when it is opened (docs/log-format.md, "Segment", "Opening").

Knows nothing of the segments around it. Every size and offset that is read from the file is checked against the
file's before it is followed.
"""

cimport cython
from libc.stdlib cimport realloc, free

cdef extern from "unistd.h":
    int close(int fd)

from raftchat._log_mapping cimport map_file
from raftchat._log_record cimport (
    FINE, HEADER_BYTES, HEADER_CUT, INDEX_MAX, Fault, entry_of, hash_function, reason_of, record_fault, record_size, salt_start
)

import os
import re
import struct

from xxhash import xxh3_64_intdigest

SEGMENT_HEADER_BYTES = SEGMENT_HEADER_SIZE

cdef int VERSION = 1
cdef bytes MAGIC = b"rc-log\n"
cdef size_t PROGRESS_BYTES = 8 * 1024 * 1024

_HEADER = struct.Struct("<B7sQIIQQQQ")
_CHECKSUM = struct.Struct("<Q")
_NAME = re.compile(r"(\d{8,10})-(\d{20})\.log")


class LogError(Exception):
    """What is wrong with a log, and where: `path`, `offset` (bytes, None if the whole file) and `reason`."""

    __module__ = "raftchat._log"

    def __init__(self, path, offset, reason):
        self.path = path
        self.offset = offset
        self.reason = reason
        super().__init__(path, offset, reason)

    def __str__(self):
        where = "" if self.offset is None else f", byte {self.offset}"
        return f"{self.path}{where}: {self.reason}"


class CorruptLog(LogError):
    __module__ = "raftchat._log"


class ForeignFile(LogError):
    __module__ = "raftchat._log"


class NewerFormat(LogError):
    __module__ = "raftchat._log"


cdef str segment_path(str directory, object sequence, object base_index):
    return f"{directory}/{sequence:08}-{base_index:020}.log"


cdef tuple parse_segment_name(str directory, str name):
    """(sequence, base index). Raises ForeignFile."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ForeignFile(f"{directory}/{name}", None, "not the name of a segment")
    return int(match[1]), int(match[2])


cdef Segment _segment_of(str path, Descriptor file, tuple header):
    cdef Segment segment = Segment.__new__(Segment)
    segment.path = path
    segment.file = file
    (segment.segment_id, segment.sequence, segment.prev_sequence, segment.base_index, segment.prev_term,
     segment.prev_time_ms, segment.size) = header
    salt_start(&segment.salt, hash_function(), segment.segment_id)
    segment.walked = segment.base_index
    segment.end = SEGMENT_HEADER_SIZE
    return segment


cdef Segment open_segment(str directory, object sequence, object base_index, bint writable):
    """Raises OSError, CorruptLog, ForeignFile, NewerFormat."""
    path = segment_path(directory, sequence, base_index)
    cdef Segment segment
    fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    file = hold(fd)
    if writable:
        # Pages whose write failed are marked clean and stay in the cache: a lie that is not to be read.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    raw = os.pread(fd, SEGMENT_HEADER_SIZE, 0)
    if len(raw) < SEGMENT_HEADER_SIZE:
        raise CorruptLog(path, 0, "the file is shorter than a segment header")
    if not any(raw):
        raise CorruptLog(path, 0, "the segment header is zero")
    if raw[1:8] != MAGIC:
        raise ForeignFile(path, 0, "not a segment of raft-chat")
    if raw[0] > VERSION:
        raise NewerFormat(path, 0, f"format version {raw[0]}, this program knows {VERSION}")
    if raw[0] != VERSION or _CHECKSUM.unpack_from(raw, 56)[0] != xxh3_64_intdigest(raw[:56]):
        raise CorruptLog(path, 0, "the checksum of the segment header does not match")
    header = _HEADER.unpack_from(raw)[2:]
    segment_id, its_sequence, prev_sequence, its_base_index, _, _, size_bytes = header
    if (its_sequence, its_base_index) != (sequence, base_index):
        raise CorruptLog(path, 0, "the file name disagrees with the segment header")
    if segment_id == 0 or sequence <= prev_sequence or not 1 <= base_index <= INDEX_MAX:
        raise CorruptLog(path, 0, "the segment header makes no sense")
    size = os.fstat(fd).st_size
    if size_bytes < size or size_bytes % 8:
        raise CorruptLog(path, None, f"the file has {size} bytes, its header says {size_bytes}")
    segment = _segment_of(path, file, header)
    segment.short = size < size_bytes
    segment.size = size
    segment.map_file(writable)
    return segment


cdef Segment make_segment(str path, int fd, tuple header):
    """Write the header into a reserved file and map it; the file belongs to the segment from then on."""
    cdef Segment segment = _segment_of(path, hold(fd), header)
    packed = _HEADER.pack(VERSION, MAGIC, *header)
    os.pwrite(fd, packed + _CHECKSUM.pack(xxh3_64_intdigest(packed)), 0)
    segment.reserved = True
    segment.map_file(True)
    return segment


@cython.final
cdef class Descriptor:

    def __dealloc__(self):
        close(self.fd)


cdef Descriptor hold(int fd):
    cdef Descriptor file = Descriptor.__new__(Descriptor)
    file.fd = fd
    return file


@cython.final
cdef class Segment:

    def __dealloc__(self):
        free(self.sparse)

    cdef int map_file(self, bint writable) except -1:
        self.mapping = map_file(self.file.fd, self.size, writable)
        self.data = self.mapping.data
        self.view = memoryview(self.mapping).toreadonly()
        if not writable:
            self.file = None
        return 0

    # Index → offset

    cdef int make_room(self, uint64_t index) except -1:
        """For noting offsets up to that entry, or as many as the file can hold."""
        cdef uint64_t count = min(index - self.base_index + 1, <uint64_t>self.size // HEADER_BYTES + 1)
        cdef void *grown
        if count > self.sparse_room:
            count = (max(count, 2 * self.sparse_room) + SPARSE) // SPARSE
            grown = realloc(self.sparse, count * sizeof(uint32_t))
            if grown == NULL:
                raise MemoryError
            self.sparse = <uint32_t *>grown
            self.sparse_room = count * SPARSE
        return 0

    cdef void note(self, uint64_t index, size_t offset) noexcept nogil:
        if (index - self.base_index) % SPARSE == 0:
            self.sparse[(index - self.base_index) // SPARSE] = <uint32_t>(offset >> 3)

    cdef size_t step(self, size_t offset, uint64_t index) noexcept nogil:
        """Size of the entry at `offset` as its header tells it, 0 if that cannot be."""
        cdef const Record *record = <const Record *>(self.data + offset)
        if self.size - offset < HEADER_BYTES or record.kind == 0 or record.index != index:
            return 0
        cdef size_t size = record_size(record)
        return size if size <= self.size - offset else 0

    cdef int walk(self, uint64_t last_index) except -1:
        """Find every offset up to that entry, by headers alone. Raises CorruptLog."""
        if not self.try_walk(last_index):
            raise self.first_fault(last_index)
        return 0

    cdef bint try_walk(self, uint64_t last_index) except -1:
        """The same, but tell whether it could."""
        cdef size_t size = 1
        if last_index < self.walked:
            return True
        self.make_room(last_index)
        with nogil:
            while self.walked <= last_index:
                size = self.step(self.end, self.walked)
                if size == 0:
                    break
                self.note(self.walked, self.end)
                self.walked += 1
                self.end += size
        return size != 0

    cdef size_t offset_of(self, uint64_t index) except 0:
        """Where an entry at or above the base index lies. Raises CorruptLog."""
        cdef uint64_t at
        cdef size_t offset, size
        if index >= self.walked:
            self.walk(index)
        at = index - (index - self.base_index) % SPARSE
        offset = <size_t>self.sparse[(at - self.base_index) // SPARSE] << 3
        if at <= self.near_index <= index:
            at = self.near_index
            offset = self.near_offset
        while at < index:
            size = self.step(offset, at)
            if size == 0:
                raise self.first_fault(self.walked - 1)
            offset += size
            at += 1
        self.near_index = index
        self.near_offset = offset
        return offset

    # Records

    cdef const Record *record(self, uint64_t index) except NULL:
        """An entry, checked. Raises CorruptLog."""
        cdef size_t offset = self.offset_of(index)
        cdef const Record *record = <const Record *>(self.data + offset)
        cdef Fault fault = record_fault(record, self.size - offset, &self.salt, index, 0, 0)
        if fault != FINE:
            raise CorruptLog(self.path, offset, reason_of(fault))
        return record

    cdef int find_kind(self, int kind, uint64_t last_index, list found) except -1:
        """Add the entries of one kind up to that one to a list."""
        cdef uint64_t index = self.base_index
        cdef size_t offset = SEGMENT_HEADER_SIZE, size
        self.walk(last_index)
        while index <= last_index:
            size = self.step(offset, index)
            if size == 0:
                raise self.first_fault(last_index)
            if (<const Record *>(self.data + offset)).kind == kind:
                found.append(entry_of(self.record(index)))
            offset += size
            index += 1
        return 0

    cdef object first_fault(self, uint64_t last_index):
        """Where and what the first fault is, once it is known that there is one."""
        faults = self.verify(last_index, None)[1]
        return faults[0] if faults else CorruptLog(self.path, self.end, "it does not read the same twice")

    def verify(self, uint64_t last_index, on_progress):
        """Read all up to that entry: how many are good, and each fault. After one, goes on at the next valid record.

        `on_progress(bytes)`: so much of this file is done.
        """
        cdef size_t offset = SEGMENT_HEADER_SIZE, pause
        cdef uint64_t index = self.base_index, term = self.prev_term, time_ms = self.prev_time_ms, good = 0
        cdef const Record *record = NULL
        cdef Fault fault = FINE
        cdef Salt salt = self.salt
        faults = []
        while index <= last_index:
            pause = offset + PROGRESS_BYTES
            with nogil:
                while index <= last_index and offset < pause:
                    record = <const Record *>(self.data + offset)
                    fault = record_fault(record, self.size - offset, &salt, index, term, time_ms)
                    if fault != FINE:
                        break
                    good += 1
                    index += 1
                    term = record.term
                    time_ms = record.time_ms
                    offset += record_size(record)
            if fault != FINE:
                faults.append(CorruptLog(self.path, offset, reason_of(fault)))
                with nogil:
                    offset = self.next_valid(offset, index, last_index)
                if offset == 0:
                    break
                record = <const Record *>(self.data + offset)
                good += 1
                index = record.index + 1
                term = record.term
                time_ms = record.time_ms
                offset += record_size(record)
                fault = FINE
            elif index <= last_index and on_progress is not None:
                on_progress(offset)
        return good, faults

    cdef size_t next_valid(self, size_t offset, uint64_t index, uint64_t last_index) noexcept nogil:
        """Offset of the first valid record beyond `offset` of an entry in (index, last_index]; 0: there is none."""
        cdef const Record *record
        cdef Salt salt = self.salt
        offset += 8
        while offset + HEADER_BYTES <= self.size:
            record = <const Record *>(self.data + offset)
            if index < record.index <= last_index and record_fault(record, self.size - offset, &salt, 0, 0, 0) == FINE:
                return offset
            offset += 8
        return 0

    cdef tuple recover(self, uint64_t durable_hint):
        """Check every record of the active segment and find where they end. Raises CorruptLog.

        (last index, its term, its time, offset of the end, torn, bytes from there up to the last that is not zero).
        Torn: it cannot be appended to, as there is something behind its end, or the file is shorter than it was.
        """
        cdef uint64_t term = self.prev_term, time_ms = self.prev_time_ms
        cdef const Record *record
        cdef Fault fault = FINE
        cdef size_t used = self.size
        self.make_room(self.base_index + self.size // HEADER_BYTES)
        with nogil:
            while self.end + HEADER_BYTES <= self.size:
                record = <const Record *>(self.data + self.end)
                fault = record_fault(record, self.size - self.end, &self.salt, self.walked, term, time_ms)
                if fault != FINE:
                    break
                term = record.term
                time_ms = record.time_ms
                self.note(self.walked, self.end)
                self.walked += 1
                self.end += record_size(record)
            if fault == FINE and not self.short:
                used = self.end
            else:
                while used > self.end and self.data[used - 1] == 0:
                    used -= 1
        if used > self.end and (self.walked <= durable_hint or self._was_durable(self.end, self.walked)):
            raise CorruptLog(self.path, self.end, reason_of(HEADER_CUT if fault == FINE else fault))
        if self.walked <= durable_hint:
            raise CorruptLog(
                self.path, self.end, f"entry {durable_hint} was committed here, but the log ends before it"
            )
        return self.walked - 1, term, time_ms, self.end, used > self.end or self.short, used - self.end

    cdef bint _was_durable(self, size_t offset, uint64_t index) noexcept:
        """Whether a later valid record says that this entry was durable when it was written."""
        cdef uint64_t last = index + self.size // HEADER_BYTES
        while True:
            offset = self.next_valid(offset, index, last)
            if offset == 0:
                return False
            if (<const Record *>(self.data + offset)).synced >= index:
                return True

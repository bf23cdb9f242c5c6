"""One segment file, mapped: its records, and what is found when it is opened (docs/log-format.md, "Segment", "Opening").

Knows nothing of the segments around it. Every size and offset that is read from the file is checked against the
file's before it is followed.
"""

cimport cython
from libc.stdlib cimport realloc, free
from libc.string cimport memcpy

cdef extern from "unistd.h":
    int close(int fd)

from raftchat._log_header cimport COMPACTED_HEADER_SIZE, SEGMENT_HEADER_SIZE, pack_header, read_header, segment_path
from raftchat._log_mapping cimport map_file
from raftchat._log_record cimport (
    FINE, HEADER_BYTES, HEADER_CUT, INDEX, KIND_POST_, NOT_A_COMMAND, Fault, entry_of, hash_function, reason_of,
    record_fault, record_size, salt_start
)

import os

from raftchat._log_header import CorruptLog

cdef size_t PROGRESS_BYTES = 8 * 1024 * 1024


cdef Segment _segment_of(str path, Descriptor file, object header):
    cdef Segment segment = Segment.__new__(Segment)
    segment.path = path
    segment.file = file
    (segment.segment_id, segment.sequence, segment.prev_sequence, segment.base_index, segment.prev_term,
     segment.prev_time_ms, segment.size, segment.last_index, segment.last_term, segment.last_time_ms,
     segment.revision, segment.records) = header
    salt_start(&segment.salt, hash_function(), segment.segment_id)
    segment.start = COMPACTED_HEADER_SIZE if segment.revision else SEGMENT_HEADER_SIZE
    segment.walked = segment.base_index
    segment.end = segment.start
    return segment


cdef Segment open_segment(str directory, object sequence, object base_index, bint writable, object revision=0):
    """Raises OSError, CorruptLog, ForeignFile, NewerFormat."""
    path = segment_path(directory, sequence, base_index, revision)
    cdef Segment segment = open_file(path, writable)
    if (segment.sequence, segment.base_index, segment.revision) != (sequence, base_index, revision):
        raise CorruptLog(path, 0, "the file name disagrees with the segment header")
    return segment


cdef Segment open_file(str path, bint writable):
    """The same, whatever its name."""
    cdef Segment segment
    fd = os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
    file = hold(fd)
    if writable:
        # Pages whose write failed are marked clean and stay in the cache: a lie that is not to be read.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    header = read_header(path, fd)
    segment = _segment_of(path, file, header)
    size = os.fstat(fd).st_size
    segment.short = size < segment.size
    segment.size = size
    segment.map_file(writable)
    return segment


cdef Segment make_segment(str path, Descriptor file, object header):
    """Write the header into a reserved file and map it."""
    cdef Segment segment = _segment_of(path, file, header)
    os.pwrite(file.fd, pack_header(header), 0)
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
        if not self.lent:
            free(self.sparse)

    cdef int map_file(self, bint writable) except -1:
        self.mapping = map_file(self.file.fd, self.size, writable)
        self.data = self.mapping.data
        self.view = memoryview(self.mapping).toreadonly()
        if not writable:
            self.file = None
        return 0

    # Index → offset

    cdef int make_room(self, uint64_t count) except -1:
        """For noting the offsets of so many records, or as many as the file can hold."""
        cdef uint64_t steps
        cdef void *grown
        count = min(count, <uint64_t>self.size // HEADER_BYTES + 1)
        if count > self.sparse_room or self.lent:
            steps = (max(count, 2 * self.sparse_room) + SPARSE) // SPARSE
            grown = realloc(NULL if self.lent else self.sparse, steps * sizeof(uint32_t))
            if grown == NULL:
                raise MemoryError
            if self.lent:
                memcpy(grown, self.sparse, self.sparse_room // SPARSE * sizeof(uint32_t))
                self.lent = False
                self.lender = None
            self.sparse = <uint32_t *>grown
            self.sparse_room = steps * SPARSE
        return 0

    cdef int lend_steps(self, object lender, const uint32_t *steps, size_t count, uint64_t last_index) except -1:
        """Use a table of offsets / 8 of every 32nd record up to that entry, instead of walking; held by `lender`."""
        if not self.lent:
            free(self.sparse)
        self.sparse = <uint32_t *>steps
        self.sparse_room = count * SPARSE
        self.lent = True
        self.lender = lender
        self.walked = last_index + 1
        self.end = self.size if self.revision else 0
        self.near_index = self.near_offset = 0
        return 0

    cdef void note(self, uint64_t position, size_t offset) noexcept nogil:
        if position % SPARSE == 0:
            self.sparse[position // SPARSE] = <uint32_t>(offset >> 3)

    cdef size_t step(self, size_t offset, uint64_t index) noexcept nogil:
        """Size of the entry at `offset` as its header tells it, 0 if that cannot be."""
        cdef const Record *record = <const Record *>(self.data + offset)
        if self.size < HEADER_BYTES or offset > self.size - HEADER_BYTES or record.kind == 0 or record.index != index:
            return 0
        cdef size_t size = record_size(record)
        return size if size <= self.size - offset else 0

    cdef size_t step_above(self, size_t offset, uint64_t index) noexcept nogil:
        """The same for whatever entry above `index` is there."""
        if self.size < HEADER_BYTES or offset > self.size - HEADER_BYTES:
            return 0
        cdef uint64_t found = (<const Record *>(self.data + offset)).index
        return self.step(offset, found) if index < found <= self.last_index else 0

    cdef int walk(self, uint64_t last_index) except -1:
        """Find every offset up to that entry, by headers alone. Raises CorruptLog."""
        if not self.try_walk(last_index):
            raise self.first_fault(last_index)
        return 0

    cdef bint try_walk(self, uint64_t last_index) except -1:
        """The same, but tell whether it could. A compacted segment is walked to its end."""
        cdef size_t size = 1
        if last_index < self.walked:
            return True
        if self.revision:
            return self._walk_compacted()
        if self.end == 0:
            self._find_end()
        self.make_room(last_index - self.base_index + 1)
        with nogil:
            while self.walked <= last_index:
                size = self.step(self.end, self.walked)
                if size == 0:
                    break
                self.note(self.walked - self.base_index, self.end)
                self.walked += 1
                self.end += size
        return size != 0

    cdef bint _walk_compacted(self) except -1:
        cdef uint64_t position = 0, index = self.base_index - 1
        cdef size_t offset = self.start, size
        self.make_room(self.records)
        with nogil:
            while offset < self.size and position < self.records:
                size = self.step_above(offset, index)
                if size == 0:
                    break
                self.note(position, offset)
                index = (<const Record *>(self.data + offset)).index
                position += 1
                offset += size
        if offset != self.size or position != self.records:
            return False
        self.walked = self.last_index + 1
        self.end = offset
        return True

    cdef int _find_end(self) except -1:
        """The steps were lent: where the last of them leads."""
        cdef uint64_t position = (self.walked - 1 - self.base_index) // SPARSE * SPARSE
        cdef uint64_t index = self.base_index + position
        cdef size_t offset = <size_t>self.sparse[position // SPARSE] << 3, size
        while index < self.walked:
            size = self.step(offset, index)
            if size == 0:
                raise self.first_fault(self.walked - 1)
            offset += size
            index += 1
        self.end = offset
        return 0

    cdef size_t seek(self, uint64_t index) except 0:
        """Where the first entry at or above an index lies; in a compacted segment its end, if there is none.

        The index must not be above the last entry that counts here. Raises CorruptLog.
        """
        if self.revision:
            return self._seek_compacted(index)
        return self.offset_of(max(index, self.base_index))

    cdef size_t _seek_compacted(self, uint64_t index) except 0:
        cdef size_t low = 0, high = (self.records + SPARSE - 1) // SPARSE, middle, offset, size
        cdef uint64_t found
        self.walk(self.last_index)
        # The last step at or below the index is at `low` - 1.
        while low < high:
            middle = (low + high) // 2
            offset = <size_t>self.sparse[middle] << 3
            if self.step_above(offset, self.base_index - 1) == 0:
                raise self.first_fault(self.last_index)
            if (<const Record *>(self.data + offset)).index <= index:
                low = middle + 1
            else:
                high = middle
        offset = <size_t>self.sparse[low - 1] << 3 if low else self.start
        if self.near_index <= index and self.near_offset > offset:
            offset = self.near_offset
        while offset < self.size:
            found = (<const Record *>(self.data + offset)).index
            size = self.step(offset, found)
            if size == 0:
                raise self.first_fault(self.last_index)
            if found >= index:
                self.near_index = found
                self.near_offset = offset
                break
            offset += size
        return offset

    cdef size_t offset_of(self, uint64_t index) except 0:
        """Where an entry at or above the base index lies. Raises CorruptLog, IndexError if it was left out."""
        cdef uint64_t at
        cdef size_t offset, size
        if self.revision:
            offset = self._seek_compacted(index)
            if offset == self.size or (<const Record *>(self.data + offset)).index != index:
                raise IndexError(f"entry {index} is not in the log")
            return offset
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
        """An entry, checked. Raises CorruptLog, IndexError if it was left out of a compacted segment."""
        return self.record_at(self.offset_of(index), index)

    cdef const Record *record_at(self, size_t offset, uint64_t index) except NULL:
        """The entry that is known to lie there, checked. Raises CorruptLog."""
        cdef const Record *record = <const Record *>(self.data + offset)
        cdef Fault fault = HEADER_CUT
        if offset <= self.size:
            fault = record_fault(record, self.size - offset, &self.salt, index, 0, 0)
        if fault != FINE:
            raise CorruptLog(self.path, offset, reason_of(fault))
        return record

    cdef int find_kind(self, int kind, uint64_t first_index, uint64_t last_index, list found) except -1:
        """Add the entries of one kind in that range to a list. Not for compacted segments."""
        cdef uint64_t index = first_index
        cdef size_t offset, size = 1
        self.walk(last_index)
        offset = self.offset_of(first_index)
        while True:
            with nogil:
                while index <= last_index:
                    size = self.step(offset, index)
                    if size == 0 or (<const Record *>(self.data + offset)).kind == kind:
                        break
                    offset += size
                    index += 1
            if index > last_index:
                return 0
            if size == 0:
                raise self.first_fault(last_index)
            found.append(entry_of(self.record_at(offset, index)))
            offset += size
            index += 1

    cdef object first_fault(self, uint64_t last_index):
        """Where and what the first fault is, once it is known that there is one."""
        faults = self.verify(last_index, None)[1]
        return faults[0] if faults else CorruptLog(self.path, self.end, "it does not read the same twice")

    def verify(self, uint64_t last_index, on_progress):
        """Read all up to that entry: how many are good, and each fault. After one, goes on at the next valid record.

        `on_progress(bytes)`: so much of this file is done.
        """
        cdef size_t offset = self.start, pause
        cdef uint64_t index = self.base_index, term = self.prev_term, time_ms = self.prev_time_ms, good = 0
        cdef const Record *record = NULL
        cdef Fault fault = FINE
        cdef Salt salt = self.salt
        cdef bint compacted = self.revision != 0
        faults = []
        while index <= last_index and not (compacted and offset == self.size):
            pause = offset + PROGRESS_BYTES
            with nogil:
                while index <= last_index and offset < pause and not (compacted and offset == self.size):
                    record = <const Record *>(self.data + offset)
                    fault = record_fault(record, self.size - offset, &salt, 0 if compacted else index, term, time_ms)
                    if fault == FINE and compacted:
                        if not index <= record.index <= last_index:
                            fault = INDEX
                        elif record.kind != KIND_POST_:
                            fault = NOT_A_COMMAND
                    if fault != FINE:
                        break
                    good += 1
                    index = record.index + 1
                    term = record.term
                    time_ms = record.time_ms
                    offset += record_size(record)
            if fault != FINE:
                faults.append(CorruptLog(self.path, offset, reason_of(fault)))
                with nogil:
                    offset = self.next_valid(offset, index - compacted, last_index)
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
        if compacted and not faults:
            if offset != self.size:
                faults.append(CorruptLog(self.path, offset, "something is behind the last record"))
            elif good != self.records:
                reason = f"it holds {good} records, its header says {self.records}"
                faults.append(CorruptLog(self.path, None, reason))
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
        Torn: it cannot be appended to, as there is something behind its end, or the file is shorter than it was, or compacted.
        """
        cdef uint64_t term = self.prev_term, time_ms = self.prev_time_ms
        cdef const Record *record
        cdef Fault fault = FINE
        cdef size_t used = self.size
        if self.revision:
            if self.last_index < durable_hint:
                reason = f"entry {durable_hint} was committed here, but the log ends before it"
                raise CorruptLog(self.path, None, reason)
            return self.last_index, self.last_term, self.last_time_ms, self.size, True, 0
        self.make_room(self.size // HEADER_BYTES + 1)
        with nogil:
            while self.end + HEADER_BYTES <= self.size:
                record = <const Record *>(self.data + self.end)
                fault = record_fault(record, self.size - self.end, &self.salt, self.walked, term, time_ms)
                if fault != FINE:
                    break
                term = record.term
                time_ms = record.time_ms
                self.note(self.walked - self.base_index, self.end)
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

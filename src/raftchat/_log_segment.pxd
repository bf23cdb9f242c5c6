"""One segment file, mapped."""

from libc.stdint cimport uint32_t, uint64_t

from raftchat._log_mapping cimport Mapping
from raftchat._log_record cimport Record, Salt

cdef enum:
    SPARSE = 32                         # every so many records, an offset is kept


# An open file, for as long as somebody syncs it.
cdef class Descriptor:
    cdef int fd


cdef class Segment:
    cdef readonly str path
    cdef readonly uint64_t segment_id
    cdef readonly uint32_t sequence
    cdef readonly uint32_t prev_sequence
    cdef readonly uint64_t base_index
    cdef readonly uint64_t prev_term
    cdef readonly uint64_t prev_time_ms
    cdef readonly uint32_t revision     # 0: as it was written, without gaps
    cdef readonly uint64_t last_index   # of a compacted segment: it stands for all entries up to here ...
    cdef readonly uint64_t last_term
    cdef readonly uint64_t last_time_ms
    cdef readonly uint64_t records      # ... and holds so many
    cdef size_t start                   # where the first record lies
    cdef readonly size_t size           # of the file, in bytes
    cdef bint short                     # it was larger once
    cdef Descriptor file                # None: never to be written again
    cdef bint reserved                  # all blocks of the file are known to be set aside
    cdef object view                    # read-only memoryview of the mapping; slices of it keep the mapping alive
    cdef Mapping mapping                # holds `data`
    cdef char *data
    cdef Salt salt                      # for checking
    # Positions are numbers of records: in a segment without gaps, index - base_index.
    cdef uint64_t walked                # the first entry whose offset is not known ...
    cdef size_t end                     # ... and that offset; 0: not known, since the steps were lent
    cdef uint32_t *sparse               # offsets / 8 of every 32nd record below `walked`
    cdef size_t sparse_room             # records (not offsets) that fit
    cdef bint lent                      # `sparse` is not the segment's own ...
    cdef object lender                  # ... but of this
    cdef uint64_t near_index            # the last one that was looked up ...
    cdef size_t near_offset             # ... and where it lies

    cdef int map_file(self, bint writable) except -1
    cdef int make_room(self, uint64_t count) except -1
    cdef int lend_steps(self, object lender, const uint32_t *steps, size_t count, uint64_t last_index) except -1
    cdef void note(self, uint64_t position, size_t offset) noexcept nogil
    cdef size_t step(self, size_t offset, uint64_t index) noexcept nogil
    cdef size_t step_above(self, size_t offset, uint64_t index) noexcept nogil
    cdef int walk(self, uint64_t last_index) except -1
    cdef bint try_walk(self, uint64_t last_index) except -1
    cdef bint _walk_compacted(self) except -1
    cdef int _find_end(self) except -1
    cdef size_t seek(self, uint64_t index) except 0
    cdef size_t _seek_compacted(self, uint64_t index) except 0
    cdef size_t offset_of(self, uint64_t index) except 0
    cdef const Record *record(self, uint64_t index) except NULL
    cdef const Record *record_at(self, size_t offset, uint64_t index) except NULL
    cdef int find_kind(self, int kind, uint64_t first_index, uint64_t last_index, list found) except -1
    cdef object first_fault(self, uint64_t last_index)
    cdef size_t next_valid(self, size_t offset, uint64_t index, uint64_t last_index) noexcept nogil
    cdef tuple recover(self, uint64_t durable_hint)
    cdef bint _was_durable(self, size_t offset, uint64_t index) noexcept


cdef Segment open_segment(str directory, object sequence, object base_index, bint writable, object revision=*)
cdef Segment open_file(str path, bint writable)
cdef Segment make_segment(str path, Descriptor file, object header)
cdef Descriptor hold(int fd)

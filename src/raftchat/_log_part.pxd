"""Segments as a reader knows them."""

from libc.stdint cimport int64_t, uint64_t

from raftchat._log_index cimport Index
from raftchat._log_postings cimport Notes, Postings, Posts
from raftchat._log_record cimport Record
from raftchat._log_segment cimport Segment


cdef class Part:
    cdef readonly uint64_t sequence
    cdef readonly uint64_t base_index
    cdef readonly uint64_t revision
    cdef readonly bint bad_index        # one that we were told of cannot be believed
    cdef uint64_t last_index            # the last entry that may lie here
    cdef str path
    cdef Segment segment                # None: it was unlinked before we came
    cdef Index index                    # None: there is none that can be used
    cdef bint lent                      # the segment uses its table of steps
    cdef Notes notes                    # None: nothing was noted yet

    cdef Segment file(self)
    cdef int64_t prev_sequence(self) noexcept
    cdef bint use_index(self) except -1
    cdef int distrust(self) except -1
    cdef Postings postings(self, uint64_t last_index)
    cdef bint look_up(self, const char *key, size_t key_size, uint64_t last_index, Posts *posts) except -1
    cdef uint64_t above_base(self, uint64_t index) noexcept


cdef class Parts:
    cdef list known                     # of Part, in order
    cdef Part near                      # where the last record was looked up

    cdef int add(self, str directory, sequence, uint64_t base_index, revision) except -1
    cdef int drop_prefix(self, uint64_t first_index) except -1
    cdef int _bound(self, Part part, Part after) except -1
    cdef Py_ssize_t at(self, uint64_t index) except -2
    cdef Part holder(self, uint64_t index)
    cdef const Record *record(self, uint64_t index) except NULL
    cdef const Record *next(self, uint64_t *index, uint64_t last_index) except? NULL


cdef Part open_part(str directory, object sequence, uint64_t base_index, object revision)

"""The segments of one log."""

from libc.stdint cimport uint64_t

from raftchat._log_segment cimport Segment


cdef class Directory:
    cdef readonly str path
    cdef readonly list live             # of Segment, in order
    cdef Segment active                 # the last of them
    cdef object failure                 # OSError after which nothing may be written any more
    cdef object syncing                 # held while something is made durable: who waits learns of a failure first
    cdef size_t segment_size_bytes      # of the next one
    cdef uint64_t sequence              # the highest in use
    cdef list dead                      # of Segment, to be unlinked
    cdef object new_segment_id

    cdef bint open(self) except -1
    cdef Segment holder(self, uint64_t index, uint64_t *last_index)
    cdef list spares(self, size_t count)
    cdef int discard(self, list spares, Py_ssize_t first) except -1
    cdef int reserve_active(self) except -1
    cdef int continue_after(
        self, uint64_t last_index, uint64_t last_term, uint64_t last_time_ms, list spares, size_t number, bint keep
    ) except -1
    cdef int unlink_dead(self) except -1
    cdef int drop_prefix(self, uint64_t first_index) except -1

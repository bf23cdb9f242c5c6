"""The segments of one log."""

from libc.stdint cimport uint64_t

from raftchat._log_segment cimport Segment
from raftchat._log_sync cimport SyncLock


cdef class Directory:
    cdef readonly str path
    cdef readonly list live             # of Segment, in order
    cdef Segment active                 # the last of them
    cdef Segment first                  # the first behind all compacted ones: there the log without gaps begins
    cdef list retired                   # of (Segment, last entry that counted there)
    cdef object failure                 # OSError after which nothing may be written any more
    cdef SyncLock syncing
    cdef size_t segment_size_bytes      # of the next one
    cdef uint64_t sequence              # the highest in use
    cdef list dead                      # of Segment, to be unlinked
    cdef object new_segment_id
    cdef object preparing               # held by the thread that makes a spare in advance
    cdef tuple prepared                 # (path, Descriptor) of it
    cdef uint64_t prepared_count
    cdef bint closed

    cdef bint open(self) except -1
    cdef int _live_is(self, list live) except -1
    cdef Segment holder(self, uint64_t index, uint64_t *last_index)
    cdef list place(self, const char *data, size_t data_size, uint64_t last_index)
    cdef list spares(self, size_t count)
    cdef int discard(self, list spares, Py_ssize_t first) except -1
    cdef int reserve_active(self) except -1
    cdef int continue_after(
        self, uint64_t last_index, uint64_t last_term, uint64_t last_time_ms, list spares, size_t number, bint keep
    ) except -1
    cdef int prepare(self) except -1
    cdef list install(self, object compacted)
    cdef int close(self) except -1
    cdef int unlink_dead(self) except -1
    cdef list drop_prefix(self, uint64_t first_index)
    cdef int unlink_retired(self, list paths) except -1


cdef list live_chain(list files)
cdef tuple chain(list files)

"""Making a log durable."""

from libc.stdint cimport uint64_t

from raftchat._log_segment cimport Descriptor

cdef extern from "<pthread.h>" nogil:
    ctypedef struct pthread_mutex_t:
        pass


cdef class SyncLock:
    cdef pthread_mutex_t mutex
    cdef int failure                    # errno of what failed under it, after which nothing may be synced; 0: nothing


cdef class SyncPoint:
    cdef readonly uint64_t last_index
    cdef readonly uint64_t generation
    cdef Descriptor file                # None: nothing to flush. Kept open even if the file was sealed or unlinked
    cdef SyncLock lock
    cdef object directory               # is told of a failure
    cdef bint done

    cdef int over(self, int failure) except -1

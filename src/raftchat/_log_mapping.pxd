"""A file in memory."""


cdef class Mapping:
    cdef char *data
    cdef size_t size                    # in bytes
    cdef bint writable


cdef Mapping map_file(int fd, size_t size, bint writable)

"""A file in memory, shared with all who map it, for as long as anything refers to it. Knows nothing of what is in it.

Unlike `mmap.mmap` it keeps no descriptor (Python's did until 3.13): hundreds of segments and indexes are mapped at once.
"""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.exc cimport PyErr_SetFromErrno
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_READ, PROT_WRITE, mmap, munmap


@cython.final
cdef class Mapping:
    """A buffer: a memoryview of it, or of a part of it, keeps it."""

    def __init__(self):
        raise TypeError("mappings come from map_file")

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.data, self.size, not self.writable, flags)

    def __dealloc__(self):
        # Whoever lets go last of a file that has no name any more frees its pages and blocks: 20 ms for 64 MiB.
        if self.data != NULL:
            with nogil:
                munmap(self.data, self.size)


cdef Mapping map_file(int fd, size_t size, bint writable):
    """The first `size` bytes of an open file, which must have them. Raises OSError."""
    cdef Mapping mapping = Mapping.__new__(Mapping)
    cdef void *data = mmap(NULL, size, PROT_READ | PROT_WRITE if writable else PROT_READ, MAP_SHARED, fd, 0)
    if data == MAP_FAILED:
        PyErr_SetFromErrno(OSError)
    mapping.data = <char *>data
    mapping.size = size
    mapping.writable = writable
    return mapping

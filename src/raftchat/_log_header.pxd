"""Names and headers of segment files."""

cdef enum:
    SEGMENT_HEADER_SIZE = 64
    COMPACTED_HEADER_SIZE = 104

cdef str segment_path(str directory, object sequence, object base_index, object revision=*)
cdef tuple parse_segment_name(str directory, str name)
cdef bytes pack_header(object header)
cdef object read_header(str path, int fd)

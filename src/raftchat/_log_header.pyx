"""Names and headers of segment files, and what may be wrong with a log (docs/log-format.md, "Segment", "Compacted segment").

Knows nothing of records, nor of the segments around one.
"""

from raftchat._log_record cimport INDEX_MAX, TIME_MAX_MS

import os
import re
import struct
from collections import namedtuple

from xxhash import xxh3_64_intdigest

SEGMENT_HEADER_BYTES = SEGMENT_HEADER_SIZE
COMPACTED_HEADER_BYTES = COMPACTED_HEADER_SIZE

cdef bytes MAGIC = b"rc-log\n"
cdef int VERSION = 1
cdef int VERSION_COMPACTED = 2

_DENSE = struct.Struct("<B7sQIIQQQQ")
_COMPACTED = struct.Struct("<B7sQIIQQQQQQQIIQ")
_CHECKSUM = struct.Struct("<Q")
_NAME = re.compile(r"(\d{8,10})-(\d{20})(?:-(\d{4,10}))?\.log")

# A segment as others are told of it.
Segment = namedtuple(
    "Segment", "sequence base_index segment_id path revision last_index size_bytes", module="raftchat._log"
)
Header = namedtuple(
    "Header",
    "segment_id sequence prev_sequence base_index prev_term prev_time_ms size_bytes "
    "last_index last_term last_time_ms revision records",
    defaults=(0, 0, 0, 0, 0),           # what only a compacted segment's header tells
)


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


cdef str segment_path(str directory, object sequence, object base_index, object revision=0):
    suffix = f"-{revision:04}" if revision else ""
    return f"{directory}/{sequence:08}-{base_index:020}{suffix}.log"


cdef tuple parse_segment_name(str directory, str name):
    """(sequence, base index, revision). Raises ForeignFile."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ForeignFile(f"{directory}/{name}", None, "not the name of a segment")
    return int(match[1]), int(match[2]), int(match[3] or 0)


cdef bytes pack_header(object header):
    if header.revision:
        packed = _COMPACTED.pack(VERSION_COMPACTED, MAGIC, *header[:-1], 0, header.records)
    else:
        packed = _DENSE.pack(VERSION, MAGIC, *header[:7])
    return packed + _CHECKSUM.pack(xxh3_64_intdigest(packed))


cdef object read_header(str path, int fd):
    """The header of a segment. Raises OSError, CorruptLog, ForeignFile, NewerFormat."""
    raw = os.pread(fd, COMPACTED_HEADER_SIZE, 0)
    if len(raw) < SEGMENT_HEADER_SIZE:
        raise CorruptLog(path, 0, "the file is shorter than a segment header")
    if not any(raw[:SEGMENT_HEADER_SIZE]):
        raise CorruptLog(path, 0, "the segment header is zero")
    if raw[1:8] != MAGIC:
        raise ForeignFile(path, 0, "not a segment of raft-chat")
    version = raw[0]
    if version > VERSION_COMPACTED:
        raise NewerFormat(path, 0, f"format version {version}, this program knows {VERSION_COMPACTED}")
    layout = _COMPACTED if version == VERSION_COMPACTED else _DENSE
    if len(raw) < layout.size + 8:
        raise CorruptLog(path, 0, "the file is shorter than a segment header")
    if version == 0 or _CHECKSUM.unpack_from(raw, layout.size)[0] != xxh3_64_intdigest(raw[: layout.size]):
        raise CorruptLog(path, 0, "the checksum of the segment header does not match")
    fields = layout.unpack_from(raw)[2:]
    header = Header(*fields) if version == VERSION else Header(*fields[:-2], fields[-1])
    if header.segment_id == 0 or header.sequence <= header.prev_sequence or not 1 <= header.base_index <= INDEX_MAX:
        raise CorruptLog(path, 0, "the segment header makes no sense")
    size = os.fstat(fd).st_size
    if version == VERSION_COMPACTED:
        if not (
            header.revision >= 1
            and fields[-2] == 0
            and header.base_index <= header.last_index <= INDEX_MAX
            and header.prev_term <= header.last_term <= INDEX_MAX
            and header.prev_time_ms <= header.last_time_ms <= TIME_MAX_MS
            and header.records <= header.last_index - header.base_index + 1
        ):
            raise CorruptLog(path, 0, "the segment header makes no sense")
        if header.size_bytes != size or size % 8:
            raise CorruptLog(path, None, f"the file has {size} bytes, its header says {header.size_bytes}")
    elif header.size_bytes < size or header.size_bytes % 8:
        raise CorruptLog(path, None, f"the file has {size} bytes, its header says {header.size_bytes}")
    return header

"""Names and headers of segment files, and what may be wrong with a log (docs/log-format.md, "Segment" and the next).

Knows nothing of records, nor of the segments around one.
"""

from __future__ import annotations

import re
import struct
from typing import Final, NamedTuple

from xxhash import xxh3_64_intdigest

from raftchat.log_disk import File
from raftchat.log_records import INDEX_MAX, TIME_MAX_MS

SEGMENT_HEADER_BYTES: Final = 64
COMPACTED_HEADER_BYTES: Final = 104
SEGMENT_MAGIC: Final = b"rc-log\n"
VERSION: Final = 1
VERSION_COMPACTED: Final = 2

_DENSE = struct.Struct("<B7sQIIQQQQ")
_COMPACTED = struct.Struct("<B7sQIIQQQQQQQIIQ")
_CHECKSUM = struct.Struct("<Q")
_NAME = re.compile(r"(\d{8,10})-(\d{20})(?:-(\d{4,10}))?\.log")


class LogError(Exception):
    """What is wrong with a log, and where: `path`, `offset` (bytes, None if the whole file) and `reason`."""

    def __init__(self, path: str, offset: int | None, reason: str) -> None:
        self.path = path
        self.offset = offset
        self.reason = reason
        super().__init__(path, offset, reason)

    def __str__(self) -> str:
        where = "" if self.offset is None else f", byte {self.offset}"
        return f"{self.path}{where}: {self.reason}"


class CorruptLog(LogError):
    pass


class ForeignFile(LogError):
    pass


class NewerFormat(LogError):
    pass


class SegmentName(NamedTuple):
    sequence: int
    base_index: int
    revision: int
    """0: as it was written; above: compacted."""


class SegmentHeader(NamedTuple):
    segment_id: int
    sequence: int
    prev_sequence: int
    """Of the segment that holds entry base_index - 1; 0: the log starts here."""
    base_index: int
    prev_term: int
    prev_time_ms: int
    size_bytes: int
    # What only a compacted segment's header tells.
    last_index: int = 0
    last_term: int = 0
    last_time_ms: int = 0
    revision: int = 0
    records: int = 0

    @property
    def name(self) -> SegmentName:
        return SegmentName(self.sequence, self.base_index, self.revision)

    def pack(self) -> bytes:
        if self.revision:
            packed = _COMPACTED.pack(VERSION_COMPACTED, SEGMENT_MAGIC, *self[:-1], 0, self.records)
        else:
            packed = _DENSE.pack(VERSION, SEGMENT_MAGIC, *self[:7])
        return packed + _CHECKSUM.pack(xxh3_64_intdigest(packed))


def segment_path(directory: str, sequence: int, base_index: int, revision: int = 0) -> str:
    suffix = f"-{revision:04}" if revision else ""
    return f"{directory}/{sequence:08}-{base_index:020}{suffix}.log"


def index_path(segment: str) -> str:
    """Of the segment's index."""
    return segment.removesuffix(".log") + ".idx"


def parse_segment_name(directory: str, name: str) -> SegmentName:
    """Raises ForeignFile."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise ForeignFile(f"{directory}/{name}", None, "not the name of a segment")
    return SegmentName(int(match[1]), int(match[2]), int(match[3] or 0))


def read_header(path: str, file: File) -> SegmentHeader:
    """Raises OSError, CorruptLog, ForeignFile, NewerFormat."""
    raw = file.read(0, COMPACTED_HEADER_BYTES)
    if len(raw) < SEGMENT_HEADER_BYTES:
        raise CorruptLog(path, 0, "the file is shorter than a segment header")
    if not any(raw[:SEGMENT_HEADER_BYTES]):
        raise CorruptLog(path, 0, "the segment header is zero")
    if raw[1:8] != SEGMENT_MAGIC:
        raise ForeignFile(path, 0, "not a segment of raft-chat")
    version = raw[0]
    if version > VERSION_COMPACTED:
        raise NewerFormat(path, 0, f"format version {version}, this program knows {VERSION_COMPACTED}")
    layout = _COMPACTED if version == VERSION_COMPACTED else _DENSE
    if len(raw) < layout.size + _CHECKSUM.size:
        raise CorruptLog(path, 0, "the file is shorter than a segment header")
    if version == 0 or _CHECKSUM.unpack_from(raw, layout.size)[0] != xxh3_64_intdigest(raw[: layout.size]):
        raise CorruptLog(path, 0, "the checksum of the segment header does not match")
    fields = layout.unpack_from(raw)[2:]
    zero, records = fields[-2:] if version == VERSION_COMPACTED else (0, 0)
    header = SegmentHeader(*fields[: 7 if version == VERSION else 11])._replace(records=records)
    if header.segment_id == 0 or header.sequence <= header.prev_sequence or not 1 <= header.base_index <= INDEX_MAX:
        raise CorruptLog(path, 0, "the segment header makes no sense")
    size = file.size
    if version == VERSION_COMPACTED:
        if not _makes_sense(header, zero):
            raise CorruptLog(path, 0, "the segment header makes no sense")
        if header.size_bytes != size or size % 8:
            raise CorruptLog(path, None, f"the file has {size} bytes, its header says {header.size_bytes}")
    elif header.size_bytes < size or header.size_bytes % 8:
        raise CorruptLog(path, None, f"the file has {size} bytes, its header says {header.size_bytes}")
    return header


def _makes_sense(header: SegmentHeader, zero: int) -> bool:
    """Whether a compacted segment's header can be one."""
    return (
        header.revision >= 1
        and zero == 0
        and header.base_index <= header.last_index <= INDEX_MAX
        and header.prev_term <= header.last_term <= INDEX_MAX
        and header.prev_time_ms <= header.last_time_ms <= TIME_MAX_MS
        and header.records <= header.last_index - header.base_index + 1
    )

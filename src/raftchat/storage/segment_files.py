"""The files of a log as they lie there, read without owning or changing anything: names, headers, and which count.

For `verify`, `backup` and `restore`, of a directory that is stopped, running, or a copy of either (docs/log-format.md).
Does not read records (`segment_records.py`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from struct import Struct

import xxhash

from raftchat._log import CorruptLog, ForeignFile, NewerFormat
from raftchat._log_check import Place

INDEX_MAX = 2**63 - 1
_PLAIN = Struct("<B7sQIIQQQQ")
_COMPACTED = Struct("<B7sQIIQQQQQQQIIQ")
_CHECKSUM = Struct("<Q")
_NAME = re.compile(r"(\d{8,10})-(\d{20})(?:-(\d{4,10}))?\.log")


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A segment's name and header, both believed."""

    path: str
    sequence: int
    prev_sequence: int
    base_index: int
    prev_term: int
    prev_time_ms: int
    segment_id: int
    size_bytes: int
    """As the header says; a copy that broke off is shorter."""
    revision: int
    """0: as it was written; above: compacted."""
    last_index: int
    """Of a compacted segment: it stands for all entries up to here, as `last_term` and `last_time_ms` tell. Else 0."""
    last_term: int
    last_time_ms: int
    records: int
    """Of a compacted segment, how many it holds. Else 0."""

    @property
    def name(self) -> str:
        return os.path.basename(self.path)

    @property
    def start(self) -> Place:
        """Before the first record."""
        offset = (_COMPACTED if self.revision else _PLAIN).size + _CHECKSUM.size
        return Place(offset, self.base_index, self.prev_term, self.prev_time_ms, 0)


def is_segment(name: str) -> bool:
    """Whether a file of the log directory is meant to be a segment."""
    return name.endswith(".log")


def sequence_of(name: str) -> int | None:
    """What a segment's name says; None: it is not the name of one."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def path_of(log_directory: str, sequence: int, base_index: int, revision: int = 0) -> str:
    suffix = f"-{revision:04}" if revision else ""
    return os.path.join(log_directory, f"{sequence:08}-{base_index:020}{suffix}.log")


def pack_header(
    *,
    segment_id: int,
    sequence: int,
    prev_sequence: int,
    base_index: int,
    prev_term: int,
    prev_time_ms: int,
    size_bytes: int,
) -> bytes:
    """Of a segment that is not compacted."""
    fields = (segment_id, sequence, prev_sequence, base_index, prev_term, prev_time_ms, size_bytes)
    packed = _PLAIN.pack(1, b"rc-log\n", *fields)
    return packed + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(packed))


def read_header(path: str) -> SegmentFile:
    """Raises CorruptLog, ForeignFile, NewerFormat, OSError."""
    match = _NAME.fullmatch(os.path.basename(path))
    if match is None:
        raise ForeignFile(path, None, "not the name of a segment")
    with open(path, "rb") as file:
        raw = file.read(_COMPACTED.size + _CHECKSUM.size)
        size = os.fstat(file.fileno()).st_size
    if len(raw) < _PLAIN.size + _CHECKSUM.size:
        raise CorruptLog(path, 0, "the file is shorter than a segment header")
    if not any(raw[: _PLAIN.size]):
        raise CorruptLog(path, 0, "the segment header is zero")
    if raw[1:8] != b"rc-log\n":
        raise ForeignFile(path, 0, "not a segment of raft-chat")
    version = raw[0]
    layout = _COMPACTED if version == 2 else _PLAIN
    sums = len(raw) >= layout.size + _CHECKSUM.size and (
        _CHECKSUM.unpack_from(raw, layout.size)[0] == xxhash.xxh3_64_intdigest(raw[: layout.size])
    )
    if version > 2:
        raise NewerFormat(path, 0, f"format version {version}, this program knows 2")
    if not version or not sums:
        raise CorruptLog(path, 0, "the checksum of the segment header does not match")
    _, _, segment_id, sequence, prev_sequence, base_index, prev_term, prev_time_ms, size_bytes, *more = (
        layout.unpack_from(raw)
    )
    last_index, last_term, last_time_ms, revision, zero, records = more or (0, 0, 0, 0, 0, 0)
    if (sequence, base_index, revision) != (int(match[1]), int(match[2]), int(match[3] or 0)):
        raise CorruptLog(path, 0, "the file name disagrees with the segment header")
    sane = segment_id and prev_sequence < sequence and 1 <= base_index <= INDEX_MAX and size_bytes % 8 == 0 and not zero
    if not sane or (version == 2 and not base_index <= last_index <= INDEX_MAX):
        raise CorruptLog(path, 0, "the segment header makes no sense")
    if size_bytes < size or (version == 2 and size_bytes != size):
        raise CorruptLog(path, None, f"the file has {size} bytes, its header says {size_bytes}")
    return SegmentFile(
        path, sequence, prev_sequence, base_index, prev_term, prev_time_ms, segment_id, size_bytes, revision,
        last_index, last_term, last_time_ms, records,
    )  # fmt: skip


def chain(files: Sequence[SegmentFile]) -> tuple[list[SegmentFile], list[SegmentFile]]:
    """Which segments count, oldest first, and which do not, as "Opening", step 2, tells.

    Raises CorruptLog for a segment of which it cannot be told, as another one is missing.
    """
    counts: dict[int, SegmentFile] = {}
    for file in sorted(files, key=lambda file: (file.sequence, file.revision)):
        if counts.get(file.sequence, file).revision == file.revision and file.sequence in counts:
            raise CorruptLog(file.path, None, "another segment has the same sequence")
        counts[file.sequence] = file
    if not counts:
        return [], []
    live = [counts[max(counts)]]
    while (previous := counts.get(live[-1].prev_sequence)) is not None:
        if previous.base_index >= live[-1].base_index:
            raise CorruptLog(live[-1].path, 0, "its base index is not above that of the segment before it")
        live.append(previous)
    live.reverse()
    others = [file for file in files if file not in live]
    for file in others:
        overridden = any(
            (file.sequence, file.revision) < (later.sequence, later.revision) and later.base_index <= file.base_index
            for later in live
        )
        if not overridden and not (live[0].prev_sequence == 0 and file.sequence < live[0].sequence):
            raise CorruptLog(file.path, None, "a segment is missing between this one and the next")
    return live, others

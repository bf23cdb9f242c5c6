"""Compaction in plain Python: what lives of adjacent sealed segments, in one file (docs/log-format.md).

Works beside the owner of the log: it opens what it reads itself. Does not know which segments are worth it, nor puts
the new file in their place (`Log.install`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from raftchat.log_disk import Disk, OsDisk
from raftchat.log_header import COMPACTED_HEADER_BYTES, CorruptLog, SegmentHeader
from raftchat.log_records import KIND_POST, BadRecord, entry_at, move
from raftchat.log_segment import SegmentFile

SPAN_MAX_ENTRIES = 2**32
"""Postings count from the first index in 32 bits."""


class Segment(NamedTuple):
    sequence: int
    base_index: int
    segment_id: int
    path: str
    revision: int
    """0: as it was written; above: compacted."""
    last_index: int
    """Last entry that counts there. Of the active segment: the log's."""
    size_bytes: int
    """Of the file."""


class Compacted(NamedTuple):
    """A compacted segment that is complete and durable under a temporary name."""

    path: str
    sequence: int
    base_index: int
    revision: int
    last_index: int
    segment_id: int
    records: int
    size_bytes: int


def require_id(segment_id: int) -> None:
    if not 0 < segment_id < 2**64:
        raise ValueError(f"segment id is {segment_id}, must be 1 to 2**64 - 1")


def compact(
    directory: str,
    segments: Sequence[Segment],
    floors: Mapping[bytes, int],
    *,
    new_segment_id: Callable[[], int],
    on_progress: Callable[[int, int], None] | None = None,
    disk: Disk | None = None,
) -> Compacted:
    """Write what lives of adjacent sealed segments, in order, to one `.tmp` file; flushed.

    A post lives if `floors` has its key and its index is not below that floor; nothing else does.
    `on_progress(bytes done, bytes in all)` is called now and then and may sleep or raise. Raises CorruptLog where a
    record is bad, OSError, ValueError for 2**32 entries and more; then nothing is left behind.
    """
    disk = disk if disk is not None else OsDisk()
    sources = _open_sources(disk, list(segments))
    segment_id = new_segment_id()
    require_id(segment_id)
    # All that came before this file is durable.
    synced = segments[0].base_index - 1
    done, total = 0, sum(source.file.size for source in sources)
    records: list[bytes] = []
    term, time_ms = 0, 0
    for source, described in zip(sources, segments, strict=True):
        living, term, time_ms = _living(source, described.last_index, floors)
        records += [move(record, source.header.segment_id, segment_id, synced) for record in living]
        done += source.file.size
        if on_progress is not None:
            on_progress(done, total)
    first, last = sources[0].header, sources[-1].header
    data = b"".join(records)
    header = SegmentHeader(
        segment_id, last.sequence, first.prev_sequence, first.base_index, first.prev_term, first.prev_time_ms,
        COMPACTED_HEADER_BYTES + len(data), segments[-1].last_index, term, time_ms,
        max(source.header.revision for source in sources) + 1, len(records),
    )  # fmt: skip
    path = f"{directory}/compact-{segment_id:016x}.tmp"
    _write(disk, path, header.pack() + data)
    return Compacted(
        path, header.sequence, header.base_index, header.revision, header.last_index, segment_id, header.records,
        header.size_bytes,
    )  # fmt: skip


def _open_sources(disk: Disk, segments: list[Segment]) -> list[SegmentFile]:
    """Raises ValueError unless they are sealed ones that follow each other, CorruptLog if a file is another one."""
    sources: list[SegmentFile] = []
    for at, described in enumerate(segments):
        source = SegmentFile.open_path(disk, described.path)
        header = source.header
        its = (header.sequence, header.base_index, header.revision, header.segment_id)
        if its != (described.sequence, described.base_index, described.revision, described.segment_id) or (
            header.revision and header.last_index != described.last_index
        ):
            raise CorruptLog(described.path, 0, "it is another segment than it was")
        if at and (header.prev_sequence, header.base_index) != (
            sources[-1].header.sequence,
            segments[at - 1].last_index + 1,
        ):
            raise ValueError(f"{described.path} does not follow the one before it")
        sources.append(source)
    if not sources:
        raise ValueError("no segments")
    if segments[-1].last_index - segments[0].base_index >= SPAN_MAX_ENTRIES:
        raise ValueError(f"a compacted segment cannot stand for {SPAN_MAX_ENTRIES} entries and more")
    return sources


def _living(source: SegmentFile, last_index: int, floors: Mapping[bytes, int]) -> tuple[list[bytes], int, int]:
    """The records of a segment that live, of those up to an entry; term and time of that entry. Raises CorruptLog."""
    header = source.header
    data = source.file.read(0, header.size_bytes)
    offset, index, term, time_ms = source.start, source.base_index, header.prev_term, header.prev_time_ms
    living, found = [], 0
    while index <= last_index and not (header.revision and offset == len(data)):
        try:
            record = source.check(data, offset, index, last_index, term, time_ms)
        except BadRecord as error:
            raise CorruptLog(source.path, offset, str(error)) from None
        floor = floors.get(entry_at(data, offset, record).key)
        if record.kind == KIND_POST and floor is not None and record.index >= floor:
            living.append(data[offset : offset + record.size])
        index, term, time_ms = record.index + 1, record.term, record.time_ms
        offset += record.size
        found += 1
    if header.revision:
        if offset != len(data) or found != header.records:
            raise CorruptLog(source.path, None, f"it holds {found} records, its header says {header.records}")
        term, time_ms = header.last_term, header.last_time_ms
    return living, term, time_ms


def _write(disk: Disk, path: str, data: bytes) -> None:
    """A whole file, durably; on any error there is none."""
    file = disk.create(path, len(data))
    try:
        file.write(0, data)
        file.sync()
    except BaseException:
        with contextlib.suppress(OSError):
            disk.unlink(path)
        raise
    finally:
        file.close()

"""Where the posts of each room lie in one segment, in plain Python: notes in memory, and the index file made of them.

Implements docs/log-format.md, "Index of a sealed segment". Nothing in a file is believed before its checksum, and no
bound of it is followed unchecked even then. Does not know who is asked when an index is bad.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from typing import Final, Protocol

from xxhash import xxh3_64_intdigest

from raftchat.log_disk import Disk, File, OsDisk
from raftchat.log_header import CorruptLog, LogError, index_path
from raftchat.log_records import (
    HEADER_LAYOUT,
    KIND_POST,
    RECORD_HEADER_BYTES,
    BadRecord,
    Header,
    check_record,
    entry_at,
)
from raftchat.log_segment import SegmentFile

INDEX_VERSION: Final = 1
INDEX_MAGIC: Final = b"rc-idx\n"
STEP: Final = 32
"""Every so many records, an offset is kept."""

_HEADER = struct.Struct("<B7sQQQQIIQ")
_CHECKSUM = struct.Struct("<Q")
_ROOM = struct.Struct("<QQQQQIIHHI")
_TABLE_AT: Final = _HEADER.size + _CHECKSUM.size
_POSTING_BYTES: Final = 8


class Rotten(Exception):
    """An index is not what was written."""


class SegmentOnDisk(Protocol):
    """The part of `log_reference.Segment` that is needed."""

    @property
    def path(self) -> str: ...
    @property
    def segment_id(self) -> int: ...
    @property
    def last_index(self) -> int: ...


class Posts:
    """The posts of one room in one segment."""

    __slots__ = ("bytes", "first_time_ms", "last_time_ms", "postings")

    def __init__(self, first_time_ms: int) -> None:
        self.postings: list[tuple[int, int]] = []
        """(index, offset), ascending."""
        self.bytes = 0
        self.first_time_ms = first_time_ms
        self.last_time_ms = first_time_ms


class Postings(Protocol):
    def keys(self) -> list[bytes]:
        """Of all rooms."""

    def find(self, key: bytes) -> Posts | None:
        """Raises Rotten."""


def records_of(segment: SegmentFile, offset: int, index: int, last_index: int) -> Iterator[tuple[int, bytes, Header]]:
    """(offset, bytes, header) of each entry from the one at `offset` up to `last_index`, checked. Raises CorruptLog.

    The first is `index` or, where entries may be missing, a later one.
    """
    gaps = segment.header.revision != 0
    while index <= last_index and not (gaps and offset == segment.header.size_bytes):
        raw = segment.file.read(offset, RECORD_HEADER_BYTES)
        size = Header(*HEADER_LAYOUT.unpack(raw)).size if len(raw) == RECORD_HEADER_BYTES else 0
        data = segment.file.read(offset, size)
        try:
            header = check_record(data, 0, segment.header.segment_id, None if gaps else index)
            if header.index < index:
                raise BadRecord("the index is not the expected one")
        except BadRecord as error:
            raise CorruptLog(segment.path, offset, str(error)) from None
        if header.index > last_index:
            return
        yield offset, data, header
        index = header.index + 1
        offset += header.size


class Notes:
    """Notes of one segment from its beginning up to `next_index`, in memory."""

    def __init__(self, segment: SegmentFile) -> None:
        self._segment = segment
        self.next_index = segment.base_index
        self._end = segment.start
        self._records = 0
        self.rooms: dict[bytes, Posts] = {}
        self.steps: list[int] = []
        """Offset of every 32nd record."""

    def keys(self) -> list[bytes]:
        return list(self.rooms)

    def find(self, key: bytes) -> Posts | None:
        return self.rooms.get(key)

    def read(self, last_index: int) -> None:
        """Check and note everything up to that entry. Raises CorruptLog."""
        for offset, data, header in records_of(self._segment, self._end, self.next_index, last_index):
            self._add(offset, data, header)
        self.next_index = max(self.next_index, last_index + 1)

    def _add(self, offset: int, data: bytes, header: Header) -> None:
        if self._records % STEP == 0:
            self.steps.append(offset)
        self._records += 1
        self._end = offset + header.size
        self.next_index = header.index + 1
        if header.kind == KIND_POST:
            posts = self.rooms.setdefault(entry_at(data, 0, header).key, Posts(header.time_ms))
            posts.postings.append((header.index, offset))
            posts.bytes += header.size
            posts.last_time_ms = header.time_ms


class Index:
    """An index file. `find` reads and checks the postings of one room."""

    def __init__(self, file: File, segment: SegmentFile, last_index: int) -> None:
        """Raises Rotten unless header and tables are sound, and of that segment sealed at that entry."""
        self._file = file
        self._segment = segment
        self._last_index = last_index
        raw = file.read(0, _TABLE_AT)
        if len(raw) < _TABLE_AT:
            raise Rotten("the file is shorter than its header")
        version, magic, segment_id, base_index, its_last_index, size_bytes, rooms, steps, _ = _HEADER.unpack_from(raw)
        if (version, magic) != (INDEX_VERSION, INDEX_MAGIC):
            raise Rotten("not an index of this version")
        if (segment_id, base_index, its_last_index) != (segment.header.segment_id, segment.base_index, last_index):
            raise Rotten("it belongs to another segment")
        keys_at = _TABLE_AT + rooms * _ROOM.size
        if size_bytes != file.size or keys_at > size_bytes:
            raise Rotten("the file is not as long as its header says")
        table = list(_ROOM.iter_unpack(file.read(_TABLE_AT, keys_at - _TABLE_AT)))
        keys_end = table[-1][6] + table[-1][7] if table else keys_at
        steps_end = _aligned(keys_end) + 4 * steps
        if keys_end < keys_at or steps_end > size_bytes:
            raise Rotten("the tables are cut off")
        data = file.read(0, steps_end)
        (checksum,) = _CHECKSUM.unpack_from(raw, _HEADER.size)
        if xxh3_64_intdigest(data[: _HEADER.size] + data[_TABLE_AT:]) != checksum:
            raise Rotten("the checksum does not match")
        self._tables_end = _aligned(steps_end)
        self._rooms: dict[bytes, tuple[int, ...]] = {}
        for room in table:
            if not keys_at <= room[6] <= room[6] + room[7] <= keys_end:
                raise Rotten("a key is not among the keys")
            self._rooms[data[room[6] : room[6] + room[7]]] = room
        self._found: dict[bytes, Posts] = {}

    def keys(self) -> list[bytes]:
        return list(self._rooms)

    def find(self, key: bytes) -> Posts | None:
        if key not in self._rooms:
            return None
        if key not in self._found:
            self._found[key] = self._read(*self._rooms[key])
        return self._found[key]

    def _read(
        self, offset: int, checksum: int, first_time_ms: int, last_time_ms: int, size_bytes: int, count: int, *_: int
    ) -> Posts:
        if not count or offset % 8 or not self._tables_end <= offset <= self._file.size - count * _POSTING_BYTES:
            raise Rotten("postings lie outside of the file")
        data = self._file.read(offset, count * _POSTING_BYTES)
        if xxh3_64_intdigest(data) != checksum:
            raise Rotten("the checksum of the postings does not match")
        posts = Posts(first_time_ms)
        posts.last_time_ms, posts.bytes = last_time_ms, size_bytes
        posts.postings = [(self._segment.base_index + i, at * 8) for i, at in struct.iter_unpack("<II", data)]
        if any(left >= right for left, right in zip(posts.postings, posts.postings[1:], strict=False)):
            raise Rotten("the postings do not ascend")
        if posts.postings[-1][0] > self._last_index:
            raise Rotten("a post lies beyond the segment")
        return posts


def open_index(disk: Disk, segment: SegmentFile, last_index: int) -> Index:
    """The index of a segment that is sealed at that entry. Raises Rotten if it cannot be used, or is not there."""
    try:
        return Index(disk.open(index_path(segment.path), False), segment, last_index)
    except OSError as error:
        raise Rotten(str(error)) from error


def encode(notes: Notes, segment: SegmentFile, last_index: int) -> bytes:
    """The index file of a segment that was noted to its end."""
    rooms = sorted(notes.rooms.items())
    keys_at = _TABLE_AT + len(rooms) * _ROOM.size
    key_at = keys_at
    steps_at = _aligned(keys_at + sum(len(key) for key, _ in rooms))
    postings_at = _aligned(steps_at + 4 * len(notes.steps))
    table, all_postings = b"", []
    for key, posts in rooms:
        postings = b"".join(
            struct.pack("<II", index - segment.base_index, offset // 8) for index, offset in posts.postings
        )
        table += _ROOM.pack(
            postings_at, xxh3_64_intdigest(postings), posts.first_time_ms, posts.last_time_ms, posts.bytes,
            len(posts.postings), key_at, len(key), 0, 0,
        )  # fmt: skip
        all_postings.append(postings)
        key_at += len(key)
        postings_at += len(postings)
    keys = b"".join(key for key, _ in rooms)
    steps = struct.pack(f"<{len(notes.steps)}I", *(offset // 8 for offset in notes.steps))
    tables = table + keys + bytes(-len(keys) % 8) + steps
    posts_bytes = sum(posts.bytes for _, posts in rooms)
    header = _HEADER.pack(
        INDEX_VERSION, INDEX_MAGIC, segment.header.segment_id, segment.base_index, last_index, postings_at, len(rooms),
        len(notes.steps), posts_bytes,
    )  # fmt: skip
    checksum = _CHECKSUM.pack(xxh3_64_intdigest(header + tables))
    return b"".join((header, checksum, tables, bytes(-len(steps) % 8), *all_postings))


def write_index(segment: SegmentOnDisk, *, disk: Disk | None = None) -> int:
    """Make the `.idx` file of a sealed segment: its size in bytes. Raises CorruptLog, OSError; then there is none."""
    disk = disk if disk is not None else OsDisk()
    file = SegmentFile.open_path(disk, segment.path)
    if file.header.segment_id != segment.segment_id:
        raise CorruptLog(segment.path, 0, "it is another segment")
    notes = Notes(file)
    notes.read(segment.last_index)
    data = encode(notes, file, segment.last_index)
    path = index_path(segment.path)
    temporary = f"{path}.tmp"
    written = disk.create(temporary, len(data))
    try:
        written.write(0, data)
        disk.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            disk.unlink(temporary)
        raise
    finally:
        written.close()
    return len(data)


def has_index(segment: SegmentOnDisk, *, disk: Disk | None = None) -> bool:
    """Whether its `.idx` is there, whole and of this version, postings not looked at."""
    disk = disk if disk is not None else OsDisk()
    try:
        open_index(disk, SegmentFile.open_path(disk, segment.path), segment.last_index)
    except (OSError, LogError, Rotten):
        return False
    return True


def _aligned(size: int) -> int:
    return size + -size % 8

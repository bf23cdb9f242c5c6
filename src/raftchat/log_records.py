"""Records of the log in plain Python, as docs/log-format.md ("Record") tells: packed, checked, taken apart, rendered.

Knows bytes only: no files, no segments beyond their id, no Raft.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final, NamedTuple

from xxhash import xxh3_64_intdigest

Buffer = bytes | bytearray | memoryview

RECORD_HEADER_BYTES: Final = 48
KIND_NOOP: Final = 1
KIND_MEMBERSHIP: Final = 2
KIND_POST: Final = 16
KIND_TRIM: Final = 17
KIND_REMOVE_ROOM: Final = 18
KIND_RETENTION: Final = 19
KIND_COMMAND_MIN: Final = 16

INDEX_MAX: Final = 2**63 - 1
"""Of indexes and terms: there is always a next one."""
TIME_MAX_MS: Final = 253_402_300_799_999
"""9999-12-31T23:59:59.999Z, the last that RFC 3339 can write."""

HEADER_LAYOUT: Final = struct.Struct("<QQIBBHQQQ")
_SALT = struct.Struct("<QQ")
_ZEROS: Final = bytes(8)


class BadBatch(ValueError):
    """Records from outside (a peer, a worker) that are not what they claim to be."""


class BadRecord(ValueError):
    """Why bytes at one place are not the record expected there."""


class Entry(NamedTuple):
    index: int  # type: ignore[assignment]  # hides tuple.index
    term: int
    time_ms: int
    kind: int
    key: bytes
    meta: bytes
    value: bytes


class Header(NamedTuple):
    checksum: int
    synced: int
    body_size: int
    kind: int
    meta_size: int
    key_size: int
    index: int  # type: ignore[assignment]
    term: int
    time_ms: int

    @property
    def size(self) -> int:
        """Of the whole record, padding included."""
        return RECORD_HEADER_BYTES + self.body_size + (-self.body_size & 7)


class Batch:
    """Consecutive entries of one term from one segment; a membership entry is always alone in its batch."""

    __slots__ = ("data", "first_index", "last_index", "membership", "segment_id", "term")

    def __init__(
        self, first_index: int, last_index: int, term: int, segment_id: int, data: memoryview, membership: bytes | None
    ) -> None:
        self.first_index = first_index
        self.last_index = last_index
        self.term = term
        self.segment_id = segment_id
        self.data = data
        self.membership = membership

    def __repr__(self) -> str:
        return f"Batch({self.first_index}..{self.last_index}, term {self.term}, {len(self.data)} bytes)"


def salt(segment_id: int, synced: int) -> int:
    """What the hash is XORed with: the record's segment, and what was durable when it was written."""
    return xxh3_64_intdigest(_SALT.pack(segment_id, synced))


def pack(kind: int, key: Buffer, value: Buffer, meta: Buffer = b"") -> bytes:
    """One unstamped record. Raises ValueError for kind 0, key over 64 KiB - 1 or meta over 255 bytes."""
    if not 1 <= kind <= 255:
        raise ValueError(f"kind is {kind}, must be 1 to 255")
    if len(key) > 0xFFFF:
        raise ValueError(f"key has {len(key)} bytes, at most 65535")
    if len(meta) > 0xFF:
        raise ValueError(f"meta has {len(meta)} bytes, at most 255")
    body_size = len(key) + len(meta) + len(value)
    if body_size > 0xFFFFFFFF:
        raise ValueError("body has 4 GiB or more")
    return b"".join(
        (
            HEADER_LAYOUT.pack(0, 0, body_size, kind, len(meta), len(key), 0, 0, 0),
            key,
            meta,
            value,
            bytes(-body_size & 7),
        )
    )


def stamp(record: Buffer, segment_id: int, synced: int, index: int, term: int, time_ms: int) -> bytes:
    """The record as it lies in a segment: stamped by the leader, checksummed."""
    _, _, body_size, kind, meta_size, key_size, _, _, _ = HEADER_LAYOUT.unpack_from(record)
    header = HEADER_LAYOUT.pack(0, synced, body_size, kind, meta_size, key_size, index, term, time_ms)
    hashed = b"".join((header[16:], record[RECORD_HEADER_BYTES : RECORD_HEADER_BYTES + body_size]))
    checksum = xxh3_64_intdigest(hashed) ^ salt(segment_id, synced)
    return b"".join((_SALT.pack(checksum, synced), hashed, bytes(-body_size & 7)))


def move(record: Buffer, sender_id: int, segment_id: int, synced: int) -> bytes:
    """The record as it lies in another segment. Nothing is hashed but the salts."""
    checksum, sender_synced = _SALT.unpack_from(record)
    checksum ^= salt(sender_id, sender_synced) ^ salt(segment_id, synced)
    return b"".join((_SALT.pack(checksum, synced), record[16:]))


def read_header(data: Buffer, offset: int) -> Header:
    """The header at `offset` if its sizes fit into `data`. Raises BadRecord. No checksum is looked at."""
    if offset + RECORD_HEADER_BYTES > len(data):
        raise BadRecord("the header is cut off")
    header = Header(*HEADER_LAYOUT.unpack_from(data, offset))
    if header.kind == 0:
        raise BadRecord("kind is 0")
    if header.size > len(data) - offset:
        raise BadRecord("the body is cut off")
    if header.key_size + header.meta_size > header.body_size:
        raise BadRecord("key and meta are larger than the body")
    end = offset + RECORD_HEADER_BYTES + header.body_size
    if data[end : offset + header.size] != _ZEROS[: -header.body_size & 7]:
        raise BadRecord("the padding is not zero")
    return header


def check_record(
    data: Buffer, offset: int, segment_id: int, index: int | None, term_min: int = 0, time_min_ms: int = 0
) -> Header:
    """The header of the valid record at `offset`. `index` None: any. Raises BadRecord."""
    header = read_header(data, offset)
    hashed = xxh3_64_intdigest(data[offset + 16 : offset + RECORD_HEADER_BYTES + header.body_size])
    if hashed ^ salt(segment_id, header.synced) != header.checksum:
        raise BadRecord("the checksum does not match")
    if not 1 <= header.index <= INDEX_MAX or (index is not None and header.index != index):
        raise BadRecord("the index is not the expected one")
    if header.synced >= header.index:
        raise BadRecord("it was durable before it was written")
    if not max(term_min, 1) <= header.term <= INDEX_MAX:
        raise BadRecord("the term goes back")
    if not time_min_ms <= header.time_ms <= TIME_MAX_MS:
        raise BadRecord("the time goes back or is out of range")
    return header


def entry_at(data: Buffer, offset: int, header: Header) -> Entry:
    """Take apart a record that was checked."""
    key = offset + RECORD_HEADER_BYTES
    meta = key + header.key_size
    value = meta + header.meta_size
    return Entry(
        header.index,
        header.term,
        header.time_ms,
        header.kind,
        bytes(data[key:meta]),
        bytes(data[meta:value]),
        bytes(data[value : offset + RECORD_HEADER_BYTES + header.body_size]),
    )


def split(data: Buffer) -> Iterator[tuple[int, Header]]:
    """(offset, header) of each record in `data`, which must be whole records. Raises BadBatch."""
    offset = 0
    while offset < len(data):
        try:
            header = read_header(data, offset)
        except BadRecord as error:
            raise BadBatch(f"record at byte {offset}: {error}") from None
        yield offset, header
        offset += header.size


def parse_batch(data: Buffer, segment_id: int, first_index: int) -> Batch:
    """Check records that a peer sent. Raises BadBatch unless whole, in order, of one term, and every checksum right."""
    data = as_bytes_view(data)
    if not data:
        raise BadBatch("no records")
    offset, index, term, time_ms, membership = 0, first_index, 0, 0, None
    while offset < len(data):
        try:
            header = check_record(data, offset, segment_id, index, term, time_ms)
            if term and header.term != term:
                raise BadRecord("the term changes")
            if header.kind == KIND_MEMBERSHIP:
                if header.size != len(data):
                    raise BadRecord("a membership entry is not alone")
                membership = entry_at(data, offset, header).value
        except BadRecord as error:
            raise BadBatch(f"record at byte {offset}: {error}") from None
        term, time_ms = header.term, header.time_ms
        offset += header.size
        index += 1
    return Batch(first_index, index - 1, term, segment_id, data, membership)


def check_unstamped(data: Buffer, record_size_max_bytes: int) -> int:
    """How many unstamped records `data` is made of. Raises BadBatch unless whole, of kind ≥ 16 and within the size."""
    count = 0
    for offset, header in split(as_bytes_view(data)):
        if header.checksum or header.synced or header.index or header.term or header.time_ms:
            raise BadBatch(f"record at byte {offset}: it is stamped")
        if header.kind < KIND_COMMAND_MIN:
            raise BadBatch(f"record at byte {offset}: its kind is not a command")
        if RECORD_HEADER_BYTES + header.body_size > record_size_max_bytes:
            raise BadBatch(f"record at byte {offset}: it is larger than allowed")
        count += 1
    return count


def as_bytes_view(data: Buffer) -> memoryview:
    """A read-only view of single bytes."""
    view = memoryview(data).toreadonly()
    return view if view.format == "B" and view.ndim == 1 and view.contiguous else view.cast("B")


def render_time(time_ms: int) -> bytes:
    """RFC 3339, UTC, milliseconds."""
    seconds, milliseconds = divmod(time_ms, 1000)
    return b"%s.%03dZ" % (datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode(), milliseconds)


def render_post(entry: Entry) -> bytes:
    """The JSON object a post is served as. Raises ValueError if the entry is not a post."""
    if entry.kind != KIND_POST:
        raise ValueError(f"entry {entry.index} is of kind {entry.kind}, not a post")
    members = b"," + entry.value if entry.value else b""
    return b'{"ID":%d,"PostedAt":"%s"%s}' % (entry.index, render_time(entry.time_ms), members)

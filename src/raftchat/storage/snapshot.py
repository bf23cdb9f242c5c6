"""Snapshots: the chat's state after one entry, and which files of the log it stands on (dissertation, chapter 5).

`<data dir>/snapshots/<index, 20 digits>-<term>.snapshot`; all integers are little-endian and unsigned:

```
offset  size  field
     0     1  version        1
     1     7  magic          "rc-snap"
     8     8  size_bytes     of the whole file, exactly
    16    16  checksum       XXH3-128 of all other bytes, these 16 left out (at this place in every version)
    32     8  index          of the last entry that the state is made of
    40     8  term           of that entry
    48     8  time_ms        log time of that entry
    56     8  epoch          which life of the cluster (identity.py)
    64     8  state size
    72     4  membership size
    76     4  segments       number of files of the log that it stands on
    80     4  cluster id size
    84     4  zero
    88     …  segments, the oldest first, each of six times 8 bytes:
              sequence | base_index | revision | last_index | segment_id | size_bytes
     …     …  cluster id, ASCII
     …     …  membership, as in the log's entries of kind 2
     …     …  state, as `chat.state` writes it
```

Wrong magic, or a name that says another index or term: *foreign*. Right magic and checksum, version above 1: *newer*.
Anything else that does not fit: *corrupt*. A snapshot is never changed. It is written under another name, flushed, read
back from the disk and compared before it gets its own, so a name is the proof that its bytes were whole.

Knows files. Does not know what a state holds, nor when a snapshot is due.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from struct import Struct

import xxhash

from raftchat.storage.errors import CorruptFile, ForeignFile, NewerFormat
from raftchat.storage.files import sync_directory, write_durably

VERSION = 1
MAGIC = b"rc-snap"
SIZE_MAX_BYTES = 2**32
"""Nothing larger is read into memory; a million rooms are 0.1 GiB."""

_START = Struct("<B7sQ")
_CHECKSUM = Struct("<QQ")
_FIELDS = Struct("<QQQQQIIII")
_SEGMENT = Struct("<QQQQQQ")
_FIELDS_OFFSET = _START.size + _CHECKSUM.size
HEADER_SIZE_BYTES = _FIELDS_OFFSET + _FIELDS.size
_NAME = re.compile(r"([0-9]{20})-([0-9]{1,20})\.snapshot")
_TEMPORARY = re.compile(r"[0-9]{20}-[0-9]{1,20}\.snapshot\.tmp")


@dataclass(frozen=True, slots=True)
class SegmentName:
    """A sealed segment of the log as it was when the snapshot was taken (docs/log-format.md)."""

    sequence: int
    base_index: int
    revision: int
    last_index: int
    segment_id: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    index: int
    """The state is that after this entry."""
    term: int
    time_ms: int
    cluster_id: str
    epoch: int
    membership: bytes
    segments: tuple[SegmentName, ...]
    state: bytes


def name(index: int, term: int) -> str:
    return f"{index:020}-{term}.snapshot"


def index_of(path: str) -> int:
    """What the name of one of `paths` says."""
    return int(os.path.basename(path).partition("-")[0])


def encode(snapshot: Snapshot) -> bytes:
    cluster_id = snapshot.cluster_id.encode("ascii")
    rest = b"".join(
        (
            _FIELDS.pack(
                snapshot.index,
                snapshot.term,
                snapshot.time_ms,
                snapshot.epoch,
                len(snapshot.state),
                len(snapshot.membership),
                len(snapshot.segments),
                len(cluster_id),
                0,
            ),
            *(
                _SEGMENT.pack(s.sequence, s.base_index, s.revision, s.last_index, s.segment_id, s.size_bytes)
                for s in snapshot.segments
            ),
            cluster_id,
            snapshot.membership,
            snapshot.state,
        )
    )
    start = _START.pack(VERSION, MAGIC, _FIELDS_OFFSET + len(rest))
    return start + _checksum(start, rest) + rest


def decode(data: bytes, path: str) -> Snapshot:
    """`path`: where the bytes are from; its last part is the name. Raises CorruptFile, ForeignFile, NewerFormat."""
    named = _NAME.fullmatch(os.path.basename(path))
    if len(data) < HEADER_SIZE_BYTES:
        raise CorruptFile(path, f"has {len(data)} bytes, which is less than a header")
    version, magic, size_bytes = _START.unpack_from(data)
    if magic != MAGIC:
        raise ForeignFile(f"{path}: not a snapshot of raft-chat")
    view = memoryview(data)
    if _checksum(view[: _START.size], view[_FIELDS_OFFSET:]) != data[_START.size : _FIELDS_OFFSET]:
        raise CorruptFile(path, "checksum does not match")
    if version > VERSION:
        raise NewerFormat(path, version)
    index, term, time_ms, epoch, state_size, membership_size, segments, cluster_id_size, zero = _FIELDS.unpack_from(
        data, _FIELDS_OFFSET
    )
    segments_size = segments * _SEGMENT.size
    if (
        version != VERSION
        or size_bytes != len(data)
        or zero
        or size_bytes != HEADER_SIZE_BYTES + segments_size + cluster_id_size + membership_size + state_size
    ):
        raise CorruptFile(path, "sizes do not fit")
    if named is None or (int(named[1]), int(named[2])) != (index, term):
        raise ForeignFile(f"{path}: holds the snapshot {name(index, term)}")
    at = HEADER_SIZE_BYTES + segments_size
    cluster_id, at = data[at : at + cluster_id_size], at + cluster_id_size
    membership, at = data[at : at + membership_size], at + membership_size
    names = tuple(SegmentName(*fields) for fields in _SEGMENT.iter_unpack(view[HEADER_SIZE_BYTES:][:segments_size]))
    return Snapshot(index, term, time_ms, cluster_id.decode("ascii"), epoch, membership, names, data[at:])


def _checksum(start: bytes | memoryview, rest: bytes | memoryview) -> bytes:
    digest = xxhash.xxh3_128(start)
    digest.update(rest)
    return digest.digest()


def write(directory: str, snapshot: Snapshot) -> str:
    """Its path; durable and proven on return. Raises OSError: if the disk is full, it may be tried again."""
    path = os.path.join(directory, name(snapshot.index, snapshot.term))
    try:
        write_durably(path, encode(snapshot), read_back=True)
    except OSError:
        # What a full disk did not take must not fill it until the next start.
        with contextlib.suppress(OSError):
            os.unlink(path + ".tmp")
        raise
    return path


def load(path: str) -> Snapshot:
    """Raises CorruptFile, ForeignFile, NewerFormat, OSError."""
    with open(path, "rb", buffering=0) as file:
        size_bytes = os.fstat(file.fileno()).st_size
        if size_bytes > SIZE_MAX_BYTES:
            raise CorruptFile(path, f"has {size_bytes} bytes, more than any snapshot")
        data = file.readall()
    return decode(data, path)


def paths(directory: str) -> list[str]:
    """Of all snapshots there, the newest first. None if there is no such directory. Raises OSError."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    found = sorted(((int(m[1]), int(m[2]), m[0]) for m in map(_NAME.fullmatch, names) if m), reverse=True)
    return [os.path.join(directory, file_name) for _, _, file_name in found]


def prune(directory: str, keep: int = 2, spare: Collection[str] = ()) -> list[str]:
    """Remove all but the newest `keep` snapshots and those whose paths are in `spare`, the oldest first, and what
    writes that broke off have left: the paths removed. Durable on return. Not while one is written. Raises OSError.
    """
    old = [path for path in reversed(paths(directory)[keep:]) if path not in spare]
    left = [os.path.join(directory, n) for n in os.listdir(directory) if _TEMPORARY.fullmatch(n)]
    for path in [*left, *old]:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    if old or left:
        sync_directory(directory)
    return [*left, *old]

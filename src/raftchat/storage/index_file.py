"""Checks the index of a sealed segment, byte for byte, for `verify` (docs/log-format.md, "Index of a sealed segment").

Does not use it: that is the log's affair, which trusts none that fails its checksums.
"""

from __future__ import annotations

from struct import Struct

import xxhash

from raftchat.storage.errors import CorruptFile, StorageError

_HEADER = Struct("<B7sQQQQIIQ")
_CHECKSUM = Struct("<Q")
_ROOM = Struct("<QQQQQIIHHI")
_STEP_BYTES = 4
_POSTING_BYTES = 8
VERSION = 1


def check(data: bytes, path: str, segment_id: int) -> None:
    """Raises CorruptFile unless it is a whole index of that segment, StorageError if a newer program wrote it."""
    rooms_at = _HEADER.size + _CHECKSUM.size
    if len(data) < rooms_at:
        raise CorruptFile(path, "the file is shorter than its header")
    version, magic, its_segment_id, _, _, size_bytes, rooms, steps, _ = _HEADER.unpack_from(data)
    if magic != b"rc-idx\n":
        raise CorruptFile(path, "not an index of raft-chat")
    if size_bytes != len(data):
        raise CorruptFile(path, f"the file has {len(data)} bytes, its header says {size_bytes}")
    keys_at = rooms_at + rooms * _ROOM.size
    if keys_at > len(data):
        raise CorruptFile(path, "the room table is cut off")
    table = list(_ROOM.iter_unpack(data[rooms_at:keys_at]))
    keys_bytes = sum(room[7] for room in table)
    steps_end = keys_at + keys_bytes + (-(keys_at + keys_bytes) % 8) + steps * _STEP_BYTES
    if steps_end > len(data):
        raise CorruptFile(path, "the table of steps is cut off")
    digest = xxhash.xxh3_64()
    digest.update(data[: _HEADER.size])
    digest.update(data[rooms_at:steps_end])
    if digest.intdigest() != _CHECKSUM.unpack_from(data, _HEADER.size)[0]:
        raise CorruptFile(path, "the checksum does not match")
    if version > VERSION:
        raise StorageError(f"{path}: written by a newer version of raft-chat (format {version})")
    if its_segment_id != segment_id:
        raise CorruptFile(path, "it belongs to another segment")
    end = steps_end
    for offset, checksum, _, _, _, posts, _, _, _, _ in table:
        if any(data[end:offset]):
            raise CorruptFile(path, f"bytes {end} to {offset} must be zero")
        end = offset + posts * _POSTING_BYTES
        if end > len(data) or xxhash.xxh3_64_intdigest(data[offset:end]) != checksum:
            raise CorruptFile(path, f"the checksum of the postings at byte {offset} does not match")
    if any(data[end:]):
        raise CorruptFile(path, f"bytes {end} to {len(data)} must be zero")

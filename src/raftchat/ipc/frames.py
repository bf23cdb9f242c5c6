"""Frames between a worker and the Raft process, over a Unix stream socket made by the supervisor.

    u32 size of what follows | u8 type | body        (little-endian)

Everything that arrived in one turn of the sender's loop leaves in one write. Knows nothing of sockets, HTTP or Raft's
rules; `FrameReader` splits a byte stream, the functions below make and read bodies.

| type | from | body |
|---|---|---|
| PROPOSE   | worker | u64 batch, then unstamped records (docs/log-format.md) |
| READ      | worker | u64 context: one linearizable read, for all requests that wait |
| STATUS    | worker | u64 context |
| COUNTERS  | worker | JSON object of numbers since start, for /metrics |
| BAD_INDEX | worker | u64 sequence: the index of this segment is rotten and is to be made again |
| SERVING   | worker | nothing: it has applied what was committed and accepts connections |
| HELLO     | raft   | JSON: log directory, node id, epoch, path of the snapshot to begin from (null: none) |
| SEGMENT   | raft   | u64 sequence, u64 base index, u64 revision |
| INDEXED   | raft   | u64 sequence: the index of this sealed segment can be used |
| DROPPED   | raft   | u64 index: what ends before this entry is not kept any more |
| COMMIT    | raft   | u64 commit index |
| LEADER    | raft   | u64 node id (0: none), u64 term, u8 ready |
| ACCEPTED  | raft   | u64 batch, u64 first index, u64 term, u64 time_ms: appended, **not yet committed** |
| REFUSED   | raft   | u64 batch, u8 reason |
| READ_AT   | raft   | u64 context, u64 index (0: failed) |
| STATUS_IS | raft   | u64 context, JSON |

Every PROPOSE is answered by exactly one ACCEPTED or REFUSED, and an ACCEPTED comes before the COMMIT that covers it.
On a new connection the Raft process sends HELLO, each SEGMENT in order of sequence, INDEXED for those that have an
index, COMMIT and LEADER, and from then on what changes; a SEGMENT comes before the first COMMIT that needs it. One with
a revision above 0 is compacted: it takes the place of all those with a sequence up to its own and a base index from its
own on, and its INDEXED follows.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from struct import Struct
from typing import Any, NamedTuple, cast

import orjson

Buffer = bytes | bytearray | memoryview


class FrameType(IntEnum):
    PROPOSE = 1
    READ = 2
    STATUS = 3
    COUNTERS = 4
    SERVING = 5
    BAD_INDEX = 6
    HELLO = 16
    SEGMENT = 17
    COMMIT = 18
    LEADER = 19
    ACCEPTED = 20
    REFUSED = 21
    READ_AT = 22
    STATUS_IS = 23
    INDEXED = 24
    DROPPED = 25


class Refusal(IntEnum):
    """Why a batch of proposals was not accepted. With all but LOST, none of it happened or will happen."""

    NO_LEADER = 1
    """Nobody to propose to now; may be sent again."""
    OVERLOADED = 2
    """Too much is waiting for the quorum (or for the way to the leader); may be sent again, later."""
    DISK_FULL = 3
    """The leader cannot make room for it; may be sent again once there is."""
    LOST = 4
    """It was on its way to the leader when the connection broke: the outcome is unknown."""
    BAD = 5
    """Not unstamped records within the limits; sending it again will not help."""
    SHUTTING_DOWN = 6
    """This node is about to end; may be sent to another."""


class BadFrame(ValueError):
    """Bytes that are no frame of this protocol; the connection cannot be used any more."""


class Hello(NamedTuple):
    log_directory: str
    node_id: int
    epoch: int
    snapshot: str | None = None
    """Path of the snapshot to begin from; None: replay begins at the first entry."""


class Leader(NamedTuple):
    node_id: int
    """0: none known."""
    term: int
    ready: bool
    """A leader is known and this node has caught up with what was committed when it last heard so."""


class Accepted(NamedTuple):
    batch: int
    first_index: int
    term: int
    time_ms: int


SIZE = Struct("<I")
_HEAD = Struct("<IB")
_HEAD_U64 = Struct("<IBQ")
_HEAD_2_U64 = Struct("<IBQQ")
_HEAD_3_U64 = Struct("<IBQQQ")
_HEAD_U64_U8 = Struct("<IBQB")
_HEAD_LEADER = Struct("<IBQQB")
_HEAD_ACCEPTED = Struct("<IBQQQQ")
_U64 = Struct("<Q")
_2_U64 = Struct("<QQ")
_3_U64 = Struct("<QQQ")
_U64_U8 = Struct("<QB")
_LEADER = Struct("<QQB")
_ACCEPTED = Struct("<QQQQ")


class FrameSplitter:
    """Cuts a stream of `u32 size | size bytes` into views. A frame that came in one chunk is not copied."""

    __slots__ = ("_chunks", "_max_bytes", "_need_bytes", "_waiting_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._chunks: list[Buffer] = []
        self._waiting_bytes = 0
        self._need_bytes = SIZE.size

    def feed(self, chunk: bytes) -> list[memoryview]:
        """The frames that are whole now, without their sizes. Raises BadFrame for an empty or oversized one.

        The views keep the chunk alive: do not feed a buffer that will be written to again.
        """
        if self._waiting_bytes:
            self._chunks.append(chunk)
            self._waiting_bytes += len(chunk)
            if self._waiting_bytes < self._need_bytes:
                return []
            chunk = b"".join(self._chunks)
            self._chunks.clear()
        view = memoryview(chunk)
        end = len(view)
        offset = 0
        frames: list[memoryview] = []
        self._need_bytes = SIZE.size
        while offset + SIZE.size <= end:
            (size,) = SIZE.unpack_from(view, offset)
            if not 1 <= size <= self._max_bytes:
                raise BadFrame(f"frame of {size} bytes; allowed are 1 to {self._max_bytes}")
            stop = offset + SIZE.size + size
            if stop > end:
                self._need_bytes = SIZE.size + size
                break
            frames.append(view[offset + SIZE.size : stop])
            offset = stop
        self._waiting_bytes = end - offset
        if self._waiting_bytes:
            self._chunks.append(view[offset:])
        return frames


class FrameReader:
    """Turns what arrives on an IPC socket into (type, body). Whether a type is known is the caller's question."""

    __slots__ = ("_splitter",)

    def __init__(self, max_bytes: int) -> None:
        self._splitter = FrameSplitter(max_bytes)

    def feed(self, chunk: bytes) -> list[tuple[int, memoryview]]:
        """Frames that are whole now: type, body. Raises BadFrame."""
        return [(frame[0], frame[1:]) for frame in self._splitter.feed(chunk)]


def encode_propose(batch: int, records: Iterable[Buffer]) -> bytes:
    """`records`: unstamped records, one or more in each buffer, in the order in which they shall be appended."""
    data = b"".join(records)
    return _HEAD_U64.pack(1 + _U64.size + len(data), FrameType.PROPOSE, batch) + data


def encode_read(context: int) -> bytes:
    return _HEAD_U64.pack(1 + _U64.size, FrameType.READ, context)


def encode_status(context: int) -> bytes:
    return _HEAD_U64.pack(1 + _U64.size, FrameType.STATUS, context)


def encode_counters(counters: dict[str, int | float]) -> bytes:
    body = orjson.dumps(counters)
    return _HEAD.pack(1 + len(body), FrameType.COUNTERS) + body


def encode_serving() -> bytes:
    return _HEAD.pack(1, FrameType.SERVING)


def encode_hello(hello: Hello) -> bytes:
    body = orjson.dumps(
        {
            "LogDirectory": hello.log_directory,
            "ID": hello.node_id,
            "Epoch": hello.epoch,
            "Snapshot": hello.snapshot,
        }
    )
    return _HEAD.pack(1 + len(body), FrameType.HELLO) + body


def encode_segment(sequence: int, base_index: int, revision: int = 0) -> bytes:
    return _HEAD_3_U64.pack(1 + _3_U64.size, FrameType.SEGMENT, sequence, base_index, revision)


def encode_indexed(sequence: int) -> bytes:
    return _HEAD_U64.pack(1 + _U64.size, FrameType.INDEXED, sequence)


def encode_bad_index(sequence: int) -> bytes:
    return _HEAD_U64.pack(1 + _U64.size, FrameType.BAD_INDEX, sequence)


def encode_dropped(first_index: int) -> bytes:
    return _HEAD_U64.pack(1 + _U64.size, FrameType.DROPPED, first_index)


def encode_commit(index: int) -> bytes:
    return _HEAD_U64.pack(1 + _U64.size, FrameType.COMMIT, index)


def encode_leader(leader: Leader) -> bytes:
    return _HEAD_LEADER.pack(1 + _LEADER.size, FrameType.LEADER, leader.node_id, leader.term, leader.ready)


def encode_accepted(accepted: Accepted) -> bytes:
    return _HEAD_ACCEPTED.pack(1 + _ACCEPTED.size, FrameType.ACCEPTED, *accepted)


def encode_refused(batch: int, reason: Refusal) -> bytes:
    return _HEAD_U64_U8.pack(1 + _U64_U8.size, FrameType.REFUSED, batch, reason)


def encode_read_at(context: int, index: int) -> bytes:
    return _HEAD_2_U64.pack(1 + _2_U64.size, FrameType.READ_AT, context, index)


def encode_status_is(context: int, status: bytes) -> bytes:
    """`status`: a JSON object, already encoded."""
    return _HEAD_U64.pack(1 + _U64.size + len(status), FrameType.STATUS_IS, context) + status


# Readers of bodies. All raise BadFrame when the body is not what its type says.


def _unpack(layout: Struct, body: memoryview) -> tuple[Any, ...]:
    if len(body) != layout.size:
        raise BadFrame(f"body of {len(body)} bytes where {layout.size} belong")
    return layout.unpack(body)


def _object(body: memoryview) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise BadFrame(f"body is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadFrame("body is no JSON object")
    return value


def decode_propose(body: memoryview) -> tuple[int, memoryview]:
    """Batch, records."""
    if len(body) < _U64.size:
        raise BadFrame("PROPOSE without a batch number")
    return _U64.unpack_from(body)[0], body[_U64.size :]


def decode_u64(body: memoryview) -> int:
    """The body of READ and STATUS (context), of COMMIT (index) and of INDEXED (sequence)."""
    return cast(int, _unpack(_U64, body)[0])


def decode_counters(body: memoryview) -> dict[str, int | float]:
    counters = _object(body)
    if not all(isinstance(value, int | float) for value in counters.values()):
        raise BadFrame("COUNTERS that are no numbers")
    return counters


def decode_hello(body: memoryview) -> Hello:
    value = _object(body)
    try:
        snapshot = value["Snapshot"]
        return Hello(
            str(value["LogDirectory"]),
            int(value["ID"]),
            int(value["Epoch"]),
            None if snapshot is None else str(snapshot),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise BadFrame(f"HELLO: {error!r}") from None


def decode_segment(body: memoryview) -> tuple[int, int, int]:
    """Sequence, base index, revision."""
    return cast("tuple[int, int, int]", _unpack(_3_U64, body))


def decode_leader(body: memoryview) -> Leader:
    node_id, term, ready = _unpack(_LEADER, body)
    return Leader(node_id, term, bool(ready))


def decode_accepted(body: memoryview) -> Accepted:
    return Accepted(*_unpack(_ACCEPTED, body))


def decode_refused(body: memoryview) -> tuple[int, Refusal]:
    """Batch, reason."""
    batch, reason = _unpack(_U64_U8, body)
    try:
        return batch, Refusal(reason)
    except ValueError:
        raise BadFrame(f"unknown reason {reason}") from None


def decode_read_at(body: memoryview) -> tuple[int, int]:
    """Context, index (0: failed)."""
    return cast("tuple[int, int]", _unpack(_2_U64, body))


def decode_status_is(body: memoryview) -> tuple[int, memoryview]:
    """Context, JSON."""
    if len(body) < _U64.size:
        raise BadFrame("STATUS_IS without a context")
    return _U64.unpack_from(body)[0], body[_U64.size :]

"""What nodes say to each other, as bytes:

    u32 size of what follows | u64 XXH3-64 of what follows | u8 type | body        (little-endian)

The log bytes of an AppendEntries and the records of a forward are the end of the body, as they lie in the log: encoding
hands out views of them, decoding makes views of the frame. Who sent a frame is known by its connection and not repeated
in it.

What no node would say (`ranges.py`) is no frame either: a peer that lies or is broken loses its connection.

Does not know sockets, nor what a message means.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from struct import Struct

import xxhash

from raftchat.ipc.frames import BadFrame, Refusal
from raftchat.node import ranges
from raftchat.node.ranges import LIMIT
from raftchat.raft.messages import (
    AppendEntries,
    AppendReply,
    Batch,
    InstallSnapshot,
    PeerMessage,
    ReadIndexReply,
    ReadIndexRequest,
    RequestVote,
    TimeoutNow,
    VoteReply,
)

Buffer = bytes | bytearray | memoryview
ParseBatch = Callable[[memoryview, int, int], Batch]
"""(data, segment id, first index) → checked batch; raises ValueError. `_log.parse_batch`."""


@dataclass(frozen=True, slots=True)
class Forward:
    """A follower's clients' proposals, for the leader to append."""

    request: int
    records: Buffer


@dataclass(frozen=True, slots=True)
class ForwardAccepted:
    """The leader appended them. They are not committed yet."""

    request: int
    first_index: int
    term: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class ForwardRefused:
    """They were not appended and never will be."""

    request: int
    reason: Refusal


WireMessage = PeerMessage | Forward | ForwardAccepted | ForwardRefused


class WireType(IntEnum):
    REQUEST_VOTE = 1
    VOTE_REPLY = 2
    APPEND_ENTRIES = 3
    APPEND_REPLY = 4
    INSTALL_SNAPSHOT = 5
    TIMEOUT_NOW = 6
    READ_INDEX_REQUEST = 7
    READ_INDEX_REPLY = 8
    FORWARD = 32
    FORWARD_ACCEPTED = 33
    FORWARD_REFUSED = 34


HEADER_SIZE_BYTES = 12
_SIZE_AND_HASH = Struct("<IQ")
_HASH = Struct("<Q")

_REQUEST_VOTE = Struct("<BQQQBB")
_VOTE_REPLY = Struct("<BQBB")
_APPEND_ENTRIES = Struct("<BQQQQQQ")
"""type, term, prev index, prev term, commit index, round, segment id (0: no batch)"""
_APPEND_REPLY = Struct("<BQBQQQQQ")
_INSTALL_SNAPSHOT = Struct("<BQQQQQ")
_TIMEOUT_NOW = Struct("<BQ")
_READ_INDEX_REQUEST = Struct("<BQQ")
_READ_INDEX_REPLY = Struct("<BQQQ")
_FORWARD = Struct("<BQ")
_FORWARD_ACCEPTED = Struct("<BQQQQ")
_FORWARD_REFUSED = Struct("<BQB")


def encode(message: WireMessage) -> list[Buffer]:
    """One frame, as buffers to be written one after the other. Log bytes are not copied."""
    match message:
        case AppendEntries(_, term, prev_index, prev_term, commit_index, round, batch):
            if batch is None:
                return _frame(
                    _APPEND_ENTRIES.pack(WireType.APPEND_ENTRIES, term, prev_index, prev_term, commit_index, round, 0)
                )
            # The receiver takes this as the index of the first record.
            assert batch.first_index == prev_index + 1
            segment_id: int = batch.segment_id  # type: ignore[attr-defined]  # both logs' batches have it
            return _frame(
                _APPEND_ENTRIES.pack(
                    WireType.APPEND_ENTRIES, term, prev_index, prev_term, commit_index, round, segment_id
                ),
                batch.data,
            )
        case AppendReply(_, term, success, match_index, round, conflict_index, hint_index, hint_term):
            return _frame(
                _APPEND_REPLY.pack(
                    WireType.APPEND_REPLY, term, success, match_index, round, conflict_index, hint_index, hint_term
                )
            )
        case Forward(request, records):
            return _frame(_FORWARD.pack(WireType.FORWARD, request), records)
        case ForwardAccepted(request, first_index, term, time_ms):
            return _frame(_FORWARD_ACCEPTED.pack(WireType.FORWARD_ACCEPTED, request, first_index, term, time_ms))
        case ForwardRefused(request, reason):
            return _frame(_FORWARD_REFUSED.pack(WireType.FORWARD_REFUSED, request, reason))
        case ReadIndexRequest(_, term, context):
            return _frame(_READ_INDEX_REQUEST.pack(WireType.READ_INDEX_REQUEST, term, context))
        case ReadIndexReply(_, term, context, index):
            return _frame(_READ_INDEX_REPLY.pack(WireType.READ_INDEX_REPLY, term, context, index))
        case RequestVote(_, term, last_index, last_term, pre, transfer):
            return _frame(_REQUEST_VOTE.pack(WireType.REQUEST_VOTE, term, last_index, last_term, pre, transfer))
        case VoteReply(_, term, granted, pre):
            return _frame(_VOTE_REPLY.pack(WireType.VOTE_REPLY, term, granted, pre))
        case TimeoutNow(_, term):
            return _frame(_TIMEOUT_NOW.pack(WireType.TIMEOUT_NOW, term))
        case InstallSnapshot(_, term, last_index, last_term, last_time_ms, membership, round):
            head = _INSTALL_SNAPSHOT.pack(WireType.INSTALL_SNAPSHOT, term, last_index, last_term, last_time_ms, round)
            return _frame(head, membership)
    raise AssertionError(f"no wire form for {message!r}")


def _frame(head: bytes, tail: Buffer | None = None) -> list[Buffer]:
    if tail is None:
        return [_SIZE_AND_HASH.pack(_HASH.size + len(head), xxhash.xxh3_64_intdigest(head)) + head]
    digest = xxhash.xxh3_64(head)
    digest.update(tail)
    return [_SIZE_AND_HASH.pack(_HASH.size + len(head) + len(tail), digest.intdigest()) + head, tail]


def decode(frame: memoryview, sender: int, parse_batch: ParseBatch) -> WireMessage:
    """Inverse of `encode`, for what `FrameSplitter` cut out of the stream: the frame without its size.

    Raises BadFrame for anything that `encode` does not make, and for log bytes that `parse_batch` refuses.
    """
    if len(frame) <= _HASH.size:
        raise BadFrame(f"frame of {len(frame)} bytes")
    body = frame[_HASH.size :]
    if _HASH.unpack_from(frame)[0] != xxhash.xxh3_64_intdigest(body):
        raise BadFrame("checksum does not match")
    kind = body[0]
    if kind == WireType.APPEND_ENTRIES:
        return _decode_append_entries(body, sender, parse_batch)
    decoder = _DECODERS.get(kind)
    if decoder is None:
        raise BadFrame(f"unknown type {kind}")
    layout, has_tail, make = decoder
    if len(body) < layout.size or (len(body) > layout.size and not has_tail):
        raise BadFrame(f"{WireType(kind).name} of {len(body)} bytes")
    try:
        return make(sender, layout.unpack_from(body), body[layout.size :])
    except ValueError as error:
        raise BadFrame(f"{WireType(kind).name}: {error}") from None


def _decode_append_entries(body: memoryview, sender: int, parse_batch: ParseBatch) -> AppendEntries:
    if len(body) < _APPEND_ENTRIES.size:
        raise BadFrame(f"APPEND_ENTRIES of {len(body)} bytes")
    _, term, prev_index, prev_term, commit_index, round, segment_id = _APPEND_ENTRIES.unpack_from(body)
    data = body[_APPEND_ENTRIES.size :]
    if not (
        0 < term < LIMIT
        and prev_index < LIMIT
        and prev_term <= term
        and (prev_index == 0) == (prev_term == 0)
        and commit_index < LIMIT
        and round < LIMIT
    ):
        raise BadFrame(f"APPEND_ENTRIES out of range: {_APPEND_ENTRIES.unpack_from(body)[1:]}")
    if not segment_id:
        if data:
            raise BadFrame("APPEND_ENTRIES with records of no segment")
        return AppendEntries(sender, term, prev_index, prev_term, commit_index, round)
    try:
        batch = parse_batch(data, segment_id, prev_index + 1)
        if batch.membership is not None:
            ranges.check_membership(batch.membership)
    except (ValueError, OverflowError) as error:
        raise BadFrame(f"APPEND_ENTRIES: {error}") from None
    if not (prev_term <= batch.term <= term and batch.last_index < LIMIT):
        raise BadFrame(f"APPEND_ENTRIES of term {term} after term {prev_term} with records of term {batch.term}")
    return AppendEntries(sender, term, prev_index, prev_term, commit_index, round, batch)


def _forward_accepted(_: int, f: ranges.Fields, __: memoryview) -> WireMessage:
    _, request, first_index, term, time_ms = f
    ranges.require(0 < first_index < LIMIT and 0 < term < LIMIT and time_ms < ranges.TIME_LIMIT_MS, f)
    return ForwardAccepted(request, first_index, term, time_ms)


_Make = Callable[[int, ranges.Fields, memoryview], WireMessage]

# type → layout, whether a tail follows, constructor from (sender, fields with the type first, tail)
_DECODERS: dict[int, tuple[Struct, bool, _Make]] = {
    WireType.REQUEST_VOTE: (_REQUEST_VOTE, False, ranges.request_vote),
    WireType.VOTE_REPLY: (_VOTE_REPLY, False, ranges.vote_reply),
    WireType.APPEND_REPLY: (_APPEND_REPLY, False, ranges.append_reply),
    WireType.INSTALL_SNAPSHOT: (_INSTALL_SNAPSHOT, True, ranges.install_snapshot),
    WireType.TIMEOUT_NOW: (_TIMEOUT_NOW, False, ranges.timeout_now),
    WireType.READ_INDEX_REQUEST: (_READ_INDEX_REQUEST, False, ranges.read_index_request),
    WireType.READ_INDEX_REPLY: (_READ_INDEX_REPLY, False, ranges.read_index_reply),
    WireType.FORWARD: (_FORWARD, True, lambda _, f, tail: Forward(f[1], tail)),
    WireType.FORWARD_ACCEPTED: (_FORWARD_ACCEPTED, False, _forward_accepted),
    WireType.FORWARD_REFUSED: (_FORWARD_REFUSED, False, lambda _, f, __: ForwardRefused(f[1], Refusal(f[2]))),
}

"""Peer frames: whatever is encoded is decoded, log bytes are handed through, and nothing else is taken for a frame."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftchat import _log
from raftchat.ipc.frames import SIZE, BadFrame, Refusal
from raftchat.node.codec import Forward, ForwardAccepted, ForwardRefused, WireMessage, WireType, decode, encode
from raftchat.raft.membership import Membership
from raftchat.raft.messages import (
    AppendEntries,
    AppendReply,
    InstallSnapshot,
    ReadIndexReply,
    ReadIndexRequest,
    RequestVote,
    TimeoutNow,
    VoteReply,
)

MEMBERSHIP = Membership({1: "http://one:1", 2: "https://[::1]:2"}, {3: "http://three"}).encode()
MESSAGES: list[WireMessage] = [
    RequestVote(7, 3, 10, 2),
    RequestVote(7, 3, 10, 2, pre=True),
    RequestVote(7, 3, 0, 0, transfer=True),
    VoteReply(7, 3, True),
    VoteReply(7, 0, False, pre=True),
    AppendEntries(7, 3, 10, 2, 9, 5),
    AppendReply(7, 3, True, 2**62 - 1, 5),
    AppendReply(7, 3, False, 8, 5, 9, 6, 1),
    InstallSnapshot(7, 3, 10, 2, 1_700_000_000_000, MEMBERSHIP, 4),
    TimeoutNow(7, 2**62 - 1),
    ReadIndexRequest(7, 3, 2**62),
    ReadIndexReply(7, 3, 2**62, 0),
    Forward(12, b"records"),
    ForwardAccepted(12, 100, 3, 1_700_000_000_000),
    ForwardRefused(12, Refusal.DISK_FULL),
]


def frame_of(message: WireMessage) -> memoryview:
    data = b"".join(encode(message))
    assert SIZE.unpack_from(data)[0] == len(data) - SIZE.size
    return memoryview(data)[SIZE.size :]


@pytest.fixture
def log(tmp_path: Path) -> _log.Log:
    return _log.Log(str(tmp_path), new_segment_id=lambda: 77, segment_size_bytes=1 << 20)


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_round_trip(message: WireMessage) -> None:
    assert decode(frame_of(message), 7, _log.parse_batch) == message


def test_every_type_has_a_message() -> None:
    assert {frame_of(message)[8] for message in MESSAGES} == set(WireType)


def test_log_bytes_cross_verbatim_and_uncopied(log: _log.Log) -> None:
    log.append(b"".join(_log.pack(16, b"room", b"value %d" % n) for n in range(50)), 4, 1000)
    batch = log.slice(11, 100_000)
    assert batch is not None
    parts = encode(AppendEntries(7, 5, 10, 4, 9, 0, batch))
    assert parts[-1] is batch.data
    data = b"".join(parts)
    got = decode(memoryview(data)[SIZE.size :], 7, _log.parse_batch)
    assert isinstance(got, AppendEntries)
    assert got.batch is not None
    assert (got.batch.first_index, got.batch.last_index, got.batch.term) == (11, 50, 4)
    assert got.batch.data.obj is data
    assert bytes(got.batch.data) == bytes(batch.data)


def test_every_flipped_bit_is_detected(log: _log.Log) -> None:
    log.append(_log.pack(16, b"room", b"value"), 4, 1000)
    with_batch = AppendEntries(7, 5, 0, 0, 0, 0, log.slice(1, 100_000))
    for message in [with_batch, *MESSAGES]:
        frame = frame_of(message)
        for bit in range(8 * len(frame)):
            flipped = bytearray(frame)
            flipped[bit // 8] ^= 1 << bit % 8
            with pytest.raises(BadFrame):
                decode(memoryview(flipped), 7, _log.parse_batch)


def test_every_cut_is_detected() -> None:
    for message in MESSAGES:
        frame = frame_of(message)
        for size in range(len(frame)):
            with pytest.raises(BadFrame):
                decode(frame[:size], 7, _log.parse_batch)


def rehashed(body: bytes) -> memoryview:
    """A frame whose checksum is right, whatever is in it."""
    import xxhash

    return memoryview(xxhash.xxh3_64_intdigest(body).to_bytes(8, "little") + body)


@given(st.integers(0, 255), st.binary(max_size=80))
def test_a_well_hashed_frame_of_anything_is_decoded_or_refused(kind: int, rest: bytes) -> None:
    with contextlib.suppress(BadFrame):
        decode(rehashed(bytes([kind]) + rest), 7, _log.parse_batch)


def test_records_of_another_index_or_segment_are_refused(log: _log.Log) -> None:
    log.append(_log.pack(16, b"room", b"value"), 4, 1000)
    body = bytes(frame_of(AppendEntries(7, 5, 0, 0, 0, 0, log.slice(1, 100_000))))[8:]
    assert decode(rehashed(body), 7, _log.parse_batch)
    for offset in (9, 41):  # prev_index, segment id
        wrong = bytearray(body)
        wrong[offset] ^= 1
        with pytest.raises(BadFrame):
            decode(rehashed(bytes(wrong)), 7, _log.parse_batch)

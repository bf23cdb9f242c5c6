"""IPC frames: whatever is encoded is decoded, however the stream is cut; anything else is a BadFrame."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftchat.ipc import frames
from raftchat.ipc.frames import Accepted, BadFrame, FrameReader, FrameType, Hello, Leader, Refusal

CASES: list[tuple[FrameType, bytes, Callable[[memoryview], object], object]] = [
    (FrameType.PROPOSE, frames.encode_propose(7, [b"abc", memoryview(b"def")]), frames.decode_propose, (7, b"abcdef")),
    (FrameType.READ, frames.encode_read(8), frames.decode_u64, 8),
    (FrameType.STATUS, frames.encode_status(9), frames.decode_u64, 9),
    (FrameType.COUNTERS, frames.encode_counters({"Posts": 3}), frames.decode_counters, {"Posts": 3}),
    (FrameType.HELLO, frames.encode_hello(Hello("d/log", 2, 1)), frames.decode_hello, Hello("d/log", 2, 1)),
    (
        FrameType.HELLO,
        frames.encode_hello(Hello("d/log", 2, 1, "d/snapshots/9-1.snapshot")),
        frames.decode_hello,
        Hello("d/log", 2, 1, "d/snapshots/9-1.snapshot"),
    ),
    (FrameType.SEGMENT, frames.encode_segment(3, 2**63, 2), frames.decode_segment, (3, 2**63, 2)),
    (FrameType.INDEXED, frames.encode_indexed(3), frames.decode_u64, 3),
    (FrameType.DROPPED, frames.encode_dropped(2**63), frames.decode_u64, 2**63),
    (FrameType.BAD_INDEX, frames.encode_bad_index(3), frames.decode_u64, 3),
    (FrameType.COMMIT, frames.encode_commit(2**64 - 1), frames.decode_u64, 2**64 - 1),
    (FrameType.LEADER, frames.encode_leader(Leader(2, 5, True)), frames.decode_leader, Leader(2, 5, True)),
    (FrameType.ACCEPTED, frames.encode_accepted(Accepted(1, 2, 3, 4)), frames.decode_accepted, Accepted(1, 2, 3, 4)),
    (FrameType.REFUSED, frames.encode_refused(4, Refusal.LOST), frames.decode_refused, (4, Refusal.LOST)),
    (FrameType.READ_AT, frames.encode_read_at(5, 6), frames.decode_read_at, (5, 6)),
    (FrameType.STATUS_IS, frames.encode_status_is(6, b"{}"), frames.decode_status_is, (6, b"{}")),
]


@pytest.mark.parametrize(("kind", "data", "decode", "value"), CASES, ids=[case[0].name for case in CASES])
def test_round_trip(kind: FrameType, data: bytes, decode: Callable[[memoryview], object], value: object) -> None:
    ((got, body),) = FrameReader(1000).feed(data)
    assert got == kind
    assert decode(body) == value


def test_every_type_has_a_case() -> None:
    assert {case[0] for case in CASES} | {FrameType.SERVING} == set(FrameType)
    assert FrameReader(10).feed(frames.encode_serving()) == [(FrameType.SERVING, b"")]


def test_a_stream_cut_anywhere_gives_the_same_frames() -> None:
    stream = b"".join(case[1] for case in CASES)
    whole = [(kind, bytes(body)) for kind, body in FrameReader(1000).feed(stream)]
    assert [kind for kind, _ in whole] == [case[0] for case in CASES]
    for step in range(1, len(stream)):
        reader = FrameReader(1000)
        got = [frame for at in range(0, len(stream), step) for frame in reader.feed(stream[at : at + step])]
        assert [(kind, bytes(body)) for kind, body in got] == whole


def test_a_frame_in_one_chunk_is_not_copied() -> None:
    chunk = frames.encode_propose(1, [b"x" * 100])
    ((_, body),) = FrameReader(1000).feed(chunk)
    assert body.obj is chunk


@pytest.mark.parametrize("size", [0, 1001, 2**32 - 1])
def test_empty_and_oversized_frames_are_refused_by_their_size_alone(size: int) -> None:
    with pytest.raises(BadFrame):
        FrameReader(1000).feed(frames.SIZE.pack(size))


@given(st.sampled_from(CASES), st.binary(max_size=60))
def test_a_body_of_anything_is_decoded_or_refused(
    case: tuple[FrameType, bytes, Callable[[memoryview], object], object], body: bytes
) -> None:
    with contextlib.suppress(BadFrame):
        case[2](memoryview(body))


@given(st.binary(max_size=200), st.randoms(use_true_random=False))
def test_any_stream_is_split_or_refused(stream: bytes, rng: random.Random) -> None:
    reader = FrameReader(64)
    try:
        while stream:
            size = rng.randint(1, len(stream))
            reader.feed(stream[:size])
            stream = stream[size:]
    except BadFrame:
        pass

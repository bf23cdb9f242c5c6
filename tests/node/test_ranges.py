"""Peer frames whose checksum is right and whose fields are not: refused by the codec, so that nothing behind it ends.

The ranges are written down a second time here, message by message, as the documentation of `ranges.py` tells them.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import given, settings
from hypothesis import strategies as st

from raftchat import _log
from raftchat.ipc.frames import SIZE, BadFrame, Refusal
from raftchat.node.codec import Forward, ForwardAccepted, ForwardRefused, WireMessage, decode, encode
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
from tests.node.test_driver import Node

SENDER = 2
TOP = 2**62
LAST_MS = 253_402_300_799_999
MEMBERSHIP = Membership({1: "http://one:1", 2: "http://two:2"}, {3: "https://three:3"}).encode()


def body_of(message: WireMessage) -> bytearray:
    return bytearray(b"".join(encode(message))[SIZE.size + 8 :])


def decoded(body: bytes | bytearray) -> WireMessage:
    """Of a frame whose checksum is right, whatever is in it. Raises BadFrame."""
    frame = xxhash.xxh3_64_intdigest(bytes(body)).to_bytes(8, "little") + body
    return decode(memoryview(frame), SENDER, _log.parse_batch)


@pytest.fixture(scope="module")
def entries(tmp_path_factory: pytest.TempPathFactory) -> AppendEntries:
    """With three entries of term 4 behind two of term 3."""
    log = _log.Log(
        str(tmp_path_factory.mktemp("log")), new_segment_id=iter((77, 78)).__next__, segment_size_bytes=1 << 16
    )
    log.append(b"".join(_log.pack(16, b"room", b"old") for _ in range(2)), 3, 1000)
    log.append(b"".join(_log.pack(16, b"room", b"value") for _ in range(3)), 4, 1000)
    return AppendEntries(SENDER, 5, 2, 3, 4, 6, log.slice(3, 1 << 16))


# What makes sense

indexes = st.integers(1, TOP - 1) | st.integers(1, 50)
terms = st.integers(1, TOP - 1) | st.integers(1, 9)
rounds = st.integers(0, TOP - 1)
contexts = st.integers(0, 2**64 - 1)
times = st.integers(0, LAST_MS)
flags = st.booleans()


@st.composite
def entry(draw: st.DrawFn, last_term: int) -> tuple[int, int]:
    """Index and term; 0 and 0 for none."""
    if last_term < 1 or draw(flags):
        return 0, 0
    return draw(indexes), draw(st.integers(1, last_term))


@st.composite
def request_vote(draw: st.DrawFn) -> WireMessage:
    term, kind = draw(terms), draw(st.integers(0, 2))
    return RequestVote(SENDER, term, *draw(entry(term - 1)), pre=kind == 1, transfer=kind == 2)


@st.composite
def append_entries(draw: st.DrawFn) -> WireMessage:
    term = draw(terms)
    return AppendEntries(SENDER, term, *draw(entry(term)), draw(indexes), draw(rounds))


@st.composite
def append_refusal(draw: st.DrawFn) -> WireMessage:
    term = draw(terms)
    hint_index, hint_term = draw(entry(term))
    conflict = draw(st.integers(hint_index, TOP - 1))
    return AppendReply(SENDER, term, False, draw(indexes), draw(rounds), conflict, hint_index, hint_term)


@st.composite
def install_snapshot(draw: st.DrawFn) -> WireMessage:
    term = draw(terms)
    last_term = draw(st.integers(1, term))
    return InstallSnapshot(SENDER, term, draw(indexes), last_term, draw(times), MEMBERSHIP, draw(rounds))


MESSAGES = st.one_of(
    request_vote(),
    st.builds(VoteReply, st.just(SENDER), terms, flags, flags),
    st.just(VoteReply(SENDER, 0, False, True)),
    append_entries(),
    append_refusal(),
    st.builds(AppendReply, st.just(SENDER), terms, st.just(True), indexes, rounds),
    install_snapshot(),
    st.builds(TimeoutNow, st.just(SENDER), terms),
    st.builds(ReadIndexRequest, st.just(SENDER), terms, contexts),
    st.builds(ReadIndexReply, st.just(SENDER), terms, contexts, rounds),
    st.builds(Forward, contexts, st.binary(max_size=50)),
    st.builds(ForwardAccepted, contexts, indexes, terms, times),
    st.builds(ForwardRefused, contexts, st.sampled_from(Refusal)),
)


@given(MESSAGES)
def test_what_makes_sense_is_decoded_as_it_was(message: WireMessage) -> None:
    assert decoded(body_of(message)) == message


# What does not

NONSENSE: list[WireMessage] = [
    RequestVote(SENDER, 0, 0, 0),
    RequestVote(SENDER, 2**63, 5, 1),
    RequestVote(SENDER, 3, 2**63, 1),
    RequestVote(SENDER, 3, 5, 3),
    RequestVote(SENDER, 3, 0, 1),
    RequestVote(SENDER, 3, 5, 0),
    RequestVote(SENDER, 3, 5, 1, pre=True, transfer=True),
    VoteReply(SENDER, 0, True),
    VoteReply(SENDER, 2**63, False),
    AppendEntries(SENDER, 0, 0, 0, 0),
    AppendEntries(SENDER, 2**63, 0, 0, 0),
    AppendEntries(SENDER, 3, 2**63, 2, 0),
    AppendEntries(SENDER, 3, 5, 4, 0),
    AppendEntries(SENDER, 3, 5, 0, 0),
    AppendEntries(SENDER, 3, 0, 2, 0),
    AppendEntries(SENDER, 3, 5, 2, 2**63),
    AppendEntries(SENDER, 3, 5, 2, 0, 2**63),
    AppendReply(SENDER, 0, True, 1),
    AppendReply(SENDER, 2**63, True, 1),
    AppendReply(SENDER, 3, True, 2**63),
    AppendReply(SENDER, 3, True, 1, 2**63),
    AppendReply(SENDER, 3, True, 1, 0, 5),
    AppendReply(SENDER, 3, False, 9, 0, 2**63, 1, 1),
    AppendReply(SENDER, 3, False, 9, 0, 5, 6, 1),
    AppendReply(SENDER, 3, False, 9, 0, 5, 4, 4),
    AppendReply(SENDER, 3, False, 9, 0, 5, 4, 0),
    InstallSnapshot(SENDER, 0, 5, 1, 0, MEMBERSHIP),
    InstallSnapshot(SENDER, 2**63, 5, 1, 0, MEMBERSHIP),
    InstallSnapshot(SENDER, 3, 0, 1, 0, MEMBERSHIP),
    InstallSnapshot(SENDER, 3, 2**63, 1, 0, MEMBERSHIP),
    InstallSnapshot(SENDER, 3, 5, 0, 0, MEMBERSHIP),
    InstallSnapshot(SENDER, 3, 5, 4, 0, MEMBERSHIP),
    InstallSnapshot(SENDER, 3, 5, 2, LAST_MS + 1, MEMBERSHIP),
    InstallSnapshot(SENDER, 3, 5, 2, 0, MEMBERSHIP, 2**63),
    TimeoutNow(SENDER, 0),
    TimeoutNow(SENDER, 2**64 - 1),
    ReadIndexRequest(SENDER, 0, 5),
    ReadIndexRequest(SENDER, 2**63, 5),
    ReadIndexReply(SENDER, 0, 5, 1),
    ReadIndexReply(SENDER, 3, 5, 2**63),
    ForwardAccepted(5, 0, 3, 0),
    ForwardAccepted(5, 2**63, 3, 0),
    ForwardAccepted(5, 1, 0, 0),
    ForwardAccepted(5, 1, 2**63, 0),
    ForwardAccepted(5, 1, 3, LAST_MS + 1),
    ForwardRefused(5, 0),  # type: ignore[arg-type]
    ForwardRefused(5, 250),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("message", NONSENSE, ids=lambda message: str(message).replace(f"sender={SENDER}, ", "")[:90])
def test_what_no_node_says_is_refused(message: WireMessage) -> None:
    with pytest.raises(BadFrame, match=r"[A-Z_]{8}"):
        decoded(body_of(message))


BAD_MEMBERSHIPS = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": MEMBERSHIP.replace(b"one", b"\xff\xfe"),
    "no object": b"[]",
    "another shape": b'{"Voters":{"1":"http://one:1"}}',
    "no voter": b'{"Voters":{},"Learners":{"1":"http://one:1"}}',
    "number 0": b'{"Voters":{"0":"http://one:1"},"Learners":{}}',
    "no number": b'{"Voters":{"one":"http://one:1"},"Learners":{}}',
    "a large number": b'{"Voters":{"4611686018427387904":"http://one:1"},"Learners":{}}',
    "a voter that learns": b'{"Voters":{"1":"http://one:1"},"Learners":{"1":"http://one:1"}}',
    "URL that is a number": b'{"Voters":{"1":5},"Learners":{}}',
    "URL of no host": b'{"Voters":{"1":"http://:1"},"Learners":{}}',
    "URL of no scheme": b'{"Voters":{"1":"one:1"},"Learners":{}}',
    "URL of a wrong port": b'{"Voters":{"1":"http://one:123456"},"Learners":{}}',
    "URL of half an address": b'{"Voters":{"1":"http://[::1"},"Learners":{}}',
}


@pytest.mark.parametrize("membership", BAD_MEMBERSHIPS.values(), ids=BAD_MEMBERSHIPS.keys())
def test_a_membership_that_nobody_could_live_with_is_refused(membership: bytes, tmp_path: Path) -> None:
    """As it comes with a snapshot, and as an entry of the log."""
    with pytest.raises(BadFrame):
        decoded(body_of(InstallSnapshot(SENDER, 3, 5, 2, 0, membership)))
    log = _log.Log(str(tmp_path), new_segment_id=lambda: 77, segment_size_bytes=1 << 16)
    log.append(_log.pack(_log.KIND_MEMBERSHIP, b"", membership), 1, 1000)
    with pytest.raises(BadFrame):
        decoded(body_of(AppendEntries(SENDER, 1, 0, 0, 0, 0, log.slice(1, 1 << 16))))


@pytest.mark.parametrize(("term", "prev_term"), [(3, 3), (5, 5), (4, 5)])
def test_entries_of_a_later_term_than_their_leaders_or_an_earlier_than_those_before_are_refused(
    entries: AppendEntries, term: int, prev_term: int
) -> None:
    body = body_of(entries)
    assert decoded(body)
    struct.pack_into("<Q", body, 1, term)
    struct.pack_into("<Q", body, 17, prev_term)
    with pytest.raises(BadFrame):
        decoded(body)


def test_flags_are_0_or_1() -> None:
    for message, offset in ((VoteReply(SENDER, 3, True), 9), (AppendReply(SENDER, 3, True, 1), 9)):
        body = body_of(message)
        assert body[offset] == 1
        body[offset] = 2
        with pytest.raises(BadFrame):
            decoded(body)


# Whatever comes

EDGES = (0, 1, 2, 3, 255, 2**31, 2**32, TOP - 1, TOP, 2**63 - 1, 2**63, 2**64 - 1, LAST_MS, LAST_MS + 1)


def in_range(m: WireMessage) -> bool:
    def index(*values: int) -> bool:
        return all(0 <= value < TOP for value in values)

    def pair(index: int, term: int) -> bool:
        return (index == 0) == (term == 0)

    match m:
        case Forward(request, _) | ForwardRefused(request, _):
            return 0 <= request < 2**64
        case ForwardAccepted(_, first, term, time):
            return index(first, term) and first > 0 and term > 0 and time <= LAST_MS
        case VoteReply(_, term, granted, _):
            return index(term) and (term > 0 or not granted)
        case RequestVote(_, term, last_index, last_term):
            return index(term, last_index) and last_term < term and pair(last_index, last_term)
        case AppendEntries(_, term, prev_index, prev_term, commit, round, batch):
            fits = batch is None or (batch.first_index == prev_index + 1 and prev_term <= batch.term <= term)
            return (
                fits
                and index(term - 1, prev_index, commit, round)
                and prev_term <= term
                and pair(prev_index, prev_term)
            )
        case AppendReply(_, term, _, match, round, conflict, hint_index, hint_term):
            fine = index(term - 1, match, round, conflict) and hint_index <= conflict and hint_term <= term
            return fine and pair(hint_index, hint_term)
        case InstallSnapshot(_, term, last_index, last_term, time, membership, round):
            assert Membership.decode(membership).voters
            return index(term - 1, last_index - 1, last_term - 1, round) and last_term <= term and time <= LAST_MS
        case TimeoutNow(_, term) | ReadIndexRequest(_, term, _):
            return index(term - 1)
        case ReadIndexReply(_, term, _, at):
            return index(term - 1, at)
    raise AssertionError(m)


@st.composite
def mutated(draw: st.DrawFn, source: bytes) -> bytearray:
    """Some bytes changed, or a number put anywhere, or cut, or lengthened."""
    body = bytearray(source)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(body) - 1)))
        match draw(st.integers(0, 4)):
            case 0:
                body[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case 1 | 2 if len(body) >= 9:
                number = draw(st.sampled_from(EDGES) | contexts)
                struct.pack_into("<Q", body, 1 + 8 * draw(st.integers(0, (len(body) - 9) // 8)), number)
            case 3:
                del body[at:]
            case 4:
                body += draw(st.binary(max_size=9))
    return body


def survives(body: bytearray, then: Callable[[WireMessage], Any] = lambda message: None) -> None:
    try:
        message = decoded(body)
    except BadFrame:
        return
    assert in_range(message), message
    again = decoded(body_of(message))
    if not isinstance(message, AppendEntries) or message.batch is None:
        assert again == message
    then(message)


@given(st.data())
@settings(max_examples=500)
def test_a_mutated_frame_is_refused_or_within_the_ranges(entries: AppendEntries, data: st.DataObject) -> None:
    message = data.draw(MESSAGES | st.just(entries))
    survives(data.draw(mutated(bytes(body_of(message)))))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_whatever_gets_through_does_not_end_a_new_node(entries: AppendEntries, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        node = Node(Path(directory), 3)

        def hear(message: WireMessage) -> None:
            node.driver.receive(SENDER, message)
            node.settle()

        for _ in range(2):
            survives(data.draw(mutated(bytes(body_of(data.draw(MESSAGES | st.just(entries)))))), hear)
        node.log.close()

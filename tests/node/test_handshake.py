"""The peers' handshake: two nodes of one cluster meet; everybody else is told why not, in words."""

from __future__ import annotations

import random

import pytest

from raftchat.node.handshake import Accepted, Dialled, HandshakeFailed, Refused, Welcome


def accepted(cluster: str = "c1", node: int = 2) -> Accepted:
    return Accepted(cluster, node, lambda: {1, 2, 3})


def request(cluster: str = "c1", node: int = 1, to: int = 2) -> bytes:
    return Dialled(cluster, node, to, "localhost:1").request


def refusal(data: bytes, side: Accepted | None = None) -> tuple[int, str]:
    outcome = (side or accepted()).feed(data)
    assert isinstance(outcome, Refused)
    head, _, body = outcome.reply.partition(b"\r\n\r\n")
    assert body.decode().strip() == outcome.reason
    return int(head.split()[1]), outcome.reason


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_two_members_meet_however_the_bytes_are_cut(step: int) -> None:
    dialled, side = Dialled("c1", 1, 2, "localhost:1"), accepted()
    sent = dialled.request
    outcomes = [side.feed(sent[at : at + step]) for at in range(0, len(sent), step)]
    welcome = outcomes[-1]
    assert isinstance(welcome, Welcome)
    assert welcome.peer == 1
    assert outcomes[:-1] == [None] * (len(outcomes) - 1)
    reply = welcome.reply
    answers = [dialled.feed(reply[at : at + step]) for at in range(0, len(reply), step)]
    assert answers[-1] == Welcome(2, b"", b"")


def test_frames_sent_behind_the_handshake_are_not_lost() -> None:
    outcome = accepted().feed(request() + b"frames")
    assert isinstance(outcome, Welcome)
    assert outcome.trailing == b"frames"


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (request(cluster="c2"), 403, "different --cluster lists"),
        (request(to=3), 421, "This is node 2, not 3"),
        (request(node=2), 409, "two nodes were started with the same --id"),
        (request(node=9), 403, "Node 9 is not a member"),
        (request().replace(b"/raft ", b"/rooms "), 404, "--port"),
        (request().replace(b"GET ", b"PUT "), 405, "GET"),
        (request().replace(b"raft-chat/1", b"websocket"), 426, "raft-chat/1"),
        (request().replace(b"raft-chat-node: 1", b"raft-chat-node: x").replace(b"Raft-Chat-Node: 1", b"A: b"), 400, ""),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", 400, "HTTP"),
        (b"GET /raft HTTP/1.1\r\n" + b"A: b\r\n" * 2000, 431, "HTTP"),
    ],
)
def test_strangers_are_told_why_not(data: bytes, status: int, words: str) -> None:
    got, reason = refusal(data)
    assert got == status
    assert words in reason


def test_the_refusals_words_reach_the_other_sides_log() -> None:
    dialled = Dialled("c2", 1, 2, "localhost:1")
    outcome = accepted().feed(dialled.request)
    assert isinstance(outcome, Refused)
    with pytest.raises(HandshakeFailed, match="403 This node is of cluster c1, not c2"):
        dialled.feed(outcome.reply)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raft-chat/1\r\n"
        b"Raft-Chat-Cluster: c9\r\nRaft-Chat-Node: 2\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raft-chat/1\r\n"
        b"Raft-Chat-Cluster: c1\r\nRaft-Chat-Node: 3\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"",
    ],
)
def test_whoever_is_not_the_node_that_was_dialled_is_left(answer: bytes) -> None:
    dialled = Dialled("c1", 1, 2, "localhost:1")
    with pytest.raises(HandshakeFailed):
        dialled.feed(answer)


def test_any_bytes_are_answered_or_left() -> None:
    rng = random.Random(5)
    for _ in range(300):
        data = bytearray(request())
        for _ in range(rng.randint(1, 6)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        side = accepted()
        try:
            side.feed(bytes(data))
        except HandshakeFailed:
            continue

"""Peers on real loopback sockets: they find each other, again and again, and one that misbehaves hurts nobody."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import re
import socket
from collections.abc import Callable, Coroutine
from dataclasses import replace
from random import Random
from typing import Any

import pytest
import uvloop

from raftchat import _log
from raftchat.config import Config
from raftchat.node.codec import Forward, WireMessage, encode
from raftchat.node.handshake import Dialled
from raftchat.node.peers import Peers
from raftchat.node.transfer import Manifest
from raftchat.raft.messages import AppendReply, TimeoutNow

CONFIG = Config(peer_redial_min_ms=5, peer_redial_max_ms=20, peer_handshake_timeout_ms=300, peer_handshakes_max=4)


class NoSnapshots:
    """Of a node that has none to give."""

    def manifests(self, index: int) -> list[Manifest]:
        return []

    def is_whole(self, manifest: Manifest) -> bool:
        raise AssertionError("there is none")

    def path(self, name: str) -> str:
        raise AssertionError("there is none")


class Node:
    """One node's `Peers` and what they told it."""

    def __init__(self, number: int, members: dict[int, str], config: Config = CONFIG, cluster: str = "c1") -> None:
        self.got: list[tuple[int, WireMessage]] = []
        self.broken: list[int] = []
        self.members = members
        self.peers = Peers(
            config,
            cluster,
            number,
            lambda: self.members,
            Random(number),
            _log.parse_batch,
            lambda sender, message: self.got.append((sender, message)),
            self.broken.append,
            NoSnapshots(),
            lambda peer: None,
        )

    def send(self, to: int, message: WireMessage) -> bool:
        sent = self.peers.send(to, message)
        self.peers.flush()
        return sent


def listen() -> socket.socket:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    return sock


def urls(sockets: dict[int, socket.socket]) -> dict[int, str]:
    return {number: f"http://127.0.0.1:{sock.getsockname()[1]}" for number, sock in sockets.items()}


async def until(what: str, probe: Callable[[], object], timeout_s: float = 10) -> None:
    async with asyncio.timeout(timeout_s):
        while not probe():  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.005)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, 30))


async def two(config: Config = CONFIG) -> tuple[Node, Node]:
    sockets = {1: listen(), 2: listen()}
    nodes = {number: Node(number, urls(sockets), config) for number in sockets}
    for number, node in nodes.items():
        await node.peers.start([sockets[number]])
    one, other = nodes.values()
    await until("connected", lambda: one.peers.connected(2) and other.peers.connected(1))
    return one, other


def test_messages_arrive_in_order_with_their_sender() -> None:
    async def scenario() -> None:
        one, other = await two()
        messages: list[WireMessage] = [AppendReply(1, term, True, term * 7) for term in range(1, 400)]
        messages.insert(200, Forward(3, b"x" * 1_000_000))
        for message in messages:
            assert one.send(2, message)
        await until("all there", lambda: len(other.got) == len(messages))
        assert other.got == [(1, message) for message in messages]
        await one.peers.close()
        await other.peers.close()

    run(scenario())


def test_a_node_that_comes_back_is_found_again_and_the_loss_is_told() -> None:
    async def scenario() -> None:
        one, other = await two()
        members = one.members
        port = int(members[2].rsplit(":", 1)[1])
        await other.peers.close()
        await until("loss noticed", lambda: not one.peers.connected(2))
        assert 2 in one.broken
        assert not one.send(2, TimeoutNow(1, 1))
        again = Node(2, members)
        sock = socket.create_server(("127.0.0.1", port))
        sock.setblocking(False)
        await again.peers.start([sock])
        await until("found again", lambda: one.peers.connected(2) and again.peers.connected(1))
        assert one.send(2, TimeoutNow(1, 5))
        await until("arrived", lambda: again.got == [(1, TimeoutNow(1, 5))])
        await one.peers.close()
        await again.peers.close()

    run(scenario())


async def connected_as(node: int, to: int, url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that claims to be `node`, its handshake done."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    writer.write(Dialled("c1", node, to, "localhost").request)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 101 " in head
    return reader, writer


def test_a_bad_frame_closes_the_connection_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        sock = listen()
        node = Node(1, {1: "http://127.0.0.1:1", **urls({2: sock})})
        mine = listen()
        await node.peers.start([mine])
        url = urls({1: mine})[1]
        good = b"".join(encode(TimeoutNow(2, 3)))
        bad = bytearray(good)
        bad[-1] ^= 1
        reader, writer = await connected_as(2, 1, url)
        writer.write(good + bytes(bad) + good + bytes(bad))
        assert await reader.read() == b""
        assert node.got == [(2, TimeoutNow(2, 3))]
        writer.close()
        # Others are served on, and so is the same peer when it comes back.
        reader, writer = await connected_as(2, 1, url)
        writer.write(good)
        await until("served again", lambda: len(node.got) == 2)
        writer.close()
        await node.peers.close()
        sock.close()

    with caplog.at_level(logging.ERROR):
        run(scenario())
    assert len([r for r in caplog.records if "bad frame" in r.getMessage()]) == 1


def test_who_connects_again_owes_nothing_any_more() -> None:
    """An answer may have been dropped while there was no connection to send it on: it is not waited for."""

    async def scenario() -> None:
        mine = listen()
        node = Node(1, urls({1: mine, 2: listen()}))
        await node.peers.start([mine])
        url = urls({1: mine})[1]
        _, writer = await connected_as(2, 1, url)
        writer.close()
        await until("lost", lambda: node.broken == [2, 2])
        _, writer = await connected_as(2, 1, url)
        await until("told", lambda: node.broken == [2, 2, 2])
        writer.close()
        await node.peers.close()

    run(scenario())


def test_a_newer_connection_of_a_peer_replaces_the_older(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        other = listen()
        node = Node(1, {1: "http://127.0.0.1:1", **urls({2: other})})
        mine = listen()
        await node.peers.start([mine])
        url = urls({1: mine})[1]
        old_reader, old = await connected_as(2, 1, url)
        _, new = await connected_as(2, 1, url)
        assert await old_reader.read() == b""
        assert node.broken == [2, 2], "each connection is a new beginning"
        new.write(b"".join(encode(TimeoutNow(2, 3))))
        await until("heard", lambda: node.got == [(2, TimeoutNow(2, 3))])
        old.close()
        new.close()
        await node.peers.close()
        other.close()

    run(scenario())


def test_a_peer_that_does_not_read_costs_bounded_memory_and_is_cut_off_at_last() -> None:
    config = replace(CONFIG, peer_send_buffer_max_bytes=1_000_000, election_timeout_ms=10_000)

    async def scenario() -> None:
        deaf = listen()
        node = Node(1, {1: "http://127.0.0.1:1", **urls({2: deaf})}, config)
        await node.peers.start([listen()])
        loop = asyncio.get_running_loop()
        accepted, _ = await loop.sock_accept(deaf)
        accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b""
        while b"\r\n\r\n" not in request:
            request += await loop.sock_recv(accepted, 4096)
        await loop.sock_sendall(
            accepted,
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raft-chat/1\r\n"
            b"Raft-Chat-Cluster: c1\r\nRaft-Chat-Node: 2\r\n\r\n",
        )
        await until("connected", lambda: node.peers.connected(2))
        connection = node.peers._diallers[2].connection
        assert connection is not None
        refused = 0
        for _ in range(300):
            refused += not node.send(2, Forward(1, b"x" * 100_000))
            assert connection.waiting_bytes <= config.peer_send_buffer_max_bytes
            await asyncio.sleep(0)
        assert refused > 100
        assert node.peers.connected(2), "it may only be slow"
        assert node.send(2, AppendReply(1, 1, True, 1)), "small messages still have room"
        for _ in range(100_000):
            if not node.send(2, AppendReply(1, 1, True, 1)):
                break
        await until("cut off", lambda: 2 in node.broken)
        accepted.close()
        deaf.close()
        await node.peers.close()

    run(scenario())


def test_whoever_does_not_say_who_he_is_is_closed(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        mine = listen()
        node = Node(1, {1: "http://127.0.0.1:1"})
        await node.peers.start([mine])
        port = mine.getsockname()[1]
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(10)]
        began = asyncio.get_running_loop().time()
        # More than may shake hands at a time are closed at once, the others when their time is over.
        for reader, writer in silent:
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
        assert asyncio.get_running_loop().time() - began < 5
        assert not node.peers._all_incoming
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 404 ")
        writer.close()
        await node.peers.close()

    run(scenario())


def test_more_than_may_shake_hands_at_a_time_are_closed_at_once() -> None:
    async def scenario() -> None:
        mine = listen()
        node = Node(1, {1: "http://127.0.0.1:1"}, dataclasses.replace(CONFIG, peer_handshake_timeout_ms=60_000))
        await node.peers.start([mine])
        silent = [await asyncio.open_connection("127.0.0.1", mine.getsockname()[1]) for _ in range(10)]
        await until("the rest closed", lambda: len(node.peers._all_incoming) == CONFIG.peer_handshakes_max)
        for _, writer in silent:
            writer.close()
        await node.peers.close()

    run(scenario())


def test_nodes_of_two_clusters_tell_each_other_why_not_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        sockets = {1: listen(), 2: listen()}
        one, other = Node(1, urls(sockets), cluster="c1"), Node(2, urls(sockets), cluster="c2")
        await one.peers.start([sockets[1]])
        await other.peers.start([sockets[2]])
        told = lambda: [r for r in caplog.records if "Cannot connect" in r.getMessage() and "403" in r.getMessage()]  # noqa: E731
        await until("told", lambda: len(told()) == 2)
        await asyncio.sleep(0.2)
        assert len(told()) == 2
        assert not one.peers.connected(2)
        await one.peers.close()
        await other.peers.close()

    with caplog.at_level(logging.INFO):
        run(scenario())


def test_whoever_is_refused_again_and_again_is_told_once_with_a_plain_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        one, other = await two()
        for _ in range(5):
            url = one.members[1].removeprefix("http://")
            host, port = url.split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"404" in await reader.readline()
            writer.close()
        await one.peers.close()
        await other.peers.close()

    run(scenario())
    (refused,) = [r for r in caplog.records if "Refused a connection" in r.getMessage()]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", vars(refused)["from"])


def test_a_peer_that_is_down_or_ending_is_told_in_plain_words_and_is_no_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        mine, other = listen(), listen()
        node = Node(1, urls({1: mine, 2: other}))

        def said(words: str) -> bool:
            return any(words in record.getMessage() for record in caplog.records)

        # It accepts and hangs up at once, as a node does that is ending; then it is gone.
        ending = await asyncio.get_running_loop().create_server(_HangsUp, sock=other)
        await node.peers.start([mine])
        await until("hung up", lambda: said("closed during the handshake"))
        ending.close()
        await ending.wait_closed()
        await until("gone", lambda: said("Connection refused"))
        await node.peers.close()

    with caplog.at_level(logging.INFO):
        run(scenario())
    told = [record for record in caplog.records if "Cannot connect" in record.getMessage()]
    assert {record.levelname for record in told} == {"INFO"}
    assert all(record.getMessage().startswith("Cannot connect to a peer, will keep trying: ") for record in told)
    assert not [record for record in told if "event" in record.getMessage() or "Errno" in record.getMessage()]


class _HangsUp(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def test_a_member_that_is_gone_is_let_go_and_a_new_one_dialled() -> None:
    async def scenario() -> None:
        one, other = await two()
        third = listen()
        newcomer = Node(3, {**one.members, **urls({3: third})})
        await newcomer.peers.start([third])
        one.members = {1: one.members[1], **urls({3: third})}
        one.peers.refresh()
        await until("connected to the new one", lambda: one.peers.connected(3) and newcomer.peers.connected(1))
        await until("let go", lambda: not one.peers.connected(2) and 2 not in one.peers._incoming)
        assert not one.send(2, TimeoutNow(1, 1))
        for node in (one, other, newcomer):
            await node.peers.close()

    run(scenario())


def test_delays_between_attempts_grow_and_are_jittered() -> None:
    async def scenario() -> None:
        node = Node(1, {1: "http://127.0.0.1:1"}, Config())
        delays = [[node.peers.redial_delay_s(attempt) for _ in range(50)] for attempt in range(30)]
        for attempt, sample in enumerate(delays):
            full = min(1.0, 0.05 * 2**attempt)
            assert full / 2 <= min(sample) < max(sample) <= full
            assert len(set(sample)) == 50
        await node.peers.close()

    run(scenario())

"""The Raft process's end of the IPC sockets, with a real socket pair and a worker that is this test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import uvloop

from raftchat.config import Config
from raftchat.ipc import frames
from raftchat.ipc.frames import Accepted, FrameReader, FrameType, Hello, Leader, Refusal
from raftchat.node.workers import Worker, Workers

CONFIG = Config()


@dataclass
class Segment:
    sequence: int
    base_index: int
    revision: int = 0


class Node:
    """`Workers` and what they asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Worker, str, int, bytes]] = []
        self.inputs = 0
        self.serving: list[int] = []
        self.bad: list[int] = []
        self.segments = [Segment(1, 1), Segment(2, 10)]
        self.indexed: set[int] = set()
        self.workers = Workers(
            CONFIG,
            lambda: Hello("d/log", 1, 1),
            lambda: self.segments,
            lambda sequence: sequence in self.indexed,
            lambda: b'{"ID":1}',
            self._input,
            self.serving.append,
            self.bad.append,
        )
        self.workers.requests = self

    def _input(self) -> None:
        self.inputs += 1

    def propose(self, client: Worker, batch: int, records: Any) -> None:
        self.asked.append((client, "propose", batch, bytes(records)))

    def read(self, client: Worker, context: int) -> None:
        self.asked.append((client, "read", context, b""))


class FakeWorker:
    """The other end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.reader = FrameReader(CONFIG.ipc_frame_max_bytes)
        self.got: list[tuple[int, bytes]] = []

    async def receive(self, count: int) -> list[tuple[int, bytes]]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(5):
            while len(self.got) < count:
                data = await loop.sock_recv(self.sock, 65536)
                assert data, "the Raft process closed the connection"
                self.got += [(kind, bytes(body)) for kind, body in self.reader.feed(data)]
        got, self.got = self.got[:count], self.got[count:]
        return got

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)


async def connect(node: Node, number: int = 1) -> FakeWorker:
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    await node.workers.connect(number, ours)
    worker = FakeWorker(theirs)
    segments = [FrameType.SEGMENT] * len(node.segments) + [FrameType.INDEXED] * len(node.indexed)
    kinds = [kind for kind, _ in await worker.receive(3 + len(segments))]
    assert kinds == [FrameType.HELLO, *segments, FrameType.COMMIT, FrameType.LEADER]
    return worker


async def until(probe: Any) -> None:
    async with asyncio.timeout(5):
        while not probe():  # noqa: ASYNC110 (nobody tells)
            await asyncio.sleep(0.002)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, 20))


def test_a_worker_is_told_where_things_stand_and_then_what_changes() -> None:
    async def scenario() -> None:
        node = Node()
        node.workers.commit(7)
        worker = await connect(node)
        node.segments.append(Segment(3, 20))
        node.workers.segments_changed()
        node.workers.leader(Leader(2, 3, True))
        node.workers.commit(21)
        node.workers.commit(22)
        node.workers.flush()
        got = await worker.receive(3)
        assert [kind for kind, _ in got] == [FrameType.SEGMENT, FrameType.COMMIT, FrameType.LEADER]
        assert frames.decode_segment(memoryview(got[0][1])) == (3, 20, 0)
        assert frames.decode_u64(memoryview(got[1][1])) == 22
        assert frames.decode_leader(memoryview(got[2][1])) == Leader(2, 3, True)

    run(scenario())


def test_a_compacted_segment_is_told_once_in_place_of_others_and_then_its_index() -> None:
    async def scenario() -> None:
        node = Node()
        node.indexed = {1, 2}
        old = await connect(node)
        node.segments[:] = [Segment(2, 1, 1), Segment(3, 20)]
        node.workers.segments_changed()
        node.workers.indexed(2)
        node.workers.flush()
        got = [(kind, frames.decode_segment(memoryview(body))) for kind, body in await old.receive(2)]
        assert got == [(FrameType.SEGMENT, (2, 1, 1)), (FrameType.SEGMENT, (3, 20, 0))]
        ((kind, body),) = await old.receive(1)
        assert (kind, frames.decode_u64(memoryview(body))) == (FrameType.INDEXED, 2)
        node.indexed = {2}
        await connect(node)
        node.workers.segments_changed()
        node.workers.commit(21)
        node.workers.flush()
        # Nothing is told twice.
        assert [kind for kind, _ in await old.receive(1)] == [FrameType.COMMIT]

    run(scenario())


def test_requests_reach_the_driver_and_answers_come_before_the_commit_that_covers_them() -> None:
    async def scenario() -> None:
        node = Node()
        worker = await connect(node)
        await worker.send(frames.encode_propose(5, [b"records"]) + frames.encode_read(6) + frames.encode_serving())
        await until(lambda: len(node.asked) == 2 and node.serving == [1])
        client = node.asked[0][0]
        assert [asked[1:] for asked in node.asked] == [("propose", 5, b"records"), ("read", 6, b"")]
        assert node.inputs == 2
        node.workers.commit(9)
        client.accepted(Accepted(5, 9, 1, 1000))
        client.refused(6, Refusal.LOST)
        client.read_at(6, 9)
        node.workers.flush()
        kinds = [kind for kind, _ in await worker.receive(4)]
        assert kinds == [FrameType.ACCEPTED, FrameType.REFUSED, FrameType.READ_AT, FrameType.COMMIT]
        await worker.send(frames.encode_status(3))
        ((_, body),) = await worker.receive(1)
        assert frames.decode_status_is(memoryview(body)) == (3, b'{"ID":1}')

    run(scenario())


def test_counters_are_summed_and_never_go_back_when_a_worker_ends_but_gauges_do() -> None:
    async def scenario() -> None:
        node = Node()
        one, two = await connect(node, 1), await connect(node, 2)
        await one.send(frames.encode_counters({"posts": 5, "seconds": 0.5, "sockets_open": 3}))
        await two.send(frames.encode_counters({"posts": 2, "sockets_open": 1}))
        await until(lambda: node.workers.counters() == {"posts": 7, "seconds": 0.5, "sockets_open": 4})
        one.sock.close()
        await until(lambda: len(node.workers) == 1)
        assert node.workers.counters() == {"posts": 7, "seconds": 0.5, "sockets_open": 1}
        again = await connect(node, 1)
        await again.send(frames.encode_counters({"posts": 1}))
        await until(lambda: node.workers.counters()["posts"] == 8)

    run(scenario())


def test_a_worker_that_stands_still_is_told_the_last_commit_and_costs_no_memory() -> None:
    async def scenario() -> None:
        node = Node()
        worker = await connect(node)
        (client,) = node.workers._workers
        for index in range(100_000):
            node.workers.commit(index)
            node.workers.flush()
        assert client._paused
        assert client._transport is not None
        assert client._transport.get_write_buffer_size() < 200_000
        last = 0
        async with asyncio.timeout(10):
            while last != 99_999:
                ((kind, body),) = await worker.receive(1)
                assert kind == FrameType.COMMIT
                last = frames.decode_u64(memoryview(body))

    run(scenario())


def test_a_bad_frame_disconnects_that_worker_alone() -> None:
    async def scenario() -> None:
        node = Node()
        bad, good = await connect(node, 1), await connect(node, 2)
        await bad.send(frames.encode_commit(5))  # not a worker's to send
        await until(lambda: len(node.workers) == 1)
        await good.send(frames.encode_read(1))
        await until(lambda: len(node.asked) == 1)
        # An answer for the one that is gone goes nowhere.
        node.workers.commit(3)
        node.workers.flush()

    run(scenario())


def test_a_worker_that_died_before_it_was_connected_costs_nobody_else_a_descriptor() -> None:
    async def scenario() -> None:
        node = Node()
        ours, theirs = socket.socketpair()
        theirs.close()
        await node.workers.connect(1, ours)
        await until(lambda: len(node.workers) == 0)
        # As long as the object holds the number, its end closes whatever bears it by then.
        assert ours.fileno() == -1

    run(scenario())


def test_a_worker_is_told_what_was_dropped_and_its_word_about_an_index_is_passed_on() -> None:
    async def scenario() -> None:
        node = Node()
        worker = await connect(node)
        del node.segments[0]
        node.workers.segments_changed()
        node.workers.segments_changed()
        node.workers.commit(21)
        node.workers.flush()
        (dropped, _) = await worker.receive(2)
        assert (dropped[0], frames.decode_u64(memoryview(dropped[1]))) == (FrameType.DROPPED, 10)
        await connect(node)  # One that comes later knows nothing else.
        await worker.send(frames.encode_bad_index(2))
        await until(lambda: node.bad == [2])

    run(scenario())

"""The worker's end of the IPC socket, against a Raft process that the test plays on the other end."""

from __future__ import annotations

import asyncio
import dataclasses
import socket

import uvloop

from raftchat.config import KIB, Config
from raftchat.ipc import frames
from raftchat.ipc.frames import FrameReader, FrameType
from raftchat.worker.link import RaftLink
from raftchat.worker.pending import Failure, Outcome, PendingPosts

CONFIG = dataclasses.replace(Config(), uncommitted_max_bytes=1024 * KIB, request_timeout_ms=20)
RECORD = b"r" * (64 * KIB)


def test_a_raft_process_that_does_not_read_costs_bounded_memory_and_posts_are_refused_as_overload() -> None:
    """Posts that timed out are not pending any more, but what was to be said of them still waits to be written."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        link = RaftLink(CONFIG, loop, PendingPosts())
        transport, _ = await loop.create_unix_connection(lambda: link, sock=ours)
        outcomes: list[Outcome] = []
        most = proposed = 0
        while Failure.OVERLOADED not in outcomes[-1:] or len(link.pending):
            # A turn's posts, and then time enough for them to be given up.
            for _ in range(4):
                link.propose(RECORD, outcomes.append)
                proposed += 1
            await asyncio.sleep(0.001)
            link.pending.expire(float("inf"))
            most = max(most, transport.get_write_buffer_size())
            assert most <= CONFIG.uncommitted_max_bytes + 5 * len(RECORD), "no bound"
        assert outcomes.count(Failure.UNKNOWN) * len(RECORD) >= CONFIG.uncommitted_max_bytes, "refused too early"
        assert len(outcomes) == proposed

        # It reads again: everything that was proposed arrives, and there is room once more.
        reader, arrived = FrameReader(CONFIG.ipc_frame_max_bytes), 0
        while transport.get_write_buffer_size():
            for kind, body in reader.feed(await loop.sock_recv(theirs, 1 << 20)):
                assert kind == FrameType.PROPOSE
                arrived += len(frames.decode_propose(body)[1])
        outcomes.clear()
        link.propose(RECORD, outcomes.append)
        await asyncio.sleep(0)
        assert outcomes == []
        assert len(link.pending) == 1
        link.close()
        theirs.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario(), 20))

"""The supervisor when starting or reaching a child fails: tried again, or ended with a message, never silent."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from raftchat.config import Config
from raftchat.ipc.child import ChildConfig
from raftchat.node import control, supervisor
from raftchat.node.exits import CANNOT_START, RUNTIME, NodeFailed
from raftchat.node.supervisor import RAFT_MODULE, NodeSettings, Supervisor

DEADLINE_S = 10
CONFIG = Config(
    election_timeout_ms=60,
    heartbeat_interval_ms=20,
    worker_restart_min_ms=1,
    worker_restart_max_ms=4,
    worker_failures_max=3,
    shutdown_timeout_ms=2000,
)


class FakeProcess:
    def __init__(self) -> None:
        self.returncode: int | None = None
        self._ended = asyncio.Event()

    def end(self, code: int) -> None:
        if self.returncode is None:
            self.returncode = code
            self._ended.set()

    def terminate(self) -> None:
        self.end(0)

    def kill(self) -> None:
        self.end(-9)

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode


class Children:
    """Stands for `start_child`. `worker_errors` are raised by the first starts of a worker, one each."""

    def __init__(self) -> None:
        self.worker_errors: list[Exception] = []
        self.raft_error: Exception | None = None
        self.raft: FakeProcess
        self.channel: socket.socket
        """The Raft process's end."""
        self.worker_starts = 0
        self.raft_started = asyncio.Event()
        self.worker_started = asyncio.Event()

    async def start(self, module: str, child: ChildConfig) -> FakeProcess:
        if module == RAFT_MODULE:
            if self.raft_error is not None:
                raise self.raft_error
            self.channel = socket.socket(fileno=os.dup(child.fds["control"]))
            self.channel.setblocking(False)
            self.raft = FakeProcess()
            self.raft_started.set()
            return self.raft
        self.worker_starts += 1
        self.worker_started.set()
        if self.worker_errors:
            raise self.worker_errors.pop(0)
        return FakeProcess()

    async def told(self, what: str) -> dict[str, Any]:
        """Read until the supervisor says this."""
        while True:
            try:
                received = control.receive(self.channel)
            except BlockingIOError:
                await asyncio.sleep(0.001)
                continue
            assert received is not None
            message, descriptors = received
            for descriptor in descriptors:
                os.close(descriptor)
            if message["Type"] == what:
                return message


@pytest.fixture
def children(monkeypatch: pytest.MonkeyPatch) -> Iterator[Children]:
    children = Children()
    monkeypatch.setattr(supervisor, "start_child", children.start)
    yield children
    if hasattr(children, "channel"):
        children.channel.close()


def run(scenario: Callable[[Supervisor, asyncio.Task[int]], Awaitable[None]], before: Any = None) -> int:
    """Run a node of fake children through a scenario: its exit code."""

    async def main() -> int:
        settings = NodeSettings(
            node_id=1,
            data_dir="d",
            workers=1,
            url="http://127.0.0.1:1",
            http=[],
            peer=[],
            lock_fd=0,
            config=CONFIG,
            log_format="text",
            log_level="info",
            environ={},
        )
        node = Supervisor(settings)
        if before is not None:
            before(node)
        async with asyncio.timeout(DEADLINE_S):
            running = asyncio.create_task(node.run())
            await scenario(node, running)
            return await running

    return asyncio.run(main())


async def until_it_ends(node: Supervisor, running: asyncio.Task[int]) -> None:
    await asyncio.wait({running})


def test_a_worker_that_cannot_be_forked_now_is_started_later(children: Children) -> None:
    children.worker_errors = [
        OSError(errno.EMFILE, "Too many open files"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
    ]

    async def scenario(node: Supervisor, running: asyncio.Task[int]) -> None:
        await children.raft_started.wait()
        assert (await children.told("worker"))["Number"] == 1
        node._stopping.set()
        await children.told("stop")
        children.raft.end(0)

    assert run(scenario) == 0
    assert children.worker_starts == 3


def test_a_worker_that_can_never_be_started_ends_the_node(children: Children) -> None:
    children.worker_errors = [OSError(errno.ENOMEM, "Cannot allocate memory")] * 99

    async def scenario(node: Supervisor, running: asyncio.Task[int]) -> None:
        await children.raft_started.wait()
        await children.told("stop")
        children.raft.end(0)

    with pytest.raises(NodeFailed, match="worker 1 could not be started 3 times in a row") as caught:
        run(scenario)
    assert caught.value.code == RUNTIME


def test_what_nobody_thought_of_ends_the_node_with_a_message(children: Children) -> None:
    children.worker_errors = [RuntimeError("can't start new thread")]

    async def scenario(node: Supervisor, running: asyncio.Task[int]) -> None:
        await children.raft_started.wait()
        await children.told("stop")
        children.raft.end(0)

    with pytest.raises(NodeFailed, match="RuntimeError: can't start new thread"):
        run(scenario)


def test_a_raft_process_that_cannot_be_forked_is_told(children: Children) -> None:
    children.raft_error = OSError(errno.EMFILE, "Too many open files")
    with pytest.raises(NodeFailed, match="Too many open files") as caught:
        run(until_it_ends)
    assert caught.value.code == CANNOT_START


def fill(channel: socket.socket) -> None:
    while True:
        try:
            control.send(channel, {"Type": "filler"})
        except BlockingIOError:
            return


def test_a_channel_that_is_full_is_waited_for(children: Children) -> None:
    """The Raft process may have no time to read for a while: that is not its end."""

    def before(node: Supervisor) -> None:
        node._channel.setblocking(False)
        fill(node._channel)

    async def scenario(node: Supervisor, running: asyncio.Task[int]) -> None:
        await children.worker_started.wait()
        await children.told("worker")
        fill(node._channel)
        node._stopping.set()
        await children.told("stop")
        children.raft.end(0)

    assert run(scenario, before) == 0
    assert children.worker_starts == 1


def test_a_worker_whose_socket_cannot_be_handed_over_is_replaced(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError(errno.ETOOMANYREFS, "Too many references")]
    send = control.send

    def failing(sock: socket.socket, message: dict[str, Any], descriptor: int | None = None) -> None:
        if failures:
            raise failures.pop()
        send(sock, message, descriptor)

    monkeypatch.setattr(control, "send", failing)

    async def scenario(node: Supervisor, running: asyncio.Task[int]) -> None:
        await children.raft_started.wait()
        await children.told("worker")
        node._stopping.set()
        await children.told("stop")
        children.raft.end(0)

    assert run(scenario) == 0
    assert children.worker_starts == 2


def test_a_raft_process_that_is_gone_is_no_failure_of_a_worker(children: Children) -> None:
    async def scenario(node: Supervisor, running: asyncio.Task[int]) -> None:
        await children.raft_started.wait()
        children.channel.close()
        children.raft.end(-9)
        await asyncio.wait({running})

    with pytest.raises(NodeFailed, match="the Raft process was killed by SIGKILL"):
        run(scenario)

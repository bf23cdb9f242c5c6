"""The process that the user starts: binds the sockets, starts the Raft process and the workers, ends them in order.

A worker that ends is started again, unless the log is why; the Raft process is not, as it is the node. Children inherit
the sockets, so no connection is refused while a worker is being replaced, and the directory's lock is held until the
last of them is gone. Serves nothing itself, and knows neither Raft nor HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raftchat.config import Config
from raftchat.ipc.child import ChildConfig, start_child
from raftchat.node import control
from raftchat.node.exits import CANNOT_START, DONE, RUNTIME, NodeFailed
from raftchat.node.notify import notify
from raftchat.node.worker_runner import RaftGone, WorkerRunner

log = logging.getLogger(__name__)

RAFT_MODULE = "raftchat.node.raft_process"
WORKER_MODULE = "raftchat.worker"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """What a node needs to run. The sockets listen, the directory is prepared and locked."""

    node_id: int
    data_dir: str
    workers: int
    url: str
    """Of the HTTP API, for the ready line."""
    http: list[socket.socket]
    peer: list[socket.socket]
    lock_fd: int
    config: Config
    log_format: str
    log_level: str
    environ: Mapping[str, str]
    worker_module: str = WORKER_MODULE


class Supervisor:
    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._channel, self._raft_channel = control.pair()
        self._sender = control.Sender(self._channel)
        self._raft: asyncio.subprocess.Process | None = None
        self._raft_ready = False
        self._ready_told = False
        self._stopping = asyncio.Event()
        self._workers = [self._runner(number) for number in range(1, settings.workers + 1)]
        self._tasks: list[asyncio.Task[None]] = []
        self._forced = asyncio.Event()
        self._handed_over = asyncio.Event()
        self._failure: NodeFailed | None = None
        self._told_to_stop_s: float | None = None
        """When, on the loop's clock."""
        self._begins_anew = False

    async def run(self) -> int:
        """Run the node until it is told to end, or cannot go on. The exit code; raises NodeFailed."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            # A terminal that closes is an end in order, except for who was started to outlive it (nohup).
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                self._loop.add_signal_handler(number, self._on_signal, number)
        self._channel.setblocking(False)
        self._loop.add_reader(self._channel.fileno(), self._on_control)
        settings = self._settings
        try:
            fds = {"peer": [sock.fileno() for sock in settings.peer], "control": self._raft_channel.fileno()}
            try:
                self._raft = await self._start(RAFT_MODULE, role="raft", number=0, fds=fds)
            except OSError as error:
                raise NodeFailed(CANNOT_START, f"the Raft process could not be started: {error}") from error
            self._raft_channel.close()
            raft_ended = asyncio.create_task(self._raft.wait())
            self._tasks = [asyncio.create_task(worker.run()) for worker in self._workers]
            stopping = asyncio.create_task(self._stopping.wait())
            await asyncio.wait({raft_ended, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not raft_ended.done():
                await self._stop_in_order(raft_ended)
            self._read_last_words()
            return self._verdict()
        finally:
            await self._kill_all()
            if self._told_to_stop_s is not None:
                log.info("Stopped", extra={"took_ms": round((self._loop.time() - self._told_to_stop_s) * 1000)})

    @property
    def begins_anew(self) -> bool:
        """After `run`: the Raft process ended to have a snapshot installed, and everything is to be started again."""
        return self._begins_anew and self._told_to_stop_s is None

    def _verdict(self) -> int:
        if self._failure is not None:
            raise self._failure
        assert self._raft is not None
        code = self._raft.returncode
        if code == DONE:
            return DONE
        if self._forced.is_set():
            return RUNTIME  # Nothing that was acknowledged is lost, but it was no end in order.
        how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else f"ended with {code}"
        raise NodeFailed(code if code is not None and code > 0 else RUNTIME, f"the Raft process {how}")

    # Children

    async def _start(self, module: str, *, role: str, number: int, fds: dict[str, Any]) -> asyncio.subprocess.Process:
        settings = self._settings
        return await start_child(
            module,
            ChildConfig(
                role=role,
                number=number,
                node_id=settings.node_id,
                data_dir=settings.data_dir,
                parent_pid=os.getpid(),
                fds={**fds, "lock": settings.lock_fd},
                log_format=settings.log_format,
                log_level=settings.log_level,
                config=settings.config,
                settings={"url": settings.url, "workers": settings.workers},
            ),
        )

    def _runner(self, number: int) -> WorkerRunner:
        return WorkerRunner(
            self._settings.config,
            number,
            self._stopping,
            self._start_worker,
            self._connect_worker,
            self._fail,
            lambda: self._ready_told,
        )

    async def _start_worker(self, number: int, ipc: int) -> asyncio.subprocess.Process:
        fds = {"http": [sock.fileno() for sock in self._settings.http], "ipc": ipc}
        return await self._start(self._settings.worker_module, role="worker", number=number, fds=fds)

    async def _connect_worker(self, number: int, ipc: int) -> None:
        try:
            await self._sender.send({"Type": "worker", "Number": number}, ipc)
        except ConnectionError as error:
            raise RaftGone from error

    # What children say

    def _on_control(self) -> None:
        try:
            received = control.receive(self._channel)
        except BlockingIOError:
            return
        except OSError:
            received = None
        if received is None:
            self._loop.remove_reader(self._channel.fileno())
            return
        message, _ = received
        match message["Type"]:
            case "ready":
                self._raft_ready = True
            case "serving":
                self._workers[message["Number"] - 1].serving = True
            case "handed-over":
                self._handed_over.set()
            case "restart" | "failed":
                self._last_words(message)
        if not self._ready_told and self._raft_ready and all(worker.serving for worker in self._workers):
            self._ready_told = True
            print(f"raft-chat: node {self._settings.node_id} is ready on {self._settings.url}", flush=True)
            notify(f"READY=1\nSTATUS=Serving on {self._settings.url}\nMAINPID={os.getpid()}", self._settings.environ)

    def _read_last_words(self) -> None:
        """What the Raft process said before it ended may still lie in the socket."""
        while self._channel.fileno() >= 0:
            try:
                received = control.receive(self._channel)
            except OSError:
                return
            if received is None:
                return
            self._last_words(received[0])

    def _last_words(self, message: dict[str, Any]) -> None:
        if message["Type"] == "restart":
            self._begins_anew = True
        elif message["Type"] == "failed":
            self._failure = NodeFailed(message["Code"], message["Message"])

    # The end

    def _on_signal(self, number: signal.Signals) -> None:
        if self._told_to_stop_s is not None and number == signal.SIGINT:
            self._forced.set()
        elif self._told_to_stop_s is None:
            log.info("Stopping", extra={"signal": signal.Signals(number).name})
            self._told_to_stop_s = self._loop.time()
            self._stopping.set()

    def _fail(self, failure: NodeFailed) -> None:
        self._failure = failure
        self._stopping.set()

    async def _stop_in_order(self, raft_ended: asyncio.Task[int]) -> None:
        """Leadership goes first, then the workers finish what they have, then the Raft process writes and ends."""
        notify("STOPPING=1", self._settings.environ)
        forced = asyncio.create_task(self._forced.wait())
        orderly = asyncio.create_task(self._stop_children(raft_ended))
        limit_s = (2 * self._settings.config.shutdown_timeout_ms + self._settings.config.election_timeout_ms) / 1000
        await asyncio.wait({forced, orderly}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        if not orderly.done():
            if not self._forced.is_set():
                log.error("The node does not end in time: forcing it")
                self._forced.set()
            orderly.cancel()
        forced.cancel()

    async def _stop_children(self, raft_ended: asyncio.Task[int]) -> None:
        await self._tell_raft("hand-over")
        handed_over = asyncio.create_task(self._handed_over.wait())
        # New requests still come while leadership is handed over: those are what makes it worth while.
        timeout_s = self._settings.config.election_timeout_ms / 1000
        await asyncio.wait({handed_over, raft_ended}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        handed_over.cancel()
        for worker in self._workers:
            if worker.process is not None and worker.process.returncode is None:
                worker.process.terminate()
        await asyncio.gather(*self._tasks)
        await self._tell_raft("stop")
        await raft_ended

    async def _tell_raft(self, what: str) -> None:
        try:
            await self._sender.send({"Type": what})
        except OSError as error:
            log.debug("The Raft process does not listen", extra={"error": str(error)})

    async def _kill_all(self) -> None:
        """Whoever still runs, whatever the reason: the node ends as a whole."""
        self._stopping.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in [self._raft, *(worker.process for worker in self._workers)]:
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()


def run_node(settings: NodeSettings) -> int:
    """Run a node in this process until it ends: its exit code. Raises NodeFailed."""

    async def run() -> int:
        while True:
            node = Supervisor(settings)
            code = await node.run()
            if not node.begins_anew:
                return code
            log.info("Starting again, on the snapshot that came in")

    # Each connection takes a descriptor, and so does each segment of the log. The usual 1024 are for users of select().
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        return asyncio.run(run())
    finally:
        sys.stdout.flush()

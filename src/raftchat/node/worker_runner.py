"""Keeps one worker running: starts it, connects it to the Raft process, and starts it again whenever it ends.

Later each time if it keeps failing; not at all if the log is why, or if it never served. Whatever goes wrong is told
or ends the node. Does not know how a process is started, nor what else there is in a node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Protocol

from raftchat.config import Config
from raftchat.node.exits import CANNOT_START, CORRUPT, RUNTIME, NodeFailed

log = logging.getLogger(__name__)


class Process(Protocol):
    @property
    def returncode(self) -> int | None: ...
    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    async def wait(self) -> int: ...


class RaftGone(Exception):
    """There is nobody to connect a worker to."""


class WorkerRunner:
    def __init__(
        self,
        config: Config,
        number: int,
        stopping: asyncio.Event,
        start: Callable[[int, int], Awaitable[Process]],
        connect: Callable[[int, int], Awaitable[None]],
        fail: Callable[[NodeFailed], None],
        has_served: Callable[[], bool],
    ) -> None:
        """`start(number, descriptor)` and `connect(number, descriptor)` get the two ends of the worker's socket; both
        raise OSError, and `connect` RaftGone. `fail` ends the node. `has_served`: whether the node was ever ready; then
        it does not give up."""
        self.number = number
        self.process: Process | None = None
        self.serving = False
        self._config = config
        self._stopping = stopping
        self._start = start
        self._connect = connect
        self._fail = fail
        self._has_served = has_served

    async def run(self) -> None:
        """Until the node stops."""
        try:
            await self._keep_running()
        except Exception as error:
            log.critical("Unexpected failure", exc_info=error)
            what = f"looking after worker {self.number} failed: {type(error).__name__}: {error}"
            self._fail(NodeFailed(RUNTIME, what))

    async def _keep_running(self) -> None:
        config = self._config
        delay_ms, failures = config.worker_restart_min_ms, 0
        while not self._stopping.is_set():
            self.serving = False
            code: int | None = None
            try:
                code = await self._run_once()
                what, why = "ended", str(code)
            except RaftGone:
                return  # That is being seen to.
            except OSError as error:
                # Out of memory, processes or descriptors: in a moment there may be some.
                what, why = "could not be started", str(error)
            if self._stopping.is_set():
                return
            if code in (CANNOT_START, CORRUPT):
                # What is committed cannot be read or understood here, and the next one would find the same.
                self._fail(NodeFailed(code, f"worker {self.number} cannot go on with this log: see what it said"))
                return
            if self.serving:
                delay_ms, failures = config.worker_restart_min_ms, 0
            else:
                failures += 1
                if failures >= config.worker_failures_max and not self._has_served():
                    self._fail(NodeFailed(RUNTIME, f"worker {self.number} {what} {failures} times in a row: {why}"))
                    return
            log.error(f"A worker {what}, starting it again", extra={"worker": self.number, "code": code, "why": why})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_ms / 1000)
            delay_ms = min(2 * delay_ms, config.worker_restart_max_ms)

    async def _run_once(self) -> int:
        """Its exit code. Raises OSError if it cannot be started or connected, RaftGone."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            self.process = process = await self._start(self.number, theirs.fileno())
            try:
                await self._connect(self.number, ours.fileno())
            except (OSError, RaftGone):
                # It has nobody to talk to.
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
                raise
        if self._stopping.is_set():
            process.terminate()
        return await process.wait()

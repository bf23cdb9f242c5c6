"""The thread in which the store is kept (`upkeep.py`), and its way to the loop that owns log and core.

The thread asks the loop for what only that may do and waits for it; the loop never waits for the thread. Does not know
what there is to do.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

from raftchat import _log
from raftchat.chat.retention import Command
from raftchat.config import Config
from raftchat.ipc.frames import Accepted, Refusal
from raftchat.node.driver import Driver
from raftchat.node.store_files import StoreFiles
from raftchat.node.store_ports import Counters, Start, Stopping, Taken, View
from raftchat.node.upkeep import Upkeep
from raftchat.node.workers import Workers
from raftchat.raft import Raft, Role
from raftchat.storage.identity import Identity

log = logging.getLogger(__name__)

T = TypeVar("T")

_FILES_MIN = 3
"""Fewer files than this are not worth a snapshot: entries are there before it is installed."""


class LoopOwner:
    """`store_ports.Owner`, called in the keeper's thread. What is public besides is for the loop."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        owned: _log.Log,
        raft: Raft,
        driver: Driver,
        workers: Workers,
        wake: Callable[[], None],
        taken: Taken | None,
    ) -> None:
        """`taken`: the newest snapshot at opening."""
        self.taken = taken
        self.indexed_segments: set[int] = set()
        """Sequences."""
        self._loop = loop
        self._log = owned
        self._raft = raft
        self._driver = driver
        self._workers = workers
        self._wake = wake
        self._segments: list[_log.Segment] = []
        self._layout: tuple[int, int] | None = None
        self._changes = 0
        self._batch = 0
        if taken is not None:
            self._offer(taken)

    def _on_loop(self, function: Callable[[], T]) -> T:
        """Its result; what it raises is raised here."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        self._loop.call_soon_threadsafe(run)
        return future.result()

    def view(self) -> View:
        return self._on_loop(self._view)

    def _view(self) -> View:
        layout = (self._log.active_sequence, self._changes)
        if layout != self._layout:
            # The list is long; only the end of the active one moves on without a change of layout.
            self._layout, self._segments = layout, self._log.segments()
        raft = self._raft
        return View(
            self._segments,
            self._log.retired(),
            raft.commit_index,
            raft.is_ready,
            raft.term,
            self._log.active_used_bytes,
        )

    def indexed(self, sequence: int) -> None:
        self._on_loop(lambda: self._indexed(sequence))

    def _indexed(self, sequence: int) -> None:
        self.indexed_segments.add(sequence)
        self._workers.indexed(sequence)
        self._workers.flush()

    def snapshot_taken(self, taken: Taken) -> None:
        self._on_loop(lambda: self._snapshot_taken(taken))

    def _snapshot_taken(self, taken: Taken) -> None:
        self.taken = taken
        self._offer(taken)

    def _offer(self, taken: Taken) -> None:
        """To followers: to those that lack more than half of the bytes, and three files, even if the log would do."""
        sealed = [segment for segment in self._log.segments()[:-1] if segment.last_index <= taken.index]
        better_below, left = 0, sum(segment.size_bytes for segment in sealed)
        half = left // 2
        for segment in sealed[: -(_FILES_MIN - 1)]:
            if left < half:
                break
            better_below = segment.base_index + 1
            left -= segment.size_bytes
        self._raft.snapshot_available(taken.index, taken.term, taken.time_ms, taken.membership, better_below)

    def install(self, compacted: _log.Compacted) -> None:
        self._on_loop(lambda: self._install(compacted))

    def _install(self, compacted: _log.Compacted) -> None:
        for segment in self._log.install(compacted):
            self.indexed_segments.discard(segment.sequence)
        self._layout_changed()

    def _layout_changed(self) -> None:
        self._changes += 1
        self._workers.segments_changed()
        self._workers.flush()

    def drop_prefix(self, first_index: int) -> None:
        self._on_loop(lambda: self._drop_prefix(first_index))

    def _drop_prefix(self, first_index: int) -> None:
        for segment in self._log.drop_prefix(first_index):
            self.indexed_segments.discard(segment.sequence)
        self._layout_changed()

    def unlink(self, retired: Sequence[_log.Segment]) -> None:
        # To flush the directory takes as long as the system's journal does, and to free a large file's blocks some
        # milliseconds more: not on the loop.
        self._log.unlink(retired)

    def prepare(self) -> None:
        # To reserve and flush a file takes as long as the disk does: not on the loop.
        self._log.prepare()

    def roll(self) -> None:
        self._on_loop(self._roll)

    def _roll(self) -> None:
        self._log.roll()
        self._wake()  # The workers are told by the next turn.

    def hand_over(self, heard_within_ms: int) -> int:
        return self._on_loop(lambda: self._hand_over(heard_within_ms))

    def _hand_over(self, heard_within_ms: int) -> int:
        status = self._raft.status()
        since_ms = time.monotonic_ns() / 1e6 - heard_within_ms
        heirs = [
            (follower.match_index, node)
            for node, follower in status.followers.items()
            if not follower.learner
            and follower.match_index >= self._raft.commit_index
            and follower.last_contact_ms >= since_ms
        ]
        if status.role is not Role.LEADER or not heirs:
            return 0
        to = max(heirs)[1]
        self._raft.transfer_leadership(to)
        self._wake()
        return to

    def propose(self, commands: Sequence[Command]) -> int | None:
        records = b"".join(_log.pack(*command) for command in commands)
        answer: Future[int | None] = Future()

        def run() -> None:
            self._batch += 1
            self._driver.propose(_Proposer(answer), self._batch, records)
            self._wake()

        self._loop.call_soon_threadsafe(run)
        return answer.result()


class _Proposer:
    """A client of the driver that waits for one answer; it comes within the time that a proposal may wait."""

    def __init__(self, answer: Future[int | None]) -> None:
        self._answer = answer

    def accepted(self, accepted: Accepted) -> None:
        self._answer.set_result(accepted.first_index)

    def refused(self, batch: int, reason: Refusal) -> None:
        self._answer.set_result(None)

    def read_at(self, context: int, index: int) -> None:
        raise AssertionError("the keeper reads what it has applied")


class _Clock:
    def __init__(self, pause_ms: int, stopping: threading.Event) -> None:
        self._pause_s = pause_ms / 1000
        self._stopping = stopping

    def monotonic_ms(self) -> float:
        return boot_ms()

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def pause(self) -> None:
        if self._stopping.wait(self._pause_s):
            raise Stopping


def boot_ms() -> float:
    """A clock that nobody sets and that goes on while the machine sleeps, where there is one."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)) / 1e6


class StoreKeeper:
    def __init__(
        self,
        config: Config,
        identity: Identity,
        start: Start,
        log_directory: str,
        snapshots_directory: str,
        owner: LoopOwner,
        on_failed: Callable[[Exception], None],
    ) -> None:
        """`on_failed(error)`: a fault of this program, told in the loop; the node cannot go on."""
        self._config = config
        self._owner = owner
        self._on_failed = on_failed
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._loop = asyncio.get_running_loop()
        reader = _log.LogReader(log_directory)
        files = StoreFiles(config, log_directory, snapshots_directory, reader, self._stopping)
        clock = _Clock(config.store_pause_ms, self._stopping)
        self._upkeep = Upkeep(config, (identity.cluster_id, identity.epoch), start, reader, files, owner, clock)
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def distrust(self, sequence: int) -> None:
        """A worker says that this segment's index is rotten: it is made again. In any thread."""
        self._upkeep.distrust(sequence)
        self._wake.set()

    def committed(self) -> None:
        """There is more to apply. Costs next to nothing."""
        if not self._wake.is_set():
            self._wake.set()

    @property
    def counters(self) -> Counters:
        return self._upkeep.counters

    async def close(self) -> None:
        """What is under way is given up; nothing is lost by it."""
        self._stopping.set()
        self._wake.set()
        # Not joined in the loop: the thread may be waiting for it.
        if self._thread.is_alive():
            await self._loop.run_in_executor(None, self._thread.join)

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._wake.clear()
                self._upkeep.round()
                if self._stopping.wait(self._config.store_interval_ms / 1000):
                    return
                due_ms = self._upkeep.due_ms
                self._wake.wait(None if due_ms == math.inf else max(0.0, (due_ms - boot_ms()) / 1000))
        except Stopping:
            return
        except Exception as error:
            log.critical("The keeper of the store failed", exc_info=error)
            self._loop.call_soon_threadsafe(self._on_failed, error)

"""The process that owns the log: `python -m raftchat.node.raft_process`, started by the supervisor.

Wires directory, core, driver, disk, peers and workers to one uvloop, and turns the driver when something arrived or is
due. What it tells the supervisor is in `control.py`. SIGTERM and SIGHUP are the supervisor's business: a service
manager may send them to all processes at once, and this one must outlive the workers' last requests.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any, cast

import uvloop

from raftchat import __version__, _log, logs
from raftchat.chat.state import UnknownKind
from raftchat.ipc.child import ChildConfig, read_child_config
from raftchat.ipc.frames import Hello
from raftchat.node import control
from raftchat.node.catch_up import CatchUp
from raftchat.node.codec import WireMessage
from raftchat.node.directory import OpenDirectory, log_directory, open_directory, snapshots_directory
from raftchat.node.disk import Disk
from raftchat.node.driver import Driver, NodeLog
from raftchat.node.exits import CANNOT_START, CORRUPT, DONE, RUNTIME, NodeFailed
from raftchat.node.peers import Peers
from raftchat.node.snapshot_files import SnapshotFiles
from raftchat.node.snapshot_receiver import SnapshotReceiver
from raftchat.node.status import status_json
from raftchat.node.store_keeper import LoopOwner, StoreKeeper
from raftchat.node.transfer import Manifest
from raftchat.node.watch import Watch
from raftchat.node.workers import Workers
from raftchat.raft import Raft, Role
from raftchat.raft.messages import InstallSnapshot
from raftchat.storage.incoming import Incoming

log = logging.getLogger("raftchat.node.raft_process")  # __name__ is "__main__"

SWITCH_INTERVAL_S = 0.0005


class RaftProcess:
    """One run of it, from an open directory to exit 0. Everything else ends in `fail`."""

    def __init__(self, child: ChildConfig, channel: socket.socket) -> None:
        self._child = child
        self._config = child.config
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._turn_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_ms = math.inf
        self._ready_told = False
        self._handing_over = False
        self._stopped = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        opened = open_directory(self._config, child.data_dir)
        self._opened: OpenDirectory = opened
        # The protocols of core and driver are met by two logs, each with batches of its own: mypy cannot see that.
        node_log = cast(NodeLog, opened.log)
        random = Random()
        # A sole voter has nobody to listen for: its election time-out is over when it starts.
        alone = opened.history[-1][1].voters.keys() == {child.node_id}
        listens_since_ms = now_ms() - (2 * self._config.election_timeout_ms if alone else 0)
        try:
            self._raft = Raft(
                self._config,
                child.node_id,
                node_log,
                opened.hard_state,
                opened.history,
                random,
                noop=_log.pack(_log.KIND_NOOP, b"", b""),
                pack_membership=lambda membership: _log.pack(_log.KIND_MEMBERSHIP, b"", membership),
                now_ms=listens_since_ms,
            )
        except ValueError as error:
            raise NodeFailed(CORRUPT, f"{child.data_dir}: {error}") from error
        self._disk = Disk(
            opened.log,
            opened.hard_state_file,
            self._loop.call_soon_threadsafe,
            self._persisted,
            self._disk_failed,
            _log.SyncThread(),
            self._loop.add_reader,
        )
        self._workers = Workers(
            self._config,
            self._hello,
            opened.log.segments,
            lambda sequence: sequence in self._store_owner.indexed_segments,
            self._status,
            self.wake,
            lambda number: self.tell({"Type": "serving", "Number": number}),
            lambda sequence: self._store.distrust(sequence),
        )
        self._peers = Peers(
            self._config,
            opened.identity.cluster_id,
            child.node_id,
            lambda: self._raft.membership.members,
            random,
            _log.parse_batch,
            self._received,
            self._broken,
            SnapshotFiles(log_directory(child.data_dir), snapshots_directory(child.data_dir), opened.log.segments),
            self._snapshot_asked,
        )
        self._snapshot_attempts: Counter[int] = Counter()
        self._catch_up = CatchUp(self._fetch, self._raft.needs_snapshot, self._begin_anew)
        self._driver = Driver(
            self._config,
            child.node_id,
            self._raft,
            node_log,
            self._disk,
            self._peers,
            self._catch_up,
            self._workers,
            _log.check_unstamped,
            random.getrandbits(62),
        )
        self._workers.requests = self._driver
        # A worker that connects before the first turn begins with what was committed in an earlier life.
        self._workers.commit(self._raft.commit_index)
        self._store_owner = LoopOwner(
            self._loop, opened.log, self._raft, self._driver, self._workers, self.wake, opened.taken
        )
        self._store = StoreKeeper(
            self._config,
            opened.identity,
            opened.start,
            log_directory(child.data_dir),
            snapshots_directory(child.data_dir),
            self._store_owner,
            self._store_failed,
        )
        self._kept_index = 0
        self._watch = Watch(self._config, child.node_id, now_ms())

    async def run(self) -> None:
        """Until the supervisor says stop."""
        self._loop.set_exception_handler(self._on_exception)
        recovery = self._opened.log.recovery
        log.info(
            "Started",
            extra={
                "version": __version__,
                "data_dir": self._child.data_dir,
                "members": dict(self._raft.membership.members),
                "last_index": self._opened.log.last_index,
                "snapshot_index": self._opened.taken.index if self._opened.taken else 0,
                "term": self._raft.term,
                "torn_tail_cut": recovery is not None and recovery.torn,
            },
        )
        self._channel.setblocking(False)
        self._loop.add_reader(self._channel.fileno(), self._on_control)
        await self._peers.start([socket.socket(fileno=fd) for fd in self._child.fds["peer"]])
        # What lives as long as the process need not be looked at by every collection.
        gc.collect()
        gc.freeze()
        self.wake()
        self._store.start()
        await self._stopped.wait()

    # Turns

    def wake(self) -> None:
        """Something arrived: turn once everything that arrived with it has been read."""
        if not self._turn_scheduled:
            self._turn_scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        self._turn_scheduled = False
        now = now_ms()
        self._driver.turn(now, time.time_ns() // 1_000_000)
        self._after_turn(now)
        self._arm(now)

    def _arm(self, now: float) -> None:
        """Have the timer go off at the deadline or before; too early is harmless, and cheaper than a new timer."""
        deadline_ms = min(self._driver.deadline_ms, self._watch.deadline_ms)
        if deadline_ms >= self._timer_due_ms:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due_ms = deadline_ms
        # Rounded up: the loop counts in whole milliseconds, and a timer that is early by less turns in vain.
        self._timer = self._loop.call_later(math.ceil(max(0.0, deadline_ms - now)) / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_due_ms = math.inf
        now = now_ms()
        if min(self._driver.deadline_ms, self._watch.deadline_ms) <= now:
            self.wake()
        else:
            self._arm(now)

    def _after_turn(self, now: float) -> None:
        raft = self._raft
        self._watch.look(now, raft.role, raft.term, raft.leader, lambda: raft.status().followers)
        if raft.commit_index != self._kept_index:
            self._kept_index = raft.commit_index
            self._store.committed()
        if not self._ready_told and self._driver.caught_up:
            self._ready_told = True
            self.tell({"Type": "ready"})
        if self._handing_over and self._raft.role is not Role.LEADER:
            self._handed_over()

    # What arrives

    def _received(self, sender: int, message: WireMessage) -> None:
        self._driver.receive(sender, message)
        self.wake()

    def _broken(self, peer: int) -> None:
        self._driver.broken(peer)
        self.wake()

    def _persisted(self, persisted: Any) -> None:
        self._driver.persisted(persisted)
        self.wake()

    def _hello(self) -> Hello:
        taken = self._store_owner.taken
        directory, identity = log_directory(self._child.data_dir), self._opened.identity
        return Hello(directory, identity.member_id, identity.epoch, taken.path if taken else None)

    def _status(self) -> bytes:
        return status_json(
            self._opened.identity,
            self._raft,
            self._opened.log,
            self._driver,
            self._workers,
            self._peers,
            self._store.counters,
            self._catch_up.status,
            now_ms(),
        )

    # The supervisor

    def tell(self, message: dict[str, Any]) -> None:
        try:
            control.send(self._channel, message)
        except OSError as error:
            log.debug("The supervisor does not listen", extra={"error": str(error)})

    def _on_control(self) -> None:
        try:
            received = control.receive(self._channel)
        except BlockingIOError:
            return
        if received is None:
            # Its end comes through stdin as well; nothing is left to be told.
            self._loop.remove_reader(self._channel.fileno())
            return
        message, descriptors = received
        match message["Type"]:
            case "worker":
                (fd,) = descriptors
                self._spawn(self._workers.connect(message["Number"], socket.socket(fileno=fd)))
            case "hand-over":
                self._hand_over()
            case "stop":
                self._spawn(self._stop())

    def _spawn(self, coroutine: Any) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_exception(self._loop, {"message": "a task failed", "exception": error})

    def _hand_over(self) -> None:
        """Give leadership to the voter that is furthest, if there is one that answers (3.10)."""
        status = self._raft.status()
        recent_ms = now_ms() - self._config.election_timeout_ms
        heirs = [
            (follower.match_index, node)
            for node, follower in status.followers.items()
            if not follower.learner and follower.last_contact_ms >= recent_ms
        ]
        self._handing_over = True
        if status.role is not Role.LEADER or not heirs:
            self._handed_over()
            return
        log.info("Handing leadership over", extra={"to": max(heirs)[1]})
        self._raft.transfer_leadership(max(heirs)[1])
        self._loop.call_later(self._config.election_timeout_ms / 1000, self._handed_over)
        self.wake()

    def _handed_over(self) -> None:
        if self._handing_over:
            self._handing_over = False
            self.tell({"Type": "handed-over"})

    def _fetch(self, wanted: InstallSnapshot, on_gathered: Callable[[Manifest], None]) -> SnapshotReceiver | None:
        url = self._raft.membership.members.get(wanted.sender)
        if url is None:
            return None  # A leader that this node does not know of yet; its entries will say.
        receiver = SnapshotReceiver(
            self._config,
            self._opened.identity.cluster_id,
            self._child.node_id,
            self._child.data_dir,
            wanted.sender,
            url,
            wanted.last_index,
            lambda manifest: self._loop.call_soon_threadsafe(on_gathered, manifest),
        )
        receiver.start()
        return receiver

    def _snapshot_asked(self, peer: int) -> None:
        """One that begins again and again does not get it: something here or there is broken."""
        self._snapshot_attempts[peer] += 1
        if self._snapshot_attempts[peer] > self._config.transfer_attempts_max:
            del self._snapshot_attempts[peer]
            log.warning(
                "A peer tries in vain to get the snapshot: entries are sent if they are here", extra={"peer": peer}
            )
            self._raft.snapshot_failed(peer)
            self.wake()

    def _begin_anew(self, index: int) -> None:
        """A snapshot is there. From here to the end nothing is appended, so what was decided about it stays right."""
        self._driver.stopping = True
        self._disk.close()
        Incoming(self._child.data_dir).complete(index)
        self.tell({"Type": "restart"})
        sys.stderr.flush()
        os._exit(DONE)

    async def _stop(self) -> None:
        """Refuse what is new, let the disk finish, write down how far was committed, hang up."""
        self._driver.stopping = True
        self._catch_up.close()
        await self._store.close()
        self._turn()
        self._disk.close()
        last = self._raft.hard_state
        self._opened.hard_state_file.write(last.term, last.vote, last.commit)
        await self._peers.close()
        self._stopped.set()

    # Failure

    def _disk_failed(self, error: Exception) -> None:
        fail(
            self._channel,
            RUNTIME,
            f"writing to {self._child.data_dir} failed: {error}. "
            "What had not been acknowledged may be lost; nothing that was. Check the disk, then start again.",
        )

    def _store_failed(self, error: Exception) -> None:
        """What is committed can no more be applied, here or in a worker."""
        match error:
            case UnknownKind():
                fail(self._channel, CANNOT_START, str(error))
            case _log.CorruptLog():
                fail(self._channel, CORRUPT, str(error))
            case _:
                fail(self._channel, RUNTIME, f"keeping the store failed: {type(error).__name__}: {error}")

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """An exception in a callback: the state of the node is unknown, so it must not go on."""
        error = context.get("exception")
        if error is None or isinstance(error, asyncio.CancelledError):
            log.error("Event loop: %s", context["message"])
            return
        log.critical("Unexpected failure", exc_info=error)
        fail(self._channel, RUNTIME, f"the Raft process failed: {type(error).__name__}: {error}")


def now_ms() -> float:
    return time.monotonic_ns() / 1e6


def fail(channel: socket.socket, code: int, message: str) -> None:
    """End this process at once; the supervisor passes the message on. Nothing is flushed or answered any more."""
    try:
        control.send(channel, {"Type": "failed", "Code": code, "Message": message})
    except OSError:
        log.critical(message)
    sys.stderr.flush()
    os._exit(code)


def main() -> None:
    child = read_child_config()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # The keeper's thread must not have the loop wait for the interpreter as long as is usual.
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    logs.setup("raft", log_format=child.log_format, level=child.log_level)
    channel = socket.socket(fileno=child.fds["control"])

    async def run() -> None:
        await RaftProcess(child, channel).run()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
    except NodeFailed as failure:
        fail(channel, failure.code, str(failure))
    except Exception as error:
        log.critical("Unexpected failure", exc_info=error)
        fail(channel, RUNTIME, f"the Raft process failed: {type(error).__name__}: {error}")
    raise SystemExit(DONE)


if __name__ == "__main__":
    main()

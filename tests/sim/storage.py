"""One node's disk with its log and hard state, and what of them is durable, as the simulated disk has it.

Outlives the node's crashes. Knows nothing of Raft, nor when something is to be written: it is the driver's `Disk`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftchat.log_reference import SyncPoint
from raftchat.raft import HardState, Persisted
from raftchat.storage.hard_state import HardStateFile, initial

from .disk import PowerLoss, SimDisk, SimSlotFile
from .plan import stream
from .view import ObservedLog, View

if TYPE_CHECKING:
    from .node import SimNode
    from .simulation import Simulation


class Storage:
    def __init__(self, simulation: Simulation, node: SimNode) -> None:
        seed = simulation.plan.seed
        self.disk = SimDisk(stream(seed, f"disk/{node.id}"))
        self.log: ObservedLog
        self.view = View()
        """What the log holds; while the node is down, what it held."""
        self.durable_index = 0
        self.durable_hard_state = HardState()
        self.durable_before_crash = (0, 0)
        """Index and digest of what was durable when the node went down."""
        self.recovered_hard_state = HardState()
        self.slowdown = 1.0
        """How much longer than usual a write takes."""
        self.busy = False
        self._node = node
        self._plan = simulation.plan
        self._scheduler = simulation.scheduler
        self._see = simulation.observers
        self._reached = simulation.trace.reached
        self._delays = stream(seed, f"delays/{node.id}")
        self._ids = stream(seed, f"segments/{node.id}")

    def recover(self) -> None:
        """Open everything, as a node does when it starts. Raises PowerLoss."""
        self._hard = HardStateFile(SimSlotFile(self.disk, "hard-state", initial()))
        self.recovered_hard_state = HardState(self._hard.term, self._hard.vote, self._hard.commit)
        self.log = ObservedLog(
            "log",
            new_segment_id=lambda: self._ids.getrandbits(64) | 1,
            segment_size_bytes=self._plan.config.segment_size_bytes,
            hint=self._hard.commit,
            disk=self.disk,
        )
        self.view = self.log.view
        self.log.on_append, self.log.before_cut, self.log.on_cut = self._appended, self._before_cut, self._cut
        self._active_sequence = self.log.active_sequence
        self._written: HardState | None = None
        self.busy = False

    def recovered(self) -> None:
        """Opening has synced what it found."""
        self.durable_index, self.durable_hard_state = self.view.last_index, self.recovered_hard_state

    def crash(self, *, power_lost: bool) -> None:
        self.durable_before_crash = (self.durable_index, self.view.digests[self.durable_index])
        self.crash_while_down(power_lost=power_lost)

    def crash_while_down(self, *, power_lost: bool) -> None:
        """Before `recovered`: what was durable before the last crash still has to be."""
        if power_lost:
            self.disk.lose_power()
        else:
            self.disk.kill()

    # What is durable

    def has_durable(self, index: int, digest: int) -> bool:
        return self.durable_index >= index and self.view.digests[index] == digest

    def _appended(self, first_index: int, last_index: int) -> None:
        log = self.log
        if log.active_sequence != self._active_sequence:
            # A segment that is not the active one was durable before the next one appeared.
            self._active_sequence = log.active_sequence
            self.durable_index = max(self.durable_index, log.segments()[-1].base_index - 1)
            self._reached["segment rolled"] += 1
        for see in self._see.appended:
            see(self._node, first_index, last_index)

    def _before_cut(self, last_index: int) -> None:
        # If power is lost meanwhile, what is to be cut may be there or not.
        self.durable_index = min(self.durable_index, last_index)

    def _cut(self, last_index: int) -> None:
        self._active_sequence = self.log.active_sequence
        self.durable_index = last_index
        for see in self._see.truncated:
            see(self._node, last_index)

    # The driver's disk: one write at a time, in another thread

    def start(self, hard_state: HardState | None) -> None:
        assert not self.busy, "one write at a time"
        self.busy = True
        self.disk.begin_flush()
        point = self.log.begin_sync()
        digest = self.view.digests[point.last_index]
        delay_us = int(self._plan.sync_us * self.slowdown * (0.5 + self._delays.random()))
        self._scheduler.after(delay_us, self._end_write, self._node.life, hard_state, point, digest)

    def _end_write(self, life: int, hard_state: HardState | None, point: SyncPoint, digest: int) -> None:
        node = self._node
        if life != node.life or not node.up:
            return
        try:
            if self._plan.log_before_hard_state:
                self._sync_log(point, digest)
                self._write_hard_state(hard_state)
            else:
                self._write_hard_state(hard_state)
                self._sync_log(point, digest)
        except PowerLoss:
            node.machine_stops()
            return
        self.busy = False
        self.log.end_sync(point)
        if point.generation != self.log.generation:
            self._reached["sync outlived by a tail cut"] += 1
        node.wrote(Persisted(self._written, point.last_index, point.generation))

    def _sync_log(self, point: SyncPoint, digest: int) -> None:
        with self.disk.flushing():
            point.wait()
        view = self.view
        if view.last_index >= point.last_index and view.digests[point.last_index] == digest:
            self.durable_index = max(self.durable_index, point.last_index)

    def _write_hard_state(self, hard_state: HardState | None) -> None:
        if hard_state is None:
            return
        self._hard.write(hard_state.term, hard_state.vote, hard_state.commit)
        self._written = hard_state
        for see in self._see.hard_state_written:
            see(self._node, hard_state)
        self.durable_hard_state = hard_state

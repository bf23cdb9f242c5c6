"""One simulated node: the production driver and core on a simulated disk, restarted through the real recovery.

Stands where the Raft process's event loop and transport stand. Knows neither why it is paused or crashed
(`faults/`) nor what is looked at (`checkers/`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftchat.log_reference import KIND_MEMBERSHIP, KIND_NOOP, check_unstamped, pack, parse_batch
from raftchat.node.codec import Forward, ForwardAccepted, ForwardRefused, WireMessage
from raftchat.node.driver import Driver
from raftchat.raft import Membership, NotLeader, Persisted, Raft, Role
from raftchat.raft.messages import AppendEntries, AppendReply, InstallSnapshot

from . import trace as t
from .desk import Desk, Reading, Request
from .disk import PowerLoss
from .plan import stream
from .scheduler import NodeClock
from .storage import Storage
from .view import View

if TYPE_CHECKING:
    from .simulation import Simulation

FORWARDS = frozenset({Forward, ForwardAccepted, ForwardRefused})
FREQUENT = frozenset({AppendEntries, AppendReply})


class SimNode:
    """It is the driver's `Network`; `storage` is its `Disk`, `desk` its `Clients` and only `Client`."""

    def __init__(self, simulation: Simulation, node_id: int, clock: NodeClock) -> None:
        self.id = node_id
        self.clock = clock
        self.up = False
        self.paused = self._deaf = False
        self.life = 0
        """Number of starts. What was scheduled in an earlier life is void."""
        self.storage = Storage(simulation, self)
        self.role, self.term, self.leader, self.commit_index = Role.FOLLOWER, 0, 0, 0
        """As of the last turn."""
        self._simulation = simulation
        self._scheduler = simulation.scheduler
        self._see = simulation.observers
        self._trace = simulation.trace
        self.raft: Raft
        self.driver: Driver
        self.desk: Desk

    # Start and end

    def boot(self) -> None:
        assert not self.up
        self.life += 1
        try:
            self._recover()
        except PowerLoss:
            self.machine_stops()
            return
        self.up = True
        self.role, self.term, self.leader, self.commit_index = self.raft.role, self.raft.term, 0, 0
        self._turn_is_due = False
        self._timer = 0
        self._timer_deadline_ms = float("inf")
        self._state: tuple[Role, int, int, int] | None = None
        """What checkers saw last."""
        for see in self._see.booted:
            see(self)
        storage = self.storage
        storage.recovered()
        view = storage.view
        self._trace.event(self._scheduler.now_us, t.BOOT, self.id, view.last_index, view.digests[-1])
        if self._trace.readable:
            torn = ", a torn tail was cut" if storage.log.recovery and storage.log.recovery.torn else ""
            self.say(f"starts: {storage.recovered_hard_state}, log to {view.last_index}{torn}")
        self._wake()

    def _recover(self) -> None:
        plan, storage = self._simulation.plan, self.storage
        storage.recover()
        history = [(0, self._simulation.membership)]
        history += [(entry.index, Membership.decode(entry.value)) for entry in storage.log.find_kind(KIND_MEMBERSHIP)]
        self.raft = Raft(
            plan.config,
            self.id,
            storage.log,
            storage.recovered_hard_state,
            history,
            stream(plan.seed, f"raft/{self.id}/{self.life}"),
            noop=pack(KIND_NOOP, b"", b""),
            pack_membership=lambda value: pack(KIND_MEMBERSHIP, b"", value),
            now_ms=self.clock.monotonic_ms(),
        )
        self.desk = Desk(self, self._simulation)
        self.driver = Driver(
            plan.config,
            self.id,
            self.raft,
            storage.log,
            storage,
            self,
            self,
            self.desk,
            check_unstamped,
            request=stream(plan.seed, f"requests/{self.id}/{self.life}").getrandbits(62),
        )

    def crash(self, *, power_lost: bool) -> None:
        """`power_lost`: what was not synced may be gone. Otherwise only the process dies."""
        if not self.up:
            return
        self.up = self.paused = self._deaf = False
        self.storage.crash(power_lost=power_lost)
        self._trace.event(self._scheduler.now_us, t.FAULT, self.id, power_lost)
        if self._trace.readable:
            self.say("loses power" if power_lost else "is killed")
        for see in self._see.crashed:
            see(self, power_lost)

    def machine_stops(self) -> None:
        """Power was lost in the middle of a disk operation."""
        self._simulation.trace.reached["power lost within a disk operation"] += 1
        if self.up:
            self.crash(power_lost=True)
        else:
            self.storage.crash_while_down(power_lost=True)
        self._simulation.restart_later(self)

    def pause(self, *, deaf: bool) -> None:
        """`deaf`: what others send meanwhile is lost."""
        self.paused, self._deaf = True, deaf

    def resume(self) -> None:
        self.paused = self._deaf = False
        if self.up:
            self._wake()

    def say(self, text: str) -> None:
        self._trace.say(self._scheduler.now_us, self.id, text)

    @property
    def view(self) -> View:
        """What the log holds; while the node is down, what it held."""
        return self.storage.view

    # What arrives. A node that is down loses it, a paused one finds it later.

    def receive(self, source: int, message: WireMessage) -> None:
        if not self.up or self._deaf:
            return
        if self._trace.readable:
            self.say(f"◀ {source}: {message}")
        if type(message) is AppendEntries and message.batch is not None:
            message = _checked(message)
        self.driver.receive(source, message)
        self._wake()

    def connection_broke(self, peer: int) -> None:
        if self.up:
            self.driver.broken(peer)
            self._wake()

    def wrote(self, persisted: Persisted) -> None:
        """The disk has done what the driver asked for."""
        self.driver.persisted(persisted)
        self._wake()

    def submit(self, asked: Request | Reading) -> bool:
        """From a client. False: there is nobody to connect to."""
        if not self.up:
            return False
        if isinstance(asked, Request):
            self.desk.requests[asked.number] = asked
            self.driver.propose(self.desk, asked.number, asked.records)
        else:
            self.desk.readings[asked.number] = asked
            self.driver.read(self.desk, asked.number)
        self._wake()
        return True

    def hand_over(self, to: int) -> bool:
        """False if it does not lead."""
        if not self.up or self.paused:
            return False
        try:
            self.raft.transfer_leadership(to)
        except NotLeader:
            return False
        self._wake()
        return True

    # The loop

    def _wake(self) -> None:
        if not self._turn_is_due and not self.paused:
            self._turn_is_due = True
            self._scheduler.after(self._simulation.plan.turn_us, self._turn, self.life)

    def _turn(self, life: int) -> None:
        if life != self.life or not self.up:
            return
        self._turn_is_due = False
        if self.paused:
            return
        try:
            self.driver.turn(self.clock.monotonic_ms(), self.clock.wall_ms())
        except PowerLoss:
            self.machine_stops()
            return
        raft = self.raft
        self.role, self.term, self.leader, self.commit_index = raft.role, raft.term, raft.leader, raft.commit_index
        digest = self.storage.view.digests[-1]
        state = (self.role, self.term, self.commit_index, digest)
        if state != self._state:
            self._state = state
            for see in self._see.turned:
                see(self)
        self._trace.event(self._scheduler.now_us, t.TURN, self.id, self.term, self.commit_index, digest)
        self._set_timer()

    def _set_timer(self) -> None:
        """At most one timer counts; one that proves too early sets the next."""
        deadline_ms = self.driver.deadline_ms
        if deadline_ms < self._timer_deadline_ms:
            self._timer_deadline_ms = deadline_ms
            self._timer += 1
            # A deadline that has passed takes a turn, and time goes on between two turns.
            delay_us = max(1, self.clock.true_us_until(deadline_ms))
            self._scheduler.after(delay_us, self._on_timer, self.life, self._timer)

    def _on_timer(self, life: int, timer: int) -> None:
        if life != self.life or timer != self._timer or not self.up:
            return
        self._timer_deadline_ms = float("inf")
        deadline_ms = self.driver.deadline_ms
        if deadline_ms != float("inf") and self.clock.true_us_until(deadline_ms) == 0:
            self._wake()
        else:
            self._set_timer()

    def set_clock_rate(self, rate_ppm: int) -> None:
        self.clock.set_rate(rate_ppm)
        self._look_at_clock()

    def leap(self, by_ms: int) -> None:
        self.clock.leap(by_ms)
        self._look_at_clock()

    def _look_at_clock(self) -> None:
        if self.up:
            self._timer_deadline_ms = float("inf")
            self._set_timer()

    # The driver's network

    def send(self, to: int, message: WireMessage) -> bool:
        if self._trace.readable:
            self.say(f"▶ {to}: {message}")
        network = self._simulation.network
        if type(message) in FORWARDS:
            if not self.connected(to):
                return False
            network.send(self.id, to, message, once=True)
        else:
            for see in self._see.sending:
                see(self, to, message)
            # Log bytes stay as they are on their way: the reference log hands out copies.
            network.send(self.id, to, message, rare=type(message) not in FREQUENT)
        return True

    def connected(self, peer: int) -> bool:
        """A cut is not noticed, a dead process is."""
        return self._simulation.nodes[peer].up

    def flush(self) -> None:
        """What was sent has left."""

    def want(self, snapshot: InstallSnapshot | None) -> None:
        """No log here is ever without its beginning."""
        assert snapshot is None

    def refresh(self) -> None:
        """Every node has a link to every other."""


def _checked(message: AppendEntries) -> AppendEntries:
    """Who receives log bytes checks them, as the transport does."""
    batch = message.batch
    assert batch is not None
    parsed = parse_batch(batch.data, batch.segment_id, batch.first_index)  # type: ignore[attr-defined]
    return AppendEntries(
        message.sender,
        message.term,
        message.prev_index,
        message.prev_term,
        message.commit_index,
        message.round,
        parsed,
    )

"""One turn of a node: everything that arrived goes into the core, and what follows from it goes out, once.

    driver.receive(…), propose(…), read(…), persisted(…), broken(…)      as things arrive; nothing happens yet
    driver.turn(now_ms, wall_ms)                                         now it does
    driver.deadline_ms                                                   when the next turn is due if nothing arrives

What is slow or uncertain is behind `Disk`, `Network`, `Snapshots` and `Clients`; the clocks are arguments. So the
simulator can run it as production does. Knows no sockets, threads or files, and not what an entry means.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

from raftchat.config import Config
from raftchat.ipc.frames import Accepted, Leader, Refusal
from raftchat.node.codec import Buffer, Forward, ForwardAccepted, ForwardRefused, WireMessage
from raftchat.node.forward import Forwards
from raftchat.node.waiting import READ_SIZE_BYTES, Client, Proposal, Question, Waiting
from raftchat.raft import HardState, NotLeader, Overloaded, Persisted, Raft, Ready
from raftchat.raft.messages import InstallSnapshot, Log

log = logging.getLogger(__name__)

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class NodeLog(Log, Protocol):
    """What the driver needs of the log beyond what the core does."""

    @property
    def last_time_ms(self) -> int: ...
    @property
    def active_sequence(self) -> int: ...
    @property
    def failed(self) -> bool:
        """After an error: something may have been written all the same, and nothing can be any more."""


class Disk(Protocol):
    """One write at a time."""

    @property
    def busy(self) -> bool: ...
    def start(self, hard_state: HardState | None) -> None:
        """Make the hard state (if any) and the log durable, then have `Driver.persisted` called, in another turn."""


class Network(Protocol):
    """The other members. Sending never blocks and promises nothing."""

    def send(self, to: int, message: WireMessage) -> bool:
        """False: it was not sent and will not be."""

    def connected(self, peer: int) -> bool: ...
    def flush(self) -> None: ...
    def refresh(self) -> None:
        """The membership changed."""


class Snapshots(Protocol):
    """Where state comes from that the leader's log no longer holds."""

    def want(self, snapshot: InstallSnapshot | None) -> None:
        """Have it fetched. Told again with every word of the leader, and None once it is not needed any more."""


class Clients(Protocol):
    """All workers: what they are told unasked."""

    def segments_changed(self) -> None: ...
    def commit(self, index: int) -> None: ...
    def leader(self, leader: Leader) -> None: ...
    def flush(self) -> None: ...


class Driver:
    def __init__(
        self,
        config: Config,
        node_id: int,
        raft: Raft,
        node_log: NodeLog,
        disk: Disk,
        network: Network,
        snapshots: Snapshots,
        clients: Clients,
        check_unstamped: Callable[[Buffer, int], int],
        request: int = 0,
    ) -> None:
        """`check_unstamped(records, record_size_max_bytes)` raises ValueError; `_log.check_unstamped`. `request`: as
        `Forwards` takes it."""
        self._config = config
        self._node_id = node_id
        self._raft = raft
        self._log = node_log
        self._disk = disk
        self._network = network
        self._snapshots = snapshots
        self._snapshot_wanted: InstallSnapshot | None = None
        self._clients = clients
        self._check_unstamped = check_unstamped
        self._forwards = Forwards(config, network, request)
        self._messages: list[tuple[int, WireMessage]] = []
        self._persisted: list[Persisted] = []
        self._proposals: list[tuple[Client, int, Buffer]] = []
        self._reads: list[tuple[Client, int]] = []
        self._broken: list[int] = []
        self._waiting: Waiting[Proposal] = Waiting(config.leader_wait_max_bytes)
        self._waiting_reads: Waiting[Question] = Waiting(config.leader_wait_max_bytes)
        self._arrivals = 0
        self._asked_leader = (0, 0)
        """Leader and term that what waits was last tried with."""
        self._not_before_ms = 0.0
        """Whoever is taken for the leader said that it does not lead: it is not asked again at once."""
        self._rounds: dict[int, list[Question]] = {}
        self._round = 0
        self._own_round = 0
        """The read that tells when this node has caught up; 0: none is under way."""
        self._caught_up_at = 0
        """Commit index from which this node counts as caught up; 0: not known yet."""
        self._own_round_due_ms = 0.0
        self._now_ms = 0.0
        self._wall_ms = 0
        self._leader = Leader(0, 0, False)
        self._commit_index = 0
        self._membership = raft.membership
        self._active_sequence = node_log.active_sequence
        self._full_at: int | None = None
        """Last index of the log when the disk was found full; None: there is room, as far as known."""
        self.stopping = False
        self.turns = 0
        self.batches = 0
        self.syncs = 0

    # What arrives

    def receive(self, sender: int, message: WireMessage) -> None:
        """A peer sent this."""
        self._messages.append((sender, message))

    def propose(self, client: Client, batch: int, records: Buffer) -> None:
        """Answered by `accepted` or `refused` of that client, once."""
        self._proposals.append((client, batch, records))

    def read(self, client: Client, context: int) -> None:
        """Answered by `read_at` of that client, once."""
        self._reads.append((client, context))

    def persisted(self, persisted: Persisted) -> None:
        """The disk has done what it was asked for."""
        self._persisted.append(persisted)

    def broken(self, peer: int) -> None:
        """The connection to or from this peer is gone, and with it what was under way."""
        self._broken.append(peer)

    # One turn

    def turn(self, now_ms: float, wall_ms: int) -> None:
        """`now_ms`: monotonic; `wall_ms`: since 1970, for the log time of what is appended now."""
        self.turns += 1
        self._now_ms, self._wall_ms = now_ms, wall_ms
        raft = self._raft
        self._guard(lambda: raft.tick(now_ms))
        if self._persisted:
            durable, self._persisted = self._persisted, []
            for persisted in durable:
                # A vote that is durable may be the one that wins, and then there must be room for the no-op.
                self._guard(partial(raft.step, persisted))
        if self._broken:
            broken, self._broken = self._broken, []
            for peer in broken:
                self._forwards.broken(peer)
                if peer == self._leader.node_id:
                    # Nobody is ready who does not hear what is committed.
                    self._caught_up_at = 0
                    self._own_round_due_ms = now_ms + self._config.heartbeat_interval_ms
        if self._messages:
            messages, self._messages = self._messages, []
            for sender, message in messages:
                self._step(sender, message)
        self._ask()
        if now_ms >= self._own_round_due():
            self._round += 1
            self._own_round = self._round
            raft.read_index(self._round)
        self._emit(raft.ready())

    @property
    def deadline_ms(self) -> float:
        """On the clock of `turn`; inf if only an arrival makes a difference."""
        deadline_ms = min(self._raft.deadline_ms, self._forwards.deadline_ms, self._own_round_due())
        if self._waiting or self._waiting_reads:
            deadline_ms = min(deadline_ms, self._waiting.deadline_ms, self._waiting_reads.deadline_ms)
            if self._not_before_ms > self._now_ms:
                deadline_ms = min(deadline_ms, self._not_before_ms)
        return deadline_ms

    @property
    def caught_up(self) -> bool:
        """A leader is known, and this node has what was committed when it was last asked."""
        return self._leader.ready

    def _step(self, sender: int, message: WireMessage) -> None:
        match message:
            case Forward(request, records):
                self._append_for(sender, request, records)
            case ForwardAccepted():
                self._forwards.accepted(message)
            case ForwardRefused(request, reason):
                self._forwards.refused(request, reason)
            case _:
                self._guard(lambda: self._raft.step(message))

    def _guard(self, step: Callable[[], None]) -> None:
        """A full disk is like a message that got lost: the core changed nothing, and the sender tries again."""
        try:
            step()
        except OSError as error:
            if error.errno not in DISK_FULL or self._log.failed:
                raise
            self._disk_is_full(error)

    def _disk_is_full(self, error: OSError) -> None:
        if self._full_at is None:
            log.error("The disk is full: nothing can be appended until there is room", extra={"error": str(error)})
        self._full_at = self._log.last_index

    def _append(self, records: Buffer) -> Accepted | Refusal | NotLeader:
        """Append as the leader: the answer without its batch number."""
        if self.stopping:
            return Refusal.SHUTTING_DOWN
        try:
            first_index, _ = self._raft.propose(records, self._wall_ms)
        except NotLeader as error:
            return error
        except Overloaded:
            return Refusal.OVERLOADED
        except OSError as error:
            if error.errno not in DISK_FULL or self._log.failed:
                raise
            self._disk_is_full(error)
            return Refusal.DISK_FULL
        self.batches += 1
        return Accepted(0, first_index, self._raft.term, self._log.last_time_ms)

    def _valid(self, records: Buffer) -> bool:
        try:
            return self._check_unstamped(records, self._config.record_size_max_bytes) > 0
        except ValueError as error:
            log.error("Refused a batch that is not made of records: %s", error)
            return False

    def _ask(self) -> None:
        """What waited, then what arrived, goes to the leader; what cannot go waits on."""
        now_ms, raft = self._now_ms, self._raft
        if (raft.leader, raft.term) != self._asked_leader:
            self._asked_leader, self._not_before_ms = (raft.leader, raft.term), now_ms
        if self._waiting:
            self._waiting.drain(self._propose)
            for late in self._waiting.expired(now_ms):
                late.client.refused(late.batch, Refusal.NO_LEADER)
        proposals, self._proposals = self._proposals, []
        for client, batch, records in proposals:
            if not self._valid(records):
                client.refused(batch, Refusal.BAD)
                continue
            self._arrivals += 1
            deadline_ms = now_ms + self._config.leader_wait_max_ms
            proposal = Proposal(self._arrivals, deadline_ms, client, len(records), batch, records, self._again)
            # Behind one that waits, so that they stay in order.
            if (self._waiting or not self._propose(proposal)) and not self._waiting.put(proposal):
                client.refused(batch, Refusal.OVERLOADED)
        if self._reads or self._waiting_reads:
            self._ask_reads()

    def _ask_reads(self) -> None:
        round: list[Question] = []
        if self._reachable():
            round += self._waiting_reads.expired(float("inf"))
        for late in self._waiting_reads.expired(self._now_ms):
            late.client.read_at(late.context, 0)
        reads, self._reads = self._reads, []
        for client, context in reads:
            self._arrivals += 1
            deadline_ms = self._now_ms + self._config.leader_wait_max_ms
            question = Question(self._arrivals, deadline_ms, client, READ_SIZE_BYTES, context)
            if self._reachable():
                round.append(question)
            elif not self._waiting_reads.put(question):
                client.read_at(context, 0)
        if round:
            self._round += 1
            self._rounds[self._round] = round
            self._raft.read_index(self._round)

    def _reachable(self) -> bool:
        """Whether there is a leader that can be asked now."""
        leader = self._raft.leader
        if leader == 0 or self._now_ms < self._not_before_ms:
            return False
        return leader == self._node_id or self._network.connected(leader)

    def _may_wait(self, deadline_ms: float) -> bool:
        """Whether something that the leader did not take may be tried again; and then not at once."""
        if self.stopping or self._now_ms >= deadline_ms:
            return False
        self._not_before_ms = self._now_ms + self._config.heartbeat_interval_ms
        return True

    def _again(self, proposal: Proposal) -> bool:
        return self._may_wait(proposal.deadline_ms) and self._waiting.put(proposal)

    def _propose(self, proposal: Proposal) -> bool:
        """False: there is nobody to take it yet. True: it was answered, or is on its way to the leader."""
        client, batch = proposal.client, proposal.batch
        match self._append(proposal.records):
            case Accepted(_, first_index, term, time_ms):
                client.accepted(Accepted(batch, first_index, term, time_ms))
            case Refusal() as reason:
                client.refused(batch, reason)
            case NotLeader(leader=leader):
                if leader not in (0, self._node_id) and self._full_at is not None:
                    # The leader might take it, but this node could not see what becomes of it.
                    client.refused(batch, Refusal.DISK_FULL)
                elif leader in (0, self._node_id) or not self._reachable():
                    return False
                else:
                    self._forwards.send(proposal, batch, proposal.records, leader, self._now_ms)
        return True

    def _append_for(self, follower: int, request: int, records: Buffer) -> None:
        answer: WireMessage
        if not self._valid(records):
            answer = ForwardRefused(request, Refusal.BAD)
        else:
            match self._append(records):
                case Accepted(_, first_index, term, time_ms):
                    answer = ForwardAccepted(request, first_index, term, time_ms)
                case Refusal() as reason:
                    answer = ForwardRefused(request, reason)
                case NotLeader():
                    # Not passed on: two nodes that take each other for the leader would play ball.
                    answer = ForwardRefused(request, Refusal.NO_LEADER)
        # If this cannot be sent, the follower says LOST in time: it cannot be known here what became of the entries.
        self._network.send(follower, answer)

    # What follows

    def _emit(self, ready: Ready) -> None:
        if self._full_at is not None and self._log.last_index > self._full_at:
            log.info("There is room on the disk again")
            self._full_at = None
        for to, message in ready.messages:
            self._network.send(to, message)
        if self._raft.membership is not self._membership:
            self._membership = self._raft.membership
            self._network.refresh()
        self._network.flush()
        if ready.persist is not None and not self._disk.busy:
            self.syncs += 1
            self._disk.start(ready.persist.hard_state)
        if ready.snapshot is not self._snapshot_wanted:
            self._snapshot_wanted = ready.snapshot
            self._snapshots.want(ready.snapshot)
        for read in ready.reads:
            self._answer_read(read.context, read.index)
        self._publish(ready)
        self._forwards.leader_is(ready.leader, self._now_ms)
        self._clients.flush()

    def _answer_read(self, context: int, index: int) -> None:
        if context == self._own_round:
            self._own_round, self._caught_up_at = 0, index
            self._own_round_due_ms = self._now_ms + self._config.heartbeat_interval_ms
            return
        for question in self._rounds.pop(context):
            # Asking again is always safe: the answer is about a later moment.
            if index or not (self._may_wait(question.deadline_ms) and self._waiting_reads.put(question)):
                question.client.read_at(question.context, index)

    def _publish(self, ready: Ready) -> None:
        if self._log.active_sequence != self._active_sequence:
            # Before the commit index that needs them.
            self._active_sequence = self._log.active_sequence
            self._clients.segments_changed()
        leader = Leader(ready.leader, ready.term, self._is_ready(ready))
        if leader != self._leader:
            self._leader = leader
            self._clients.leader(leader)
        if ready.commit_index != self._commit_index:
            self._commit_index = ready.commit_index
            self._clients.commit(ready.commit_index)

    def _is_ready(self, ready: Ready) -> bool:
        """Whether this node has everything that was committed when its leader was last asked."""
        if (ready.leader, ready.term) != self._leader[:2]:
            self._caught_up_at = 0
            self._own_round_due_ms = self._now_ms
        return 0 < self._caught_up_at <= ready.commit_index

    def _own_round_due(self) -> float:
        if self._leader.node_id == 0 or self._own_round or self._caught_up_at:
            return float("inf")
        return self._own_round_due_ms

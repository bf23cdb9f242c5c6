"""`Raft`: the one public class of the core. Messages, proposals and time in; `Ready` out.

Dispatches and collects; the rules are in the modules named after them. The package's docstring is the caller's loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf
from random import Random

from raftchat.config import Config
from raftchat.raft import (
    append,
    change,
    durability,
    election,
    read_index,
    replication,
    roles,
    snapshot,
    status,
    transfer,
)
from raftchat.raft.errors import NotLeader, Overloaded
from raftchat.raft.membership import Membership
from raftchat.raft.messages import (
    AppendEntries,
    AppendReply,
    HardState,
    InstallSnapshot,
    Log,
    Message,
    PeerMessage,
    Persisted,
    ReadIndexReply,
    ReadIndexRequest,
    Ready,
    RequestVote,
    Role,
    SnapshotInstalled,
    TimeoutNow,
    VoteReply,
)
from raftchat.raft.progress import Flow
from raftchat.raft.state import Leadership, State
from raftchat.raft.status import Status


class Raft:
    """One node's part in the consensus. Not thread-safe; never blocks."""

    def __init__(
        self,
        config: Config,
        node_id: int,
        log: Log,
        hard_state: HardState,
        history: Sequence[tuple[int, Membership]],
        random: Random,
        *,
        noop: bytes,
        pack_membership: Callable[[bytes], bytes],
        now_ms: float = 0,
    ) -> None:
        """A follower that knows of no leader yet.

        `hard_state` is what is durable. `history`: (index, membership), ascending: first the one before the log begins
        (bootstrap at index 0, an empty `Membership()` when joining, or the snapshot's), then every membership entry of
        the log. `noop` is an unstamped no-op record; `pack_membership` makes an unstamped membership record of
        `Membership.encode()`. `now_ms`: monotonic, any origin. Raises ValueError if these contradict each other
        (for one: the log ends below the hard state's commit index, so it has lost entries).
        """
        self._s = State(config, node_id, log, hard_state, history, random, noop, pack_membership, now_ms)
        self._dirty = True

    # Inputs

    def tick(self, now_ms: float) -> None:
        """Time has passed. `now_ms` is monotonic milliseconds; any distance is allowed, going back is ignored."""
        s = self._s
        if now_ms <= s.now_ms:
            return
        paused = now_ms - s.now_ms > s.config.election_timeout_ms
        s.now_ms = now_ms
        if s.lead is not None:
            self._tick_leader(s.lead, paused)
        elif now_ms >= s.election_deadline_ms:
            self._dirty = True
            election.time_out(s)
        if s.forwarded and read_index.expire(s):
            self._dirty = True
        if durability.update_commit_hint(s):
            self._dirty = True

    def _tick_leader(self, lead: Leadership, paused: bool) -> None:
        s = self._s
        if paused:
            # Answers may lie unread in our own buffers. Reads are safe all the same: they need a later round.
            for p in lead.progress.values():
                p.since_ms = s.now_ms
        transfer.expire(s, lead)
        if lead.progress and s.now_ms >= lead.heartbeat_at_ms:
            self._dirty = True
            if replication.has_quorum_contact(s, lead):
                lead.round += 1
                lead.beat = True
                lead.heartbeat_at_ms = s.now_ms + s.config.heartbeat_interval_ms
            else:
                roles.become_follower(s, s.term, leader=0)

    def step(self, message: Message) -> None:
        """A message from a peer, or `Persisted` or `SnapshotInstalled` from the own disk.

        Raises OSError from the log (then nothing was appended); AssertionError when a safety property is violated.
        """
        s = self._s
        self._dirty = True
        if isinstance(message, Persisted):
            durability.receive_persisted(s, message)
        elif isinstance(message, SnapshotInstalled):
            snapshot.receive_snapshot_installed(s, message)
        elif self._meet_terms(message):
            self._dispatch(message)

    def _meet_terms(self, m: PeerMessage) -> bool:
        """Figure 3.1, "Rules for Servers": adopt a later term, refuse an earlier one. False if that was all."""
        s = self._s
        if m.term == s.term:
            return True
        # A PreVote's term is that of an election that has not begun, so neither it nor its grant changes ours; and a
        # refusal may come from a voter that is behind (9.6).
        if (isinstance(m, RequestVote) and m.pre) or (isinstance(m, VoteReply) and m.pre and m.granted):
            return True
        if m.term > s.term:
            if isinstance(m, RequestVote) and election.is_disturbance(s, m):
                return False
            leads = isinstance(m, AppendEntries | InstallSnapshot)
            roles.become_follower(s, m.term, m.sender if leads else 0)
            return True
        if isinstance(m, AppendEntries | InstallSnapshot):
            append.receive_from_old_leader(s, m.sender, m.round)
        elif isinstance(m, RequestVote):
            s.hold(m.sender, VoteReply(s.id, s.term, False))
        elif isinstance(m, ReadIndexRequest):
            s.send(m.sender, ReadIndexReply(s.id, s.term, m.context, 0))
        return isinstance(m, VoteReply) and m.pre

    def _dispatch(self, m: PeerMessage) -> None:
        s = self._s
        if isinstance(m, AppendEntries):
            append.receive_append_entries(s, m)
        elif isinstance(m, AppendReply):
            if s.lead is not None:
                replication.receive_append_reply(s, s.lead, m)
        elif isinstance(m, RequestVote):
            election.receive_request_vote(s, m)
        elif isinstance(m, VoteReply):
            election.receive_vote_reply(s, m)
        elif isinstance(m, ReadIndexRequest):
            read_index.receive_request(s, m)
        elif isinstance(m, ReadIndexReply):
            read_index.receive_reply(s, m)
        elif isinstance(m, TimeoutNow):
            transfer.receive_timeout_now(s, m)
        else:
            snapshot.receive_install_snapshot(s, m)

    def propose(self, records: bytes | bytearray | memoryview, time_ms: int) -> tuple[int, int]:
        """Append unstamped records: first and last index. The term is `term`. Not committed yet.

        Raises NotLeader, Overloaded; OSError from the log (then nothing was appended).
        """
        s, lead = self._s, self._leading()
        size_bytes = len(records)
        if lead.transfer_to:
            raise NotLeader(0)
        if lead.uncommitted_bytes and lead.uncommitted_bytes + size_bytes > s.config.uncommitted_max_bytes:
            raise Overloaded(f"{lead.uncommitted_bytes} bytes wait for a majority")
        first, last = s.log.append(records, s.term, time_ms)
        lead.uncommitted.append((last, size_bytes))
        lead.uncommitted_bytes += size_bytes
        s.appended_ms = s.now_ms
        self._dirty = True
        return first, last

    def propose_membership(self, membership: Membership, time_ms: int) -> int:
        """Append a configuration, in force at once (4.1): its index. Raises NotLeader, ChangeRefused, OSError."""
        index = change.propose(self._s, self._leading(), membership, time_ms)
        self._dirty = True
        return index

    def read_index(self, context: int) -> None:
        """Ask for an index to read at (6.4). Answered exactly once, by a `Read` of a later `ready()`, 0 if refused.

        `context` is the caller's; reads asked for within one turn share a round of heartbeats.
        """
        read_index.ask(self._s, context)
        self._dirty = True

    def transfer_leadership(self, to: int) -> None:
        """Hand over to a voter (3.10). Proposals are refused until done, or for one election timeout.

        Raises NotLeader; ValueError if `to` is not another voter. No promise: watch `Ready.leader`.
        """
        transfer.begin(self._s, self._leading(), to)
        self._dirty = True

    def _leading(self) -> Leadership:
        lead = self._s.lead
        if lead is None:
            raise NotLeader(self._s.leader)
        if lead.leaving:
            raise NotLeader(0)
        return lead

    def snapshot_available(
        self, last_index: int, last_term: int, last_time_ms: int, membership: bytes, better_below: int = 0
    ) -> None:
        """The caller has the state up to `last_index` to give to followers that need what the log no longer holds.

        Also to those that are found to need entries from below `better_below`, although the log has them.
        """
        s = self._s
        assert last_index <= s.commit_index, "a snapshot holds committed entries only"
        assert better_below <= last_index + 1, "entries behind the snapshot come from the log"
        s.snapshot = InstallSnapshot(s.id, s.term, last_index, last_term, last_time_ms, membership)
        s.snapshot_better_below = better_below

    def needs_snapshot(self, last_index: int, last_term: int) -> bool:
        """Whether this state would still bring something: one was asked for, and the log has not got so far."""
        s = self._s
        return s.snapshot_wanted is not None and not snapshot.holds(s, last_index, last_term)

    def snapshot_failed(self, node: int) -> None:
        """A follower tries in vain to get the snapshot: it is sent entries, if the log holds what it needs."""
        s = self._s
        p = s.lead.progress.get(node) if s.lead is not None else None
        if p is not None:
            p.takes_snapshot = False
            if p.flow is Flow.SNAPSHOT and p.next_index >= s.log.first_index:
                p.probe(p.next_index)
                self._dirty = True

    # Outputs

    def ready(self) -> Ready:
        """What follows from the inputs so far, as one batch. Messages and reads are given out once."""
        s = self._s
        self._dirty = False
        if s.lead is None:
            durability.acknowledge(s)
            read_index.forward(s)
        else:
            self._lead(s.lead)
        messages, s.messages = s.messages, []
        reads, s.reads = s.reads, []
        persist = durability.to_persist(s)
        return Ready(messages, persist, s.commit_index, reads, s.snapshot_wanted, self.role, s.term, s.leader)

    def _lead(self, lead: Leadership) -> None:
        s = self._s
        read_index.begin_round(s, lead)
        replication.replicate(s, lead)
        if lead.transfer_to:
            transfer.proceed(s, lead)
        if lead.leaving:
            # 4.2.2: only now, when the others have been told the commit index that says so.
            transfer.bequeath(s, lead)
            roles.become_follower(s, s.term, leader=0)

    @property
    def has_ready(self) -> bool:
        """Whether an input came in since the last `ready()` that it may have something to say about."""
        return self._dirty

    @property
    def deadline_ms(self) -> float:
        """When the next `tick` matters, on its clock; inf if nothing is waited for."""
        s = self._s
        deadline_ms = inf
        if s.lead is not None:
            if s.lead.progress:
                deadline_ms = s.lead.heartbeat_at_ms
            if s.lead.transfer_to:
                deadline_ms = min(deadline_ms, s.lead.transfer_deadline_ms)
        elif s.leader or s.may_campaign:
            deadline_ms = s.election_deadline_ms
        if s.forwarded:
            deadline_ms = min(deadline_ms, read_index.deadline_ms(s))
        return min(deadline_ms, durability.commit_hint_due_ms(s))

    @property
    def role(self) -> Role:
        s = self._s
        return Role.LEARNER if s.role is Role.FOLLOWER and not s.is_voter else s.role

    @property
    def leader(self) -> int:
        """Node that leads `term`, as far as known; 0: unknown."""
        return self._s.leader

    @property
    def term(self) -> int:
        return self._s.term

    @property
    def commit_index(self) -> int:
        return self._s.commit_index

    @property
    def membership(self) -> Membership:
        """The configuration in force: the log's last, committed or not (4.1)."""
        return self._s.membership

    @property
    def is_ready(self) -> bool:
        """Leader: an entry of the own term is committed, so reads and membership changes are served."""
        s = self._s
        return s.lead is not None and s.commit_index >= s.lead.term_start_index

    @property
    def hard_state(self) -> HardState:
        """What should be durable now, with the commit hint brought up to date: for a last write when stopping."""
        s = self._s
        return HardState(s.term, s.vote, s.commit_hint)

    def status(self) -> Status:
        """A copy of everything worth showing."""
        return status.of(self._s, self.role)

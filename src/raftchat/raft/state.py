"""All that a node's rules work on (figure 3.1, "State"), and questions about it that change nothing.

Roles change in `roles.py` and nowhere else. Knows nothing of messages' meaning.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random

from raftchat.config import Config
from raftchat.raft.membership import Membership
from raftchat.raft.messages import HardState, InstallSnapshot, Log, PeerMessage, Read, Role
from raftchat.raft.progress import Progress


class Following:
    """What a follower knows and owes within one term."""

    __slots__ = ("acked_index", "acked_round", "fits", "round", "verified_index")

    def __init__(self, verified_index: int) -> None:
        self.verified_index = verified_index
        """Our log is known to be the leader's up to here: all that leaderCommit may commit."""
        self.fits = False
        """The leader's last message joined our log. Only then is there something to acknowledge."""
        self.round = 0
        self.acked_index = -1
        self.acked_round = 0


class Leadership:
    """What exists only while leading, and is gone with it."""

    __slots__ = (
        "beat",
        "heartbeat_at_ms",
        "leaving",
        "new_reads",
        "progress",
        "round",
        "rounds",
        "term_start_index",
        "transfer_deadline_ms",
        "transfer_sent",
        "transfer_to",
        "uncommitted",
        "uncommitted_bytes",
    )

    def __init__(self, term_start_index: int, heartbeat_at_ms: float) -> None:
        self.term_start_index = term_start_index
        """The no-op of this term; nothing of ours is committed before it is (3.6.2, 6.4)."""
        self.progress: dict[int, Progress] = {}
        """All other members."""
        self.round = 0
        """Rounds of heartbeats begun. Every AppendEntries carries it."""
        self.beat = True
        """Everybody is to hear of `round` with the next `ready()`."""
        self.heartbeat_at_ms = heartbeat_at_ms
        self.new_reads: list[tuple[int, int]] = []
        """(node, context) that wait for a round to begin."""
        self.rounds: deque[tuple[int, int, list[tuple[int, int]]]] = deque()
        """(round, index to read at, reads) that wait for a majority to answer it."""
        self.uncommitted: deque[tuple[int, int]] = deque()
        """(last index, bytes) of each proposal that is not committed."""
        self.uncommitted_bytes = 0
        self.transfer_to = 0
        self.transfer_sent = False
        self.transfer_deadline_ms = 0.0
        self.leaving = False
        """Our own removal is committed: step down once the others have been told."""


class State:
    __slots__ = (
        "appended_ms",
        "commit_index",
        "config",
        "durable_hard",
        "durable_index",
        "election_deadline_ms",
        "following",
        "forward_contexts",
        "forward_next",
        "forwarded",
        "heard_ms",
        "held",
        "hint",
        "history",
        "id",
        "lead",
        "leader",
        "log",
        "messages",
        "noop",
        "now_ms",
        "pack_membership",
        "random",
        "reads",
        "role",
        "snapshot",
        "snapshot_better_below",
        "snapshot_wanted",
        "term",
        "transfer",
        "vote",
        "votes",
    )

    def __init__(
        self,
        config: Config,
        node_id: int,
        log: Log,
        hard_state: HardState,
        history: Sequence[tuple[int, Membership]],
        random: Random,
        noop: bytes,
        pack_membership: Callable[[bytes], bytes],
        now_ms: float,
    ) -> None:
        if node_id < 1:
            raise ValueError("node ids start at 1")
        if hard_state.commit > log.last_index:
            raise ValueError(
                f"the log ends at {log.last_index}, below {hard_state.commit}, which was committed: it has lost entries"
            )
        indexes = [index for index, _ in history]
        if not indexes or sorted(set(indexes)) != indexes or indexes[-1] > log.last_index:
            raise ValueError(f"memberships at {indexes} do not fit a log that ends at {log.last_index}")
        self.config = config
        self.id = node_id
        self.log = log
        self.random = random
        self.noop = noop
        self.pack_membership = pack_membership
        self.now_ms = now_ms

        # Persistent (figure 3.1). The log may have become durable before the term it was written in did.
        self.term = max(hard_state.term, log.last_term)
        self.vote = hard_state.vote if self.term == hard_state.term else 0
        self.durable_hard = hard_state
        self.durable_index = min(log.synced_index, log.last_index)
        self.hint = hard_state.commit
        """Commit index that is to be in the hard state."""
        self.appended_ms = now_ms

        # Volatile.
        self.role = Role.FOLLOWER
        self.leader = 0
        self.commit_index = max(hard_state.commit, log.first_index - 1)
        self.history: list[tuple[int, Membership]] = list(history)
        """(index, membership): the last committed one, then at most one that is not. Rolled back with the log (4.1)."""
        self.heard_ms = now_ms
        """Last word from `leader`."""
        self.election_deadline_ms = now_ms + self.election_timeout()
        self.following = Following(self.commit_index)
        self.lead: Leadership | None = None
        self.votes: dict[int, bool] = {}
        self.transfer = False
        """This candidacy was asked for by the old leader (3.10)."""
        self.snapshot: InstallSnapshot | None = None
        """What this node could give to others."""
        self.snapshot_better_below = 0
        """Whoever needs entries from below this index is better off with the snapshot."""
        self.snapshot_wanted: InstallSnapshot | None = None

        # On its way out.
        self.messages: list[tuple[int, PeerMessage]] = []
        self.held: list[tuple[int, PeerMessage]] = []
        """Replies of this term that wait for term and vote to be durable."""
        self.reads: list[Read] = []
        self.forward_contexts: list[int] = []
        """Reads that go to the leader with the next `ready()`."""
        self.forwarded: dict[int, tuple[float, list[int]]] = {}
        """Request → (deadline, contexts)."""
        # Not from 1: a late answer to a request of this node's life before must not be taken for one of this life.
        self.forward_next = random.getrandbits(62)
        self.forget_old_memberships()

    @property
    def membership(self) -> Membership:
        return self.history[-1][1]

    @property
    def is_voter(self) -> bool:
        return self.id in self.membership.voters

    @property
    def may_campaign(self) -> bool:
        """A voter of the configuration in force, or of one it may yet be rolled back to.

        4.2.2: a server whose removal is in its own log but not known to be committed still starts elections. It may
        hold the only copy, and the others, who do not know of it, may be unable to elect anybody without it.
        """
        return any(self.id in membership.voters for _, membership in self.history)

    @property
    def hard_is_durable(self) -> bool:
        """Term and vote. A vote is cast once in a term and never taken back, so this covers all replies of the term."""
        return self.durable_hard.term == self.term and self.durable_hard.vote == self.vote

    @property
    def hears_leader(self) -> bool:
        """A leader was heard of within the minimum election timeout; a leader hears itself (4.2.3, 6.2)."""
        if self.role is Role.LEADER:
            return True
        return self.leader != 0 and self.now_ms - self.heard_ms < self.config.election_timeout_ms

    @property
    def match_index(self) -> int:
        """A follower's answer to its leader: equal to the leader's log, and durable."""
        return min(self.following.verified_index, self.durable_index)

    @property
    def commit_hint(self) -> int:
        """What may be written as the hard state's commit index."""
        return max(self.durable_hard.commit, min(self.commit_index, self.durable_index))

    def election_timeout(self) -> float:
        """Random in [T, 2T), so that one node is ahead of the others (3.4)."""
        return self.config.election_timeout_ms * (1.0 + self.random.random())

    def is_up_to_date(self, last_term: int, last_index: int) -> bool:
        """Whether a log that ends so holds everything that may be committed here (3.6.1)."""
        return (last_term, last_index) >= (self.log.last_term, self.log.last_index)

    def send(self, to: int, message: PeerMessage) -> None:
        self.messages.append((to, message))

    def hold(self, to: int, message: PeerMessage) -> None:
        """Send once term and vote are durable (3.8), at once if they are."""
        (self.messages if self.hard_is_durable else self.held).append((to, message))

    def forget_old_memberships(self) -> None:
        """What is committed is never rolled back, so nothing before the last committed one is needed."""
        history = self.history
        while len(history) > 1 and history[1][0] <= self.commit_index:
            del history[0]

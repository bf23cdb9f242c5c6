"""What Raft nodes say to each other, what the disk says back, and what `ready()` asks for.

Messages carry no addresses but node ids and no bytes but whole batches of the log. How they look on the wire is
`node/codec.py`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Role(StrEnum):
    """What a node is to the others. A learner is a follower that is no voter; it never campaigns."""

    FOLLOWER = "follower"
    PRECANDIDATE = "precandidate"
    CANDIDATE = "candidate"
    LEADER = "leader"
    LEARNER = "learner"


class Batch(Protocol):
    """Consecutive entries of one term; a membership entry is always alone in its batch (see `_log.Batch`)."""

    @property
    def first_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def term(self) -> int: ...
    @property
    def data(self) -> memoryview: ...
    @property
    def membership(self) -> bytes | None:
        """The value of the membership entry (`Membership.encode`), if this is one."""


class Log(Protocol):
    """The part of the log that Raft uses. Reads and writes are memory accesses; durability is the caller's matter."""

    @property
    def first_index(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def last_term(self) -> int: ...
    @property
    def synced_index(self) -> int: ...
    @property
    def generation(self) -> int: ...
    def term_at(self, index: int) -> int: ...
    def slice(self, first_index: int, max_bytes: int) -> Batch | None: ...
    def append(self, records: bytes | bytearray | memoryview, term: int, time_ms: int) -> tuple[int, int]: ...
    def append_batch(self, batch: Batch, from_index: int) -> None: ...
    def truncate_suffix(self, last_index: int) -> None: ...
    def reset(self, last_index: int, last_term: int, last_time_ms: int) -> None: ...


@dataclass(frozen=True, slots=True)
class HardState:
    """What a node must not forget (figure 3.1, persistent state), and a hint of how far was committed."""

    term: int = 0
    vote: int = 0
    """Node voted for in `term`; 0: none."""
    commit: int = 0
    """A durable lower bound of the commit index, never above what is durable in this node's own log."""


@dataclass(frozen=True, slots=True)
class RequestVote:
    """3.4; `pre` makes it the PreVote of 9.6, whose `term` is the one the sender would campaign in."""

    sender: int
    term: int
    last_index: int
    last_term: int
    pre: bool = False
    transfer: bool = False
    """The old leader asked for it (3.10): having a live leader is no reason to refuse."""


@dataclass(frozen=True, slots=True)
class VoteReply:
    sender: int
    term: int
    """Of a granted PreVote: the term asked for; otherwise the voter's own."""
    granted: bool
    pre: bool = False


@dataclass(frozen=True, slots=True)
class AppendEntries:
    """3.5; without a batch a heartbeat. `round` numbers the leader's heartbeats and comes back in the reply (6.4)."""

    sender: int
    term: int
    prev_index: int
    prev_term: int
    commit_index: int
    round: int = 0
    batch: Batch | None = None


@dataclass(frozen=True, slots=True)
class AppendReply:
    sender: int
    term: int
    success: bool
    match_index: int
    """Success: durable and equal to the leader's up to here. Refusal: the follower's last index."""
    round: int = 0
    conflict_index: int = 0
    """Refusal: the prev_index that was refused."""
    hint_index: int = 0
    """Refusal: highest index at or below `conflict_index` whose term is at most the refused prev_term."""
    hint_term: int = 0


@dataclass(frozen=True, slots=True)
class InstallSnapshot:
    """Chapter 5: the follower needs what the leader's log no longer holds. The state itself travels elsewhere."""

    sender: int
    term: int
    last_index: int
    last_term: int
    last_time_ms: int
    membership: bytes
    round: int = 0


@dataclass(frozen=True, slots=True)
class TimeoutNow:
    """Leadership transfer: campaign at once (3.10)."""

    sender: int
    term: int


@dataclass(frozen=True, slots=True)
class ReadIndexRequest:
    """A follower's linearizable reads, as one (6.4)."""

    sender: int
    term: int
    context: int


@dataclass(frozen=True, slots=True)
class ReadIndexReply:
    sender: int
    term: int
    context: int
    index: int
    """0: refused, there is no leader here to confirm it."""


PeerMessage = (
    RequestVote
    | VoteReply
    | AppendEntries
    | AppendReply
    | InstallSnapshot
    | TimeoutNow
    | ReadIndexRequest
    | ReadIndexReply
)


@dataclass(frozen=True, slots=True)
class Persist:
    """To be made durable: the hard state if not None, then or before it the log up to its end."""

    hard_state: HardState | None
    last_index: int
    generation: int


@dataclass(frozen=True, slots=True)
class Persisted:
    """Has been made durable. `hard_state` is the last one written so far (None: none since start)."""

    hard_state: HardState | None
    last_index: int
    """The log was durable up to here, `generation` being the log's when its sync was *begun*."""
    generation: int


@dataclass(frozen=True, slots=True)
class SnapshotInstalled:
    """The state up to `last_index`, asked for by `Ready.snapshot`, is durable on this node (5, figure 5.3)."""

    last_index: int
    last_term: int
    last_time_ms: int
    membership: bytes


LocalMessage = Persisted | SnapshotInstalled
Message = PeerMessage | LocalMessage


@dataclass(frozen=True, slots=True)
class Read:
    """Answer to `Raft.read_index(context)`: once `index` is applied, the read is linearizable. 0: failed, ask again."""

    context: int
    index: int


@dataclass(frozen=True, slots=True)
class Ready:
    """Everything that follows from what was put in since the last one."""

    messages: list[tuple[int, PeerMessage]]
    """(to, message), to be sent now. Followers at the same place get the *same object*, so it need be encoded once."""
    persist: Persist | None
    """Offered again, brought up to date, until `Persisted` covers it."""
    commit_index: int
    reads: list[Read]
    snapshot: InstallSnapshot | None
    """State to be fetched from its `sender`; offered again until `SnapshotInstalled` covers it or it is not needed."""
    role: Role
    term: int
    leader: int
    """0: unknown."""

"""`Raft`: the one public class of the core. Messages, proposals and time in; `Ready` out.

Dispatches and collects; the rules are in the modules named after them. See the package's docstring for the caller's loop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from raftchat.config import Config
from raftchat.raft.membership import Membership
from raftchat.raft.messages import HardState, Log, Message, Ready, Role
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
        (bootstrap at index 0, an empty `Membership()` when joining, or the snapshot's), then every membership entry of the
        log. `noop` is an unstamped no-op record; `pack_membership` makes an unstamped membership record of
        `Membership.encode()`. `now_ms`: monotonic, any origin. Raises ValueError if these contradict each other
        (for one: the log ends below the hard state's commit index, so it has lost entries).
        """
        raise NotImplementedError

    # Inputs

    def tick(self, now_ms: float) -> None:
        """Time has passed. `now_ms` is monotonic milliseconds; any distance is allowed, going back is ignored."""
        raise NotImplementedError

    def step(self, message: Message) -> None:
        """A message from a peer, or `Persisted` or `SnapshotInstalled` from the own disk.

        Raises OSError from the log (then nothing was appended); AssertionError when a safety property is violated.
        """
        raise NotImplementedError

    def propose(self, records: bytes | bytearray | memoryview, time_ms: int) -> tuple[int, int]:
        """Append unstamped records: first and last index. The term is `term`. Not committed yet.

        Raises NotLeader, Overloaded; OSError from the log (then nothing was appended).
        """
        raise NotImplementedError

    def propose_membership(self, membership: Membership, time_ms: int) -> int:
        """Append a configuration, in force at once (4.1): its index. Raises NotLeader, ChangeRefused, OSError."""
        raise NotImplementedError

    def read_index(self, context: int) -> None:
        """Ask for an index to read at (6.4). Answered exactly once, by a `Read` of a later `ready()`, 0 if refused.

        `context` is the caller's; reads asked for within one turn share a round of heartbeats.
        """
        raise NotImplementedError

    def transfer_leadership(self, to: int) -> None:
        """Hand over to a voter (3.10). Proposals are refused until done, or for one election timeout.

        Raises NotLeader; ValueError if `to` is not another voter. No promise: watch `Ready.leader`.
        """
        raise NotImplementedError

    def snapshot_available(self, last_index: int, last_term: int, last_time_ms: int, membership: bytes) -> None:
        """The caller has the state up to `last_index` to give to followers that need what the log no longer holds."""
        raise NotImplementedError

    # Outputs

    def ready(self) -> Ready:
        """What follows from the inputs so far, as one batch. Messages and reads are given out once."""
        raise NotImplementedError

    @property
    def has_ready(self) -> bool:
        """Whether an input came in since the last `ready()` that it may have something to say about."""
        raise NotImplementedError

    @property
    def deadline_ms(self) -> float:
        """When the next `tick` matters, on its clock; inf if nothing is waited for."""
        raise NotImplementedError

    @property
    def role(self) -> Role:
        raise NotImplementedError

    @property
    def leader(self) -> int:
        """Node that leads `term`, as far as known; 0: unknown."""
        raise NotImplementedError

    @property
    def term(self) -> int:
        raise NotImplementedError

    @property
    def commit_index(self) -> int:
        raise NotImplementedError

    @property
    def membership(self) -> Membership:
        """The configuration in force: the log's last, committed or not (4.1)."""
        raise NotImplementedError

    @property
    def is_ready(self) -> bool:
        """Leader: an entry of the own term is committed, so reads and membership changes are served."""
        raise NotImplementedError

    @property
    def hard_state(self) -> HardState:
        """What should be durable now, with the commit hint brought up to date: for a last write when stopping."""
        raise NotImplementedError

    def status(self) -> Status:
        """A copy of everything worth showing."""
        raise NotImplementedError

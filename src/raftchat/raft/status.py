"""What a node tells about itself: a copy, for `GET /raft`, logs and tests. Knows nothing of how it came about."""

from __future__ import annotations

from dataclasses import dataclass

from raftchat.raft.membership import Membership
from raftchat.raft.messages import Role
from raftchat.raft.state import State


@dataclass(frozen=True, slots=True)
class FollowerStatus:
    """The leader's view of one other member."""

    match_index: int
    """Durable there and equal to the leader's log up to here."""
    next_index: int
    state: str
    """probe, replicate, snapshot."""
    inflight_bytes: int
    inflight_messages: int
    last_contact_ms: float
    """When it last answered, on the clock of `tick`; -inf: not since this leader was elected."""
    learner: bool


@dataclass(frozen=True, slots=True)
class Status:
    node_id: int
    role: Role
    term: int
    vote: int
    leader: int
    commit_index: int
    last_index: int
    durable_index: int
    """Of this node's own log."""
    membership: Membership
    membership_index: int
    """Entry that brought it; not committed yet if above `commit_index`. 0: bootstrap."""
    transfer_to: int
    """Leadership is being handed to this node; 0: it is not."""
    uncommitted_bytes: int
    followers: dict[int, FollowerStatus]
    """Empty unless leader."""


def of(s: State, role: Role) -> Status:
    membership_index, membership = s.history[-1]
    progress = s.lead.progress if s.lead is not None else {}
    return Status(
        node_id=s.id,
        role=role,
        term=s.term,
        vote=s.vote,
        leader=s.leader,
        commit_index=s.commit_index,
        last_index=s.log.last_index,
        durable_index=s.durable_index,
        membership=membership,
        membership_index=membership_index,
        transfer_to=s.lead.transfer_to if s.lead is not None else 0,
        uncommitted_bytes=s.lead.uncommitted_bytes if s.lead is not None else 0,
        followers={
            node: FollowerStatus(
                match_index=p.match_index,
                next_index=p.next_index,
                state=str(p.flow),
                inflight_bytes=p.inflight_bytes,
                inflight_messages=len(p.inflight),
                last_contact_ms=p.contact_ms,
                learner=node in membership.learners,
            )
            for node, p in progress.items()
        },
    )

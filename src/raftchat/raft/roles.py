"""Every change of role and term (figure 3.3). Rule: nothing outside this file assigns `role`, `term`, `vote`, `lead`.

    follower ──▶ precandidate ──▶ candidate ──▶ leader
        ▲            │ │ ▲             │ ▲          │     precandidate also by time-out of a candidate; a candidate
        └────────────┘ └─┼─────────────┘ └─ (3.10)  │     straight from a follower if the leader hands over
        └────────────────┴──────────────────────────┘     back to follower from everywhere

Knows when a change is legal and what it resets; why it happens is the callers' business.
"""

from __future__ import annotations

from raftchat.raft import read_index
from raftchat.raft.messages import Role
from raftchat.raft.progress import Progress
from raftchat.raft.state import Following, Leadership, State


def become_follower(s: State, term: int, leader: int) -> None:
    """Of `leader` (0: unknown) in `term`, which is this one or a later one (3.3)."""
    assert term >= s.term, "terms never go back"
    assert leader != s.id
    if term > s.term:
        _enter_term(s, term)
    # 3.4: only the leader's word and a granted vote put an election off, not somebody's higher term. Who was something
    # else starts waiting now.
    if s.role is not Role.FOLLOWER or leader:
        restart_election_timer(s)
    if s.role is not Role.FOLLOWER:
        _leave(s)
        s.role = Role.FOLLOWER
    if leader:
        assert s.leader in (0, leader), "election safety: at most one leader in a term (3.4)"
        s.heard_ms = s.now_ms
    if s.leader != leader:
        s.leader = leader
        read_index.fail_forwarded(s)


def become_precandidate(s: State) -> None:
    """Ask whether an election could be won, before disturbing anybody's term (9.6)."""
    assert s.role is not Role.LEADER
    assert s.may_campaign, "only voters campaign"
    _leave(s)
    s.role = Role.PRECANDIDATE
    s.leader = 0
    read_index.fail_forwarded(s)
    restart_election_timer(s)


def become_candidate(s: State, *, transfer: bool) -> None:
    """To begin an election, a follower increments its term and votes for itself (3.4)."""
    assert s.role is Role.PRECANDIDATE or (transfer and s.role is Role.FOLLOWER)
    assert s.may_campaign, "only voters campaign"
    _enter_term(s, s.term + 1)
    _leave(s)
    s.role = Role.CANDIDATE
    s.leader = 0
    read_index.fail_forwarded(s)
    s.vote = s.id
    s.transfer = transfer
    restart_election_timer(s)


def become_leader(s: State) -> None:
    """A no-op opens the term: only with it are entries of earlier terms known to be committed (3.6.2, 6.4)."""
    assert s.role is Role.CANDIDATE
    assert s.vote == s.id
    assert s.hard_is_durable, "a vote counts once it is durable, the own one too (3.8)"
    first, last = s.log.append(s.noop, s.term, 0)
    assert first == last, "the no-op is one record"
    s.appended_ms = s.now_ms
    _leave(s)
    s.role = Role.LEADER
    s.leader = s.id
    s.lead = Leadership(last, s.now_ms + s.config.heartbeat_interval_ms)
    follow_membership(s)


def cast_vote(s: State, candidate: int) -> None:
    """At most one vote in a term, whatever happens to the role meanwhile (3.4)."""
    assert s.role is Role.FOLLOWER
    assert s.vote in (0, candidate)
    s.vote = candidate
    restart_election_timer(s)


def restart_election_timer(s: State) -> None:
    s.election_deadline_ms = s.now_ms + s.election_timeout()


def follow_membership(s: State) -> None:
    """The leader keeps progress of exactly the other members of the configuration in force (4.1)."""
    assert s.lead is not None
    known = s.lead.progress
    s.lead.progress = {
        node: known.get(node) or Progress(s.log.last_index, s.now_ms) for node in s.membership.members if node != s.id
    }


def _enter_term(s: State, term: int) -> None:
    s.term = term
    s.vote = 0
    s.leader = 0
    s.snapshot_wanted = None
    # Acknowledgements of the old term say nothing about the new leader's log, even if the same indexes are durable
    # (what was written may have been replaced meanwhile); votes of the old term are of no use.
    s.held.clear()
    s.following = Following(s.commit_index)
    read_index.fail_forwarded(s)


def _leave(s: State) -> None:
    """What ends with any role."""
    s.votes.clear()
    s.transfer = False
    if s.lead is not None:
        read_index.fail_waiting(s, s.lead)
        s.lead = None

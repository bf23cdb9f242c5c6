"""Handing leadership over (3.10): bring the target up to date, then have it campaign without waiting."""

from __future__ import annotations

from raftchat.raft import election
from raftchat.raft.messages import Role, TimeoutNow
from raftchat.raft.state import Leadership, State


def begin(s: State, lead: Leadership, to: int) -> None:
    """3.10, step 1: proposals are refused from now on."""
    if to == s.id or to not in s.membership.voters:
        raise ValueError(f"node {to} is not another voter")
    lead.transfer_to = to
    lead.transfer_sent = False
    lead.transfer_deadline_ms = s.now_ms + s.config.election_timeout_ms


def proceed(s: State, lead: Leadership) -> None:
    """3.10, steps 2 and 3: once its log matches, TimeoutNow."""
    if not lead.transfer_sent and lead.progress[lead.transfer_to].match_index == s.log.last_index:
        lead.transfer_sent = True
        s.send(lead.transfer_to, TimeoutNow(s.id, s.term))


def expire(s: State, lead: Leadership) -> None:
    """3.10: not done within about an election timeout: resume as if nothing had been."""
    if lead.transfer_to and s.now_ms >= lead.transfer_deadline_ms:
        lead.transfer_to = 0


def bequeath(s: State, lead: Leadership) -> None:
    """A leader that is no member any more names the voter that is furthest, to save the others a time-out (4.2.2)."""
    heir = max(s.membership.voters, key=lambda voter: lead.progress[voter].match_index)
    s.send(heir, TimeoutNow(s.id, s.term))


def receive_timeout_now(s: State, m: TimeoutNow) -> None:
    """No PreVote: it would be refused, as everybody hears from the leader."""
    assert m.term == s.term
    if s.role is Role.FOLLOWER and s.leader == m.sender and s.is_voter:
        election.campaign(s, transfer=True)

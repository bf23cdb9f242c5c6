"""Leader election (3.4), the restriction on who can win (3.6.1), PreVote (9.6). Knows nothing of replication."""

from __future__ import annotations

from raftchat.raft import roles
from raftchat.raft.messages import RequestVote, Role, VoteReply
from raftchat.raft.quorum import Tally, tally
from raftchat.raft.state import State


def time_out(s: State) -> None:
    """Heard nothing for an election timeout (3.4)."""
    if s.may_campaign:
        _ask_whether_to_campaign(s)
    else:
        # A learner waits to be told; only voters campaign. But the leader it knew is not one to send reads to.
        roles.become_follower(s, s.term, leader=0)
        roles.restart_election_timer(s)


def _ask_whether_to_campaign(s: State) -> None:
    """9.6: the term goes up only once a majority has said that it would vote for us."""
    roles.become_precandidate(s)
    s.votes[s.id] = True
    if tally(s.membership.voters, s.votes) is Tally.WON:
        campaign(s, transfer=False)
    else:
        _request_votes(s, RequestVote(s.id, s.term + 1, s.log.last_index, s.log.last_term, pre=True))


def campaign(s: State, *, transfer: bool) -> None:
    """The requests go out once the own vote is durable: `own_vote_is_durable`."""
    roles.become_candidate(s, transfer=transfer)


def own_vote_is_durable(s: State) -> None:
    assert s.role is Role.CANDIDATE
    assert s.hard_is_durable
    if s.id in s.votes:
        return
    s.votes[s.id] = True
    if tally(s.membership.voters, s.votes) is Tally.WON:
        roles.become_leader(s)
    else:
        last_index, last_term = s.log.last_index, s.log.last_term
        _request_votes(s, RequestVote(s.id, s.term, last_index, last_term, transfer=s.transfer))


def is_disturbance(s: State, m: RequestVote) -> bool:
    """4.2.3: who hears from a leader neither grants a vote nor takes over the term of one that asks for it.

    So a removed or cut-off server cannot depose a leader that works. If its term is really ahead, the leader learns
    that from the refusal of its AppendEntries.
    """
    return s.hears_leader and not m.transfer


def receive_request_vote(s: State, m: RequestVote) -> None:
    """Figure 3.1, RequestVote RPC. The caller has dealt with terms: a real request is of our own term."""
    if m.pre:
        _receive_pre_vote(s, m)
        return
    assert m.term == s.term
    free = s.vote == m.sender or (s.vote == 0 and s.leader == 0)
    granted = free and s.is_up_to_date(m.last_term, m.last_index)
    if granted:
        if s.role is not Role.FOLLOWER:
            roles.become_follower(s, s.term, leader=0)
        roles.cast_vote(s, m.sender)
    s.hold(m.sender, VoteReply(s.id, s.term, granted))


def _receive_pre_vote(s: State, m: RequestVote) -> None:
    """9.6: a grant promises nothing and changes nothing. The term in a refusal is how one that is behind catches up."""
    free = m.term > s.term or (m.term == s.term and s.vote in (0, m.sender))
    granted = free and not s.hears_leader and s.is_up_to_date(m.last_term, m.last_index)
    s.send(m.sender, VoteReply(s.id, m.term if granted else s.term, granted, pre=True))


def receive_vote_reply(s: State, m: VoteReply) -> None:
    """Replies of other terms and to the other kind of request do not count; repeated ones count once."""
    if m.pre:
        if s.role is not Role.PRECANDIDATE or (m.granted and m.term != s.term + 1):
            return
    elif s.role is not Role.CANDIDATE or m.term != s.term or s.id not in s.votes:
        return
    # The first answer stands: a repeated PreVote may be answered otherwise, but a vote is not taken back.
    s.votes.setdefault(m.sender, m.granted)
    result = tally(s.membership.voters, s.votes)
    if result is Tally.WON:
        if m.pre:
            campaign(s, transfer=False)
        else:
            roles.become_leader(s)
    elif result is Tally.LOST:
        roles.become_follower(s, s.term, leader=0)


def _request_votes(s: State, request: RequestVote) -> None:
    for voter in s.membership.voters:
        if voter != s.id:
            s.send(voter, request)

"""Linearizable reads without a log entry (6.4): the commit index, once a majority has confirmed that we still lead.

One round of heartbeats serves all reads that wait for it; rounds may overlap. No clock is trusted: a leader that was
paused or cut off gets no majority for a round begun after the read. Knows neither what is read nor who waits.
"""

from __future__ import annotations

from math import inf

from raftchat.raft.messages import Read, ReadIndexReply, ReadIndexRequest, Role
from raftchat.raft.quorum import reached_by_majority
from raftchat.raft.state import Leadership, State


def ask(s: State, context: int) -> None:
    if s.lead is not None:
        s.lead.new_reads.append((s.id, context))
    elif s.role is Role.FOLLOWER and s.leader:
        s.forward_contexts.append(context)
    else:
        s.reads.append(Read(context, 0))


def begin_round(s: State, lead: Leadership) -> None:
    """6.4, step 1: until an entry of the own term is committed, the leader may not know all that is: reads wait."""
    if lead.new_reads and s.commit_index >= lead.term_start_index:
        lead.round += 1
        lead.beat = True
        lead.rounds.append((lead.round, s.commit_index, lead.new_reads))
        lead.new_reads = []
        confirm(s, lead)


def confirm(s: State, lead: Leadership) -> None:
    """Answer every read whose round a majority of the voters has answered."""
    if not lead.rounds:
        return
    progress = lead.progress
    confirmed = reached_by_majority([inf if v == s.id else progress[v].round for v in s.membership.voters])
    while lead.rounds and lead.rounds[0][0] <= confirmed:
        _, index, reads = lead.rounds.popleft()
        _answer(s, reads, index)


def fail_waiting(s: State, lead: Leadership) -> None:
    """Leadership is lost: nobody is left hanging."""
    for _, _, reads in lead.rounds:
        _answer(s, reads, 0)
    lead.rounds.clear()
    _answer(s, lead.new_reads, 0)
    lead.new_reads = []


def receive_request(s: State, m: ReadIndexRequest) -> None:
    if s.lead is None:
        s.send(m.sender, ReadIndexReply(s.id, s.term, m.context, 0))
    else:
        s.lead.new_reads.append((m.sender, m.context))


def forward(s: State) -> None:
    """All reads of this turn, as one request."""
    if s.forward_contexts:
        request = s.forward_next
        s.forward_next += 1
        s.forwarded[request] = (s.now_ms + s.config.election_timeout_ms, s.forward_contexts)
        s.forward_contexts = []
        s.send(s.leader, ReadIndexRequest(s.id, s.term, request))


def receive_reply(s: State, m: ReadIndexReply) -> None:
    """A second reply, or one to a request given up, finds nothing."""
    if m.context in s.forwarded:
        _, contexts = s.forwarded.pop(m.context)
        s.reads.extend([Read(context, m.index) for context in contexts])


def deadline_ms(s: State) -> float:
    """When the oldest forwarded request is given up: they stand in order of their deadlines."""
    return next(iter(s.forwarded.values()))[0] if s.forwarded else inf


def expire(s: State) -> bool:
    """Request or reply were lost. Whether anything was given up."""
    expired = False
    while s.now_ms >= deadline_ms(s):
        _, contexts = s.forwarded.pop(next(iter(s.forwarded)))
        s.reads.extend([Read(context, 0) for context in contexts])
        expired = True
    return expired


def fail_forwarded(s: State) -> None:
    """The leader they went to is not ours any more."""
    for _, contexts in s.forwarded.values():
        s.reads.extend([Read(context, 0) for context in contexts])
    s.forwarded.clear()
    s.reads.extend([Read(context, 0) for context in s.forward_contexts])
    s.forward_contexts = []


def _answer(s: State, reads: list[tuple[int, int]], index: int) -> None:
    for node, context in reads:
        if node == s.id:
            s.reads.append(Read(context, index))
        else:
            s.send(node, ReadIndexReply(s.id, s.term, context, index))

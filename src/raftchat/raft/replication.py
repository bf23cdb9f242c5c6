"""The leader's side of AppendEntries (3.5) and what is committed by it (3.6.2).

What is due is decided once a turn, in `replicate`: all that was proposed meanwhile leaves together. Knows nothing of
elections; what the disk has done arrives as `State.durable_index`.
"""

from __future__ import annotations

from math import inf

from raftchat.raft import read_index
from raftchat.raft.append import commit, highest_up_to_term
from raftchat.raft.messages import AppendEntries, AppendReply, InstallSnapshot
from raftchat.raft.progress import Flow, Progress
from raftchat.raft.quorum import reached_by_majority
from raftchat.raft.state import Leadership, State

# AppendEntries of this turn by (next index, bytes allowed; 0: none): followers at one place get one object.
Made = dict[tuple[int, int], AppendEntries]


def replicate(s: State, lead: Leadership) -> None:
    """Send everybody what is due: entries, else the commit index if it moved, else a heartbeat if it is time."""
    made: Made = {}
    beat, lead.beat = lead.beat, False
    for node, p in lead.progress.items():
        if s.snapshot is not None and p.flow is not Flow.SNAPSHOT and _needs_state(s, p):
            p.snapshot(s.snapshot.last_index)
        if p.flow is Flow.REPLICATE:
            if not _send_entries(s, lead, node, p, made) and (beat or p.commit_sent < s.commit_index):
                _send(s, lead, node, p, p.next_index, 0, made)
        elif p.flow is Flow.PROBE:
            _probe(s, lead, node, p, beat, made)
        elif beat or not p.probe_sent:
            _send_snapshot(s, lead, node, p)


def _needs_state(s: State, p: Progress) -> bool:
    """The log no longer holds what comes next there; or so much is missing that the files are there sooner.

    The latter only where it is known (it was probed), and not of one that is catching up as it is.
    """
    if p.next_index < s.log.first_index:
        return True
    return p.flow is Flow.PROBE and p.takes_snapshot and p.next_index < s.snapshot_better_below


def _send_entries(s: State, lead: Leadership, node: int, p: Progress, made: Made) -> bool:
    """10.2.1: do not wait for the answer before sending the next, within the window."""
    config, last_index = s.config, s.log.last_index
    sent = False
    while p.next_index <= last_index and len(p.inflight) < config.inflight_max_messages:
        room = config.inflight_max_bytes - p.inflight_bytes
        if p.inflight and room < config.append_size_max_bytes:
            break  # A record is never larger than one AppendEntries, so what is sent always fits into the window.
        message = _send(s, lead, node, p, p.next_index, config.append_size_max_bytes, made)
        assert message.batch is not None
        p.sent(message.batch.last_index, len(message.batch.data))
        sent = True
    return sent


def _probe(s: State, lead: Leadership, node: int, p: Progress, beat: bool, made: Made) -> None:
    """The first one carries entries, as most often it fits; repetitions do not, as most often nobody is there."""
    if p.next_index < s.log.first_index:
        # Nothing that could be given to it: no more than a sign of life.
        if beat:
            _send(s, lead, node, p, s.log.first_index, 0, made)
    elif not p.probe_sent:
        p.probe_sent = True
        _send(s, lead, node, p, p.next_index, s.config.append_size_max_bytes, made)
    elif beat:
        _send(s, lead, node, p, p.next_index, 0, made)


def _send(
    s: State, lead: Leadership, node: int, p: Progress, next_index: int, max_bytes: int, made: Made
) -> AppendEntries:
    message = made.get((next_index, max_bytes))
    if message is None:
        prev_index = next_index - 1
        prev_term = s.log.term_at(prev_index)
        batch = s.log.slice(next_index, max_bytes) if max_bytes else None
        message = AppendEntries(s.id, s.term, prev_index, prev_term, s.commit_index, lead.round, batch)
        made[next_index, max_bytes] = message
    s.messages.append((node, message))
    p.commit_sent = s.commit_index
    return message


def _send_snapshot(s: State, lead: Leadership, node: int, p: Progress) -> None:
    """Chapter 5. Repeated with every heartbeat until the follower has it; it is also the heartbeat."""
    snapshot = s.snapshot
    assert snapshot is not None
    assert snapshot.last_index >= s.log.first_index - 1, "the log goes on where the snapshot ends"
    p.probe_sent = True
    s.send(
        node,
        InstallSnapshot(
            s.id,
            s.term,
            snapshot.last_index,
            snapshot.last_term,
            snapshot.last_time_ms,
            snapshot.membership,
            lead.round,
        ),
    )


def receive_append_reply(s: State, lead: Leadership, m: AppendReply) -> None:
    assert m.term == s.term
    p = lead.progress.get(m.sender)
    if p is None:
        return  # Not a member any more.
    p.contact_ms = s.now_ms
    if m.success:
        assert m.match_index <= s.log.last_index, "nobody can hold more of our log than we do"
        _accepted(s, lead, p, m.match_index)
    else:
        _refused(s, p, m)
    if m.round > p.round:
        p.round = m.round
        read_index.confirm(s, lead)


def _accepted(s: State, lead: Leadership, p: Progress, match_index: int) -> None:
    moved = p.acknowledged(match_index)
    if p.flow is Flow.PROBE or (
        p.flow is Flow.SNAPSHOT and p.match_index >= max(s.log.first_index - 1, p.snapshot_index)
    ):
        p.replicate()
    if moved:
        advance_commit(s, lead)


def _refused(s: State, p: Progress, m: AppendReply) -> None:
    """3.5: go back and try again, whole runs of terms at a time, as terms never go back in either log."""
    stale = m.conflict_index <= p.match_index or (p.flow is Flow.PROBE and m.conflict_index != p.next_index - 1)
    if stale or p.flow is Flow.SNAPSHOT:
        return
    lowest = max(p.match_index, s.log.first_index - 1)
    meet = highest_up_to_term(s.log, lowest, min(m.hint_index, s.log.last_index), m.hint_term)
    if m.hint_index < s.log.first_index - 1:
        meet = max(m.hint_index, p.match_index)
    p.probe(min(meet, m.conflict_index - 1) + 1)


def advance_commit(s: State, lead: Leadership) -> None:
    """3.6.2: only entries of the own term are committed by counting; those before them are with them."""
    progress = lead.progress
    index = reached_by_majority(
        [s.durable_index if v == s.id else progress[v].match_index for v in s.membership.voters]
    )
    if index <= s.commit_index or index < lead.term_start_index:
        return
    commit(s, index)
    uncommitted = lead.uncommitted
    while uncommitted and uncommitted[0][0] <= index:
        lead.uncommitted_bytes -= uncommitted.popleft()[1]
    if not s.is_voter and s.history[-1][0] <= index:
        lead.leaving = True  # 4.2.2: once its removal is committed, a leader steps down.


def has_quorum_contact(s: State, lead: Leadership) -> bool:
    """6.2: a leader steps down if an election timeout passes without a majority answering."""
    progress = lead.progress
    contact_ms = reached_by_majority(
        [inf if v == s.id else max(progress[v].contact_ms, progress[v].since_ms) for v in s.membership.voters]
    )
    return s.now_ms - contact_ms < s.config.election_timeout_ms

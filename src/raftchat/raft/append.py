"""A follower's side of AppendEntries (figure 3.1, 3.5). Entries are compared by term and never decoded.

Does not know whether anything is durable: the acknowledgement is `durability.acknowledge`'s.
"""

from __future__ import annotations

from raftchat.raft import roles
from raftchat.raft.membership import Membership
from raftchat.raft.messages import AppendEntries, AppendReply, Batch, Log, Role
from raftchat.raft.state import State


def receive_append_entries(s: State, m: AppendEntries) -> None:
    """The caller has dealt with terms: `m` is of our own, so its sender leads it."""
    assert m.term == s.term
    assert s.role is not Role.LEADER, "election safety: at most one leader in a term (3.4)"
    roles.become_follower(s, m.term, m.sender)
    f = s.following
    if m.round > f.round:
        f.round = m.round
    if not _joins(s, m):
        _refuse(s, m)
        return
    last_index = m.prev_index
    if m.batch is not None:
        assert m.batch.first_index == m.prev_index + 1, "a batch follows its prev_index"
        assert m.prev_term <= m.batch.term <= m.term, "terms in a log never go back"
        _store(s, m.batch)
        last_index = m.batch.last_index
    f.fits = True
    # Step 5 counts to the last entry of this message, not of our log: what lies behind may be another leader's.
    if last_index > f.verified_index:
        f.verified_index = last_index
    commit(s, min(m.commit_index, f.verified_index))


def receive_from_old_leader(s: State, leader: int, round_: int) -> None:
    """Figure 3.1, AppendEntries RPC, step 1: refuse. Our term in the refusal ends the old leadership (3.3)."""
    s.hold(leader, AppendReply(s.id, s.term, False, s.log.last_index, round_))


def commit(s: State, index: int) -> None:
    if index > s.commit_index:
        assert index <= s.log.last_index
        s.commit_index = index
        s.forget_old_memberships()


def _joins(s: State, m: AppendEntries) -> bool:
    """Figure 3.1: our log contains an entry at prevLogIndex whose term matches prevLogTerm."""
    if m.prev_index <= s.commit_index:
        # Every leader's log holds what is committed (3.6.3). It may not be in ours any more.
        assert m.prev_index < s.log.first_index - 1 or s.log.term_at(m.prev_index) == m.prev_term, "log matching (3.5)"
        return True
    return m.prev_index <= s.log.last_index and s.log.term_at(m.prev_index) == m.prev_term


def _store(s: State, batch: Batch) -> None:
    """Append what is missing. Remove only what contradicts: this message may be older than what we have (3.5)."""
    log = s.log
    overlap = min(batch.last_index, log.last_index)
    from_index = max(batch.first_index, s.commit_index + 1)
    if batch.first_index <= s.commit_index <= batch.last_index:
        assert log.term_at(s.commit_index) == batch.term, "state machine safety: what is committed stays (3.6.3)"
    conflict = _first_of_other_term(log, from_index, overlap, batch.term)
    if conflict is not None:
        assert conflict > s.commit_index, "from_index is above it"
        assert conflict > s.following.verified_index, "a leader never changes its own log (3.5)"
        _truncate(s, conflict - 1)
    if batch.last_index > log.last_index:
        log.append_batch(batch, log.last_index + 1)
        s.appended_ms = s.now_ms
        if batch.membership is not None:
            # 4.1: in force from now on, committed or not.
            s.history.append((batch.last_index, Membership.decode(batch.membership)))


def _first_of_other_term(log: Log, first: int, last: int, term: int) -> int | None:
    """First index in [first, last] whose entry is not of `term`. Terms never go back, so the ends tell most."""
    if first > last:
        return None
    if log.term_at(first) != term:
        return first
    if log.term_at(last) == term:
        return None
    while last - first > 1:  # `first` is of the term, `last` is not.
        middle = (first + last) // 2
        if log.term_at(middle) == term:
            first = middle
        else:
            last = middle
    return last


def _truncate(s: State, last_index: int) -> None:
    """Configurations go with the entries that brought them (4.1)."""
    s.log.truncate_suffix(last_index)
    s.durable_index = min(max(s.durable_index, s.log.synced_index), last_index)
    while s.history[-1][0] > last_index:
        s.history.pop()
    assert s.history, "the last committed membership is never rolled back"


def _refuse(s: State, m: AppendEntries) -> None:
    """Say where the logs may meet, so that the leader skips a whole run of terms at a time (3.5)."""
    f = s.following
    f.fits = False
    f.acked_index = -1  # So that the first message that fits again is answered, whatever it says.
    f.acked_round = f.round
    hint_index = highest_up_to_term(s.log, s.commit_index, min(m.prev_index, s.log.last_index), m.prev_term)
    hint_term = s.log.term_at(hint_index)
    reply = AppendReply(s.id, s.term, False, s.log.last_index, m.round, m.prev_index, hint_index, hint_term)
    s.hold(m.sender, reply)


def highest_up_to_term(log: Log, lowest: int, highest: int, term: int) -> int:
    """Highest index in [lowest, highest] whose term is at most `term`; `lowest` if there is none."""
    if highest <= lowest or log.term_at(highest) <= term:
        return max(highest, lowest)
    while highest - lowest > 1:  # `highest` is above the term; `lowest` is not, or is the answer anyway.
        middle = (lowest + highest) // 2
        if log.term_at(middle) <= term:
            lowest = middle
        else:
            highest = middle
    return lowest

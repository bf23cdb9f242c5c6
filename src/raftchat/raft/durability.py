"""What the disk says, and what had to wait for it (3.8). With `State.hold`, the only way out for a promise.

Knows nothing of disks: "durable up to" arrives as a message and may be late or about entries that are gone.
"""

from __future__ import annotations

from math import inf

from raftchat.raft import election, replication
from raftchat.raft.messages import AppendReply, HardState, Persist, Persisted, Role
from raftchat.raft.state import State


def receive_persisted(s: State, m: Persisted) -> None:
    if m.hard_state is not None:
        assert m.hard_state.term >= s.durable_hard.term, "the hard state never goes back"
        s.durable_hard = m.hard_state
    # After a cut the same index may mean another entry, and a sync begun before it vouches for the old one only.
    if m.generation == s.log.generation and m.last_index > s.durable_index:
        assert m.last_index <= s.log.last_index
        s.durable_index = m.last_index
    if s.hard_is_durable:
        s.messages += s.held
        s.held.clear()
        if s.role is Role.CANDIDATE:
            election.own_vote_is_durable(s)
    if s.lead is not None:
        replication.advance_commit(s, s.lead)


def to_persist(s: State) -> Persist | None:
    """What is not durable yet, if anything."""
    hard_state = None
    if not s.hard_is_durable or s.hint > s.durable_hard.commit:
        hard_state = HardState(s.term, s.vote, s.commit_hint)
    if hard_state is None and s.durable_index == s.log.last_index:
        return None
    return Persist(hard_state, s.log.last_index, s.log.generation)


def acknowledge(s: State) -> None:
    """A follower's success reply, at most one a turn, since `match_index` covers all before it (10.2.1).

    Nothing new to say, nothing sent: an AppendEntries that only told the commit index needs no answer. The first one
    that fits is answered when all of it is durable, as the leader will send on from what the answer says.
    """
    f = s.following
    if not f.fits or not s.leader or not s.hard_is_durable:
        return
    match_index = s.match_index
    is_progress = match_index > f.acked_index and (f.acked_index >= 0 or match_index == f.verified_index)
    if is_progress or f.round > f.acked_round:
        f.acked_round = f.round
        f.acked_index = match_index
        s.send(s.leader, AppendReply(s.id, s.term, True, match_index, f.round))


def commit_hint_due_ms(s: State) -> float:
    """When the commit index goes to the hard state on its own: once nothing was appended for a while; inf: never."""
    return s.appended_ms + s.config.commit_hint_idle_ms if s.hint < s.commit_hint else inf


def update_commit_hint(s: State) -> bool:
    if s.now_ms < commit_hint_due_ms(s):
        return False
    s.hint = s.commit_hint
    return True

"""A follower's side of InstallSnapshot (chapter 5): when state is needed, and what installing it does to the log.

Knows nothing of the state itself: `Ready.snapshot` asks the caller to fetch it, `SnapshotInstalled` says it has.
"""

from __future__ import annotations

from raftchat.raft import roles
from raftchat.raft.append import commit
from raftchat.raft.membership import Membership
from raftchat.raft.messages import InstallSnapshot, Role, SnapshotInstalled
from raftchat.raft.state import Following, State


def receive_install_snapshot(s: State, m: InstallSnapshot) -> None:
    assert m.term == s.term
    assert s.role is not Role.LEADER, "election safety: at most one leader in a term (3.4)"
    roles.become_follower(s, m.term, m.sender)
    f = s.following
    f.fits = True
    if m.round > f.round:
        f.round = m.round
    if holds(s, m.last_index, m.last_term):
        # Figure 5.3, step 6: what the log holds behind it is kept, and all before it is committed.
        f.verified_index = max(f.verified_index, m.last_index)
        commit(s, m.last_index)
    else:
        s.snapshot_wanted = m


def receive_snapshot_installed(s: State, m: SnapshotInstalled) -> None:
    """Figure 5.3, steps 6 to 8: the log is kept only if it goes on from there; no conflicting suffix survives."""
    if m.last_index > s.commit_index:
        if holds(s, m.last_index, m.last_term):
            commit(s, m.last_index)
        else:
            s.log.reset(m.last_index, m.last_term, m.last_time_ms)
            s.durable_index = min(s.log.synced_index, s.log.last_index)
            s.commit_index = m.last_index
            s.history = [(m.last_index, Membership.decode(m.membership))]
            old, s.following = s.following, Following(m.last_index)
            s.following.fits, s.following.round = old.fits, old.round
    if s.snapshot_wanted is not None and s.snapshot_wanted.last_index <= s.commit_index:
        s.snapshot_wanted = None


def holds(s: State, index: int, term: int) -> bool:
    """Whether this node has everything up to that entry."""
    return index <= s.commit_index or (index <= s.log.last_index and s.log.term_at(index) == term)

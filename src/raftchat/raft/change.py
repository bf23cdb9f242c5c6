"""Membership changes by the leader, one server at a time (4.1). Which step is single is told in `membership.py`."""

from __future__ import annotations

from raftchat.raft import roles
from raftchat.raft.errors import ChangeRefused
from raftchat.raft.membership import Membership
from raftchat.raft.state import Leadership, State


def propose(s: State, lead: Leadership, membership: Membership, time_ms: int) -> int:
    """The configuration is in force as soon as it is in the log: the others get it with their next entries."""
    # Two leaders that each change one server before they know what the other left behind may end up with majorities
    # that do not meet (the 2015 correction of 4.1), hence the entry of the own term.
    if s.commit_index < lead.term_start_index:
        raise ChangeRefused("no entry of this leader's term is committed yet", retryable=True)
    if s.history[-1][0] > s.commit_index:
        raise ChangeRefused("another membership change is not committed yet", retryable=True)
    if lead.transfer_to:
        raise ChangeRefused("leadership is being handed over", retryable=True)
    if membership == s.membership:
        raise ChangeRefused("this is the membership already", retryable=False)
    if not membership.voters:
        raise ChangeRefused("the last voter cannot go", retryable=False)
    if not s.membership.is_single_step(membership):
        raise ChangeRefused("more than one voter at a time", retryable=False)
    first, last = s.log.append(s.pack_membership(membership.encode()), s.term, time_ms)
    assert first == last, "a membership is one record"
    s.appended_ms = s.now_ms
    s.history.append((last, membership))
    roles.follow_membership(s)
    return last

"""No promise before the disk (3.8, figure 3.1 "persistent state"). Rows 1, 2, 11 and 13 of the bug classes."""

from __future__ import annotations

import pytest

from raftchat.raft import HardState, Persist, Persisted, Role
from raftchat.raft.messages import AppendEntries, AppendReply, RequestVote, VoteReply
from tests.raft.memory_log import log_of
from tests.raft.support import CONFIG, Cluster, Node, T, members


def held(*terms: int, hard_state: HardState | None = None, voters: int = 3) -> Cluster:
    """Node 1 with a durable log of these terms, and a disk that writes only when told."""
    cluster = Cluster(Node(1, members(range(1, voters + 1)), log_of(*terms), hard_state))
    cluster.held = {1}
    cluster.turns()
    return cluster


def persist(cluster: Cluster) -> list[tuple[int, object]]:
    cluster.persist(cluster[1])
    return list(cluster.sent_by(1))


def test_a_vote_is_answered_once_it_is_durable() -> None:
    """Figure 3.1: "updated on stable storage before responding to RPCs" (row 1)."""
    cluster = held()
    assert cluster.step(1, RequestVote(2, 1, 0, 0)) == []
    assert cluster[1].persist == Persist(HardState(1, 2), 0, 0)
    assert persist(cluster) == [(2, VoteReply(1, 1, True))]


def test_a_vote_that_was_lost_in_a_crash_was_never_given() -> None:
    """Row 1: after the crash the node may vote for somebody else, as nobody heard of the first vote."""
    cluster = held()
    assert cluster.step(1, RequestVote(2, 1, 0, 0)) == []
    cluster.crash(1)
    cluster.restart(1)
    cluster.step(1, RequestVote(3, 1, 0, 0))
    assert persist(cluster) == [(3, VoteReply(1, 1, True))]
    cluster.crash(1)
    cluster.restart(1)
    assert cluster.step(1, RequestVote(2, 1, 0, 0)) == [(2, VoteReply(1, 1, False))], "this one was"


def test_a_candidate_asks_for_votes_once_its_own_is_durable() -> None:
    """3.4, 3.8: and counts its own only then."""
    cluster = held()
    cluster[1].time_out()
    cluster.sent_by(1)
    assert cluster.step(1, VoteReply(2, 1, True, pre=True)) == []
    assert cluster.step(1, VoteReply(2, 1, True)) == [], "a vote for a candidacy nobody was asked about"
    assert cluster[1].raft.role is Role.CANDIDATE
    assert persist(cluster) == [(2, RequestVote(1, 1, 0, 0)), (3, RequestVote(1, 1, 0, 0))]
    assert cluster[1].raft.role is Role.CANDIDATE
    cluster.step(1, VoteReply(2, 1, True))
    assert cluster[1].raft.role is Role.LEADER


def test_the_refusal_of_a_vote_waits_for_the_new_term() -> None:
    """3.8: what others learn of our term we must not forget."""
    cluster = held(1, 1)
    assert cluster.step(1, RequestVote(2, 6, 0, 0)) == []
    assert persist(cluster) == [(2, VoteReply(1, 6, False))]


def test_replies_of_a_term_that_is_over_are_dropped() -> None:
    """A vote that became durable too late, or never, must not reach the candidate of another term."""
    cluster = held()
    cluster.step(1, RequestVote(2, 1, 0, 0))
    cluster.step(1, RequestVote(3, 2, 0, 0))
    assert persist(cluster) == [(3, VoteReply(1, 2, True))]
    assert cluster[1].disk == HardState(2, 3)


def test_a_write_of_an_earlier_vote_releases_nothing() -> None:
    """The disk was busy with term 1 while term 2 came: "durable" is compared, not assumed."""
    cluster = held()
    cluster.step(1, RequestVote(2, 1, 0, 0))
    begun = cluster[1].persist
    assert begun is not None
    cluster.step(1, RequestVote(3, 2, 0, 0))
    assert cluster.step(1, cluster[1].write(begun)) == []
    assert persist(cluster) == [(3, VoteReply(1, 2, True))]


def test_entries_are_acknowledged_up_to_what_is_durable() -> None:
    """3.8, 10.2.1 (row 13): the reply waits, and one reply covers all that was written meanwhile."""
    cluster = held(1)
    leader = log_of(1, 1, 1, 1)
    first, both = leader.slice(2, 20), leader.slice(4, 100)
    assert first is not None
    assert first.last_index == 3
    cluster.step(1, AppendEntries(2, 1, 1, 1, 0, 0))
    assert cluster.step(1, AppendEntries(2, 1, 1, 1, 0, 0, first)) == []
    begun = cluster[1].persist
    assert begun == Persist(None, 3, 0)
    assert cluster.step(1, AppendEntries(2, 1, 3, 1, 0, 0, both)) == []
    assert cluster.step(1, cluster[1].write(begun)) == [(2, AppendReply(1, 1, True, 3))]
    assert persist(cluster) == [(2, AppendReply(1, 1, True, 4))]
    assert cluster[1].raft.ready().persist is None


def test_a_heartbeat_is_answered_while_the_disk_is_slow() -> None:
    """6.2, 6.4: alive and following is one thing, having written another."""
    cluster = held(1)
    cluster.step(1, AppendEntries(2, 1, 1, 1, 0, 0, log_of(1, 1).slice(2, 100)))
    assert cluster.step(1, AppendEntries(2, 1, 2, 1, 0, 1)) == [(2, AppendReply(1, 1, True, 1, 1))]


def test_no_acknowledgement_before_the_term_is_durable() -> None:
    """Figure 3.1: or a node could forget the term, follow an older leader and remove what it has acknowledged."""
    cluster = held(1)
    assert cluster.step(1, AppendEntries(2, 5, 1, 1, 0, 1)) == []
    assert persist(cluster) == [(2, AppendReply(1, 5, True, 1, 1))]


def test_a_sync_begun_before_a_cut_vouches_for_nothing_written_after_it() -> None:
    """Row 11, the ABA of asynchronous writes: index 2 was written, cut and written anew while the disk was busy."""
    cluster = held(1)
    cluster.step(1, AppendEntries(2, 1, 1, 1, 0, 0, log_of(1, 1, 1).slice(2, 100)))
    begun = cluster[1].persist
    assert begun == Persist(None, 3, 0)
    cluster.step(1, AppendEntries(3, 2, 1, 1, 0, 0, log_of(1, 2, 2).slice(2, 100)))
    assert cluster[1].log.generation == 1
    cluster[1].raft.step(Persisted(None, begun.last_index, begun.generation))
    cluster[1].raft.step(Persisted(HardState(2), begun.last_index, begun.generation))
    assert cluster[1].raft.status().durable_index == 1
    assert cluster.sent_by(1) == []
    heartbeat = AppendEntries(3, 2, 3, 2, 0, 1)
    assert cluster.step(1, heartbeat) == [(3, AppendReply(1, 2, True, 1, 1))], "term durable, entries not"
    assert persist(cluster) == [(3, AppendReply(1, 2, True, 3, 1))]


def test_what_was_durable_for_an_old_leader_is_not_acknowledged_to_a_new_one() -> None:
    """Row 11: same indexes, another leader: matched is only what this one has verified."""
    cluster = held(1)
    cluster.step(1, AppendEntries(2, 1, 1, 1, 0, 0, log_of(1, 1, 1).slice(2, 100)))
    begun = cluster[1].persist
    assert begun is not None
    cluster.step(1, AppendEntries(3, 2, 1, 1, 0, 1))
    assert cluster.step(1, cluster[1].write(begun)) == []
    assert persist(cluster) == [(3, AppendReply(1, 2, True, 1, 1))]


def test_the_leaders_own_share_counts_when_it_is_durable() -> None:
    """10.2.1 (row 13): also with a single node, where it is the only share."""
    cluster = held(voters=1)
    cluster[1].time_out()
    cluster.turns()
    cluster.persist(cluster[1])
    cluster.turns()
    cluster.persist(cluster[1])
    cluster.post(1, "a")
    cluster.turns()
    assert cluster[1].raft.commit_index == 1
    cluster.persist(cluster[1])
    assert cluster[1].raft.commit_index == 2


def test_what_is_asked_for_is_offered_until_it_is_done() -> None:
    """The caller has one write under way at a time; `persist` grows meanwhile and is taken when the disk is idle."""
    cluster = held(1)
    raft = cluster[1].raft
    raft.step(RequestVote(2, 3, 1, 1))
    assert raft.ready().persist == Persist(HardState(3, 2), 1, 0)
    raft.step(AppendEntries(2, 3, 1, 1, 0, 0, log_of(1, 3).slice(2, 100)))
    assert raft.ready().persist == Persist(HardState(3, 2), 2, 0)
    raft.step(Persisted(HardState(3, 2), 1, 0))
    assert raft.has_ready
    assert raft.ready().persist == Persist(None, 2, 0)


def test_the_commit_index_is_written_when_idle_and_never_ahead_of_the_log() -> None:
    """The hint costs no write of its own while posts go on."""
    cluster = held(1)
    raft = cluster[1].raft
    cluster.step(1, AppendEntries(2, 1, 1, 1, 2, 0, log_of(1, 1).slice(2, 100)))
    assert raft.commit_index == 2
    cluster[1].elapse(CONFIG.commit_hint_idle_ms)
    assert raft.ready().persist == Persist(HardState(1, 0, 1), 2, 0), "index 2 is committed, but not durable here"
    cluster[1].write(Persist(None, 2, 0))
    raft.step(Persisted(None, 2, 0))
    assert raft.hard_state == HardState(1, 0, 2)
    assert raft.deadline_ms == cluster[1].now_ms
    cluster[1].now_ms += 1
    raft.tick(cluster[1].now_ms)
    assert raft.ready().persist == Persist(HardState(1, 0, 2), 2, 0)
    raft.step(Persisted(HardState(1, 0, 2), 2, 0))
    assert raft.ready().persist is None
    assert raft.deadline_ms >= T


def test_a_vote_carries_the_commit_index_along() -> None:
    """One write for both."""
    cluster = held(1)
    cluster.step(1, AppendEntries(2, 1, 1, 1, 1, 0))
    cluster[1].elapse(2 * T)
    cluster.step(1, RequestVote(3, 9, 5, 5))
    assert cluster[1].persist == Persist(HardState(9, 3, 1), 1, 0)


def test_a_log_that_has_lost_committed_entries_is_refused() -> None:
    """3.8: such a node must not vote; what to do with it is not the core's to decide."""
    with pytest.raises(ValueError, match="lost entries"):
        Node(1, members([1]), log_of(1), HardState(1, 0, 2))


def test_history_must_fit_the_log() -> None:
    """A membership without its entry would be in force without having been agreed on."""
    for bad in ([], [(0, members([1])), (5, members([1, 2]))], [(1, members([1])), (0, members([1]))]):
        node = Node(1, members([1]), log_of(1, 1))
        with pytest.raises(ValueError, match="memberships at"):
            type(node.raft)(
                CONFIG, 1, node.log, HardState(1), bad, node.random, noop=b"", pack_membership=bytes, now_ms=0
            )

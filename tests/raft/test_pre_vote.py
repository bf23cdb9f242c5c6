"""PreVote, and refusing to disturb a leader that works (9.6, 4.2.3, 6.2). Rows 4 to 6 of the bug classes."""

from __future__ import annotations

import pytest

from raftchat.config import Config
from raftchat.raft import HardState, Role
from raftchat.raft.messages import AppendEntries, RequestVote, VoteReply
from tests.raft.memory_log import log_of
from tests.raft.support import CONFIG, Cluster, Node, T, members


def terms(cluster: Cluster) -> list[int]:
    return [node.raft.term for node in cluster.nodes.values()]


def run(cluster: Cluster, ms: float) -> None:
    """Let time pass on all clocks alike, in steps of half a heartbeat."""
    step = CONFIG.heartbeat_interval_ms / 2
    for _ in range(int(ms / step)):
        for node in cluster.nodes.values():
            if not node.down:
                node.elapse(step)
        cluster.settle()


def leaders(cluster: Cluster) -> list[int]:
    return [node.id for node in cluster.nodes.values() if not node.down and node.raft.role is Role.LEADER]


def test_asking_changes_nobodys_term_vote_or_timer() -> None:
    """9.6: a PreVote is a question."""
    cluster = Cluster(Node(1, members([1, 2, 3]), hard_state=HardState(3, 3)))
    before = cluster[1].raft.status(), cluster[1].raft.deadline_ms
    assert cluster.step(1, RequestVote(2, 9, 5, 3, pre=True)) == [(2, VoteReply(1, 9, True, pre=True))]
    assert (cluster[1].raft.status(), cluster[1].raft.deadline_ms) == before


def test_no_pre_vote_while_a_leader_is_heard() -> None:
    """9.6: granted only if the voter has heard from no leader for at least the minimum election timeout."""
    cluster = Cluster(Node(1, members([1, 2, 3])))
    cluster.step(1, AppendEntries(2, 1, 0, 0, 0))
    ask = RequestVote(3, 2, 9, 9, pre=True)
    cluster[1].elapse(T - 1)
    assert cluster.step(1, ask) == [(3, VoteReply(1, 1, False, pre=True))]
    cluster[1].elapse(1)
    assert cluster.step(1, ask) == [(3, VoteReply(1, 2, True, pre=True))]


def test_no_vote_and_no_new_term_while_a_leader_is_heard() -> None:
    """4.2.3: within the minimum election timeout a RequestVote counts for nothing, unless the leader asked for it."""
    cluster = Cluster(Node(1, members([1, 2, 3])))
    cluster.step(1, AppendEntries(2, 1, 0, 0, 0))
    cluster[1].elapse(T - 1)
    assert cluster.step(1, RequestVote(3, 7, 9, 9)) == []
    assert cluster[1].raft.term == 1
    assert cluster.step(1, RequestVote(3, 7, 9, 9, transfer=True)) == [(3, VoteReply(1, 7, True))]


def test_a_leader_ignores_candidates_as_well() -> None:
    """4.2.3: a leader that has its quorum hears itself."""
    cluster = Cluster.of(3)
    cluster.elect(1)
    for pre in (True, False):
        cluster.step(1, RequestVote(3, 7, 9, 9, pre=pre))
    assert (cluster[1].raft.role, cluster[1].raft.term) == (Role.LEADER, 1)


def test_pre_votes_of_an_old_round_do_not_elect() -> None:
    """9.6; row 3: a grant is for one term."""
    node = Node(1, members([1, 2, 3]), hard_state=HardState(4))
    node.time_out()
    for stale in (2, 3, 4, 6):
        node.raft.step(VoteReply(2, stale, True, pre=True))
    assert node.raft.role is Role.PRECANDIDATE
    node.raft.step(VoteReply(2, 5, True))
    assert node.raft.role is Role.FOLLOWER, "a real vote of a later term is a later term"
    node.time_out()
    node.raft.step(VoteReply(2, 6, True, pre=True))
    assert (node.raft.role, node.raft.term) == (Role.CANDIDATE, 6)
    node.raft.step(VoteReply(2, 6, True, pre=True))
    node.raft.step(VoteReply(3, 6, True, pre=True))
    assert node.raft.role is Role.CANDIDATE, "a PreVote is no vote (row 4)"


def test_an_isolated_node_does_not_raise_its_term() -> None:
    """9.6 (row 5): it comes back as it went, and the leader stays."""
    cluster = Cluster.of(3)
    cluster.elect(1)
    cluster.isolate(3)
    run(cluster, 20 * T)
    assert cluster[3].raft.role is Role.PRECANDIDATE
    cluster.heal()
    run(cluster, 3 * T)
    assert leaders(cluster) == [1]
    assert terms(cluster) == [1, 1, 1]


def test_a_removed_node_disturbs_nobody() -> None:
    """4.2.3 (row 5): it does not know that it was removed, and asks for ever."""
    cluster = Cluster.of(3)
    cluster.elect(1)
    cluster.isolate(3)
    cluster[1].raft.propose_membership(members([1, 2]), 0)
    cluster.settle()
    cluster.heal()
    run(cluster, 20 * T)
    assert leaders(cluster) == [1]
    assert terms(cluster)[:2] == [1, 1]


def test_a_refusal_with_a_higher_term_is_adopted() -> None:
    """9.6 (row 4): or a node that is behind asks for a term that is over, for ever."""
    node = Node(1, members([1, 2, 3]), log_of(1, 2))
    node.time_out()
    node.raft.step(VoteReply(2, 8, False, pre=True))
    assert (node.raft.role, node.raft.term) == (Role.FOLLOWER, 8)


@pytest.mark.parametrize("others_log", [[1], [1, 2, 2]])
def test_a_node_with_an_ahead_term_blocks_nobody(others_log: list[int]) -> None:
    """Row 4: one node's term is far ahead and its log is behind. There is a leader all the same, whoever asks first."""
    for first in (1, 2, 3):
        three = members([1, 2, 3])
        cluster = Cluster(
            Node(1, three, log_of(1), HardState(40, 1)),
            Node(2, three, log_of(*others_log), HardState(2)),
            Node(3, three, log_of(*others_log), HardState(2)),
        )
        cluster[first].time_out()
        run(cluster, 6 * T)
        assert len(leaders(cluster)) == 1
        assert min(terms(cluster)) > 40


def test_a_node_with_an_ahead_term_rejoins_a_working_cluster() -> None:
    """6.2: it cannot vote the leader out, but refuses its AppendEntries; one election later all are of one term."""
    cluster = Cluster.of(3)
    cluster.elect(1)
    cluster.crash(3)
    cluster[3].disk = HardState(30, 3)
    cluster.restart(3)
    run(cluster, 5 * T)
    assert len(leaders(cluster)) == 1
    assert terms(cluster) == [31, 31, 31]
    cluster.post(leaders(cluster)[0], "a")
    run(cluster, T)
    assert {node.raft.commit_index for node in cluster.nodes.values()} == {cluster[1].log.last_index}


def test_a_leader_that_hears_nothing_gives_way() -> None:
    """6.2 (row 6): it can send and not receive. The others follow it no longer than it takes to step down."""
    cluster = Cluster.of(3)
    cluster.elect(1)
    cluster.cut = {(2, 1), (3, 1)}
    run(cluster, 4 * T)
    assert len(leaders(cluster)) == 1
    assert leaders(cluster) != [1]
    assert max(terms(cluster)) <= 3


def test_a_leader_that_nobody_hears_gives_way() -> None:
    """6.2 (row 6): it can receive and not send."""
    cluster = Cluster.of(3)
    cluster.elect(1)
    cluster.cut = {(1, 2), (1, 3)}
    run(cluster, 4 * T)
    assert len(leaders(cluster)) == 1
    assert leaders(cluster) != [1]
    assert max(terms(cluster)) <= 3


def test_one_broken_link_changes_nothing() -> None:
    """9.6 (row 6): a follower that does not hear the leader asks in vain, as the third one hears it."""
    cluster = Cluster.of(3)
    cluster.elect(1)
    cluster.cut = {(1, 2), (2, 1)}
    run(cluster, 20 * T)
    assert leaders(cluster) == [1]
    assert terms(cluster) == [1, 1, 1]


def test_a_partitioned_minority_leader_gives_way_and_comes_back_as_follower() -> None:
    """6.2 (row 6): service on the side with the quorum, one change of term."""
    cluster = Cluster.of(5)
    cluster.elect(1)
    cluster.isolate(1, 2)
    run(cluster, 3 * T)
    [leader] = leaders(cluster)
    assert leader in (3, 4, 5)
    cluster.post(leader, "a")
    run(cluster, T)
    cluster.heal()
    run(cluster, 3 * T)
    assert leaders(cluster) == [leader]
    assert set(terms(cluster)) == {2}


def test_timeouts_come_from_the_configuration() -> None:
    """Slow networks get longer ones."""
    slow = Config(election_timeout_ms=60_000, heartbeat_interval_ms=5_000)
    node = Node(1, members([1, 2, 3]), config=slow)
    assert 60_000 <= node.raft.deadline_ms < 120_000

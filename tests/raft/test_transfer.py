"""Leadership transfer (3.10)."""

from __future__ import annotations

import pytest

from raftchat.raft import ChangeRefused, NotLeader, Role
from raftchat.raft.messages import RequestVote, TimeoutNow
from tests.raft.support import CONFIG, Cluster, Node, T, members


def led() -> Cluster:
    four = members([1, 2, 3], [4])
    cluster = Cluster(*(Node(i, four) for i in four.members))
    cluster.settle()
    cluster.elect(1)
    return cluster


def test_an_up_to_date_follower_takes_over_at_once() -> None:
    """3.10: TimeoutNow, and it campaigns though everybody hears from the leader; one term later it leads."""
    cluster = led()
    cluster[1].raft.transfer_leadership(3)
    assert cluster.sent_by(1) == [(3, TimeoutNow(1, 1))]
    assert [m for _, m in cluster.step(3, TimeoutNow(1, 1))] == [RequestVote(3, 2, 1, 1, transfer=True)] * 2
    cluster[1].raft.step(RequestVote(3, 2, 1, 1, transfer=True))
    cluster.settle()
    assert (cluster[3].raft.role, cluster[3].raft.term) == (Role.LEADER, 2)
    assert (cluster[1].raft.role, cluster[1].raft.leader) == (Role.FOLLOWER, 3)


def test_a_lagging_follower_is_brought_up_to_date_first() -> None:
    """3.10, step 2."""
    cluster = led()
    cluster.cut = {(1, 3)}
    cluster.post(1, *"abc")
    cluster.settle()
    cluster[1].raft.transfer_leadership(3)
    cluster.settle()
    assert cluster[1].raft.role is Role.LEADER
    cluster.heal()
    for node in cluster.nodes.values():
        node.elapse(CONFIG.heartbeat_interval_ms)
    cluster.settle()
    assert cluster[3].raft.role is Role.LEADER
    assert cluster[3].log.entries()[:4] == cluster[1].log.entries()[:4]


def test_proposals_and_changes_are_refused_meanwhile() -> None:
    """3.10, step 1: or the target would never be up to date."""
    cluster = led()
    cluster.cut = {(1, 3)}
    cluster[1].raft.transfer_leadership(3)
    assert cluster[1].raft.status().transfer_to == 3
    with pytest.raises(NotLeader) as refused:
        cluster.post(1, "a")
    assert refused.value.leader == 0
    with pytest.raises(ChangeRefused) as change_refused:
        cluster[1].raft.propose_membership(members([1, 2]), 0)
    assert change_refused.value.retryable


def test_a_transfer_that_does_not_succeed_is_given_up() -> None:
    """3.10: after an election timeout the leader goes on as before."""
    cluster = led()
    cluster.isolate(3)
    cluster[1].raft.transfer_leadership(3)
    cluster.turns()
    for _ in range(T // CONFIG.heartbeat_interval_ms):
        with pytest.raises(NotLeader):
            cluster.post(1, "a")
        assert cluster[1].raft.deadline_ms <= cluster[1].now_ms + CONFIG.heartbeat_interval_ms
        cluster.beat(1)
    cluster.post(1, "a")
    cluster.settle()
    assert cluster[1].raft.commit_index == cluster[1].log.last_index
    assert cluster[1].raft.term == 1


@pytest.mark.parametrize("target", [1, 4, 9])
def test_only_another_voter_can_take_over(target: int) -> None:
    """3.10, 4.2.1: not the leader itself, not a learner, not a stranger."""
    with pytest.raises(ValueError, match="not another voter"):
        led()[1].raft.transfer_leadership(target)


def test_only_a_leader_hands_over() -> None:
    with pytest.raises(NotLeader):
        led()[2].raft.transfer_leadership(3)


def test_timeout_now_of_anybody_else_is_ignored() -> None:
    """3.10: late ones of an old leader, and to one that cannot lead."""
    cluster = led()
    for node, message in ((2, TimeoutNow(3, 1)), (2, TimeoutNow(1, 0)), (4, TimeoutNow(1, 1)), (1, TimeoutNow(2, 1))):
        assert cluster.step(node, message) == []
        assert cluster[node].raft.term == 1


def test_a_repeated_timeout_now_starts_no_second_election() -> None:
    """3.10; duplicates."""
    cluster = led()
    cluster.held = {2}
    cluster.step(2, TimeoutNow(1, 1))
    cluster.step(2, TimeoutNow(1, 1))
    assert (cluster[2].raft.role, cluster[2].raft.term) == (Role.CANDIDATE, 2)

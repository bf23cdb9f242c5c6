"""InstallSnapshot, as far as it is the core's (chapter 5, figure 5.3). Row 20 of the bug classes."""

from __future__ import annotations

import pytest

from raftchat.raft import HardState, Persist
from raftchat.raft.messages import AppendEntries, AppendReply, InstallSnapshot, SnapshotInstalled
from tests.raft.memory_log import log_of
from tests.raft.support import Cluster, Node, members

THREE = members([1, 2, 3])
FOUR = members([1, 2, 3, 4])


def snapshot(index: int, term: int, leader_term: int = 5, round_: int = 1) -> InstallSnapshot:
    return InstallSnapshot(2, leader_term, index, term, 0, FOUR.encode(), round_)


def installed(index: int, term: int) -> SnapshotInstalled:
    return SnapshotInstalled(index, term, 0, FOUR.encode())


def follower(*terms: int, commit: int = 0) -> Cluster:
    cluster = Cluster(Node(1, THREE, log_of(*terms), HardState(5, 0, commit)))
    cluster.settle()
    return cluster


def test_a_needed_snapshot_is_asked_for_until_it_is_there() -> None:
    """5: heartbeats are answered meanwhile, with no more than what is there."""
    cluster = follower(1, 1)
    assert cluster.step(1, snapshot(9, 4)) == [(2, AppendReply(1, 5, True, 0, 1))]
    assert cluster[1].snapshot == snapshot(9, 4)
    assert cluster.step(1, snapshot(9, 4, round_=2)) == [(2, AppendReply(1, 5, True, 0, 2))]
    assert cluster[1].raft.ready().snapshot == snapshot(9, 4, round_=2)
    assert cluster.step(1, installed(9, 4)) == [(2, AppendReply(1, 5, True, 9, 2))]
    assert cluster[1].raft.ready().snapshot is None
    assert (cluster[1].raft.commit_index, cluster[1].raft.membership) == (9, FOUR)
    assert cluster[1].log.last_term == 4


@pytest.mark.parametrize("own", [[], [1], [1, 1, 1, 1], [1, 3, 3, 3, 3, 3], [1, 1, 2]])
def test_a_conflicting_suffix_does_not_survive(own: list[int]) -> None:
    """Figure 5.3, step 7 (row 20)."""
    cluster = follower(*own)
    cluster.step(1, snapshot(3, 4))
    cluster.step(1, installed(3, 4))
    assert (cluster[1].log.first_index, cluster[1].log.last_index, cluster[1].log.last_term) == (4, 3, 4)
    assert cluster[1].log.generation == 1
    assert cluster[1].raft.status().durable_index == 3
    batch = log_of(4, 4, 4, 5, 5).slice(4, 100)
    assert cluster.step(1, AppendEntries(2, 5, 3, 4, 5, 1, batch))[-1] == (2, AppendReply(1, 5, True, 5, 1))
    assert cluster[1].raft.commit_index == 5


def test_a_log_that_goes_on_behind_the_snapshot_is_kept() -> None:
    """Figure 5.3, step 6: the same entry at its end, so all before it is committed and what follows may be right."""
    cluster = follower(1, 1, 4, 4, 4)
    assert cluster.step(1, snapshot(3, 4)) == [(2, AppendReply(1, 5, True, 3, 1))]
    assert cluster[1].snapshot is None
    assert (cluster[1].log.last_index, cluster[1].raft.commit_index) == (5, 3)
    assert cluster[1].log.generation == 0


def test_what_is_committed_already_is_not_installed() -> None:
    """5: an old or repeated snapshot must not take the node back."""
    cluster = follower(1, 1, 1, 1, commit=4)
    for m in (snapshot(2, 1), installed(2, 1), installed(4, 1)):
        cluster.step(1, m)
    assert cluster[1].snapshot is None
    assert (cluster[1].log.last_index, cluster[1].raft.commit_index, cluster[1].log.generation) == (4, 4, 0)


def test_a_snapshot_of_a_former_leader_is_refused_and_no_longer_fetched() -> None:
    """Figure 5.3, step 1."""
    cluster = follower(1)
    cluster.step(1, snapshot(9, 4))
    cluster.step(1, AppendEntries(3, 6, 1, 1, 0))
    assert cluster[1].snapshot is None
    assert cluster.step(1, snapshot(9, 4)) == [(2, AppendReply(1, 6, False, 1, 1))]
    cluster.step(1, installed(9, 4))
    assert cluster[1].raft.commit_index == 9, "one that was fetched all the same is committed state, whoever leads"


def test_the_reset_is_durable_before_anything_is_acknowledged() -> None:
    """3.8: a sync begun before the reset vouches for nothing."""
    cluster = follower(1)
    cluster.held = {1}
    cluster.step(1, AppendEntries(2, 5, 1, 1, 0, 0, log_of(1, 5, 5).slice(2, 100)))
    begun = cluster[1].persist
    assert begun == Persist(None, 3, 0)
    cluster[1].raft.step(installed(9, 4))
    cluster[1].raft.step(cluster[1].write(begun))
    assert cluster[1].raft.status().durable_index == 9


def led_with_short_log(offer: bool = True) -> Cluster:
    """Node 1 leads and has dropped the first ten entries; node 3 is empty."""
    cluster = Cluster(Node(1, THREE, log_of(*[1] * 20)), Node(2, THREE, log_of(*[1] * 20)), Node(3, THREE))
    cluster.crash(3)
    cluster.settle()
    cluster.elect(1)
    cluster[1].log.drop_prefix(11)
    if offer:
        cluster[1].raft.snapshot_available(15, 1, 0, THREE.encode())
    cluster.restart(3)
    return cluster


def test_a_follower_that_needs_what_the_log_no_longer_holds_gets_a_snapshot() -> None:
    """5: and from there on the log."""
    cluster = led_with_short_log()
    for _ in range(3):
        cluster.beat(1)
    assert cluster[1].raft.status().followers[3].state == "snapshot"
    wanted = cluster[3].snapshot
    assert wanted is not None
    assert (wanted.sender, wanted.last_index, wanted.last_term) == (1, 15, 1)
    cluster.post(1, "a")
    cluster.settle()
    assert cluster[3].log.last_index == 0, "nothing is sent meanwhile"
    for _ in range(20):
        cluster.beat(1)
    assert cluster[1].raft.term == 2, "and nobody thinks anybody dead"
    cluster[3].raft.step(SnapshotInstalled(15, 1, 0, THREE.encode()))
    cluster.settle()
    assert cluster[1].raft.status().followers[3].state == "replicate"
    assert cluster[3].log.last_index == cluster[1].log.last_index == 22
    assert cluster[3].raft.commit_index == 22


def test_without_a_snapshot_the_follower_waits_and_the_others_go_on() -> None:
    """5: it is kept alive; its refusals lead nowhere."""
    cluster = led_with_short_log(offer=False)
    for _ in range(30):
        cluster.beat(1)
    assert cluster[1].raft.status().followers[3].state == "probe"
    cluster.post(1, "a")
    cluster.settle()
    assert cluster[1].raft.commit_index == 22
    assert cluster[1].raft.term == 2
    cluster[1].raft.snapshot_available(15, 1, 0, THREE.encode())
    cluster.beat(1)
    assert cluster[3].snapshot is not None


def test_reads_are_confirmed_by_followers_that_wait_for_state() -> None:
    """6.4: they follow, that is what counts."""
    cluster = led_with_short_log()
    for _ in range(3):
        cluster.beat(1)
    cluster.crash(2)
    cluster[1].raft.read_index(1)
    cluster.settle()
    assert [r.index for r in cluster[1].reads] == [21]


@pytest.mark.parametrize("first_index", range(2, 22))
@pytest.mark.parametrize("behind", [0, 3, 12])
def test_a_log_that_is_compacted_under_a_leader_keeps_nobody_from_following(first_index: int, behind: int) -> None:
    """5: whatever the follower was being sent, it goes on from the log if that still holds it, else by a snapshot."""
    cluster = Cluster(Node(1, THREE, log_of(*[1] * 20)), Node(2, THREE, log_of(*[1] * 20)), Node(3, THREE))
    cluster.elect(1)
    cluster.settle()
    cluster.crash(3)
    for number in range(behind):
        cluster.post(1, str(number))
    cluster.settle()
    leader = cluster[1]
    snapshot_index = max(first_index - 1, 15)
    leader.raft.snapshot_available(snapshot_index, leader.log.term_at(snapshot_index), 0, THREE.encode())
    leader.log.drop_prefix(first_index)
    cluster[2].log.drop_prefix(min(first_index + 1, 20))
    cluster.restart(3)
    for _ in range(4):
        cluster.beat(1)
    wanted = cluster[3].snapshot
    if wanted is not None:
        cluster[3].raft.step(SnapshotInstalled(wanted.last_index, wanted.last_term, 0, THREE.encode()))
    for _ in range(4):
        cluster.beat(1)
    cluster.post(1, "last")
    cluster.settle()
    assert cluster[3].log.last_index == cluster[2].log.last_index == leader.log.last_index
    assert leader.raft.status().followers[3].state == "replicate"


def led_with_whole_log(behind: int, better_below: int) -> Cluster:
    """Node 1 leads with all its log and a snapshot of 15; node 3 has the first entries up to `behind`."""
    cluster = Cluster(
        Node(1, THREE, log_of(*[1] * 20)), Node(2, THREE, log_of(*[1] * 20)), Node(3, THREE, log_of(*[1] * behind))
    )
    cluster.crash(3)
    cluster.settle()
    cluster.elect(1)
    cluster[1].raft.snapshot_available(15, 1, 0, THREE.encode(), better_below)
    cluster.restart(3)
    for _ in range(3):
        cluster.beat(1)
    return cluster


@pytest.mark.parametrize(("behind", "state"), [(0, "snapshot"), (8, "snapshot"), (9, "replicate"), (14, "replicate")])
def test_a_follower_that_lacks_very_much_gets_the_state_although_the_log_holds_it_all(behind: int, state: str) -> None:
    """5: whole files travel faster than entries; who lacks less than that costs is sent entries."""
    cluster = led_with_whole_log(behind, better_below=10)
    assert cluster[1].raft.status().followers[3].state == state
    if state == "snapshot":
        assert cluster[3].log.last_index == behind, "nothing is sent meanwhile"
        assert cluster[3].raft.needs_snapshot(15, 1)
        for _ in range(10):
            cluster.beat(1)
        assert cluster[1].raft.status().followers[3].state == "snapshot", "an answer alone does not end it"
        cluster[3].raft.step(SnapshotInstalled(15, 1, 0, THREE.encode()))
        assert not cluster[3].raft.needs_snapshot(15, 1)
    cluster.settle()
    assert cluster[3].log.last_index == cluster[1].log.last_index
    assert cluster[1].raft.status().followers[3].state == "replicate"


def test_who_is_catching_up_from_the_log_is_not_stopped_by_a_new_snapshot() -> None:
    cluster = led_with_whole_log(9, better_below=0)
    cluster.crash(3)
    cluster.post(1, "a")
    cluster.settle()
    cluster[1].raft.snapshot_available(20, 1, 0, THREE.encode(), 21)
    cluster.beat(1)
    assert cluster[1].raft.status().followers[3].state == "replicate"


def test_one_that_tries_in_vain_to_get_the_snapshot_is_sent_entries_if_the_log_has_them() -> None:
    """5: a rotten file at the leader, or a full disk at the follower, must not keep it from following for ever."""
    cluster = led_with_whole_log(3, better_below=10)
    assert cluster[1].raft.status().followers[3].state == "snapshot"
    cluster[1].raft.snapshot_failed(3)
    cluster.settle()
    for _ in range(3):
        cluster.beat(1)
    assert cluster[1].raft.status().followers[3].state == "replicate"
    assert cluster[3].log.last_index == cluster[1].log.last_index


def test_one_that_the_log_cannot_help_goes_on_trying_to_get_the_snapshot() -> None:
    cluster = led_with_short_log()
    for _ in range(3):
        cluster.beat(1)
    cluster[1].raft.snapshot_failed(3)
    cluster.beat(1)
    assert cluster[1].raft.status().followers[3].state == "snapshot"
    cluster[2].raft.snapshot_failed(3)  # a follower has nothing to say about it

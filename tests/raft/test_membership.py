"""Membership: single-step changes, in force when appended, rolled back when cut off (4.1 to 4.2.2). Rows 12, 17, 18."""

from __future__ import annotations

import pytest

from raftchat.raft import ChangeRefused, HardState, Membership, NotLeader, Role
from raftchat.raft.messages import AppendEntries, RequestVote, TimeoutNow
from tests.raft.memory_log import MemoryLog, log_of, pack_membership
from tests.raft.support import CONFIG, Cluster, Node, T, members


def led(voters: int = 3, learners: int = 0, more: int = 0) -> Cluster:
    """Node 1 leads; `more` nodes beyond the members are there and empty."""
    membership = members(range(1, voters + 1), range(voters + 1, voters + 1 + learners))
    outsiders = range(voters + learners + 1, voters + learners + 1 + more)
    nodes = [Node(i, membership) for i in membership.members] + [Node(i, Membership()) for i in outsiders]
    cluster = Cluster(*nodes)
    cluster.settle()
    cluster.elect(1)
    return cluster


def change(cluster: Cluster, to: Membership, leader: int = 1) -> int:
    return cluster[leader].raft.propose_membership(to, 0)


def with_changes(*steps: tuple[int, Membership | None]) -> MemoryLog:
    """A log of (term, membership or a post)."""
    log = MemoryLog()
    for term, membership in steps:
        log.append(b"post x\n" if membership is None else pack_membership(membership.encode()), term, 0)
    log.synced_index = log.last_index
    return log


def test_encoding_is_deterministic_and_round_trips() -> None:
    """Every node writes the same bytes for the same members."""
    a = Membership({2: "b", 1: "a", 10: "c"}, {3: "d"})
    b = Membership({10: "c", 1: "a", 2: "b"}, {3: "d"})
    assert a.encode() == b.encode() == b'{"Learners":{"3":"d"},"Voters":{"1":"a","10":"c","2":"b"}}'
    assert Membership.decode(a.encode()) == a == b


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"[]", b'{"Voters":{},"Learners":[]}', b'{"Voters":{"x":"a"},"Learners":{}}',
             b'{"Voters":{"1":2},"Learners":{}}', b'{"Voters":{"0":"a"},"Learners":{}}',
             b'{"Voters":{"1":"a"},"Learners":{"1":"a"}}', b'{"Voters":{},"Learners":{},"Other":{}}'],
)  # fmt: skip
def test_what_is_no_membership_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        Membership.decode(data)


def test_single_steps() -> None:
    """4.1: one voter added or removed, so that any two majorities, old and new, share a server."""
    three = members([1, 2, 3])
    assert three.add(4, "u").voters.keys() == {1, 2, 3, 4}
    assert three.add(4, "u", learner=True).learners == {4: "u"}
    assert three.add(4, "u", learner=True).promote(4) == three.add(4, "u")
    assert three.remove(3) == members([1, 2])
    assert three.demote(3) == members([1, 2], [3])
    for step in (three, three.add(4, "u"), three.remove(2), three.demote(1), members([1, 2, 3], [4, 5, 6])):
        assert three.is_single_step(step)
        assert step.is_single_step(three)
    for leap in (members([1, 2, 4]), members([1]), members([1, 2, 3, 4, 5]), members([1, 4], [2, 3])):
        assert not three.is_single_step(leap)


def test_senseless_steps_are_refused() -> None:
    three = members([1, 2, 3], [4])
    for step in (
        lambda: three.add(1, "u"),
        lambda: three.add(4, "u"),
        lambda: three.add(0, "u"),
        lambda: three.remove(5),
        lambda: three.promote(1),
        lambda: three.promote(5),
        lambda: three.demote(4),
        lambda: members([1]).remove(1),
        lambda: members([1]).demote(1),
    ):
        with pytest.raises(ValueError):  # noqa: PT011
            step()


def test_a_new_voter_counts_as_soon_as_the_entry_is_appended() -> None:
    """4.1: the new configuration is used at once, on the leader and on every follower that gets it."""
    cluster = led(more=1)
    cluster.isolate(1)
    index = change(cluster, members([1, 2, 3, 4]))
    assert cluster[1].raft.membership == members([1, 2, 3, 4])
    cluster.heal()
    cluster.crash(2)
    cluster.crash(3)
    for _ in range(3):
        cluster.beat(1)
    assert cluster[4].raft.membership == members([1, 2, 3, 4]), "not committed, and in force there"
    assert cluster[1].raft.commit_index < index, "two of four"
    cluster.restart(2)
    for _ in range(2):
        cluster.beat(1)
    assert cluster[1].raft.commit_index == index


def test_a_new_member_gets_the_whole_log() -> None:
    """4.2.1: a learner catches up without anybody waiting for it, and can be promoted then."""
    cluster = led(more=1)
    cluster.post(1, *"abcdef")
    cluster.settle()
    change(cluster, members([1, 2, 3], [4]))
    cluster.settle()
    assert cluster[4].log.entries() == cluster[1].log.entries()
    assert (cluster[4].raft.role, cluster[4].raft.commit_index) == (Role.LEARNER, cluster[1].raft.commit_index)
    change(cluster, members([1, 2, 3, 4]))
    cluster.settle()
    assert cluster[4].raft.role is Role.FOLLOWER
    assert cluster.elect(4).role is Role.LEADER


def test_one_uncommitted_change_at_a_time() -> None:
    """4.1: or majorities of configurations two steps apart would not meet."""
    cluster = led()
    cluster.isolate(1)
    change(cluster, members([1, 2, 3], [4]))
    with pytest.raises(ChangeRefused, match="not committed yet") as refused:
        change(cluster, members([1, 2]))
    assert refused.value.retryable
    cluster.heal()
    cluster.settle()
    cluster.beat(1)
    assert change(cluster, members([1, 2], [4])) == 3


def test_no_change_before_an_entry_of_the_own_term_is_committed() -> None:
    """4.1 as corrected in 2015 (row 17): a new leader may not know of an uncommitted change left by another."""
    cluster = led()
    cluster.crash(1)
    cluster.held = {3}
    cluster[3].elapse(T)
    cluster[2].time_out()
    while cluster[2].raft.role is not Role.LEADER:
        cluster.turns()
        cluster.persist(cluster[3])
        cluster.turns()
        cluster.deliver(cluster.network.pop(0))
    with pytest.raises(ChangeRefused, match="no entry of this leader's term") as refused:
        change(cluster, members([2, 3]), leader=2)
    assert refused.value.retryable
    cluster.held.clear()
    cluster.persist(cluster[3])
    cluster.settle()
    assert cluster[2].raft.is_ready
    change(cluster, members([2, 3]), leader=2)


def test_the_single_server_bug_of_2015() -> None:
    """Row 17: four servers, two leaders, each with a change the other has not seen. Their majorities must not miss."""
    four = members([1, 2, 3, 4])
    nodes = [Node(i, four) for i in range(1, 5)] + [Node(5, Membership())]
    cluster = Cluster(*nodes)
    cluster.settle()
    cluster.elect(1)
    cluster.cut = {(1, 2), (1, 3), (1, 4)}
    change(cluster, members([1, 2, 3, 4, 5]))  # S1 adds S5, which is all that hears of it.
    cluster.settle()
    cluster.cut = {(a, b) for a in (1, 5) for b in (2, 3, 4)} | {(b, a) for a in (1, 5) for b in (2, 3, 4)}
    cluster[1].elapse(2 * T)
    cluster.elect(2)
    change(cluster, members([2, 3, 4]), leader=2)  # S2 removes S1, after an entry of its own term.
    cluster.settle()
    assert cluster[2].raft.commit_index == cluster[2].log.last_index
    # S1 needs three of five now, and has itself and S5: two of those who committed will refuse its shorter log.
    cluster.heal()
    for _ in range(10):
        for node in cluster.nodes.values():
            node.elapse(T / 5)
        cluster.settle()
    assert cluster.leaders == {1: 1, 2: 2}


@pytest.mark.parametrize("bad", [members([1]), members([4, 5, 6]), members([1, 2, 3]), members([])])
def test_changes_that_are_none_or_too_much_are_refused(bad: Membership) -> None:
    """4.1: for good, unlike those that only have to wait."""
    cluster = led()
    with pytest.raises(ChangeRefused) as refused:
        change(cluster, bad)
    assert not refused.value.retryable


def test_only_the_leader_changes_members() -> None:
    cluster = led()
    with pytest.raises(NotLeader) as refused:
        change(cluster, members([1, 2]), leader=2)
    assert refused.value.leader == 1


def test_a_change_is_rolled_back_with_its_entry() -> None:
    """4.1 (row 12): a configuration that is overwritten falls back to the one before it."""
    cluster = led()
    cluster.isolate(1)
    change(cluster, members([1, 2, 3, 4]))
    cluster.turns()
    cluster.elect(3)
    cluster.post(3, "a")
    cluster.settle()
    cluster.heal()
    cluster.beat(3)
    cluster.beat(3)
    assert cluster[1].log.generation == 1
    assert cluster[1].raft.membership == members([1, 2, 3])
    assert cluster[1].raft.status().membership_index == 0


def test_several_changes_are_rolled_back_to_the_right_one() -> None:
    """4.1 (row 12): also when several leaders' changes lie uncommitted in a log, and after a restart."""
    log = with_changes((1, None), (1, members([1, 2], [3])), (2, members([1, 2])), (2, None), (3, members([1])))
    cluster = Cluster(Node(1, members([1, 2, 3]), log, HardState(3)))
    assert cluster[1].raft.membership == members([1])
    cluster.step(1, AppendEntries(2, 4, 4, 2, 0, 0, log_of(1, 1, 1, 2, 4).slice(5, 100)))
    assert (cluster[1].raft.membership, cluster[1].raft.status().membership_index) == (members([1, 2]), 3)
    cluster.step(1, AppendEntries(2, 4, 2, 1, 2, 0))
    assert cluster[1].raft.membership == members([1, 2]), "committing an earlier one puts nothing back"
    cluster.step(1, AppendEntries(3, 5, 2, 1, 2, 0, log_of(1, 1, 5).slice(3, 100)))
    assert (cluster[1].raft.membership, cluster[1].raft.status().membership_index) == (members([1, 2], [3]), 2)


def test_a_removed_leader_steps_down_once_that_is_committed() -> None:
    """4.2.2 (row 18): until then it leads a majority that does not include itself; then it names a successor."""
    cluster = led()
    cluster.cut = {(1, 3)}
    index = change(cluster, members([2, 3]))
    cluster.settle()
    assert cluster[2].raft.status().durable_index == index
    assert cluster[1].raft.role is Role.LEADER
    assert cluster[1].raft.commit_index < index, "one of two; the leader itself does not count"
    cluster.heal()
    seen: list[object] = []
    cluster.on_event = lambda event, node, packet: seen.append(packet) if event == "deliver" else None
    cluster[1].elapse(CONFIG.heartbeat_interval_ms)
    cluster.settle()
    assert cluster[1].raft.role is Role.LEARNER
    assert any(isinstance(p, tuple) and isinstance(p[2], TimeoutNow) for p in seen)
    assert sorted(n.id for n in cluster.nodes.values() if n.raft.role is Role.LEADER) in ([2], [3])
    with pytest.raises(NotLeader):
        cluster.post(1, "a")
    assert cluster[1].raft.commit_index >= index
    term = max(n.raft.term for n in cluster.nodes.values())
    cluster[1].elapse(100 * T)
    cluster.settle()
    assert max(n.raft.term for n in cluster.nodes.values()) == term, "and disturbs nobody"


def test_a_leader_that_demoted_itself_and_crashed_before_telling_leads_again() -> None:
    """4.2.2: it holds the only copy of the change, and the other cannot be elected without it: it must campaign."""
    cluster = led(voters=2)
    cluster.isolate(1)
    index = change(cluster, members([2], [1]))
    cluster.turns()
    cluster.crash(1)
    cluster.restart(1)
    cluster.heal()
    assert cluster[1].raft.role is Role.LEARNER
    for _ in range(60):
        for node in cluster.nodes.values():
            node.elapse(T / 10)
        cluster.settle()
    assert cluster[2].raft.role is Role.LEADER
    assert cluster[2].raft.commit_index > index
    assert cluster[2].raft.membership == cluster[1].raft.membership == members([2], [1])


def test_learners_count_for_nothing() -> None:
    """4.2.1: one of three voters and two learners: nothing is committed, nobody elected."""
    cluster = led(voters=3, learners=2)
    cluster.crash(2)
    cluster.crash(3)
    _, index = cluster.post(1, "a")
    cluster.settle()
    assert cluster[5].log.last_index == index
    assert cluster[1].raft.commit_index < index
    cluster[1].elapse(2 * T)
    for _ in range(10):
        cluster[1].elapse(CONFIG.heartbeat_interval_ms)
        cluster.settle()
    assert cluster[1].raft.role is not Role.LEADER
    cluster[1].time_out()
    cluster.settle()
    assert cluster[1].raft.role is Role.PRECANDIDATE


def test_a_promoted_learner_votes_before_it_knows() -> None:
    """4.1 (row 18): its vote may be what the first leader after its promotion lacks."""
    cluster = led(voters=2, learners=1)
    cluster.cut = {(1, 3)}
    change(cluster, members([1, 2, 3]))
    cluster.settle()
    cluster.crash(1)
    cluster.heal()
    assert cluster[3].raft.membership == members([1, 2], [3])
    cluster[3].elapse(T)
    cluster[2].time_out()
    cluster.settle()
    assert cluster[2].raft.role is Role.LEADER


def test_a_joining_node_votes_and_waits() -> None:
    """4.2.1: with no configuration at all a node is nobody's candidate, and learns who is who from the leader."""
    cluster = Cluster(Node(4, Membership()))
    assert cluster[4].raft.role is Role.LEARNER
    assert cluster[4].raft.deadline_ms == float("inf")
    assert len(cluster.step(4, RequestVote(1, 1, 0, 0))) == 1


def test_a_new_voter_that_has_not_started_gets_an_election_timeout() -> None:
    """6.2: its silence before it was added is not held against the leader."""
    cluster = led(voters=1)
    change(cluster, members([1, 2]))
    for _ in range(9):
        cluster[1].elapse(CONFIG.heartbeat_interval_ms)
        cluster.settle()
    assert cluster[1].raft.role is Role.LEADER

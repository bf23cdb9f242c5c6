"""Linearizable reads (6.4): one round of heartbeats for all that wait, and an answer for each, if only a refusal."""

from __future__ import annotations

import pytest

from raftchat.raft import Read, Role
from raftchat.raft.messages import AppendEntries, AppendReply, ReadIndexReply, ReadIndexRequest, VoteReply
from tests.raft.support import CONFIG, Cluster, Node, T, members


def led(size: int = 3) -> Cluster:
    cluster = Cluster.of(size)
    cluster.settle()
    cluster.elect(1)
    return cluster


def heartbeats(sent: list[tuple[int, object]]) -> list[tuple[int, int]]:
    return [(to, m.round) for to, m in sent if isinstance(m, AppendEntries)]


def test_reads_of_one_turn_share_a_round() -> None:
    """6.4: amortized over all reads that have gathered."""
    cluster = led()
    raft = cluster[1].raft
    raft.read_index(7)
    raft.read_index(8)
    raft.step(ReadIndexRequest(2, 1, 99))
    sent = cluster.sent_by(1)
    assert heartbeats(sent) == [(2, 1), (3, 1)]
    assert cluster[1].reads == []
    assert cluster.step(1, AppendReply(3, 1, True, 1, 1)) == [(2, ReadIndexReply(1, 1, 99, 1))]
    assert cluster[1].reads == [Read(7, 1), Read(8, 1)]


def test_a_round_begun_before_the_read_confirms_nothing() -> None:
    """6.4 (row 14): the confirmation must be of a moment after the read was asked for."""
    cluster = led()
    raft = cluster[1].raft
    raft.read_index(1)
    cluster.sent_by(1)
    raft.read_index(2)
    cluster.sent_by(1)
    cluster.step(1, AppendReply(2, 1, True, 1, 1))
    assert cluster[1].reads == [Read(1, 1)]
    cluster.step(1, AppendReply(2, 1, True, 1, 1))
    assert cluster[1].reads == [Read(1, 1)], "a repeated answer is no new one"
    cluster.step(1, AppendReply(3, 1, True, 1, 2))
    assert cluster[1].reads == [Read(1, 1), Read(2, 1)]


def test_a_later_round_confirms_earlier_reads() -> None:
    """6.4: answers may be lost; who answers round 2 was still following after round 1."""
    cluster = led()
    for context in (1, 2):
        cluster[1].raft.read_index(context)
        cluster.sent_by(1)
    cluster.step(1, AppendReply(2, 1, True, 1, 2))
    assert cluster[1].reads == [Read(1, 1), Read(2, 1)]


def test_the_round_travels_with_entries() -> None:
    """A follower that gets entries in the same turn gets no heartbeat besides."""
    cluster = led()
    cluster[1].raft.read_index(1)
    cluster.post(1, "a")
    sent = cluster.sent_by(1)
    assert heartbeats(sent) == [(2, 1), (3, 1)]
    assert all(isinstance(m, AppendEntries) and m.batch for _, m in sent)


def test_a_refused_append_confirms_the_term_as_well() -> None:
    """6.4: what counts is that the follower still follows, not how long its log is."""
    cluster = led()
    cluster[1].raft.read_index(1)
    cluster.sent_by(1)
    cluster.step(1, AppendReply(2, 1, False, 0, 1, 1, 0, 0))
    assert cluster[1].reads == [Read(1, 1)]


def test_five_voters_need_two_answers_besides_the_own() -> None:
    """6.4: a majority of the cluster; the same follower twice is one, learners are none."""
    five = members(range(1, 6), [6, 7])
    cluster = Cluster(*(Node(i, five) for i in five.members))
    cluster.elect(1)
    cluster[1].raft.read_index(1)
    cluster.sent_by(1)
    for follower in (2, 2, 6, 7):
        cluster.step(1, AppendReply(follower, 1, True, 1, 1))
    assert cluster[1].reads == []
    cluster.step(1, AppendReply(3, 1, True, 1, 1))
    assert cluster[1].reads == [Read(1, 1)]


def test_a_single_voter_answers_at_once() -> None:
    """6.4: it is its own majority."""
    cluster = led(1)
    cluster[1].raft.read_index(5)
    cluster.turns()
    assert cluster[1].reads == [Read(5, 1)]


def test_a_new_leader_waits_for_its_own_entry() -> None:
    """6.4, step 1 (row 14): before that it does not know what its predecessor has committed."""
    cluster = led()
    cluster.post(1, "a", "b")
    cluster.settle()
    cluster.held = {2, 3}
    assert cluster[2].raft.commit_index == 3
    cluster[3].elapse(T)
    cluster[2].time_out()
    cluster.crash(1)
    for _ in range(20):
        cluster.turns()
        if cluster[2].raft.role is Role.LEADER:
            break
        for node in (cluster[2], cluster[3]):
            cluster.persist(node)
        cluster.turns()
        for packet in cluster.network[:]:
            cluster.network.remove(packet)
            cluster.deliver(packet)
    assert cluster[2].raft.role is Role.LEADER
    assert not cluster[2].raft.is_ready
    cluster[2].raft.read_index(1)
    cluster.settle()
    cluster.beat(2)
    assert cluster[2].reads == [], "everybody answers, and still"
    cluster.held.clear()
    for node in (cluster[2], cluster[3]):
        cluster.persist(node)
    cluster.settle()
    assert cluster[2].raft.is_ready
    assert cluster[2].reads == [Read(1, 4)]


def test_a_follower_forwards_its_reads_as_one() -> None:
    """6.4: followers ask the leader for an index and serve the read themselves."""
    cluster = led()
    for context in (1, 2, 3):
        cluster[2].raft.read_index(context)
    [(to, request)] = cluster.sent_by(2)
    assert to == 1
    assert isinstance(request, ReadIndexRequest)
    cluster.step(2, ReadIndexReply(1, 1, request.context, 1))
    assert cluster[2].reads == [Read(1, 1), Read(2, 1), Read(3, 1)]
    cluster.step(2, ReadIndexReply(1, 1, request.context, 1))
    assert len(cluster[2].reads) == 3, "a repeated reply answers nothing twice"


def test_requests_of_another_life_are_not_mixed_up() -> None:
    """A late reply to a node that has restarted must not answer a younger read with an older index."""
    cluster = led()
    asked = set()
    for _ in range(5):
        cluster[2].raft.read_index(1)
        [(_, request)] = cluster.sent_by(2)
        assert isinstance(request, ReadIndexRequest)
        asked.add(request.context)
        cluster.crash(2)
        cluster.restart(2)
        cluster.beat(1)
    assert len(asked) == 5


def test_without_a_leader_reads_are_refused_at_once() -> None:
    """Row 14: no answer is worse than a refusal."""
    node = Node(1, members([1, 2, 3]))
    node.raft.read_index(1)
    node.time_out()
    node.raft.read_index(2)
    node.raft.step(VoteReply(2, 1, True, pre=True))
    node.raft.read_index(3)
    node.ready()
    assert node.reads == [Read(1, 0), Read(2, 0), Read(3, 0)]


def test_a_node_that_does_not_lead_refuses_forwarded_reads() -> None:
    """Whatever the sender believed."""
    cluster = led()
    assert cluster.step(2, ReadIndexRequest(3, 1, 5)) == [(3, ReadIndexReply(2, 1, 5, 0))]
    assert cluster.step(1, ReadIndexRequest(3, 0, 6)) == [(3, ReadIndexReply(1, 1, 6, 0))]


def test_losing_leadership_fails_all_reads() -> None:
    """Row 14: those that wait for a round, those that wait for one to begin, own and forwarded."""
    cluster = led()
    raft = cluster[1].raft
    raft.read_index(1)
    raft.step(ReadIndexRequest(2, 1, 9))
    cluster.sent_by(1)
    raft.read_index(2)
    sent = cluster.step(1, AppendEntries(3, 2, 1, 1, 1))
    assert (2, ReadIndexReply(1, 2, 9, 0)) in sent
    assert {(r.context, r.index) for r in cluster[1].reads} == {(1, 0), (2, 0)}


@pytest.mark.parametrize("event", ["new term", "new leader", "time-out"])
def test_losing_the_leader_fails_forwarded_reads(event: str) -> None:
    """Row 14: the request may be lost with it."""
    cluster = led()
    cluster[2].raft.read_index(1)
    cluster.sent_by(2)
    cluster[2].raft.read_index(2)
    if event == "new term":
        cluster.step(2, AppendReply(3, 5, False, 0))
    elif event == "new leader":
        cluster.step(2, AppendEntries(3, 2, 1, 1, 1))
    else:
        cluster[2].elapse(2 * T)
        cluster.sent_by(2)
    assert {(r.context, r.index) for r in cluster[2].reads} == {(1, 0), (2, 0)}


def test_a_lost_request_is_given_up() -> None:
    """The leader lives, the message was lost: the read fails after an election timeout rather than hang."""
    cluster = led()
    cluster[2].raft.read_index(1)
    cluster.sent_by(2)
    for _ in range(T // CONFIG.heartbeat_interval_ms - 1):
        cluster.beat(1)
    assert cluster[2].reads == []
    assert cluster[2].raft.deadline_ms <= cluster[2].now_ms + CONFIG.heartbeat_interval_ms
    cluster.beat(1)
    assert cluster[2].reads == [Read(1, 0)]


@pytest.mark.parametrize("ticked", [False, True])
def test_a_paused_leader_serves_no_stale_read(ticked: bool) -> None:
    """Row 14: stopped for two seconds, deposed meanwhile, it wakes with reads in its buffer."""
    cluster = led()
    cluster.cut = {(1, 2), (1, 3), (2, 1), (3, 1)}
    cluster[3].elapse(T)
    cluster[2].time_out()
    cluster.settle()
    assert cluster[2].raft.role is Role.LEADER
    cluster.post(2, "a")
    cluster.settle()
    if ticked:
        cluster[1].elapse(2 * T)
    cluster[1].raft.read_index(1)
    cluster.turns()
    assert (cluster[1].raft.role, cluster[1].reads) == (Role.LEADER, [])
    cluster.heal()
    cluster[1].raft.read_index(2)
    cluster.settle()
    assert [(r.context, r.index) for r in cluster[1].reads] == [(1, 0), (2, 0)]

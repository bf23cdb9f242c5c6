"""The leader's side: replication, what is committed by it, and flow control (3.5, 3.6.2, 10.2.1)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from raftchat.config import Config
from raftchat.raft import HardState, NotLeader, Overloaded, Role
from raftchat.raft.messages import AppendEntries, AppendReply, RequestVote, VoteReply
from tests.raft.memory_log import NOOP, log_of, post
from tests.raft.support import CONFIG, Cluster, Node, T, members


def leader(*terms: int, size: int = 3, config: Config = CONFIG, learners: list[int] | None = None) -> Cluster:
    """Node 1 of `size` leads the term after the last of its log; the others are not there, tests speak for them."""
    membership = members(range(1, size + 1), learners or [])
    cluster = Cluster(Node(1, membership, log_of(*terms), config=config))
    node = cluster[1]
    node.time_out()
    for voter in range(2, size + 1):
        node.raft.step(VoteReply(voter, node.raft.term + 1, True, pre=True))
    cluster.turns()
    for voter in range(2, size + 1):
        if node.raft.role is not Role.LEADER:
            node.raft.step(VoteReply(voter, node.raft.term, True))
    assert node.raft.role is Role.LEADER
    cluster.network.clear()
    return cluster


def acknowledge(cluster: Cluster, follower: int, match_index: int, round_: int = 0) -> None:
    raft = cluster[1].raft
    raft.step(AppendReply(follower, raft.term, True, match_index, round_))
    cluster.turns()


def appends(cluster: Cluster, follower: int) -> list[tuple[int, int | None, int]]:
    """What was sent to a follower since: (prev_index, last index of its batch, commit index)."""
    sent = [m for to, m in cluster.sent_by(1) if to == follower and isinstance(m, AppendEntries)]
    return [(m.prev_index, m.batch and m.batch.last_index, m.commit_index) for m in sent]


def test_a_leader_opens_its_term_with_a_noop() -> None:
    """6.4, 3.6.2: an entry of the own term, so that what earlier terms left can be committed."""
    cluster = leader(1, 2)
    cluster[1].raft.ready()
    assert cluster[1].log.record(3) == NOOP
    assert cluster[1].log.term_at(3) == 3
    cluster = leader(1, 2)
    cluster.turns()
    batches = [m.batch for _, m in cluster.sent_by(1) if isinstance(m, AppendEntries) and m.batch]
    assert [(b.first_index, b.last_index, bytes(b.data)) for b in batches] == [(3, 3, NOOP)] * 2


def test_proposals_are_appended_and_sent_to_all_with_the_entry_before_them() -> None:
    """3.5: one AppendEntries to each of the others, with index and term of the preceding entry."""
    cluster = leader()
    for follower in (2, 3):
        acknowledge(cluster, follower, 1)
    cluster.sent_by(1)
    assert cluster.post(1, "a", "b") == (2, 3)
    assert cluster.post(1, "c") == (4, 4)
    sent = cluster.sent_by(1)
    assert [to for to, _ in sent] == [2, 3]
    message = sent[0][1]
    assert isinstance(message, AppendEntries)
    assert message is sent[1][1], "the same object, to be encoded once"
    assert (message.prev_index, message.prev_term, message.commit_index) == (1, 1, 1)
    assert message.batch is not None
    assert bytes(message.batch.data) == post("a") + post("b") + post("c"), "one batch a turn"


def test_replication_does_not_wait_for_the_own_disk() -> None:
    """10.2.1: the leader writes to disk while the followers get the entries; its own share counts when it is done."""
    cluster = leader()
    for follower in (2, 3):
        acknowledge(cluster, follower, 1)
    cluster.sent_by(1)
    cluster.held = {1}
    cluster.post(1, "a")
    assert appends(cluster, 2) == [(1, 2, 1)]
    acknowledge(cluster, 2, 2)
    assert cluster[1].raft.commit_index == 1, "one of three has it on disk"
    acknowledge(cluster, 3, 2)
    assert cluster[1].raft.commit_index == 2, "two of three have, though the leader has not"


@pytest.mark.parametrize(
    ("size", "acks", "committed"),
    [
        (1, [], True),
        (2, [], False),
        (2, [2], True),
        (3, [], False),
        (3, [2], True),
        (3, [2, 3], True),
        (4, [2], False),
        (4, [2, 3], True),
        (5, [2], False),
        (5, [2, 4], True),
        (5, [2, 3, 4, 5], True),
    ],
)
def test_an_entry_is_committed_once_a_majority_has_it(size: int, acks: list[int], committed: bool) -> None:
    """3.5: "committed" when the leader that created it has it on a majority of the servers."""
    cluster = leader(size=size)
    cluster.turns()
    for follower in range(2, size + 1):
        acknowledge(cluster, follower, 1)
    cluster.post(1, "a")
    cluster.turns()
    for follower in acks:
        acknowledge(cluster, follower, 2)
    assert cluster[1].raft.commit_index == (2 if committed else 1)


def test_the_commit_index_is_sent_at_once_and_once() -> None:
    """3.5: followers learn of commits with the next AppendEntries: here, without waiting for a heartbeat."""
    cluster = leader()
    for follower in (2, 3):
        acknowledge(cluster, follower, 1)
    cluster.post(1, "a")
    cluster.sent_by(1)
    cluster[1].raft.step(AppendReply(2, 1, True, 2))
    assert cluster.sent_by(1) == [(to, AppendEntries(1, 1, 2, 1, 2)) for to in (2, 3)]
    acknowledge(cluster, 3, 2)
    assert cluster.sent_by(1) == []


def test_the_commit_index_travels_with_entries_if_there_are_any() -> None:
    """At most one message a turn where one will do."""
    cluster = leader()
    for follower in (2, 3):
        acknowledge(cluster, follower, 1)
    cluster.post(1, "a")
    cluster.sent_by(1)
    cluster[1].raft.step(AppendReply(2, 1, True, 2))
    cluster.post(1, "b")
    assert appends(cluster, 2) == [(2, 3, 2)]


@pytest.mark.parametrize("earlier", [[1], [2], [1, 2], [1, 1, 2], []])
def test_earlier_terms_are_committed_with_the_first_own_entry(earlier: list[int]) -> None:
    """3.5: committing an entry commits all before it in the leader's log."""
    cluster = leader(*earlier)
    cluster.turns()
    acknowledge(cluster, 2, len(earlier) + 1)
    assert cluster[1].raft.commit_index == len(earlier) + 1


@pytest.mark.parametrize(("match_index", "committed"), [(1, 0), (2, 0), (3, 3)])
def test_only_entries_of_the_own_term_are_committed_by_counting(match_index: int, committed: int) -> None:
    """3.6.2, figure 3.7 (row 8): an entry of an earlier term may be on a majority and still be replaced."""
    cluster = leader(1, 2)
    cluster.turns()
    for follower in (2, 3):
        acknowledge(cluster, follower, match_index)
    assert cluster[1].raft.commit_index == committed


@pytest.mark.parametrize(("log", "granted"), [([1, 2], True), ([1, 2, 4], False)])
def test_why_counting_earlier_terms_would_lose_them(log: list[int], granted: bool) -> None:
    """3.6.2, figure 3.7 (d) and (e): S3 still votes for S5, whose log ends in term 3, until it has S1's term 4."""
    cluster = Cluster(Node(3, members(range(1, 6)), log_of(*log), HardState(4)))
    assert cluster.step(3, RequestVote(5, 5, 2, 3)) == [(5, VoteReply(3, 5, granted))]


@pytest.mark.parametrize(
    "follower_log",
    [
        [1, 1, 1, 4, 4, 5, 5, 6, 6],  # (a) and (b): entries are missing
        [1, 1, 1, 4],
        [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6],  # (c) and (d): there are more
        [1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7],
        [1, 1, 1, 4, 4, 4, 4],  # (e) and (f): both
        [1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3],
        [],
    ],
)
def test_a_leader_makes_a_followers_log_like_its_own(follower_log: list[int]) -> None:
    """3.5, figure 3.6: found by the consistency check, and mended by overwriting from where the logs agree."""
    three = members([1, 2, 3])
    cluster = Cluster(
        Node(1, three, log_of(1, 1, 1, 4, 4, 5, 5, 6, 6, 6), HardState(7)),
        Node(2, three, log_of(*follower_log), HardState(7)),
        Node(3, three, log_of(), HardState(7)),
    )
    cluster[2].crash()
    cluster.settle()
    cluster.elect(1)
    cluster.restart(2)
    refusals = 0

    def count(event: str, node: Node, packet: object) -> None:
        nonlocal refusals
        if event == "deliver" and isinstance(packet, tuple):
            refusals += isinstance(packet[2], AppendReply) and packet[0] == 2 and not packet[2].success

    cluster.on_event = count
    cluster.beat(1)
    cluster.beat(1)
    assert cluster[2].log.entries() == cluster[1].log.entries()
    assert cluster[2].raft.commit_index == cluster[1].log.last_index
    assert refusals <= 3, "whole terms are skipped at a time"


def test_late_and_repeated_replies_change_nothing() -> None:
    """3.5: a reply says what was true; match indexes never go back, and an old refusal starts no probe."""
    cluster = leader()
    cluster.post(1, "a", "b", "c")
    acknowledge(cluster, 2, 4)
    for m in (AppendReply(2, 1, True, 2), AppendReply(2, 1, False, 0, 0, 3, 1, 1), AppendReply(2, 1, False, 0)):
        cluster[1].raft.step(m)
    follower = cluster[1].raft.status().followers[2]
    assert (follower.match_index, follower.next_index, follower.state) == (4, 5, "replicate")
    assert cluster[1].raft.commit_index == 4


def test_replies_of_strangers_are_ignored() -> None:
    """4.1: who is no member has no say."""
    cluster = leader()
    for stranger in (4, 5, 6):
        acknowledge(cluster, stranger, 1)
    assert cluster[1].raft.commit_index == 0


def small(inflight_messages: int = 3) -> Config:
    """Room for one record in an AppendEntries, and for a few of them under way."""
    size = CONFIG.record_size_max_bytes
    return replace(
        CONFIG, append_size_max_bytes=size, inflight_max_bytes=4 * size, inflight_max_messages=inflight_messages
    )


def test_probe_sends_one_message_and_waits() -> None:
    """10.2.1: until the logs are known to meet, sending ahead would be in vain."""
    cluster = leader(1, 1)
    assert appends(cluster, 2) == [(2, 3, 0)]
    cluster.post(1, "a")
    assert appends(cluster, 2) == []
    cluster[1].elapse(CONFIG.heartbeat_interval_ms)
    assert appends(cluster, 2) == [(2, None, 0)], "repeated without entries by the heartbeat"
    acknowledge(cluster, 2, 2)
    assert appends(cluster, 2) == [(2, 4, 0)], "everything, once it fits"
    assert cluster[1].raft.status().followers[2].state == "replicate"


def test_pipelining_is_bounded_by_messages() -> None:
    """10.2.1: several AppendEntries under way at once, but a follower that does not answer costs bounded memory."""
    cluster = leader(config=small())
    acknowledge(cluster, 2, 1)
    cluster.sent_by(1)
    big = "x" * (CONFIG.record_size_max_bytes // 2)
    cluster.post(1, *[big] * 5)
    assert appends(cluster, 2) == [(1, 2, 1), (2, 3, 1), (3, 4, 1)]
    acknowledge(cluster, 2, 3)
    assert appends(cluster, 2) == [(4, 5, 3), (5, 6, 3)], "one reply acknowledges all before it"


def test_pipelining_is_bounded_by_bytes() -> None:
    """The same by size."""
    cluster = leader(config=small(inflight_messages=1000))
    acknowledge(cluster, 2, 1)
    cluster.sent_by(1)
    big = "x" * (CONFIG.record_size_max_bytes - 100)
    cluster.post(1, *[big] * 20)
    cluster.sent_by(1)
    status = cluster[1].raft.status().followers[2]
    assert status.inflight_messages == 4
    assert 3 * CONFIG.record_size_max_bytes < status.inflight_bytes <= 4 * CONFIG.record_size_max_bytes


def test_what_was_lost_is_found_by_the_next_heartbeat() -> None:
    """3.5: a heartbeat has the consistency check too, so a hole shows within one interval."""
    cluster = Cluster.of(3)
    cluster.elect(1)
    cluster.cut = {(1, 2)}
    cluster.post(1, "a", "b")
    cluster.settle()
    cluster.heal()
    assert cluster[2].log.last_index == 1
    cluster.beat(1)
    assert cluster[2].log.last_index == 3
    cluster.cut = {(2, 1)}
    cluster.post(1, "c")
    cluster.settle()
    assert cluster[1].raft.status().followers[2].match_index == 3
    cluster.heal()
    cluster.beat(1)
    assert cluster[1].raft.status().followers[2].match_index == 4, "a lost reply as well"


def test_a_silent_follower_gets_heartbeats_and_no_more() -> None:
    """Row 30: neither entries again and again, nor memory."""
    cluster = leader(config=small())
    acknowledge(cluster, 3, 1)
    acknowledge(cluster, 2, 1)
    cluster.sent_by(1)
    for i in range(50):
        cluster[1].elapse(CONFIG.heartbeat_interval_ms)
        _, last = cluster.post(1, "a")
        cluster.turns()
        acknowledge(cluster, 3, last, i)
    entries = [m for to, m in cluster.sent_by(1) if to == 2 and isinstance(m, AppendEntries) and m.batch]
    assert len(entries) == 3


def test_proposals_are_refused_while_too_much_is_not_committed() -> None:
    """The leader's memory and log do not grow without a quorum."""
    cluster = leader(config=replace(CONFIG, uncommitted_max_bytes=100))
    acknowledge(cluster, 2, 1)
    cluster.post(1, "x" * 60)
    assert cluster[1].raft.status().uncommitted_bytes == 66
    with pytest.raises(Overloaded):
        cluster.post(1, "x" * 60)
    assert cluster[1].log.last_index == 2, "and nothing was appended"
    acknowledge(cluster, 2, 2)
    cluster.post(1, "x" * 200)
    assert cluster[1].raft.status().uncommitted_bytes == 206, "one that is larger by itself is let in alone"


def test_only_a_leader_takes_proposals() -> None:
    """3.3: the others name the leader, if they know one."""
    raft = Node(1, members([1, 2, 3])).raft
    with pytest.raises(NotLeader) as refused:
        raft.propose(post("a"), 0)
    assert refused.value.leader == 0
    raft.step(AppendEntries(2, 1, 0, 0, 0))
    with pytest.raises(NotLeader) as refused:
        raft.propose(post("a"), 0)
    assert refused.value.leader == 2


def test_a_full_disk_at_the_leader_appends_nothing() -> None:
    """The log's error reaches the caller; the leader goes on with what it has."""
    cluster = leader()
    raft = cluster[1].raft

    def full(*_: object) -> tuple[int, int]:
        raise OSError(28, "No space left on device")

    cluster[1].log.append = full  # type: ignore[method-assign]
    with pytest.raises(OSError, match="No space"):
        raft.propose(post("a"), 0)
    assert (raft.role, raft.status().uncommitted_bytes) == (Role.LEADER, 0)
    acknowledge(cluster, 2, 1)
    assert raft.commit_index == 1


def test_check_quorum() -> None:
    """6.2 (row 6): a leader that hears from no majority for an election timeout steps down, in its term."""
    cluster = leader(size=5)
    for _ in range(9):
        cluster[1].elapse(CONFIG.heartbeat_interval_ms)
        acknowledge(cluster, 2, 1)
    assert cluster[1].raft.role is Role.LEADER
    cluster[1].elapse(CONFIG.heartbeat_interval_ms)
    assert (cluster[1].raft.role, cluster[1].raft.term, cluster[1].raft.leader) == (Role.FOLLOWER, 1, 0)


def test_learners_do_not_keep_a_leader_in_office() -> None:
    """4.2.1, 6.2: their answers count for nothing, neither here nor for commits."""
    cluster = leader(learners=[4, 5, 6])
    for _ in range(10):
        for learner in (4, 5, 6):
            acknowledge(cluster, learner, 1)
        assert cluster[1].raft.commit_index == 0
        cluster[1].elapse(CONFIG.heartbeat_interval_ms)
    assert cluster[1].raft.role is Role.FOLLOWER


def test_a_paused_leader_asks_before_it_gives_up() -> None:
    """6.2: silence while it was not running is not the others'; but if they go on being silent it steps down."""
    cluster = leader()
    cluster[1].elapse(5 * T)
    assert cluster[1].raft.role is Role.LEADER
    assert len(appends(cluster, 2)) > 0
    for _ in range(10):
        assert cluster[1].raft.role is Role.LEADER
        cluster[1].elapse(CONFIG.heartbeat_interval_ms)
    assert cluster[1].raft.role is Role.FOLLOWER


def test_status_shows_each_followers_progress() -> None:
    """For `GET /raft`."""
    cluster = leader(learners=[4])
    cluster[1].elapse(7)
    acknowledge(cluster, 2, 1)
    cluster.post(1, "a")
    cluster.turns()
    status = cluster[1].raft.status()
    two, four = status.followers[2], status.followers[4]
    assert (two.match_index, two.next_index, two.state, two.inflight_messages) == (1, 3, "replicate", 1)
    assert two.inflight_bytes == len(post("a"))
    assert two.last_contact_ms == cluster[1].now_ms
    assert (four.match_index, four.state, four.learner, four.last_contact_ms) == (0, "probe", True, float("-inf"))
    assert (status.role, status.last_index, status.durable_index, status.commit_index) == (Role.LEADER, 2, 2, 1)

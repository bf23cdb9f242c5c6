"""Elections as the dissertation tells them: roles, terms and votes (3.3, 3.4, 3.6.1, figure 3.1)."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from raftchat.raft import HardState, Raft, Role
from raftchat.raft.messages import AppendEntries, AppendReply, ReadIndexReply, RequestVote, TimeoutNow, VoteReply
from tests.raft.memory_log import log_of
from tests.raft.support import CONFIG, Cluster, Node, T, members


def candidate(size: int = 3, node_id: int = 1) -> tuple[Cluster, Raft]:
    """A node of `size` in term 1 whose own vote is durable and whose requests are on their way."""
    cluster = Cluster(Node(node_id, members(range(1, size + 1))))
    node = cluster[node_id]
    node.time_out()
    for other in range(1, size + 1):
        if other != node_id:
            node.raft.step(VoteReply(other, 1, True, pre=True))
    cluster.turns()
    return cluster, node.raft


def in_role(role: Role) -> tuple[Cluster, Raft]:
    """Node 1 of three, in this role, in term 1."""
    if role is Role.FOLLOWER:
        cluster = Cluster(Node(1, members([1, 2, 3])))
        cluster[1].raft.step(AppendEntries(2, 1, 0, 0, 0))
    elif role is Role.PRECANDIDATE:
        cluster = Cluster(Node(1, members([1, 2, 3]), hard_state=HardState(1)))
        cluster[1].time_out()
    else:
        cluster, raft = candidate()
        if role is Role.LEADER:
            raft.step(VoteReply(2, 1, True))
    cluster.turns()
    raft = cluster[1].raft
    assert (raft.role, raft.term) == (role, 1)
    return cluster, raft


ROLES = [Role.FOLLOWER, Role.PRECANDIDATE, Role.CANDIDATE, Role.LEADER]


def test_a_server_starts_as_follower() -> None:
    """3.3, 3.4: "follower" until it hears nothing for an election timeout; term and vote are what the disk says."""
    raft = Node(1, members([1, 2, 3]), log_of(1, 2), HardState(5, 3)).raft
    assert (raft.role, raft.term, raft.leader, raft.status().vote) == (Role.FOLLOWER, 5, 0, 3)


def test_a_term_in_the_log_counts_even_if_the_hard_state_was_not_written() -> None:
    """Figure 3.1: the current term is the latest the server has seen, and its own log shows what it has seen."""
    cluster = Cluster(Node(1, members([1, 2, 3]), log_of(1, 4), HardState(3, 2)))
    assert (cluster[1].raft.term, cluster[1].raft.status().vote) == (4, 0)
    cluster.settle()
    assert cluster[1].disk == HardState(4, 0)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "message",
    [
        AppendEntries(2, 2, 0, 0, 0),
        AppendReply(2, 2, False, 0),
        RequestVote(2, 2, 9, 9, transfer=True),
        VoteReply(2, 2, False),
        VoteReply(2, 2, False, pre=True),
        ReadIndexReply(2, 2, 7, 0),
        TimeoutNow(2, 2),
    ],
    ids=lambda m: type(m).__name__ + ("-pre" if getattr(m, "pre", False) else ""),
)
def test_a_higher_term_makes_a_follower_of_anybody(role: Role, message: AppendEntries) -> None:
    """3.3: a smaller term is updated to the larger one; candidates and leaders become followers at once."""
    _, raft = in_role(role)
    raft.step(message)
    assert (raft.role, raft.term) == (Role.FOLLOWER, 2)
    assert raft.leader == (2 if isinstance(message, AppendEntries) else 0)


@pytest.mark.parametrize("role", ROLES)
def test_requests_of_a_lower_term_are_refused_with_the_own_one(role: Role) -> None:
    """3.3, figure 3.1: stale requests are rejected, and the term in the answer makes the sender catch up."""
    for message in (AppendEntries(3, 0, 0, 0, 0), RequestVote(3, 0, 9, 9), RequestVote(3, 0, 9, 9, pre=True)):
        cluster, raft = in_role(role)
        before = raft.status()
        [(to, reply)] = [sent for sent in cluster.step(1, message) if sent[0] == 3 and not_a_request(sent[1])][-1:]
        assert (to, reply.term) == (3, 1)
        assert not (reply.granted if isinstance(reply, VoteReply) else reply.success)
        assert raft.status() == before


def not_a_request(message: object) -> bool:
    return isinstance(message, VoteReply | AppendReply)


@pytest.mark.parametrize("role", ROLES)
def test_replies_of_a_lower_term_change_nothing(role: Role) -> None:
    """3.3: faults.md row 3, old replies are not counted."""
    cluster, raft = in_role(role)
    before = raft.status()
    for sender in (2, 3):
        for message in (
            AppendReply(sender, 0, True, 1),
            AppendReply(sender, 0, False, 0),
            VoteReply(sender, 0, True),
            VoteReply(sender, 0, True, pre=True),
            ReadIndexReply(sender, 0, 1, 1),
            TimeoutNow(sender, 0),
        ):
            raft.step(message)
    cluster.turns()
    assert raft.status() == before


def test_who_hears_nothing_for_an_election_timeout_asks_and_then_campaigns() -> None:
    """3.4, 9.6: first PreVote without a change of term; then term + 1, own vote, RequestVote to all others."""
    cluster = Cluster(Node(1, members([1, 2, 3]), log_of(1, 1)))
    node = cluster[1]
    node.time_out()
    pre = RequestVote(1, 2, 2, 1, pre=True)
    assert cluster.sent_by(1) == [(2, pre), (3, pre)]
    assert (node.raft.role, node.raft.term) == (Role.PRECANDIDATE, 1)
    sent = cluster.step(1, VoteReply(3, 2, True, pre=True))
    assert sent == [(2, RequestVote(1, 2, 2, 1)), (3, RequestVote(1, 2, 2, 1))]
    assert (node.raft.role, node.disk) == (Role.CANDIDATE, HardState(2, 1))


def test_a_candidate_without_majority_starts_over_after_a_timeout() -> None:
    """3.4: split votes: each candidate times out and starts a new election."""
    cluster, raft = candidate()
    cluster[1].time_out()
    assert (raft.role, raft.term) == (Role.PRECANDIDATE, 1)
    cluster.turns()
    raft.step(VoteReply(2, 2, True, pre=True))
    assert (raft.role, raft.term) == (Role.CANDIDATE, 2)


@pytest.mark.parametrize(
    ("size", "votes", "role"),
    [
        (3, {2: True, 3: True}, Role.LEADER),
        (3, {2: True}, Role.LEADER),
        (3, {3: True, 2: False}, Role.LEADER),
        (4, {2: True, 3: True}, Role.LEADER),
        (5, {2: True, 3: True}, Role.LEADER),
        (5, {2: False, 3: True, 4: False, 5: True}, Role.LEADER),
        (2, {2: False}, Role.FOLLOWER),
        (3, {2: False, 3: False}, Role.FOLLOWER),
        (4, {2: False, 3: False}, Role.FOLLOWER),
        (5, {2: True, 3: False, 4: False, 5: False}, Role.FOLLOWER),
        (2, {}, Role.CANDIDATE),
        (3, {}, Role.CANDIDATE),
        (3, {2: False}, Role.CANDIDATE),
        (4, {2: True}, Role.CANDIDATE),
        (5, {2: True, 3: False, 4: False}, Role.CANDIDATE),
    ],
)
def test_one_round_of_votes_wins_loses_or_decides_nothing(size: int, votes: dict[int, bool], role: Role) -> None:
    """3.4: a majority of the full cluster elects; one that cannot be had any more ends the candidacy."""
    _, raft = candidate(size)
    for voter, granted in votes.items():
        raft.step(VoteReply(voter, 1, granted))
    assert (raft.role, raft.term) == (role, 1)


def test_a_single_voter_elects_itself_once_its_vote_is_durable() -> None:
    """3.4, 3.8: with one server the majority is itself, and still not before its vote is on disk (row 13)."""
    cluster = Cluster(Node(1, members([1])))
    cluster.held = {1}
    cluster[1].time_out()
    cluster.turns()
    assert cluster[1].raft.role is Role.CANDIDATE
    cluster.persist(cluster[1])
    assert cluster[1].raft.role is Role.LEADER


def test_who_cannot_open_its_term_does_not_lead() -> None:
    """6.4: no room for the no-op: the error reaches the caller, and the next election tries again."""
    cluster = Cluster(Node(1, members([1])))
    node = cluster[1]

    def full(*_: object) -> tuple[int, int]:
        raise OSError(28, "No space left on device")

    append, node.log.append = node.log.append, full  # type: ignore[method-assign]
    node.time_out()
    with pytest.raises(OSError, match="No space"):
        cluster.turns()
    assert (node.raft.role, node.raft.term, node.log.last_index) == (Role.CANDIDATE, 1, 0)
    node.log.append = append  # type: ignore[method-assign]
    node.time_out()
    cluster.turns()
    assert (node.raft.role, node.raft.term, node.raft.commit_index) == (Role.LEADER, 2, 1)


@pytest.mark.parametrize("granted", [True, False])
def test_repeated_votes_count_once(granted: bool) -> None:
    """3.4: one vote per server; faults.md row 3, duplicates."""
    _, raft = candidate(5)
    for _ in range(5):
        raft.step(VoteReply(2, 1, granted))
    assert raft.role is Role.CANDIDATE


def test_votes_of_outsiders_and_learners_do_not_count() -> None:
    """4.2.1: only voters of the configuration in force are counted."""
    cluster = Cluster(Node(1, members([1, 2, 3], [4, 5, 6])))
    cluster[1].time_out()
    raft = cluster[1].raft
    for stranger in (4, 5, 6, 7, 8):
        raft.step(VoteReply(stranger, 1, True, pre=True))
    assert raft.role is Role.PRECANDIDATE
    raft.step(VoteReply(2, 1, True, pre=True))
    cluster.turns()
    for stranger in (4, 5, 6, 7, 8):
        raft.step(VoteReply(stranger, 1, True))
    assert raft.role is Role.CANDIDATE


def test_votes_for_an_earlier_candidacy_do_not_count() -> None:
    """3.4; faults.md row 3: a vote is for one term."""
    cluster, raft = candidate(5)
    cluster[1].time_out()
    for voter in (2, 3):
        raft.step(VoteReply(voter, 2, True, pre=True))
    cluster.turns()
    assert (raft.role, raft.term) == (Role.CANDIDATE, 2)
    for voter in (2, 3, 4, 5):
        raft.step(VoteReply(voter, 1, True))
    assert raft.role is Role.CANDIDATE


@pytest.mark.parametrize(
    ("vote", "candidate_id", "granted"),
    [(0, 2, True), (0, 3, True), (2, 2, True), (3, 3, True), (2, 3, False), (3, 2, False), (1, 2, False)],
)
def test_one_vote_a_term_first_come_first_served(vote: int, candidate_id: int, granted: bool) -> None:
    """3.4: also across restarts, as the vote is on disk; the same candidate may ask again."""
    cluster = Cluster(Node(1, members([1, 2, 3]), hard_state=HardState(1, vote)))
    sent = cluster.step(1, RequestVote(candidate_id, 1, 0, 0))
    assert sent == [(candidate_id, VoteReply(1, 1, granted))]


@pytest.mark.parametrize(
    ("own_log", "last_index", "last_term", "granted"),
    [
        ([1], 1, 1, True),
        ([1], 2, 1, True),
        ([1, 1], 1, 1, False),
        ([1], 1, 2, True),
        ([1, 1], 1, 2, True),
        ([1], 2, 2, True),
        ([2], 1, 1, False),
        ([2], 5, 1, False),
        ([1, 2], 1, 1, False),
        ([], 0, 0, True),
        ([1], 0, 0, False),
    ],
)
@pytest.mark.parametrize("pre", [False, True])
def test_only_a_log_as_up_to_date_as_the_voters_gets_a_vote(
    own_log: list[int], last_index: int, last_term: int, granted: bool, pre: bool
) -> None:
    """3.6.1: the later last term wins, and with equal terms the longer log (row 7)."""
    cluster = Cluster(Node(1, members([1, 2, 3]), log_of(*own_log), HardState(2)))
    sent = cluster.step(1, RequestVote(2, 3, last_index, last_term, pre=pre))
    assert sent == [(2, VoteReply(1, 3 if granted or not pre else 2, granted, pre))]


@pytest.mark.parametrize("role", [Role.PRECANDIDATE, Role.CANDIDATE])
@pytest.mark.parametrize("term", [1, 2])
def test_a_candidate_that_hears_from_a_leader_follows_it(role: Role, term: int) -> None:
    """3.4: a leader whose term is at least the candidate's is legitimate."""
    _, raft = in_role(role)
    raft.step(AppendEntries(2, term, 0, 0, 0))
    assert (raft.role, raft.term, raft.leader) == (Role.FOLLOWER, term, 2)


def test_stepping_down_within_a_term_keeps_the_vote() -> None:
    """3.4; faults.md row 2: a candidate that finds a leader of its term has voted all the same."""
    cluster, raft = candidate()
    raft.step(AppendEntries(2, 1, 0, 0, 0))
    cluster.turns()
    cluster[1].elapse(10 * T)
    cluster.sent_by(1)
    sent = cluster.step(1, RequestVote(3, 1, 9, 9))
    assert sent == [(3, VoteReply(1, 1, False))]
    assert cluster[1].disk.vote == 1


def test_two_leaders_in_a_term_stop_the_node() -> None:
    """Figure 3.2, election safety: if it ever fails, going on would only spread the damage."""
    _, raft = in_role(Role.LEADER)
    with pytest.raises(AssertionError, match="election safety"):
        raft.step(AppendEntries(2, 1, 0, 0, 0))
    _, raft = in_role(Role.FOLLOWER)
    with pytest.raises(AssertionError, match="election safety"):
        raft.step(AppendEntries(3, 1, 0, 0, 0))


def timeout_of(node: Node) -> float:
    return node.raft.deadline_ms - node.now_ms


def test_election_timeouts_are_random_between_one_and_two() -> None:
    """3.4: chosen anew for every wait, from a fixed interval, so that split votes are rare and resolved quickly."""
    node = Node(1, members([1, 2, 3]), random=Random(1))
    timeouts = []
    for term in range(1, 1001):
        node.raft.step(AppendEntries(2, term, 0, 0, 0))
        timeouts.append(timeout_of(node))
    assert min(timeouts) >= T
    assert max(timeouts) < 2 * T
    assert len(Counter(int(10 * t / T) for t in timeouts)) == 10, "every tenth of the interval is used"


def test_mostly_one_node_times_out_alone() -> None:
    """3.4: in most cases a single server times out, and wins before the others do: here, a heartbeat's time ahead."""
    nodes = [Node(i, members(range(1, 6)), random=Random(i)) for i in range(1, 6)]
    conflicts = 0
    for term in range(1, 1001):
        for node in nodes:
            node.raft.step(AppendEntries(9, term, 0, 0, 0))
        first, second, *_ = sorted(timeout_of(node) for node in nodes)
        conflicts += second - first < T / 50  # a round trip and a disk write
    assert conflicts < 150


def test_a_granted_vote_puts_the_own_election_off_and_a_refused_one_does_not() -> None:
    """3.4: the timer starts anew on hearing from the leader or granting a vote, on nothing else."""
    for last_index, moved in ((9, True), (0, False)):
        node = Node(1, members([1, 2, 3]), log_of(1, 1))
        before = node.raft.deadline_ms
        node.elapse(T / 2)
        node.raft.step(RequestVote(2, 5, last_index, 1))
        assert node.raft.term == 5
        assert (node.raft.deadline_ms > before) is moved


def test_a_follower_that_hears_the_leader_never_campaigns() -> None:
    """3.4: heartbeats keep authority."""
    cluster = Cluster.of(3)
    cluster.elect(1)
    for _ in range(100):
        cluster.beat(1)
    assert {node.raft.term for node in cluster.nodes.values()} == {1}


def test_only_voters_campaign() -> None:
    """4.2.1: a learner, and a server that no configuration knows, waits to be told."""
    for membership in (members([2, 3], [1]), members([2, 3]), members([])):
        cluster = Cluster(Node(1, membership))
        cluster.turns()
        cluster[1].elapse(100 * T)
        assert cluster.sent_by(1) == []
        assert (cluster[1].raft.term, cluster[1].raft.deadline_ms) == (0, float("inf"))
        cluster[1].raft.step(AppendEntries(2, 1, 0, 0, 0))
        cluster[1].elapse(100 * T)
        assert (cluster[1].raft.role, cluster[1].raft.leader) == (Role.LEARNER, 0)


def test_servers_vote_whatever_their_own_configuration_says() -> None:
    """4.1; faults.md row 18: a learner may have been promoted without knowing it, and its vote be needed."""
    cluster = Cluster(Node(4, members([1, 2, 3], [4])))
    assert cluster.step(4, RequestVote(1, 2, 0, 0)) == [(1, VoteReply(4, 2, True))]
    assert cluster[4].disk == HardState(2, 1)


def test_a_leader_heartbeats_to_everybody_at_every_interval_and_not_otherwise() -> None:
    """3.4: periodic heartbeats, empty AppendEntries, to all followers, learners included."""
    cluster = Cluster(*(Node(i, members([1, 2, 3], [4])) for i in range(1, 5)))
    raft = cluster.elect(1)
    node = cluster[1]
    node.elapse(CONFIG.heartbeat_interval_ms - 1)
    assert cluster.sent_by(1) == []
    assert raft.deadline_ms == node.now_ms + 1
    node.elapse(1)
    sent = cluster.sent_by(1)
    assert [to for to, _ in sent] == [2, 3, 4]
    assert {m for _, m in sent} == {AppendEntries(1, 1, 1, 1, 1, round=1)}


def test_an_idle_follower_asks_for_no_tick_before_its_election_timeout() -> None:
    """No polling: an idle node wakes for its heartbeats and for nothing else."""
    cluster = Cluster.of(3)
    cluster.elect(1)
    for _ in range(3):
        cluster.beat(1)
    for follower in (2, 3):
        assert timeout_of(cluster[follower]) >= T

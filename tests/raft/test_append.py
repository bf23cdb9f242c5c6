"""A follower's log: what it accepts, refuses, removes and reports (3.5, 3.6, figure 3.1 AppendEntries)."""

from __future__ import annotations

import pytest

from raftchat.raft import HardState, Role
from raftchat.raft.messages import AppendEntries, AppendReply
from tests.raft.memory_log import MemoryLog, log_of
from tests.raft.support import Cluster, Node, members


def follower(*terms: int, commit: int = 0, term: int | None = None) -> Cluster:
    """Node 1 of three with a durable log of these terms, hearing from nobody yet."""
    return Cluster(Node(1, members([1, 2, 3]), log_of(*terms), HardState(term or max(terms, default=0), 0, commit)))


def append(leader_log: MemoryLog, prev_index: int, last_index: int, commit: int = 0, term: int = 0) -> AppendEntries:
    """What a leader with this log would send from after `prev_index` up to `last_index`, cut to one batch."""
    batch = None
    if last_index > prev_index:
        size = sum(len(leader_log.record(i)) for i in range(prev_index + 1, last_index + 1))
        batch = leader_log.slice(prev_index + 1, size)
        assert batch is not None
        assert batch.last_index == last_index, "a batch is of one term"
    term = term or leader_log.last_term
    return AppendEntries(2, term, prev_index, leader_log.term_at(prev_index), commit, 0, batch)


def terms(cluster: Cluster) -> list[int]:
    return [term for term, _ in cluster[1].log.entries()]


@pytest.mark.parametrize(
    ("prev_index", "prev_term", "fits"),
    [(0, 0, True), (1, 1, True), (2, 2, True), (1, 2, False), (2, 1, False), (3, 2, False), (3, 3, False)],
)
def test_prev_entry_must_match(prev_index: int, prev_term: int, fits: bool) -> None:
    """3.5: the consistency check: no entry with this index and term, no append."""
    cluster = follower(1, 2)
    [(to, reply)] = cluster.step(1, AppendEntries(2, 2, prev_index, prev_term, 0))
    assert isinstance(reply, AppendReply)
    assert (to, reply.success) == (2, fits)


def test_a_matching_prefix_that_is_committed_needs_no_check() -> None:
    """3.6.3: every leader has what is committed, also where the follower's log has been dropped already."""
    cluster = follower(1, 1, 1, 1, commit=3)
    cluster[1].log.drop_prefix(3)
    cluster.settle()
    leader = log_of(1, 1, 1, 1, 1, 1)
    (_, reply) = cluster.step(1, append(leader, 1, 6))[-1]
    assert reply == AppendReply(1, 1, True, 6)
    assert [text for _, text in cluster[1].log.entries()] == ["post 3.1", "post 4.1", "post 5.1", "post 6.1"]


@pytest.mark.parametrize(
    ("own", "leaders", "prev", "last", "result"),
    [
        ([], [1], 0, 1, [1]),
        ([1], [1, 1, 1], 1, 3, [1, 1, 1]),
        ([1, 2], [1, 2, 3], 2, 3, [1, 2, 3]),
        ([1, 2], [1, 3, 3], 1, 3, [1, 3, 3]),  # a conflict: it and all that follow it go
        ([1, 2, 2, 2], [1, 3], 1, 2, [1, 3]),
        ([1, 2, 2], [4, 4], 0, 2, [4, 4]),
        ([1, 1, 2, 2], [1, 1, 1, 1, 1], 0, 5, [1, 1, 1, 1, 1]),  # the conflict lies within the batch
        ([1, 1, 1], [1, 1, 1], 0, 2, [1, 1, 1]),  # an old or repeated message removes nothing
        ([1, 1, 1], [1, 1, 1], 1, 1, [1, 1, 1]),
        ([1, 1, 2], [1, 1, 2], 0, 2, [1, 1, 2]),
        ([1, 1, 1], [1, 1, 1, 1, 1], 1, 5, [1, 1, 1, 1, 1]),  # half of it is new
    ],
)
def test_appending(own: list[int], leaders: list[int], prev: int, last: int, result: list[int]) -> None:
    """3.5, figure 3.1 steps 3 and 4: a conflicting entry goes with all behind it; nothing else ever does (row 10)."""
    cluster = follower(*own)
    [(_, reply)] = cluster.step(1, append(log_of(*leaders), prev, last, term=5))
    assert reply == AppendReply(1, 5, True, last)
    assert terms(cluster) == result
    assert cluster[1].log.generation == (1 if result[: len(own)] != own else 0)


@pytest.mark.parametrize("own_length", range(8))
@pytest.mark.parametrize("same", range(8))
def test_every_conflict_within_a_batch_is_found(own_length: int, same: int) -> None:
    """3.5: the follower's log agrees for `same` entries of the batch's term, then is of a later term."""
    same = min(same, own_length)
    cluster = follower(*[3] * same, *[4] * (own_length - same), term=5)
    cluster.step(1, append(log_of(*[3] * 7), 0, 7, term=5))
    assert terms(cluster) == [3] * 7
    assert cluster[1].log.generation == (own_length > same)


def test_a_batch_behind_a_gap_is_refused() -> None:
    """3.5; faults.md row 10."""
    cluster = follower(1, 1)
    [(_, reply)] = cluster.step(1, append(log_of(1, 1, 1, 1), 3, 4))
    assert reply == AppendReply(1, 1, False, 2, 0, 3, 2, 1)
    assert terms(cluster) == [1, 1]


@pytest.mark.parametrize(("prev_index", "prev_term", "terms_sent"), [(0, 0, [2, 2, 2, 2]), (2, 2, [2]), (3, 2, [2])])
def test_contradicting_what_is_committed_stops_the_node(prev_index: int, prev_term: int, terms_sent: list[int]) -> None:
    """3.6.3, state machine safety: only a broken leader can ask for it, and following it would spread the damage."""
    cluster = follower(1, 1, 1, commit=3)
    cluster.settle()
    sent = log_of(*[2] * 4).slice(prev_index + 1, 6 * len(terms_sent) + 6)
    with pytest.raises(AssertionError):
        cluster.step(1, AppendEntries(2, 2, prev_index, prev_term, 0, 0, sent))
    assert terms(cluster) == [1, 1, 1]


@pytest.mark.parametrize(
    ("own", "prev_index", "prev_term", "hint"),
    [
        ([1, 1, 1], 9, 5, (3, 1)),  # shorter: its own end
        ([1, 1, 1], 5, 1, (3, 1)),
        ([1, 1, 2, 2, 2], 5, 1, (2, 1)),  # the run of a later term is skipped at once
        ([1, 1, 4, 4, 4, 4], 6, 3, (2, 1)),
        ([1, 2, 4, 4], 4, 3, (2, 2)),
        ([5, 5, 5], 3, 1, (0, 0)),
        ([], 7, 3, (0, 0)),
    ],
)
def test_a_refusal_says_where_the_logs_may_meet(
    own: list[int], prev_index: int, prev_term: int, hint: tuple[int, int]
) -> None:
    """3.5: fast back-up: the last entry whose term is not above the refused one, since terms never go back."""
    cluster = follower(*own, term=6)
    [(_, reply)] = cluster.step(1, AppendEntries(2, 6, prev_index, prev_term, 0, 4))
    assert reply == AppendReply(1, 6, False, len(own), 4, prev_index, *hint)


def test_a_hint_is_never_below_what_is_committed() -> None:
    """3.6.3: up to there the logs are the same anyway."""
    cluster = follower(3, 3, 4, 4, commit=2)
    cluster.settle()
    [(_, reply)] = cluster.step(1, AppendEntries(2, 6, 4, 3, 2))
    assert isinstance(reply, AppendReply)
    assert (reply.hint_index, reply.hint_term) == (2, 3)


@pytest.mark.parametrize(("leader_commit", "committed"), [(0, 0), (1, 1), (2, 2), (3, 3), (9, 3)], ids=lambda n: str(n))
def test_a_follower_commits_up_to_the_last_new_entry(leader_commit: int, committed: int) -> None:
    """Figure 3.1, AppendEntries step 5: min(leaderCommit, index of last new entry)."""
    cluster = follower(1)
    cluster.step(1, append(log_of(1, 1, 1), 1, 3, leader_commit))
    assert cluster[1].raft.commit_index == committed


def test_a_heartbeat_commits_nothing_it_has_not_verified() -> None:
    """3.5; faults.md row 9: the tail may be another leader's, though it is long enough."""
    cluster = follower(1, 1, 2, 2)
    cluster.step(1, AppendEntries(2, 3, 2, 1, 4))
    assert cluster[1].raft.commit_index == 2
    assert terms(cluster) == [1, 1, 2, 2], "and removes nothing either"


def test_the_commit_index_never_goes_back() -> None:
    """Figure 3.1: commitIndex increases monotonically, whatever order messages come in."""
    cluster = follower(1)
    leader = log_of(1, 1, 1)
    cluster.step(1, append(leader, 1, 3, 3))
    cluster.step(1, append(leader, 1, 2, 1))
    assert cluster[1].raft.commit_index == 3


def test_late_and_repeated_messages_change_nothing() -> None:
    """3.5; faults.md row 10: AppendEntries may be delivered in any order and any number of times."""
    cluster = follower()
    leader = log_of(1, 1, 1, 1)
    messages = [append(leader, i, i + 2, i) for i in range(3)]
    for m in [*messages, *reversed(messages), *messages]:
        cluster.step(1, m)
    assert terms(cluster) == [1, 1, 1, 1]
    assert cluster[1].log.generation == 0
    assert cluster[1].raft.commit_index == 2


def test_a_later_leaders_prefix_does_not_shorten_the_log() -> None:
    """3.5: what a new leader sends may end before our log does; what agrees stays."""
    cluster = follower(1, 1, 1, 1)
    cluster.step(1, append(log_of(1, 1, 1, 1, 1), 1, 2, term=2))
    assert terms(cluster) == [1, 1, 1, 1]


def test_a_follower_answers_every_round_once() -> None:
    """6.4: the heartbeat's number comes back, so that a leader knows which one was heard. At most one reply a turn."""
    cluster = follower(1)
    raft = cluster[1].raft
    for round_ in (1, 2, 3):
        raft.step(AppendEntries(2, 1, 1, 1, 0, round_))
    assert cluster.sent_by(1) == [(2, AppendReply(1, 1, True, 1, 3))]
    assert cluster.step(1, AppendEntries(2, 1, 1, 1, 1, 3)) == [], "the commit index alone needs no answer"
    assert raft.commit_index == 1
    assert cluster.step(1, AppendEntries(2, 1, 1, 1, 0, 4)) == [(2, AppendReply(1, 1, True, 1, 4))]


def test_the_first_message_that_fits_after_a_refusal_is_answered() -> None:
    """Otherwise the leader's probe, which may say nothing new, would wait for the next heartbeat."""
    cluster = follower(1)
    assert cluster.step(1, AppendEntries(2, 1, 1, 1, 0, 1)) == [(2, AppendReply(1, 1, True, 1, 1))]
    [(_, refusal)] = cluster.step(1, AppendEntries(2, 1, 5, 1, 0, 1))
    assert isinstance(refusal, AppendReply)
    assert not refusal.success
    assert cluster.step(1, AppendEntries(2, 1, 1, 1, 0, 1)) == [(2, AppendReply(1, 1, True, 1, 1))]


def test_full_disk_leaves_the_follower_as_it_was() -> None:
    """The log's error reaches the caller, nothing was appended and nothing is acknowledged."""
    cluster = follower(1)
    log = cluster[1].log

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    append_batch, log.append_batch = log.append_batch, full  # type: ignore[method-assign]
    message = append(log_of(1, 1, 1), 1, 3, 3)
    with pytest.raises(OSError, match="No space"):
        cluster.step(1, message)
    assert cluster.sent_by(1) == []
    assert (cluster[1].raft.commit_index, log.last_index) == (0, 1)
    log.append_batch = append_batch  # type: ignore[method-assign]
    assert cluster.step(1, message)[-1] == (2, AppendReply(1, 1, True, 3))
    assert cluster[1].raft.role is Role.FOLLOWER

"""How a post ends: by the entry that is committed where it was accepted, or by what makes that impossible."""

from __future__ import annotations

import pytest

from raftchat.ipc.frames import Accepted, Refusal
from raftchat.worker.pending import Failure, Outcome, PendingPosts, Posted, rfc3339

TIME_MS = 1_700_000_000_123
TIME = b"2023-11-14T22:13:20.123Z"


class Log:
    """Terms of the entries, from index 1."""

    def __init__(self, *terms: int) -> None:
        self.terms = terms

    def __call__(self, index: int) -> int:
        return self.terms[index - 1]


def proposed(pending: PendingPosts, batch: int, count: int, deadline_ms: float = 1000) -> list[Outcome]:
    outcomes: list[Outcome] = []
    pending.propose(batch, [outcomes.append] * count, 100 * count, deadline_ms)
    return outcomes


def test_committed_with_its_term_is_posted() -> None:
    pending = PendingPosts()
    outcomes = proposed(pending, 7, 3)
    pending.accept(Accepted(7, 2, 5, TIME_MS))
    pending.decide(4, Log(1, 5, 5, 5))
    assert outcomes == [Posted(2, TIME), Posted(3, TIME), Posted(4, TIME)]
    assert (len(pending), pending.size_bytes) == (0, 0)


def test_acceptance_alone_decides_nothing() -> None:
    pending = PendingPosts()
    outcomes = proposed(pending, 1, 1)
    pending.decide(1, Log(1))
    pending.accept(Accepted(1, 2, 1, TIME_MS))
    pending.decide(1, Log(1))
    assert outcomes == []
    assert pending.size_bytes == 100


def test_a_batch_is_decided_as_far_as_the_commit_goes() -> None:
    pending = PendingPosts()
    outcomes = proposed(pending, 1, 3)
    pending.accept(Accepted(1, 2, 1, TIME_MS))
    pending.decide(3, Log(1, 1, 1))
    assert outcomes == [Posted(2, TIME), Posted(3, TIME)]
    pending.decide(4, Log(1, 1, 1, 1))
    assert outcomes[2:] == [Posted(4, TIME)]
    assert len(pending) == 0


def test_another_term_at_its_index_means_overwritten() -> None:
    pending = PendingPosts()
    outcomes = proposed(pending, 1, 2)
    pending.accept(Accepted(1, 2, 1, TIME_MS))
    pending.decide(3, Log(1, 2, 2))
    assert outcomes == [Failure.NOT_COMMITTED] * 2


def test_part_of_a_batch_may_survive_the_change_of_leader() -> None:
    pending = PendingPosts()
    outcomes = proposed(pending, 1, 4)
    pending.accept(Accepted(1, 2, 1, TIME_MS))
    pending.decide(4, Log(1, 1, 1, 2))
    assert outcomes == [Posted(2, TIME), Posted(3, TIME), Failure.NOT_COMMITTED, Failure.NOT_COMMITTED]
    assert pending.size_bytes == 0


def test_a_later_term_below_it_rules_it_out() -> None:
    """Terms never fall along a log: it need not be waited for what comes at the index itself."""
    pending = PendingPosts()
    outcomes = proposed(pending, 1, 1)
    pending.accept(Accepted(1, 9, 1, TIME_MS))
    pending.decide(2, Log(1, 1))
    assert outcomes == []
    pending.decide(3, Log(1, 1, 2))
    assert outcomes == [Failure.NOT_COMMITTED]


@pytest.mark.parametrize(
    ("reason", "failure"),
    [
        (Refusal.NO_LEADER, Failure.NO_LEADER),
        (Refusal.OVERLOADED, Failure.OVERLOADED),
        (Refusal.DISK_FULL, Failure.DISK_FULL),
        (Refusal.LOST, Failure.UNKNOWN),
        (Refusal.BAD, Failure.BAD),
        (Refusal.SHUTTING_DOWN, Failure.SHUTTING_DOWN),
    ],
)
def test_each_refusal_has_its_failure(reason: Refusal, failure: Failure) -> None:
    pending = PendingPosts()
    outcomes = proposed(pending, 1, 2)
    pending.refuse(1, reason)
    assert outcomes == [failure] * 2
    assert pending.size_bytes == 0


def test_no_reason_of_the_raft_process_is_left_out() -> None:
    for number, reason in enumerate(Refusal, 1):
        pending = PendingPosts()
        outcomes = proposed(pending, number, 1)
        pending.refuse(number, reason)
        assert outcomes


def test_what_is_not_decided_in_time_is_unknown_accepted_or_not() -> None:
    pending = PendingPosts()
    early, accepted, late = (proposed(pending, n, 1, deadline_ms=d) for n, d in ((1, 100), (2, 100), (3, 200)))
    pending.accept(Accepted(2, 5, 1, TIME_MS))
    pending.expire(99)
    assert not early
    pending.expire(100)
    assert (early, accepted, late) == ([Failure.UNKNOWN], [Failure.UNKNOWN], [])
    # Answers that come later find nobody.
    pending.accept(Accepted(1, 6, 1, TIME_MS))
    pending.refuse(2, Refusal.NO_LEADER)
    pending.decide(9, Log(*[1] * 9))
    assert (early, accepted, late) == ([Failure.UNKNOWN], [Failure.UNKNOWN], [])
    pending.abandon()
    assert late == [Failure.UNKNOWN]
    assert (len(pending), pending.size_bytes) == (0, 0)


def test_times_are_rfc_3339_with_milliseconds() -> None:
    assert rfc3339(0) == b"1970-01-01T00:00:00.000Z"
    assert rfc3339(1_700_000_000_007) == b"2023-11-14T22:13:20.007Z"
    assert rfc3339(253_402_300_799_999) == b"9999-12-31T23:59:59.999Z"

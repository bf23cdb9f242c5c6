"""Reads share rounds, and none uses a round that began before it did."""

from __future__ import annotations

from raftchat.worker.rounds import ReadRounds


class Asked:
    def __init__(self) -> None:
        self.contexts: list[int] = []
        self.rounds = ReadRounds(self.contexts.append)
        self.answers: list[tuple[str, int]] = []

    def join(self, name: str, deadline_ms: float = 1000) -> None:
        self.rounds.join(deadline_ms, lambda index: self.answers.append((name, index)))


def test_all_that_wait_share_a_round() -> None:
    asked = Asked()
    asked.join("a")
    asked.join("b")
    asked.rounds.begin()
    asked.rounds.answer(asked.contexts[0], 7)
    assert (asked.contexts, asked.answers) == ([1], [("a", 7), ("b", 7)])
    assert len(asked.rounds) == 0


def test_who_comes_while_a_round_is_in_flight_waits_for_the_next() -> None:
    asked = Asked()
    asked.join("a")
    asked.rounds.begin()
    asked.join("b")
    asked.rounds.begin()
    asked.join("c")
    asked.rounds.begin()
    assert asked.contexts == [1]
    asked.rounds.answer(1, 7)
    assert asked.answers == [("a", 7)]
    assert asked.contexts == [1, 2]
    asked.rounds.answer(2, 9)
    assert asked.answers == [("a", 7), ("b", 9), ("c", 9)]
    assert asked.contexts == [1, 2]
    assert asked.rounds.rounds == 2


def test_answers_to_other_rounds_are_ignored() -> None:
    asked = Asked()
    asked.join("a")
    asked.rounds.begin()
    asked.rounds.answer(9, 7)
    assert asked.answers == []


def test_a_failed_round_fails_its_reads_only() -> None:
    asked = Asked()
    asked.join("a")
    asked.rounds.begin()
    asked.join("b")
    asked.rounds.answer(1, 0)
    assert asked.answers == [("a", 0)]
    asked.rounds.answer(2, 3)
    assert asked.answers == [("a", 0), ("b", 3)]


def test_an_overdue_round_does_not_hold_up_the_next() -> None:
    asked = Asked()
    asked.join("a", deadline_ms=100)
    asked.rounds.begin()
    asked.join("b", deadline_ms=100)
    asked.join("c", deadline_ms=200)
    asked.rounds.expire(99)
    assert asked.answers == []
    asked.rounds.expire(100)
    assert sorted(asked.answers) == [("a", 0), ("b", 0)]
    assert asked.contexts == [1, 2]
    asked.rounds.answer(1, 7)  # of the round that was given up
    asked.rounds.answer(2, 8)
    assert asked.answers[-1] == ("c", 8)

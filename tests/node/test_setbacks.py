"""What could not be done: when it is tried again, and when it is forgotten."""

from __future__ import annotations

import math

from raftchat.node.setbacks import Setbacks
from raftchat.node.store_ports import Counters


class Rounds:
    def __init__(self) -> None:
        self.now_ms = 1000.0
        self.setbacks = Setbacks(10_000, lambda: self.now_ms, Counters())

    def round(self, *tried: str, fails: bool = True, takes_ms: float = 0) -> None:
        began_ms = self.now_ms
        for what in tried:
            if self.setbacks.may_try(what):
                with self.setbacks.put_off(what):
                    if fails:
                        raise OSError(28, "No space left on device")
        self.now_ms += takes_ms
        self.setbacks.forget(began_ms)


def test_what_fails_is_due_once_its_time_has_come_and_stays_due_until_a_round_has_tried_it() -> None:
    rounds = Rounds()
    rounds.round("snapshot")
    assert rounds.setbacks.due_ms == 11_000
    rounds.now_ms = 5000
    rounds.round("snapshot")
    assert rounds.setbacks.due_ms == 11_000
    # Its time comes between two rounds, or within one that began too early: it is due none the less.
    rounds.now_ms = 10_999
    rounds.round("snapshot", takes_ms=100)
    assert rounds.setbacks.due_ms == 11_000
    rounds.round("snapshot")
    assert rounds.setbacks.due_ms == 21_099
    rounds.now_ms = 30_000
    rounds.round("snapshot", fails=False)
    assert rounds.setbacks.due_ms == math.inf


def test_what_has_nothing_left_to_try_is_not_due_for_ever() -> None:
    """The keeper went round five times a second for the rest of its life."""
    rounds = Rounds()
    rounds.round("snapshot", "index")
    rounds.now_ms = 3_600_000
    rounds.round("index")
    assert rounds.setbacks.due_ms == 3_610_000
    rounds.now_ms = 7_200_000
    rounds.round()
    assert rounds.setbacks.due_ms == math.inf
    assert rounds.setbacks.may_try("snapshot")

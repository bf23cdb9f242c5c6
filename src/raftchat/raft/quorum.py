"""Majorities, as pure functions of what each voter has reached. Knows neither nodes' roles nor messages."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from enum import Enum
from typing import TypeVar

Value = TypeVar("Value", int, float)


class Tally(Enum):
    PENDING = 0
    WON = 1
    LOST = 2


def majority(voters: int) -> int:
    """How many of so many voters decide. Any two such sets share a node."""
    return voters // 2 + 1


def reached_by_majority(values: Sequence[Value]) -> Value:
    """The highest value that a majority of these has reached: of match indexes, what may be committed (figure 3.1)."""
    assert values, "no voters: nothing can be decided"
    return sorted(values)[(len(values) - 1) // 2]


def tally(voters: Collection[int], votes: Mapping[int, bool]) -> Tally:
    """Each voter counts once, others not at all (3.4)."""
    granted = refused = 0
    for voter in voters:
        vote = votes.get(voter)
        if vote is not None:
            granted += vote
            refused += not vote
    need = majority(len(voters))
    if granted >= need:
        return Tally.WON
    return Tally.LOST if len(voters) - refused < need else Tally.PENDING

"""Majorities, against their definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftchat.raft.quorum import Tally, majority, reached_by_majority, tally


@pytest.mark.parametrize(("voters", "need"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_majority(voters: int, need: int) -> None:
    """3.4: more than half."""
    assert majority(voters) == need


@given(st.lists(st.integers(0, 9), min_size=1, max_size=7))
def test_reached_by_majority(values: list[int]) -> None:
    """Figure 3.1: the largest N such that a majority of matchIndex[i] ≥ N."""
    reached = [n for n in range(10) if sum(value >= n for value in values) > len(values) / 2]
    assert reached_by_majority(values) == max(reached)


@given(st.sets(st.integers(1, 7), min_size=1), st.dictionaries(st.integers(1, 9), st.booleans()))
def test_tally(voters: set[int], votes: dict[int, bool]) -> None:
    """3.4: won or lost as soon as no further vote can change it, whatever strangers say."""
    granted = sum(votes.get(v) is True for v in voters)
    silent = sum(v not in votes for v in voters)
    won, lost = granted > len(voters) / 2, granted + silent <= len(voters) / 2
    assert tally(voters, votes) is (Tally.WON if won else Tally.LOST if lost else Tally.PENDING)


def test_nobody_decides_nothing() -> None:
    """A node without a configuration must not take silence for agreement."""
    assert tally([], {}) is Tally.LOST
    with pytest.raises(AssertionError):
        reached_by_majority([])

"""Repeated events: told at once, then once an interval with the count of the untold, in bounded memory."""

from __future__ import annotations

from raftchat.node.seldom import Seldom


def test_each_kind_is_told_once_an_interval_with_how_often_it_happened_meanwhile() -> None:
    seldom = Seldom(60, 10)
    assert [seldom.seen("a", now_s) for now_s in (0, 1, 59.9)] == [0, None, None]
    assert seldom.seen("b", 2) == 0
    assert [seldom.seen("a", now_s) for now_s in (60, 61)] == [2, None]


def test_a_flood_of_kinds_takes_bounded_memory() -> None:
    seldom = Seldom(60, 10)
    assert all(seldom.seen(kind, 0) == 0 for kind in range(1000))
    assert len(seldom._told) == 10
    assert seldom.seen(999, 1) is None

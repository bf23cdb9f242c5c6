"""Lines about leadership and members: each change once, what lasts too long once, and when it is over."""

from __future__ import annotations

import pytest

from raftchat.config import Config
from raftchat.node.watch import Watch
from raftchat.raft import FollowerStatus, Role

CONFIG = Config()
TIMEOUT_MS = CONFIG.election_timeout_ms


def follower(last_contact_ms: float) -> FollowerStatus:
    return FollowerStatus(0, 1, "probe", 0, 0, last_contact_ms, False)


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    found = [(record.levelname, record.getMessage()) for record in caplog.records]
    caplog.clear()
    return found


def watch(caplog: pytest.LogCaptureFixture) -> Watch:
    caplog.set_level("INFO")
    return Watch(CONFIG, 1, 0.0)


def test_each_change_of_role_and_leader_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    w = watch(caplog)
    for now_ms in (1, 2):
        w.look(now_ms, Role.FOLLOWER, 3, 3, dict)
    assert lines(caplog) == [("INFO", "Leader is 3")]
    for now_ms in (3, 4):
        w.look(now_ms, Role.PRECANDIDATE, 3, 0, dict)
    w.look(5, Role.CANDIDATE, 4, 0, dict)
    assert lines(caplog) == [("INFO", "Standing for election")]
    for now_ms in (6, 7):
        w.look(now_ms, Role.LEADER, 4, 1, dict)
    assert [(r.getMessage(), r.term, r.node) for r in caplog.records] == [("Became leader", 4, 1)]  # type: ignore[attr-defined]
    caplog.clear()
    w.look(8, Role.FOLLOWER, 5, 2, dict)
    assert lines(caplog) == [("INFO", "Stepped down"), ("INFO", "Leader is 2")]


def test_no_leader_for_two_election_timeouts_is_a_warning_and_its_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    w = watch(caplog)
    w.look(TIMEOUT_MS, Role.FOLLOWER, 1, 0, dict)
    assert w.deadline_ms == 2 * TIMEOUT_MS
    assert lines(caplog) == []
    for now_ms in (2 * TIMEOUT_MS, 9 * TIMEOUT_MS):
        w.look(now_ms, Role.FOLLOWER, 1, 0, dict)
    assert [level for level, _ in lines(caplog)] == ["WARNING"]
    assert w.deadline_ms == float("inf"), "what has been said wakes nobody"
    w.look(10 * TIMEOUT_MS, Role.FOLLOWER, 2, 2, dict)
    assert lines(caplog) == [("INFO", "Leader is 2"), ("INFO", "There is a leader again")]


def test_a_silent_member_is_told_once_by_the_leader_and_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    w = watch(caplog)
    heard = {2: float("-inf"), 3: 0.0}
    for beat in range(60):
        now_ms = beat * 100.0
        heard[3] = now_ms
        w.look(now_ms, Role.LEADER, 1, 1, lambda: {n: follower(at) for n, at in heard.items()})
    warnings = [r for r in caplog.records if r.levelname == "WARNING"]
    assert [r.member for r in warnings] == [2]  # type: ignore[attr-defined]
    caplog.clear()
    for beat in range(60, 80):
        heard[2] = heard[3] = beat * 100.0
        w.look(beat * 100.0, Role.LEADER, 1, 1, lambda: {n: follower(at) for n, at in heard.items()})
    assert lines(caplog) == [("INFO", "A member answers again")]


def test_a_leader_that_stood_still_itself_accuses_nobody(caplog: pytest.LogCaptureFixture) -> None:
    w = watch(caplog)
    w.look(0, Role.LEADER, 1, 1, lambda: {2: follower(0)})
    caplog.clear()
    w.look(100 * TIMEOUT_MS, Role.LEADER, 1, 1, lambda: {2: follower(0)})
    assert lines(caplog) == []

"""A wrong clock neither removes too much nor stops retention unseen."""

import pytest

from raftchat.chat.retention_clock import Doubt, RetentionClock

MINUTE_MS, DAY_MS, YEAR_MS = 60_000, 86_400_000, 365 * 86_400_000
WALL_MS = 1_700_000_000_000


@pytest.fixture
def clock():
    return RetentionClock(WALL_MS, 5000, clock_leap_max_ms=MINUTE_MS)


def test_it_is_log_time_while_all_clocks_agree(clock):
    assert clock.read(WALL_MS + 10, 5010, WALL_MS - 70) == (WALL_MS + 10, None)
    assert clock.read(WALL_MS + 10, 5010, WALL_MS + 90) == (WALL_MS + 90, None)


def test_a_clock_that_is_corrected_slowly_is_believed(clock):
    """500 ppm for a month are 22 minutes."""
    passed_ms = 30 * DAY_MS
    for drift_ms in (-passed_ms // 2000, passed_ms // 2000):
        wall_ms = WALL_MS + passed_ms + drift_ms
        assert clock.read(wall_ms, 5000 + passed_ms, WALL_MS) == (wall_ms, None)


def test_small_steps_are_believed(clock):
    for step_ms in (-MINUTE_MS, MINUTE_MS):
        assert clock.read(WALL_MS + step_ms, 5000, 0) == (WALL_MS + step_ms, None)


def test_a_leap_forward_removes_nothing_early(clock):
    """Also when posts were stamped by it meanwhile; and when it is set right again all is well."""
    assert clock.read(WALL_MS + YEAR_MS, 6000, WALL_MS) == (WALL_MS + 1000, Doubt.LEAPT_FORWARD)
    assert clock.read(WALL_MS + YEAR_MS, 6000, WALL_MS + YEAR_MS) == (WALL_MS + 1000, Doubt.LEAPT_FORWARD)
    assert clock.read(WALL_MS + 2000, 7000, WALL_MS) == (WALL_MS + 2000, None)


def test_a_leap_back_removes_nothing_early_and_is_told(clock):
    assert clock.read(WALL_MS - YEAR_MS, 6000, WALL_MS) == (WALL_MS - YEAR_MS, Doubt.LEAPT_BACK)


def test_a_log_from_the_future_is_told_and_old_messages_still_go(clock):
    assert clock.read(WALL_MS + 1000, 6000, WALL_MS + YEAR_MS) == (WALL_MS + 1000, Doubt.LOG_AHEAD)


def test_every_doubt_says_what_follows_from_it():
    assert all("stay" in doubt.value for doubt in Doubt)


SETTLE_MS = 10 * MINUTE_MS


def started(wall_ms, log_time_ms):
    return RetentionClock(
        wall_ms, 5000, clock_leap_max_ms=MINUTE_MS, clock_settle_ms=SETTLE_MS, log_time_ms=log_time_ms
    )


def test_a_node_that_starts_with_its_clock_far_ahead_gives_time_to_set_it_right():
    """A restart was all it took to have a wrong clock believed; its own first entries bear it out at once."""
    clock = started(WALL_MS + YEAR_MS, WALL_MS)
    for passed_ms in (0, 1000, SETTLE_MS - 1):
        wall_ms = WALL_MS + YEAR_MS + passed_ms
        assert clock.read(wall_ms, 5000 + passed_ms, wall_ms) == (WALL_MS + passed_ms, Doubt.NOT_SETTLED)
    # It was set right in time: what follows goes by it.
    wall_ms = WALL_MS + SETTLE_MS
    assert clock.read(wall_ms, 5000 + SETTLE_MS, WALL_MS + YEAR_MS) == (wall_ms, Doubt.LEAPT_BACK)


def test_a_node_that_was_off_for_a_week_goes_on_after_the_hold():
    clock = started(WALL_MS, WALL_MS - 7 * DAY_MS)
    assert clock.read(WALL_MS, 5000, WALL_MS).doubt is Doubt.NOT_SETTLED
    wall_ms = WALL_MS + SETTLE_MS
    assert clock.read(wall_ms, 5000 + SETTLE_MS, WALL_MS) == (wall_ms, None)


def test_a_node_that_was_off_shortly_or_is_new_need_not_wait():
    assert started(WALL_MS, WALL_MS - MINUTE_MS).read(WALL_MS, 5000, WALL_MS) == (WALL_MS, None)
    assert started(WALL_MS, 0).read(WALL_MS, 5000, WALL_MS) == (WALL_MS, None)


def test_a_clock_that_is_set_far_back_during_the_hold_is_not_passed_by():
    clock = started(WALL_MS, WALL_MS - DAY_MS)
    assert clock.read(WALL_MS - YEAR_MS, 6000, WALL_MS) == (WALL_MS - YEAR_MS, Doubt.NOT_SETTLED)


def test_no_doubt_invites_to_a_restart():
    assert all("until this node is restarted" not in doubt.value for doubt in Doubt)

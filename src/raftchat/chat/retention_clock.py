"""What time retention goes by, when clocks may be wrong: a wrong clock must neither remove too much nor stop it unseen.

A pure function of the clocks' readings, which are passed in. Does not know what is removed.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

_DRIFT_PER_MS = 0.001
"""By how much two clocks of a machine may part without a leap: NTP slews by at most 500 ppm, quartz is off by less."""


class Doubt(enum.Enum):
    """Why the wall clock is not believed; the value is for people."""

    LEAPT_FORWARD = (
        "the wall clock leapt forward, so ages are counted without that leap, and messages that are too old by the new "
        "time stay. Make sure that the clock is right before this node starts again: then it will be believed"
    )
    NOT_SETTLED = (
        "the wall clock is far ahead of this node's log: either the node was off for so long, or the clock is wrong. "
        "Messages stay for some minutes, then the clock is believed; if it is wrong, set it right or stop this node"
    )
    LEAPT_BACK = "the wall clock leapt back: messages that are too old stay until it has caught up"
    LOG_AHEAD = (
        "the log's time is ahead of the wall clock, as a leader's clock once was: messages posted since stay until "
        "the wall clock has caught up and they are too old by it"
    )


class Reading(NamedTuple):
    now_ms: int
    """Log time for `retention.plan`."""
    doubt: Doubt | None
    """To be warned of."""


class RetentionClock:
    """One per process. `boot_ms` is a clock that nobody sets and that does not stand still during suspend."""

    def __init__(
        self, wall_ms: int, boot_ms: int, *, clock_leap_max_ms: int, clock_settle_ms: int = 0, log_time_ms: int = 0
    ) -> None:
        """The clocks as they are when the process starts, and the log's last time as it was found then; 0: no log.

        The wall clock is believed to be right then, but if it is far ahead of the log only after `clock_settle_ms`: a
        node that was off for a week looks the same as one that starts with a wrong clock, and there must be time to
        set that right.
        """
        self._log_time_ms = log_time_ms
        ahead = log_time_ms > 0 and wall_ms > log_time_ms + clock_leap_max_ms
        self._settle_ms = clock_settle_ms if ahead else 0
        self._wall_ms = wall_ms
        self._boot_ms = boot_ms
        self._leap_max_ms = clock_leap_max_ms

    def read(self, wall_ms: int, boot_ms: int, last_log_time_ms: int) -> Reading:
        """The time that ages are counted to: log time as the leader would stamp it, unless a clock is in doubt.

        In doubt the earliest of the candidates counts: what is too old by it is too old by all.
        """
        passed_ms = boot_ms - self._boot_ms
        assert passed_ms >= 0, "the clock that nobody sets went back"
        if passed_ms < self._settle_ms:
            # What was stamped since was stamped by the clock in question.
            return Reading(min(wall_ms, self._log_time_ms + passed_ms), Doubt.NOT_SETTLED)
        expected_ms = self._wall_ms + passed_ms
        allowed_ms = self._leap_max_ms + int(passed_ms * _DRIFT_PER_MS)
        if wall_ms > expected_ms + allowed_ms:
            return Reading(expected_ms, Doubt.LEAPT_FORWARD)
        if wall_ms < expected_ms - allowed_ms:
            return Reading(wall_ms, Doubt.LEAPT_BACK)
        if last_log_time_ms > wall_ms + self._leap_max_ms:
            return Reading(wall_ms, Doubt.LOG_AHEAD)
        return Reading(max(wall_ms, last_log_time_ms), None)

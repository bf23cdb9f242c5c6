"""Virtual time: one heap of events, and for each node a clock that runs at its own rate.

Knows nothing of nodes, messages or faults. Times are integers in microseconds, so that no rounding differs between
machines; what is due at the same time runs in the order in which it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil

MS = 1000
SECOND = 1_000_000
_PPM = 1_000_000


class Scheduler:
    """Runs callbacks in the order of their times. `now_us` is the time of the callback that runs."""

    def __init__(self) -> None:
        self.now_us = 0
        self.events = 0
        self._heap: list[tuple[int, int, Callable[..., None], tuple[object, ...]]] = []
        self._sequence = 0

    def after(self, delay_us: int, callback: Callable[..., None], *arguments: object) -> None:
        assert delay_us >= 0
        self._sequence += 1
        heappush(self._heap, (self.now_us + delay_us, self._sequence, callback, arguments))

    def run_until(self, end_us: int) -> None:
        """Run all that is due up to and including `end_us`."""
        heap = self._heap
        count = 0
        while heap and heap[0][0] <= end_us:
            self.now_us, _, callback, arguments = heappop(heap)
            count += 1
            callback(*arguments)
        self.events += count
        self.now_us = end_us


class NodeClock:
    """A monotonic clock at `rate_ppm` millionths of true speed, and a wall clock that may besides be set."""

    def __init__(self, scheduler: Scheduler, monotonic_us: int, wall_ms: int) -> None:
        self._scheduler = scheduler
        self._base_true_us = scheduler.now_us
        self._base_us = monotonic_us
        self._wall_offset_ms = wall_ms - monotonic_us // MS
        self.rate_ppm = _PPM

    def _monotonic_us(self) -> int:
        return self._base_us + (self._scheduler.now_us - self._base_true_us) * self.rate_ppm // _PPM

    def monotonic_ms(self) -> float:
        return self._monotonic_us() / MS

    def wall_ms(self) -> int:
        return self._wall_offset_ms + self._monotonic_us() // MS

    def set_rate(self, rate_ppm: int) -> None:
        self._base_us = self._monotonic_us()
        self._base_true_us = self._scheduler.now_us
        self.rate_ppm = rate_ppm

    def leap(self, by_ms: int) -> None:
        """Both clocks go forward at once, as after a machine was suspended."""
        self._base_us += by_ms * MS

    def step_wall(self, by_ms: int) -> None:
        self._wall_offset_ms += by_ms

    def true_us_until(self, deadline_ms: float) -> int:
        """How long until `monotonic_ms()` has reached `deadline_ms`; 0 if it has."""
        missing_us = ceil(deadline_ms * MS) - self._monotonic_us()
        return 0 if missing_us <= 0 else -(-missing_us * _PPM // self.rate_ppm)

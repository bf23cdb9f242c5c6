"""How fast something is beside its reference, measured in the same run: pairs, alternating, medians.

Knows nothing of what is measured. The figures go where `bench.report` looks for them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from pytest_benchmark.fixture import BenchmarkFixture


def ratio(
    benchmark: BenchmarkFixture,
    subject: Callable[..., Any],
    reference: Callable[..., Any],
    *,
    rounds: int,
    name: str,
    reference_name: str,
    amount: float,
    unit: str,
    floor: str = "",
    aim: str = "",
    prepare: Callable[[], tuple[Any, Any]] | None = None,
) -> float:
    """Speed of `subject` as a multiple of `reference`'s: the median over `rounds` pairs of calls.

    `amount` of `unit` is what one call gets done; what counts as figure is the subject's median per second. `prepare`
    makes before each pair, untimed, the argument of subject and of reference. `floor` and `aim` are `bench.report`'s.
    """
    seconds: list[tuple[float, float]] = []
    arguments: list[Any] = []

    def timed(function: Callable[..., Any], *argument: Any) -> float:
        begun = time.perf_counter()
        function(*argument)
        return time.perf_counter() - begun

    def setup() -> None:
        arguments[:] = [(value,) for value in prepare()] if prepare is not None else [(), ()]
        # Half of the pairs begin with the other one, so that neither always finds the caches as the other left them.
        seconds.append((0.0, timed(reference, *arguments[1]) if len(seconds) % 2 else 0.0))

    def one() -> None:
        seconds[-1] = (timed(subject, *arguments[0]), seconds[-1][1])

    def teardown(*_: Any) -> None:
        if not seconds[-1][1]:
            seconds[-1] = (seconds[-1][0], timed(reference, *arguments[1]))
        arguments.clear()

    benchmark.pedantic(one, setup=setup, teardown=teardown, rounds=rounds, iterations=1)
    median = statistics.median(reference / subject for subject, reference in seconds)
    figure = amount / statistics.median(subject for subject, _ in seconds)
    benchmark.extra_info.update(
        name=name,
        figure=figure,
        unit=f"{unit}/s",
        reference=reference_name,
        ratio=round(median, 3),
        floor=floor,
        aim=aim,
    )
    print(f"\n{name}: {figure:,.0f} {unit}/s, {median:.2f} × {reference_name}")
    return median

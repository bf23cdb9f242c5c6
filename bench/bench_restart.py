"""Time from a node's command line to its first answer, with a history and without one."""

from __future__ import annotations

import time
from typing import Any

from bench import wrk
from bench.bench_rest import POST
from tests.faults.cluster import Cluster, Node

LOAD_SECONDS = 15.0


def start_s(node: Node) -> float:
    began = time.perf_counter()
    node.start()
    node.wait_ready()
    return time.perf_counter() - began


def test_restart_with_a_history(benchmark: Any) -> None:
    with Cluster(1) as cluster:
        node = cluster[1]
        empty = start_s(node)
        # As many messages as the machine can take in a quarter of a minute.
        wrk.run([node.url], seconds=LOAD_SECONDS, method="POST", path="/rooms/bench", body=POST)
        last = node.must_post("bench", "the last one")

        def prepare() -> None:
            assert node.stop() == 0

        took: list[float] = []
        benchmark.pedantic(lambda: took.append(start_s(node)), setup=prepare, rounds=3, iterations=1)
        assert node.texts("bench", limit=1) == ["the last one"]
    best = min(took)
    benchmark.extra_info.update(
        name=f"restart with {last} entries",
        figure=round(best, 2),
        unit="s",
        reference=f"empty node ({empty:.2f} s)",
        ratio=round(best / empty, 2),
        aim="< 2",
    )

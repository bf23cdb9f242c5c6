"""REST under wrk with 64 connections: committed posts a second on one and on three nodes, and page reads."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench import wrk
from bench.starlette_route import StarletteRoute
from tests.faults.cluster import Cluster

CONNECTIONS = 64
SECONDS = 4.0
ROUNDS = 3
POST = json.dumps({"Message": "The quick brown fox jumps over the lazy dog, again and again.", "User": "bench"})

Measure = Callable[..., float]


@pytest.fixture
def measure(benchmark: Any) -> Measure:
    """Best rate of a few rounds of wrk, put into the benchmark's record beside its reference."""

    def best(load: Callable[[], wrk.Rate], *, name: str, reference: str, reference_value: float, aim: str) -> float:
        rates: list[wrk.Rate] = []
        benchmark.pedantic(lambda: rates.append(load()), rounds=ROUNDS, iterations=1, warmup_rounds=1)
        assert not any(rate.errors for rate in rates), rates
        rate = max(rates, key=lambda rate: rate.per_s)
        benchmark.extra_info.update(
            name=name,
            figure=round(rate.per_s),
            unit="requests/s",
            reference=reference,
            ratio=round(rate.per_s / reference_value, 2),
            aim=aim,
            latency_ms=rate.latency_ms,
        )
        return rate.per_s

    return best


@pytest.fixture(scope="module")
def one() -> Iterator[Cluster]:
    with Cluster(1) as cluster:
        yield cluster.start()


@pytest.fixture(scope="module")
def three() -> Iterator[Cluster]:
    with Cluster(3) as cluster:
        yield cluster.start()


def syncs_per_s(directory: Path) -> float:
    """What the disk does: append a page to a preallocated file, fdatasync, again and again for a second."""
    path, page = directory / "sync", bytes(4096)
    file = os.open(path, os.O_RDWR | os.O_CREAT)
    try:
        os.posix_fallocate(file, 0, 64 * 1024 * 1024)
        os.fsync(file)
        count, began = 0, time.perf_counter()
        while (elapsed := time.perf_counter() - began) < 1:
            os.pwrite(file, page, count % 16_384 * 4096)
            os.fdatasync(file)
            count += 1
        return count / elapsed
    finally:
        os.close(file)
        path.unlink()


def post(urls: list[str]) -> wrk.Rate:
    return wrk.run(urls, seconds=SECONDS, connections=CONNECTIONS, method="POST", path="/rooms/bench", body=POST)


def test_posts_on_one_node(one: Cluster, measure: Measure) -> None:
    """If every turn of the loop carried all connections' posts, there would be 64 for each fdatasync."""
    ceiling = syncs_per_s(one.directory) * CONNECTIONS
    measure(
        lambda: post([one[1].url]),
        name="posts, 1 node",
        reference=f"64 posts per fdatasync alone ({ceiling:.0f}/s)",
        reference_value=ceiling,
        aim="0.5",
    )


def test_posts_on_three_nodes_to_all(three: Cluster, one: Cluster, measure: Measure) -> None:
    alone = post([one[1].url]).per_s
    measure(
        lambda: post([node.url for node in three]),
        name="posts, 3 nodes, to all",
        reference=f"1 node ({alone:.0f}/s)",
        reference_value=alone,
        aim="0.33",
    )


def test_posts_on_three_nodes_to_the_leader(three: Cluster, one: Cluster, measure: Measure) -> None:
    alone = post([one[1].url]).per_s
    measure(
        lambda: post([three.leader().url]),
        name="posts, 3 nodes, to the leader",
        reference=f"1 node ({alone:.0f}/s)",
        reference_value=alone,
        aim="0.33",
    )


@pytest.mark.parametrize("consistency", ["linearizable", "local"])
def test_page_of_50_messages(one: Cluster, measure: Measure, consistency: str) -> None:
    """Against a Starlette route, in the same server with the same settings, that returns the same bytes."""
    node = one[1]
    for n in range(50):
        node.must_post("page", f"message {n} of a page that has some text in it")
    path = "/rooms/page?limit=50" + ("&consistency=local" if consistency == "local" else "")
    page = node.get("/rooms/page", limit=50).content

    def read(url: str, path: str) -> wrk.Rate:
        return wrk.run([url], seconds=SECONDS, connections=CONNECTIONS, path=path)

    with StarletteRoute(page) as route:
        plain = read(route.url, "/").per_s
    measure(
        lambda: read(node.url, path),
        name=f"page of 50, {consistency}",
        reference=f"Starlette route with the same bytes ({plain:.0f}/s)",
        reference_value=plain,
        aim="2",
    )

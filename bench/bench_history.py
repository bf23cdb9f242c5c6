"""What a long history costs: starting, memory, pages from its end and its middle, warm and cold.

RAFTCHAT_BENCH_MESSAGES says how long it is; a million unless told otherwise.
"""

from __future__ import annotations

import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bench import history
from bench.bench_restart import start_s
from tests.faults.cluster import Cluster, Node, wait_for

MESSAGES = int(os.environ.get("RAFTCHAT_BENCH_MESSAGES", "1_000_000"))
ROOMS = 1_000
SIZE_BYTES = 130
PAGE = 50


@pytest.fixture(scope="module")
def grown() -> Iterator[Node]:
    """A node that has the history, has been through its first start, and runs."""
    with Cluster(1) as cluster:
        node = cluster[1]
        history.make(node.data_dir, messages=MESSAGES, rooms=ROOMS, size_bytes=SIZE_BYTES, urls=cluster.peers)
        node.start()
        node.wait_ready(300)
        wait_for("every sealed segment has its index", lambda: indexed(node.data_dir / "log"), 300)
        wait_for("there is a snapshot", lambda: node.get("/raft").json()["Store"]["SnapshotIndex"], 300)
        yield node


@pytest.fixture(scope="module")
def empty() -> Iterator[Node]:
    with Cluster(1) as cluster:
        yield cluster.start()[1]


def indexed(log: Path) -> bool:
    return len(list(log.glob("*.idx"))) >= len(list(log.glob("*.log"))) - 1


def own_memory_bytes(node: Node) -> dict[str, int]:
    """RssAnon of the Raft process and the worker: what mapped files do not count towards."""
    found = node.wait_processes()
    assert found.raft is not None
    return {"raft": rss_anon(found.raft.pid), "worker": rss_anon(found.workers[0].pid)}


def rss_anon(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssAnon")


def forget(directory: Path) -> None:
    """Have the page cache let go of the log, as after a restart of the machine."""
    for path in directory.iterdir():
        fd = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(fd)


def test_restart(benchmark: Any, grown: Node, empty: Node) -> None:
    took: list[float] = []

    def prepare() -> None:
        assert grown.stop() == 0

    benchmark.pedantic(lambda: took.append(start_s(grown)), setup=prepare, rounds=3, iterations=1)
    assert empty.stop() == 0
    without = start_s(empty)
    benchmark.extra_info.update(
        name=f"restart with {MESSAGES:,} messages",
        figure=round(min(took), 2),
        unit="s",
        reference=f"empty node ({without:.2f} s)",
        ratio=round(min(took) / without, 2),
        aim="< 1 s",
    )


@pytest.mark.parametrize("process", ["raft", "worker"])
def test_own_memory(benchmark: Any, grown: Node, empty: Node, process: str) -> None:
    with httpx2.Client(base_url=grown.url) as client:
        for number in range(0, ROOMS, 7):
            client.get(f"/rooms/{history.room_name(number)}", params={"limit": PAGE}).raise_for_status()
    more = own_memory_bytes(grown)[process] - own_memory_bytes(empty)[process]
    benchmark.pedantic(lambda: None, rounds=1)
    benchmark.extra_info.update(
        name=f"own memory of the {process} process, {MESSAGES:,} messages",
        figure=round(more / 2**20, 1),
        unit="MiB more",
        reference="the same of an empty node",
        aim="<= 64",
    )


@pytest.mark.parametrize("cache", ["warm", "cold"])
@pytest.mark.parametrize("where", ["newest", "middle"])
def test_page(benchmark: Any, grown: Node, where: str, cache: str) -> None:
    rng = random.Random(1)
    took: list[float] = []
    with httpx2.Client(base_url=grown.url) as client:

        def one() -> None:
            query: dict[str, Any] = {"limit": PAGE, "consistency": "local"}
            if where == "middle":
                query["around"] = MESSAGES // 2
            room = history.room_name(rng.randrange(ROOMS))
            began = time.perf_counter()
            response = client.get(f"/rooms/{room}", params=query)
            took.append(time.perf_counter() - began)
            assert len(response.json()) == PAGE

        prepare: Callable[[], None] | None = (lambda: forget(grown.data_dir / "log")) if cache == "cold" else None
        rounds = 200 if cache == "warm" else 40
        benchmark.pedantic(one, setup=prepare, rounds=rounds, iterations=1, warmup_rounds=3)
    benchmark.extra_info.update(
        name=f"{where} page of {MESSAGES:,} messages, {cache}",
        figure=round(statistics.median(took) * 1e3, 2),
        unit="ms",
        reference="median",
        aim="< 5",
    )

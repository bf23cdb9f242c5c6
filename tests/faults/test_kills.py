"""SIGKILL to any process of any node at any moment, under posts, costs nothing that was acknowledged."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from random import Random

import psutil
import pytest

from tests.faults.checker import check
from tests.faults.cluster import Cluster, Node
from tests.faults.load import Load, until

pytestmark = pytest.mark.process
KILLS = 200
SEED = 20
RESUME_TIMEOUT_S = 20.0
ACKS_PER_S = 100
"""Must go through before and after the faults, or the run says nothing."""


class Killer:
    """One kill after the other, and what a machine's init would do: start the node again when it has ended."""

    def __init__(self, cluster: Cluster, load: Load, random: Random) -> None:
        self.cluster, self.load, self.random = cluster, load, random
        self.kills: Counter[str] = Counter()
        self.pids: set[int] = set()
        self.slowest_resume_s = 0.0

    async def once(self) -> None:
        node = self.random.choice(self.cluster.nodes)
        await self.complete(node)
        found = node.processes()
        kind = self.random.choice(["supervisor", "raft", "worker"])
        victim = {"supervisor": found.supervisor, "raft": found.raft, "worker": found.workers[0]}[kind]
        assert victim is not None
        assert victim.pid not in self.pids, "the process that was killed is still there"
        began = time.monotonic()
        victim.kill()
        self.kills[kind] += 1
        self.pids.add(victim.pid)
        if kind != "worker":
            await until(f"node {node.id} ended after its {kind} was killed", lambda: not node.running(), 10)
            await until(f"no orphan of node {node.id}", lambda: not node.leftovers(), 10)
            node.start()
        if self.random.random() < 0.75:  # otherwise the next kill comes on top of this one
            await self.load.acknowledges(5, timeout_s=RESUME_TIMEOUT_S)
            self.slowest_resume_s = max(self.slowest_resume_s, time.monotonic() - began)
        await asyncio.sleep(self.random.random() * 0.2)

    async def complete(self, node: Node) -> None:
        """All processes of a node are there, or its supervisor just starts the one that was killed last."""

        def probe() -> bool:
            try:
                found = node.processes()
            except psutil.NoSuchProcess:
                return False
            pids = {process.pid for process in found.all()}
            return found.raft is not None and bool(found.workers) and not pids & self.pids

        await until(f"node {node.id} has all its processes", probe, 20)


@pytest.mark.timeout(420)
def test_200_kills_at_random_under_posts_cost_nothing_acknowledged(
    new_cluster: Callable[..., Cluster], figure: Callable[[str], None]
) -> None:
    cluster = new_cluster(3).start()
    load = Load(cluster.nodes, ["general", "random", "ops"], SEED)
    killer = Killer(cluster, load, Random(SEED))

    async def scenario() -> None:
        async with load.running(posters=6, readers=2, pause_s=0.005):
            watchers = [asyncio.create_task(load.watch(node)) for node in cluster]
            await load.reaches(ACKS_PER_S)
            for _ in range(KILLS):
                await killer.once()
            for node in cluster:
                await killer.complete(node)
                await until(f"node {node.id} ready", node.ready, 20)
            await load.reaches(ACKS_PER_S)
        await load.finish()
        async with asyncio.timeout(30):
            await asyncio.gather(*watchers)

    began = time.monotonic()
    asyncio.run(scenario())
    counts = Counter(post.outcome.value for post in load.history.posts)
    figure(
        f"{sum(killer.kills.values())} kills {dict(killer.kills)} in {time.monotonic() - began:.0f} s;"
        f" posts {dict(counts)}; {len(load.history.reads)} reads, {len(load.history.streams)} streams;"
        f" slowest return to service {killer.slowest_resume_s:.1f} s"
    )
    assert not check(load.history)
    assert len(killer.pids) == KILLS
    assert min(killer.kills[kind] for kind in ("supervisor", "raft", "worker")) >= KILLS // 5, killer.kills
    assert counts["ok"] >= 10 * KILLS, f"too few acknowledged posts to mean anything: {counts}"
    assert len(load.history.reads) >= KILLS
    assert all(any(stream.node == node.id and stream.drained for stream in load.history.streams) for node in cluster)

"""The leader dies, or stands still and comes back: how long posts wait, and what the old leader may say."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import statistics
import time
from collections.abc import Callable

import httpx2
import pytest

from raftchat.config import Config
from tests.faults.checker import check
from tests.faults.cluster import Cluster, Node, wait_for
from tests.faults.history import Outcome
from tests.faults.load import Load

pytestmark = pytest.mark.process
ELECTION_TIMEOUT_S = Config().election_timeout_ms / 1000


def time_to_next_201(node: Node, began: float, text: str) -> float:
    """Post until it is acknowledged, as a client that retries what is said to be retryable."""
    with httpx2.Client(timeout=10) as client:
        while True:
            assert time.monotonic() - began < 20, "no post went through"
            response = client.post(f"{node.url}/rooms/failover", json={"Message": text, "User": "tester"})
            if response.status_code == 201:
                return time.monotonic() - began
            assert response.status_code == 503, response.text
            time.sleep(0.01)


@pytest.mark.timeout(300)
def test_a_killed_leader_is_replaced_within_two_election_timeouts(
    three_nodes: Cluster, figure: Callable[[str], None]
) -> None:
    waits = []
    for n in range(20):
        leader = three_nodes.leader()
        follower = three_nodes.followers()[n % 2]
        follower.must_post("failover", f"before {n}")
        began = time.monotonic()
        leader.kill()
        waits.append(time_to_next_201(follower, began, f"after {n}"))
        leader.start()
        leader.wait_ready()
    median = statistics.median(waits)
    figure(f"kill -9 of the leader to the next 201: median {median:.2f} s of {sorted(round(w, 2) for w in waits)}")
    assert median <= 2 * ELECTION_TIMEOUT_S
    texts = [message["Message"] for message in three_nodes[1].history("failover")]
    assert set(texts) >= {f"{when} {n}" for n in range(20) for when in ("before", "after")}


@pytest.mark.parametrize("what", ["whole node", "raft process"])
def test_a_leader_that_stood_still_for_2_s_never_reads_stale(new_cluster: Callable[..., Cluster], what: str) -> None:
    """Requests lie in its sockets when it wakes up, and its clock says that no time has passed since its last round."""
    cluster = new_cluster(3).start()
    load = Load(cluster.nodes, ["general"], seed=1)

    async def scenario() -> None:
        async with load.client() as client:
            old = await asyncio.to_thread(cluster.leader)
            others = [node for node in cluster if node is not old]
            assert (await load.post(client, old, "general")).outcome is Outcome.OK
            assert await load.read(client, old, "general") is not None
            processes = old.wait_processes()
            assert processes.raft is not None
            stopped = processes.all() if what == "whole node" else [processes.raft]
            began = time.monotonic()
            try:
                for process in stopped:
                    process.send_signal(signal.SIGSTOP)
                while (await load.post(client, others[0], "general")).outcome is not Outcome.OK:
                    assert time.monotonic() - began < 15
                    await asyncio.sleep(0.02)
                await asyncio.sleep(max(0.0, began + 2 - time.monotonic()))
                assert (await load.post(client, others[1], "general")).outcome is Outcome.OK
                waiting = [asyncio.create_task(load.read(client, old, "general")) for _ in range(20)]
                await asyncio.sleep(0.1)  # they lie in its sockets
            finally:
                for process in reversed(stopped):
                    process.send_signal(signal.SIGCONT)
            after = [await load.read(client, old, "general") for _ in range(100)]
            await asyncio.gather(*waiting)
            assert any(read is not None for read in after), "it never served again: nothing was tried"
            assert cluster.leader() is not old or time.monotonic() - began > 4, "leadership never moved"
        await load.finish()

    asyncio.run(scenario())
    assert not check(load.history)


def test_two_of_three_nodes_down_refuse_posts_and_serve_local_reads(three_nodes: Cluster) -> None:
    survivor, *others = three_nodes.nodes
    survivor.must_post("general", "hello")
    wait_for("node 1 has it", lambda: survivor.texts("general", consistency="local") == ["hello"], 5)
    for node in others:
        node.kill()

    def refused() -> httpx2.Response | None:
        with contextlib.suppress(httpx2.ReadTimeout):
            response = survivor.post("general", "nobody will ever read this")
            assert response.status_code != 201
            return response if response.status_code == 503 else None
        return None

    response = wait_for("posts are refused", refused, 30)
    assert response.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in response.headers) == response.json()["retryable"]
    assert survivor.texts("general", consistency="local") == ["hello"]
    assert survivor.get("/livez").status_code == 200
    assert survivor.get("/readyz").status_code == 503
    others[0].start()
    others[0].wait_ready()
    wait_for("posts again", lambda: survivor.post("general", "back").status_code == 201, 15)

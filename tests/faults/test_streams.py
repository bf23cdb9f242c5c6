"""What a WebSocket sees while nodes other than its own come and go: every message once, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.faults.checker import check
from tests.faults.cluster import Cluster
from tests.faults.history import Outcome
from tests.faults.load import Load

pytestmark = pytest.mark.process


@pytest.mark.parametrize("victim", ["follower", "leader"])
def test_a_stream_sees_everything_once_while_another_node_dies_and_returns(
    new_cluster: Callable[..., Cluster], victim: str
) -> None:
    cluster = new_cluster(3).start()
    leader = cluster.leader()
    follower, other = (node for node in cluster if node is not leader)
    dies = other if victim == "follower" else leader
    load = Load([node for node in cluster if node is not dies], ["general", "ops"], seed=5)

    async def scenario() -> None:
        watchers = [asyncio.create_task(load.watch(follower)) for _ in range(3)]
        async with load.running(posters=4, pause_s=0.005):
            await load.acknowledges(50)
            await asyncio.to_thread(dies.kill)
            await load.acknowledges(100)
            dies.start()
            await asyncio.to_thread(dies.wait_ready)
            await load.acknowledges(50)
        load.nodes.append(dies)  # it is asked for its story, too
        await load.finish()
        async with asyncio.timeout(20):
            await asyncio.gather(*watchers)

    asyncio.run(scenario())
    assert not check(load.history)
    assert len(load.history.streams) == 3, "a stream broke although its own node stayed up"
    assert all(stream.drained for stream in load.history.streams)
    assert load.history.count(Outcome.OK) >= 200

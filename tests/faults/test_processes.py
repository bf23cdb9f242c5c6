"""Processes of one node and each other: who restarts whom, who ends with whom, and what an idle node costs."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Callable

import httpx2
import psutil
import pytest

from tests.faults.checker import check
from tests.faults.cluster import Cluster, wait_for
from tests.faults.history import Outcome
from tests.faults.load import Load

pytestmark = pytest.mark.process


def test_a_killed_supervisor_leaves_no_orphan_and_its_port_is_free_at_once(new_cluster: Callable[..., Cluster]) -> None:
    node = new_cluster(1).start()[1]
    node.must_post("general", "before")
    before = node.wait_processes()
    before.supervisor.kill()
    wait_for("the supervisor ended", lambda: not node.running(), 5)
    node.start()  # at once: no waiting for the orphans, by the same command
    node.wait_ready()
    wait_for("no orphan", lambda: not [p for p in [before.raft, *before.workers] if p and p.is_running()], 5)
    assert node.texts("general") == ["before"]
    assert not {p.pid for p in before.all()} & {p.pid for p in node.wait_processes().all()}


def test_a_killed_raft_process_ends_the_node_with_a_message(new_cluster: Callable[..., Cluster]) -> None:
    node = new_cluster(1).start()[1]
    node.must_post("general", "before")
    raft = node.wait_processes().raft
    assert raft is not None
    raft.kill()
    assert node.process is not None
    assert node.process.wait(10) == 1
    wait_for("no orphan", lambda: not node.leftovers(), 5)
    assert "raft" in node.tail().lower()
    node.start()
    node.wait_ready()
    assert node.texts("general") == ["before"]


def test_a_killed_worker_is_restarted_and_costs_no_message(new_cluster: Callable[..., Cluster]) -> None:
    """Its clients do not know what became of their posts; what they were told stands, and it happens once."""
    cluster = new_cluster(1, "--workers", "2").start()
    load = Load(cluster.nodes, ["general"], seed=3)

    async def scenario() -> None:
        async with load.running(posters=4, pause_s=0.005):
            for _ in range(5):
                before = await asyncio.to_thread(cluster[1].wait_processes, 2)
                before.workers[0].kill()
                await load.acknowledges(20)
                after = await asyncio.to_thread(cluster[1].wait_processes, 2)
                assert before.supervisor.pid == after.supervisor.pid
                assert before.raft == after.raft
        await load.finish()

    asyncio.run(scenario())
    assert not check(load.history)
    assert load.history.count(Outcome.OK) >= 100


def test_a_worker_that_stands_still_is_not_killed_and_catches_up(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(1, "--workers", "2").start()
    node = cluster[1]
    processes = node.wait_processes(2)
    stalled = processes.workers[0]
    stalled.send_signal(signal.SIGSTOP)
    posted: list[str] = []
    try:
        began = time.monotonic()
        while time.monotonic() - began < 10 or len(posted) < 10:
            assert time.monotonic() - began < 60
            # The kernel may hand a connection to the worker that stands still: such a client waits in vain.
            with contextlib.suppress(httpx2.TimeoutException):
                if node.post("general", text := f"meanwhile {len(posted)}", timeout_s=0.5).status_code == 201:
                    posted.append(text)
            time.sleep(0.05)
    finally:
        stalled.send_signal(signal.SIGCONT)
    assert {p.pid for p in node.wait_processes(2).all()} == {p.pid for p in processes.all()}
    for _ in range(20):  # both workers answer some of these
        texts = [message["Message"] for message in node.history("general")]
        assert [text for text in texts if text in set(posted)] == posted


def test_sigterm_ends_a_node_in_order_and_a_restart_has_everything(three_nodes: Cluster) -> None:
    leader = three_nodes.leader()
    leader.must_post("general", "before")
    assert leader.stop() == 0
    assert not leader.leftovers()
    other = next(node for node in three_nodes if node is not leader)
    wait_for("posts go on", lambda: other.post("general", "meanwhile").status_code == 201, 10)
    leader.start()
    leader.wait_ready()
    assert leader.texts("general")[0] == "before"
    assert leader.texts("general")[-1] == "meanwhile"


def test_leadership_is_handed_over_on_sigterm_without_an_election_timeout(
    three_nodes: Cluster, figure: Callable[[str], None]
) -> None:
    """Posts to the others pause for less than the shortest election timeout would take."""
    leader, follower = three_nodes.leader(), three_nodes.followers()[0]
    follower.must_post("general", "before")
    gaps: list[float] = []
    stop = threading.Event()

    def keep_posting() -> None:
        last = time.monotonic()
        with httpx2.Client(timeout=10) as client:
            while not stop.is_set():
                response = client.post(f"{follower.url}/rooms/general", json={"Message": "x", "User": "tester"})
                if response.status_code == 201:
                    gaps.append(time.monotonic() - last)
                    last = time.monotonic()

    thread = threading.Thread(target=keep_posting)
    thread.start()
    try:
        wait_for("posts flow", lambda: len(gaps) > 10, 10)
        assert leader.stop() == 0
        count = len(gaps)
        wait_for("posts flow again", lambda: len(gaps) > count + 10, 10)
    finally:
        stop.set()
        thread.join()
    figure(f"longest pause of posts around a leader's SIGTERM: {max(gaps):.3f} s")
    assert max(gaps) < 1.0


def test_one_directory_has_one_owner(new_cluster: Callable[..., Cluster]) -> None:
    cluster = new_cluster(1).start()
    second = new_cluster(1)[1]
    second.command = [*second.command, "--data-dir", str(cluster[1].data_dir)]
    second.start()
    assert second.process is not None
    assert second.process.wait(15) == 3
    assert str(cluster[1].data_dir) in second.tail()
    cluster[1].must_post("general", "still here")


def test_an_idle_cluster_costs_less_than_two_percent_of_a_core_per_node(
    three_nodes: Cluster, figure: Callable[[str], None]
) -> None:
    three_nodes.leader()
    three_nodes[2].must_post("general", "hello")

    def spent(processes: list[psutil.Process]) -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    processes = {node.id: node.wait_processes().all() for node in three_nodes}

    def measure(seconds: float) -> dict[int, float]:
        began, before = time.monotonic(), {id: spent(p) for id, p in processes.items()}
        time.sleep(seconds)
        elapsed = time.monotonic() - began
        return {id: (spent(p) - before[id]) / elapsed for id, p in processes.items()}

    wait_for("start-up work has ended", lambda: max(measure(1).values()) < 0.1, 20)
    shares = measure(10)
    figure("idle: " + ", ".join(f"node {id} {share:.2%}" for id, share in shares.items()) + " of a core")
    assert max(shares.values()) < 0.02

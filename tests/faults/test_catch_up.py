"""A node was away for so long that the others' logs begin behind its end: state comes as files, then the log again."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from tests.faults.cluster import Cluster, Node, wait_for

pytestmark = pytest.mark.process
KEPT = 1_500
FLAGS = ("--segment-size", "512KiB", "--max-messages", str(KEPT), "--delete-grace", "0s")
TEXT = "x" * 400


def fill(node: Node, count: int, numbers: Iterator[int]) -> None:
    """Posts from several clients at once, each acknowledged."""

    def some(share: int) -> None:
        with httpx2.Client(base_url=node.url, timeout=20) as client:
            for _ in range(share):
                number = next(numbers)
                body = {"Message": f"{number} {TEXT}", "User": "tester"}
                assert client.post(f"/rooms/room-{number % 5}", json=body).status_code == 201

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(some, count // 8) for _ in range(8)]:
            future.result()


def status(node: Node) -> dict[str, Any]:
    return dict(node.get("/raft").json())


@contextmanager
def posting(node: Node, numbers: Iterator[int]) -> Iterator[list[int]]:
    """One post after the other, meanwhile: the IDs that were acknowledged."""
    stop, ids = threading.Event(), list[int]()

    def run() -> None:
        with httpx2.Client(base_url=node.url, timeout=20) as client:
            while not stop.is_set():
                answer = client.post("/rooms/meanwhile", json={"Message": str(next(numbers)), "User": "tester"})
                assert answer.status_code == 201, answer.text
                ids.append(answer.json()["ID"])

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield ids
    finally:
        stop.set()
        thread.join()


def tell_the_same(nodes: list[Node]) -> None:
    names = nodes[0].get("/rooms").json()
    for node in nodes[1:]:
        assert node.get("/rooms").json() == names
        for name in names:
            assert node.history(name) == nodes[0].history(name), f"room {name} on node {node.id}"


@pytest.mark.timeout(300)
def test_a_node_that_missed_what_was_compacted_gets_a_snapshot_while_posts_go_on(
    new_cluster: Callable[..., Cluster], figure: Callable[[str], None]
) -> None:
    cluster = new_cluster(3, *FLAGS).start()
    numbers = itertools.count()
    fill(cluster[1], 400, numbers)
    away = cluster.followers()[0]
    others = [node for node in cluster if node is not away]
    assert away.stop() == 0
    end = status(others[0])["LastIndex"]

    def compacted() -> bool:
        fill(others[0], 800, numbers)
        return all(status(node)["FirstIndex"] > end + 1 for node in others)

    wait_for("the others' logs begin behind its end", compacted, 120, interval_s=0.5)
    with posting(others[0], numbers) as ids:
        away.start()
        away.wait_ready(60)
        seen = len(ids)
        wait_for("posts went on", lambda: len(ids) > seen, 20)
    assert "Put the snapshot in place" in away.output.read_text()
    last = away.must_post("meanwhile", "posted by the one that came back")
    assert last > max(ids)
    found = [message["ID"] for message in away.history("meanwhile")]
    assert found == sorted(set(found))
    kept_from = status(others[0])["FirstIndex"]
    assert {id for id in ids if id >= kept_from} <= set(found)
    tell_the_same([*others, away])
    figure(f"snapshot installed; the log was gone up to {kept_from}, {len(ids)} posts acknowledged meanwhile")
    # It is a full member: with one of the others gone, it makes the majority.
    others[0].kill()
    wait_for("the two go on", lambda: away.post("meanwhile", "two are enough").status_code == 201, 20)


@pytest.mark.timeout(300)
def test_a_node_that_dies_again_and_again_while_it_catches_up_needs_no_hand(
    new_cluster: Callable[..., Cluster],
) -> None:
    """Row 20, with real processes: killed at moments that no plan chose."""
    cluster = new_cluster(3, *FLAGS).start()
    numbers = itertools.count()
    away = cluster.followers()[0]
    others = [node for node in cluster if node is not away]
    away.kill()
    end = status(others[0])["LastIndex"]

    def compacted() -> bool:
        fill(others[0], 800, numbers)
        return all(status(node)["FirstIndex"] > end + 1 for node in others)

    wait_for("the others' logs begin behind its end", compacted, 120, interval_s=0.5)
    for hundredths in (30, 45, 55, 65, 75, 90, 120):
        away.start()
        with pytest.raises(TimeoutError):
            wait_for("never", lambda: None, hundredths / 100)
        away.kill()
    away.start()
    away.wait_ready(60)
    assert "Put the snapshot in place" in away.output.read_text()
    tell_the_same([*others, away])

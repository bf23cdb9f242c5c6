"""What the nodes keep, with real processes: retention removes the same everywhere whoever is killed, space comes back,
and a node opens with what is left."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from tests.faults.cluster import Cluster, Node, wait_for

TEXT = "x" * 8_000
KEEP = 100
FLAGS = ("--segment-size", "512KiB", "--max-messages", str(KEEP), "--empty-room-age", "2s", "--delete-grace", "1s")


def log_bytes(node: Node) -> int:
    # What a file's name says last may be gone by the time it is looked at.
    total = 0
    for entry in os.scandir(node.data_dir / "log"):
        try:
            total += entry.stat().st_blocks * 512
        except FileNotFoundError:
            continue
    return total


def held(node: Node) -> dict[str, list[int]]:
    """IDs by room, of this node's own."""
    names: list[str] = node.get("/rooms", consistency="local").json()
    return {
        name: [message["ID"] for message in node.get(f"/rooms/{name}", consistency="local", limit=1000).json()]
        for name in names
    }


def store(node: Node) -> dict[str, Any]:
    found: dict[str, Any] = node.get("/raft").json()["Store"]
    return found


def fill(cluster: Cluster, count: int) -> None:
    for number in range(count):
        cluster[1 + number % 3].must_post(f"room-{number % 5}", f"{number} {TEXT}")


def test_three_nodes_that_are_killed_at_different_times_hold_the_same_and_little_else() -> None:
    with Cluster(3, *FLAGS).start() as cluster:
        cluster[1].must_post("early", "gone with its room")
        fill(cluster, 150)
        for number in (1, 2, 3):
            cluster[number].kill()
            cluster[number].start()
            cluster[number].wait_ready()
            fill(cluster, 100)

        def settled() -> bool:
            rooms = [held(node) for node in cluster]
            return rooms[0] == rooms[1] == rooms[2] and sum(map(len, rooms[0].values())) == KEEP

        wait_for("the same on all nodes", settled, 30)
        rooms = held(cluster[1])
        assert "early" not in rooms
        newest = sorted(identifier for identifiers in rooms.values() for identifier in identifiers)
        assert len(newest) == KEEP
        wait_for("space that comes back", lambda: all(log_bytes(node) < 450 * 8_000 for node in cluster), 30)
        assert all(store(node)["SnapshotIndex"] > 0 for node in cluster)
        for node in cluster:
            assert node.stop() == 0
            node.start()
            node.wait_ready()
            assert held(node) == rooms
            assert "Unexpected failure" not in node.output.read_text()


def test_a_node_opens_at_once_and_falls_back_when_its_newest_snapshot_is_rotten() -> None:
    with Cluster(1, "--segment-size", "512KiB").start() as cluster:
        node = cluster[1]
        for number in range(200):
            node.must_post("room", f"{number} {TEXT}")
        snapshots = node.data_dir / "snapshots"
        wait_for("two snapshots", lambda: len(paths(snapshots)) >= 2, 20)
        before = held(node)
        node.kill()
        newest = paths(snapshots)[-1]
        data = bytearray(newest.read_bytes())
        data[-1] ^= 0x10
        newest.write_bytes(data)
        began_s = time.monotonic()
        node.start()
        node.wait_ready()
        assert time.monotonic() - began_s < 10
        assert held(node) == before
        assert newest.name in node.output.read_text()


def paths(snapshots: Path) -> list[Path]:
    return sorted(snapshots.glob("*.snapshot")) if snapshots.exists() else []

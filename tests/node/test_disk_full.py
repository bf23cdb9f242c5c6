"""A node whose disk is really full: a small tmpfs with a file in the way, on one node and under the leader of three."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster, Node, wait_for

pytestmark = pytest.mark.process

DISK_BYTES = 8 << 20
TEXT = "m" * 30_000


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("a file system can be mounted by root only")
    yield directory
    subprocess.run(["umount", "-l", str(directory)], check=True)


def post_until_full(node: Node) -> list[str]:
    """The texts that were acknowledged before the disk was full."""
    acknowledged: list[str] = []
    unknown = 0
    for number in range(1000):
        text = f"{number} {TEXT}"
        response = node.post("general", text)
        if response.status_code == 507:
            assert response.json()["code"] == "disk_full"
            return acknowledged
        if response.status_code == 503:
            # Committed by others at the moment when this node could not append it: it cannot tell.
            assert response.json()["code"] == "outcome_unknown"
            unknown += 1
            assert unknown == 1
        else:
            assert response.status_code == 201
            acknowledged.append(text)
    raise AssertionError("the disk was never full")


@pytest.mark.parametrize("small", ["alone", "leader", "follower"])
def test_a_full_disk_refuses_posts_serves_reads_and_recovers_by_itself(
    new_cluster: Callable[..., Cluster], small_disk: Path, small: str
) -> None:
    cluster = new_cluster(1 if small == "alone" else 3, "--segment-size", "1MiB")
    node, others = cluster[1], cluster.nodes[1:]
    node.command = [*node.command, "--data-dir", str(small_disk / "node")]
    if small == "leader":
        node.command = [*node.command, "--election-timeout", "400ms"]  # so it is the first to campaign
    cluster.start()
    while small != "alone" and (cluster.leader() is node) != (small == "leader"):
        leader = cluster.leader()
        leader.kill()
        wait_for("another leader", lambda leader=leader: cluster.leader() is not leader, 15)
        leader.start()
        leader.wait_ready()
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * (DISK_BYTES - (4 << 20)))
    acknowledged = post_until_full(node)
    assert len(acknowledged) > 20
    local = node.get("/rooms/general", consistency="local", limit=1000)
    assert [message["Message"] for message in local.json()] == acknowledged
    if small == "follower":
        others[0].must_post("elsewhere", "the others go on")
    filler.unlink()
    wait_for("posts again", lambda: node.post("general", "again").status_code == 201, 15)
    for other in cluster:
        texts = [message["Message"] for message in other.history("general")]
        assert [text for text in texts if text in set(acknowledged)] == acknowledged
        assert texts[-1] == "again"
        assert len(texts) <= len(acknowledged) + 2
    assert "The disk is full" in node.tail()
    assert "There is room on the disk again" in node.tail()
    assert node.stop() == 0
    node.start()
    node.wait_ready()
    assert node.texts("general")[-1] == "again"


def test_a_node_without_room_to_start_says_so_with_exit_3(
    new_cluster: Callable[..., Cluster], small_disk: Path
) -> None:
    node = new_cluster(1)[1]
    node.command = [*node.command, "--data-dir", str(small_disk / "node")]  # 64 MiB do not fit
    node.start()
    assert node.process is not None
    assert node.process.wait(15) == 3
    assert "No space left on device" in node.tail()

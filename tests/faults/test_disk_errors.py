"""An fdatasync fails (strace injects it): the node ends, acknowledges nothing after it, and recovers."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import httpx2
import pytest

from tests.faults.cluster import Cluster, Node, wait_for

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]


def break_fdatasync(node: Node, trace: Path, after: int) -> subprocess.Popen[bytes]:
    """From the `after`th fdatasync of each thread of the Raft process on, the disk says EIO."""
    raft = node.wait_processes().raft
    assert raft is not None
    inject = ["-e", "trace=fdatasync", "-e", f"inject=fdatasync:error=EIO:when={after}+"]
    tracer = subprocess.Popen(
        ["strace", "-f", "-ttt", "-o", str(trace), *inject, "-p", str(raft.pid)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert tracer.stderr is not None
    said = tracer.stderr.readline().decode()  # "… attached", or why not
    if "attached" not in said:
        tracer.wait()
        pytest.skip(f"strace may not attach here: {said}")
    return tracer


def first_error(trace: Path) -> float:
    """When the first fdatasync failed: seconds since the epoch."""
    lines = [line.split() for line in trace.read_text().splitlines() if "EIO" in line]
    return float(lines[0][1])


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("after", [1, 4])
def test_a_failed_fdatasync_ends_the_node_unacknowledged(
    new_cluster: Callable[..., Cluster], tmp_path: Path, size: int, after: int
) -> None:
    cluster = new_cluster(size).start()
    leader = cluster.leader()
    acknowledged = [f"before {n}" for n in range(3)]
    for text in acknowledged:
        leader.must_post("general", text)
    trace = tmp_path / "strace"
    tracer = break_fdatasync(leader, trace, after)
    posts: list[tuple[float, float, str]] = []
    try:
        with httpx2.Client(timeout=15) as client:
            deadline = time.monotonic() + 30
            while leader.running():
                assert time.monotonic() < deadline, "the node goes on with a disk that fails"
                began, text = time.time(), f"during {len(posts)}"
                with contextlib.suppress(httpx2.TransportError):
                    response = client.post(f"{leader.url}/rooms/general", json={"Message": text, "User": "tester"})
                    if response.status_code == 201:
                        posts.append((began, time.time(), text))
    finally:
        tracer.terminate()
        tracer.wait(10)
    assert leader.process is not None
    assert leader.process.wait(10) == 1
    assert "fdatasync" in leader.tail() or "Input/output error" in leader.tail()
    failed_at = first_error(trace)
    late = [text for began, _, text in posts if began > failed_at]
    assert not late, "acknowledged by the node whose disk had failed before they were posted"
    if size == 3:
        other = next(node for node in cluster if node is not leader)
        wait_for("the others go on", lambda: other.post("elsewhere", "meanwhile").status_code == 201, 20)
    leader.start()
    leader.wait_ready()
    texts = leader.texts("general")
    wanted = acknowledged + [text for _, _, text in posts]
    assert [text for text in texts if text in set(wanted)] == wanted
    assert len(texts) == len(set(texts))

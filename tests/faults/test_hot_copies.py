"""A plain copy of a running node's directory is a backup: file by file, in any order, while everything goes on.

Every fifth is made by `backup` instead.

HOT_COPIES says how many copies are made (100).
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

import httpx2
import orjson
import pytest

from raftchat.node.restore import NewCluster, restore
from raftchat.storage.backup import backup
from raftchat.storage.verify import verify
from tests.faults.cluster import Cluster, raft_chat, wait_for
from tests.faults.hot_copy import Chatter, Expected, copy_in_disorder
from tests.storage.data_dir import contents, new_segment_id

pytestmark = pytest.mark.process

COPIES = int(os.environ.get("HOT_COPIES", "100"))
SEGMENT_SIZE = "260KiB"
FLAGS = (
    "--segment-size", SEGMENT_SIZE, "--delete-grace", "8s", "--max-messages", "400", "--empty-room-age", "2s"
)  # fmt: skip
SEED = 20240229


def texts(directory: Path) -> dict[str, dict[int, str]]:
    """Room → text by ID, of a restored directory that was not started."""
    return {
        room: {id: orjson.loads(b"{" + value + b"}")["Message"] for id, value in messages.items()}
        for room, messages in contents(directory).items()
    }


@pytest.mark.timeout(60 + 4 * COPIES)
def test_each_copy_holds_what_was_acknowledged_before_it(
    new_cluster: Callable[..., Cluster], tmp_path: Path, figure: Callable[[str], None]
) -> None:
    node = new_cluster(1, *FLAGS).start()[1]
    chatter, random = Chatter(node.url, SEED), Random(SEED)
    copy, new = tmp_path / "copy", tmp_path / "new"
    had_to_be_there = snapshots = compacted = 0
    # Of that room nearly nothing stays, so that segments are rewritten rather than dropped.
    policy = httpx2.put(f"{node.url}/rooms/stays%20too/retention", json={"MaxMessages": 10}, timeout=15)
    assert policy.is_success, policy.text
    with chatter.running(posters=3, pause_s=0.02):
        # Until there is something that was replaced by something else.
        wait_for(
            "a compacted segment", lambda: chatter.check() and list((node.data_dir / "log").glob("*-0001.log")), 60
        )
        for number in range(COPIES):
            expected = Expected(chatter)
            whole = number % 5 == 4
            if whole:
                backup(str(node.data_dir), str(copy))
            else:
                # Some take so long that retention and compaction are sure to come in between.
                copy_in_disorder(node.data_dir, copy, random, pause_max_s=0.08 if number % 20 == 0 else 0.002)
            after = chatter.first_ids()
            report = verify(str(copy))
            assert (report.corrupt, report.unreadable) == ([], []), f"copy {number}"
            assert report.copied != whole
            cluster = NewCluster(1, ["http://127.0.0.1:9021"], lambda old: old + 1, new_segment_id, 260 * 1024)
            restore(str(copy), str(new), cluster)
            had_to_be_there += expected.check(texts(new), after)
            snapshots += len(list((copy / "snapshots").glob("*.snapshot")))
            compacted += len(list((copy / "log").glob("*-0*-0*.log")))
            shutil.rmtree(copy)
            shutil.rmtree(new)
    assert had_to_be_there > 50 * COPIES, "nearly nothing was at stake"
    assert compacted >= COPIES
    assert snapshots >= 2 * COPIES
    acknowledged = sum(1 for post in chatter.posts if post.id)
    figure(
        f"{COPIES} hot copies while {acknowledged} posts were acknowledged and {len(chatter.removals)} rooms deleted: "
        f"{had_to_be_there} messages had to be there and were; {snapshots} snapshots, {compacted} compacted segments"
    )


def test_nodes_start_on_what_commands_restored(new_cluster: Callable[..., Cluster], tmp_path: Path) -> None:
    """`backup` and a plain copy of a running node, restored by the command, as a single node and as three."""
    node = new_cluster(1, *FLAGS).start()[1]
    chatter, random = Chatter(node.url, SEED + 1), Random(SEED + 1)
    sources: list[tuple[Path, Expected, dict[str, int]]] = []
    with chatter.running(posters=2, pause_s=0.02):
        wait_for("some snapshots", lambda: len(list((node.data_dir / "snapshots").glob("*"))) > 1, 60)
        expected = Expected(chatter)
        command("backup", tmp_path / "backup", "--data-dir", node.data_dir)
        command("verify", tmp_path / "backup")
        sources.append((tmp_path / "backup", expected, chatter.first_ids()))
        expected = Expected(chatter)
        copy_in_disorder(node.data_dir, tmp_path / "copy", random, pause_max_s=0.01)
        sources.append((tmp_path / "copy", expected, chatter.first_ids()))
        command("verify", node.data_dir)
        command("verify", tmp_path / "copy")
    for (source, expected, after), size in zip(sources, (1, 3), strict=True):
        cluster = new_cluster(size)
        for member in cluster:
            command(
                "restore", source, "--data-dir", member.data_dir,
                "--id", str(member.id), "--cluster", ",".join(cluster.peers), "--epoch", "77",
            )  # fmt: skip
        cluster.start()
        for member in cluster:
            rooms = member.get("/rooms", limit=10_000).json()
            found = {room: {m["ID"]: m["Message"] for m in member.history(room)} for room in rooms}
            assert expected.check(found, after) > 0
        last = max(id for messages in found.values() for id in messages)
        assert cluster[1].must_post("stays", "a new life") > last
        assert {member.texts("stays")[-1] for member in cluster} == {"a new life"}
        for member in cluster:
            assert member.stop() == 0
            command("verify", member.data_dir)


def command(*arguments: object) -> None:
    done = subprocess.run([*raft_chat(), *map(str, arguments)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"

"""What a policy removes is gone on all nodes alike, its space comes back, and nobody who posts notices.

RETENTION_MIB says how large the history is of which most goes (128), RETENTION_SEGMENT_MIB how large a segment is (1).
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

import httpx2
import pytest

from bench import history
from tests.faults.cluster import Cluster, Node, raft_chat, wait_for
from tests.faults.kept import (
    Rooms,
    details,
    dry_run,
    held_by_all,
    left_by_age,
    left_by_amount,
    left_by_rooms,
    losses,
    occupied_bytes,
    posted_s,
    put,
)
from tests.faults.steady import Machine, Sent, Steady, median_s, share_s

pytestmark = pytest.mark.process

MIB = 2**20
HISTORY_MIB = int(os.environ.get("RETENTION_MIB", "128"))
SEGMENT_MIB = int(os.environ.get("RETENTION_SEGMENT_MIB", "1"))
RATE_PER_S = 75
SLOWER_MAX = 5
"""Times the median of before: no post may take longer."""
KEPT = 300
SHORT_KEPT = 10
KILLS = 12
SEED = 7


def grow(cluster: Cluster, *, messages: int, rooms: int, size_bytes: int, segment_size_bytes: int) -> None:
    """The same year of history for all nodes, none of which has run yet."""
    ends_ms = int(time.time() * 1000)
    for node in cluster:
        history.make(
            node.data_dir, messages=messages, rooms=rooms, size_bytes=size_bytes, urls=cluster.peers,
            node_id=node.id, ends_ms=ends_ms, segment_size_bytes=segment_size_bytes,
        )  # fmt: skip


@pytest.mark.timeout(120 + HISTORY_MIB)
def test_space_of_what_a_policy_drops_comes_back_while_posts_go_on(
    new_cluster: Callable[..., Cluster], figure: Callable[[str], None]
) -> None:
    cluster = new_cluster(3, "--segment-size", f"{SEGMENT_MIB}MiB", "--delete-grace", "1s")
    grow(cluster, messages=HISTORY_MIB * 512, rooms=8, size_bytes=2000, segment_size_bytes=SEGMENT_MIB * MIB)
    cluster.start()
    for node in cluster:
        log = node.data_dir / "log"
        wait_for(
            f"indexes of node {node.id}",
            lambda log=log: len(list(log.glob("*.idx"))) >= len(list(log.glob("*.log"))) - 1,
            HISTORY_MIB,
            0.2,
        )
    # One room keeps everything, so that nearly every segment is rewritten rather than dropped.
    put(cluster[1], f"/rooms/{history.room_name(0)}/retention", {"MaxAge": "3650d"})
    steady = Steady(cluster.nodes, RATE_PER_S, lambda number: f"steady-{number % 3}", 8_000)
    machine = Machine(cluster.directory)
    with machine.watched(), steady.running():
        wait_for("posts", lambda: len(steady.sent) > 2 * RATE_PER_S, 20)
        began = time.monotonic()
        wait_for("posts of before", lambda: len(steady.since(began)) > 5 * RATE_PER_S, 30)
        before = steady.since(began)
        occupied = [occupied_bytes(node.data_dir) for node in cluster]
        removing = time.monotonic()
        put(cluster[1], "/retention", {"MaxAge": "30d"})

        def left() -> list[int]:
            return [occupied_bytes(node.data_dir) for node in cluster]

        # A twelfth of seven rooms, all of the eighth, and what was posted since, before it is compacted in its turn.
        wait_for("the space", lambda: max(left()) < (0.35 * HISTORY_MIB + 3 * SEGMENT_MIB) * MIB, 300, 0.25)
        took_s = time.monotonic() - removing
        after = steady.since(removing)
    worst = max(after, key=lambda post: post.took_s - 2 * machine.held_up_s(post))
    text = (
        f"{[round(size / MIB) for size in occupied]} MiB became {[round(size / MIB) for size in left()]} in"
        f" {took_s:.0f} s at {len(after) / took_s:.0f} posts/s: before {told_ms(before)}, meanwhile {told_ms(after)};"
        f" the worst took {worst.took_s * 1e3:.0f} ms {worst.began - removing:.1f} s after the policy, of which the"
        f" machine held up everybody for {machine.held_up_s(worst) * 1e3:.0f} ms; load {os.getloadavg()[0]:.1f}"
    )
    figure(text)
    assert min(occupied) > HISTORY_MIB * MIB
    # The machine is not ours alone: what others keep waiting for the processors, and what it holds up for everybody.
    # A post flushes twice, one after the other: the leader's part and a follower's.
    crowded = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert worst.took_s - 2 * machine.held_up_s(worst) <= SLOWER_MAX * median_s(before) * crowded, text
    assert median_s(after) <= 2 * median_s(before) * crowded, text


def told_ms(posts: Sequence[Sent]) -> str:
    median, most, slowest = (share_s(posts, share) * 1e3 for share in (0.5, 0.99, 1))
    return f"median {median:.1f} ms, 99 % {most:.0f} ms, slowest {slowest:.0f} ms"


def test_policies_of_every_kind_remove_what_a_dry_run_said_on_all_nodes(
    new_cluster: Callable[..., Cluster], figure: Callable[[str], None]
) -> None:
    cluster = new_cluster(3, "--segment-size", "512KiB", "--delete-grace", "0s")
    grow(cluster, messages=3000, rooms=8, size_bytes=300, segment_size_bytes=512 * 1024)
    cluster.start()
    for name in ("leaving", "staying"):
        cluster[1].must_post(name, "soon gone")
    rooms = held_by_all(cluster.nodes)
    assert [len(rooms), sum(map(len, rooms.values()))] == [10, 3002]

    of_rooms: dict[str, tuple[dict[str, Any], Rooms]] = {}

    def choose(number: int, policy: dict[str, Any], left: Callable[[Rooms], Rooms]) -> None:
        name = history.room_name(number)
        of_rooms[name] = policy, left({name: rooms[name]})

    now_s = time.time()
    half_s, quarter_s = age_s(rooms, now_s, 0.5), age_s(rooms, now_s, 0.75)
    choose(0, {"MaxMessages": 50}, lambda one: left_by_amount(one, messages=50))
    choose(1, {"MaxBytes": "20KiB"}, lambda one: left_by_amount(one, size_bytes=20 * 1024))
    choose(2, {"MaxAge": quarter_s}, lambda one: left_by_age(one, quarter_s, now_s))
    for (name, (policy, left)), node in zip(of_rooms.items(), cluster, strict=True):
        assert dry_run(node, f"/rooms/{name}/retention", policy) == losses({name: rooms[name]}, left), policy
    for (name, (policy, left)), node in zip(of_rooms.items(), cluster, strict=True):
        put(node, f"/rooms/{name}/retention", policy)
        rooms |= left
    for name in ("leaving", "staying"):
        put(cluster[2], f"/rooms/{name}/retention", {"MaxAge": "1ms"})
        rooms[name] = []
    emptying = time.monotonic()
    holds(cluster, rooms)

    # Whoever comes back in time keeps the room; it must not go with the age of the cluster either.
    assert httpx2.delete(f"{cluster[3].url}/rooms/staying/retention").status_code == 204
    cluster[2].must_post("staying", "back in time")
    rooms["staying"] = held_by_all(cluster.nodes)["staying"]
    with_posts = {name: messages for name, messages in rooms.items() if messages}
    kinds: list[tuple[dict[str, Any], Rooms]] = [
        ({"MaxAge": half_s}, left_by_age(with_posts, half_s, now_s)),
        ({"MaxMessages": 700}, left_by_amount(with_posts, messages=700)),
        ({"MaxBytes": "200KiB"}, left_by_amount(with_posts, size_bytes=200 * 1024)),
        # "leaving" is one of those that stay: it was posted to after all the others but one.
        ({"MaxRooms": 7}, left_by_rooms(with_posts, 6)),
    ]
    for (policy, left), node in zip(kinds, [*cluster, cluster[1]], strict=True):
        assert dry_run(node, "/retention", policy) == losses(with_posts, left), policy
    policy = {"MaxRooms": 7, "MaxAge": half_s, "MaxBytes": "200KiB", "MaxMessages": 500, "EmptyRoomAge": "12s"}
    left = left_by_age(left_by_rooms(with_posts, 6), half_s, now_s)
    left = left_by_amount(left, messages=500, size_bytes=200 * 1024)
    assert dry_run(cluster[3], "/retention", policy) == losses(with_posts, left)
    put(cluster[3], "/retention", policy)
    holds(cluster, {**left, "leaving": []})
    assert {node.get("/retention").text for node in cluster} == {cluster[1].get("/retention").text}

    for node in cluster:
        name = next(name for name in left if name != "staying")
        assert httpx2.delete(f"{node.url}/rooms/{name}", timeout=15).status_code == 204
        del left[name]
        assert name not in details(node)
    assert time.monotonic() - emptying < 12, "too slow to see that the empty room was there until then"
    wait_for("the room that nobody came back to is gone", lambda: "leaving" not in details(cluster[1]), 30, 0.1)
    aged_s = time.monotonic() - emptying
    assert aged_s > 12
    holds(cluster, left)
    figure(f"what dry runs told, and a model, went on all nodes; an empty room after {aged_s:.1f} s, set to 12 s")


def age_s(rooms: Rooms, now_s: float, share: float) -> int:
    """About so much of them is older than that, however long the test takes: it lies between two times of posting."""
    posted = sorted({posted_s(message) for messages in rooms.values() for message in messages})
    at = int(len(posted) * share)
    return round(now_s - (posted[at - 1] + posted[at]) / 2)


def holds(cluster: Cluster, rooms: Rooms) -> None:
    """All nodes hold exactly this, once what the leader plans every few seconds is carried out."""
    counts = {name: len(messages) for name, messages in rooms.items()}

    def settled(node: Node) -> bool:
        return {name: room["Messages"] for name, room in details(node).items()} == counts

    for node in cluster:
        wait_for(f"node {node.id} holds {counts}", lambda node=node: settled(node), 20, 0.1)
    assert held_by_all(cluster.nodes) == rooms


def test_nodes_killed_at_different_moments_hold_the_same_and_all_that_the_policies_keep(
    new_cluster: Callable[..., Cluster], figure: Callable[[str], None]
) -> None:
    cluster = new_cluster(
        3, "--segment-size", "512KiB", "--delete-grace", "0s", "--max-messages", str(KEPT), "--empty-room-age", "1s"
    ).start()
    random = Random(SEED)
    put(cluster[1], "/rooms/short/retention", {"MaxMessages": SHORT_KEPT})
    steady = Steady(cluster.nodes, RATE_PER_S, lambda number: f"long-{number % 2}" if number % 4 else "short", 20_000)
    in_the_act = 0
    with steady.running(may_fail=True):
        for number in range(KILLS):
            node = cluster[1 + number % 3]
            in_the_act += wait_for_the_act(node, random.random() * 1.5)
            node.kill()
            node.start()
            if random.random() < 0.75:  # otherwise the next is killed while this one is on its way
                again = time.monotonic()
                wait_for("posts go on", lambda again=again: len(steady.since(again)) > RATE_PER_S // 2, 30)
        for node in cluster:
            node.wait_ready()
        resumed = time.monotonic()
        wait_for("posts on all nodes", lambda: len(steady.since(resumed)) > RATE_PER_S, 20)

    def settled() -> bool:
        told = [details(node) for node in cluster]
        counts = [sum(room["Messages"] for room in rooms.values()) for rooms in told]
        return told[0] == told[1] == told[2] and counts[0] == KEPT and told[0]["short"]["Messages"] == SHORT_KEPT

    wait_for("the policies hold on all nodes alike", settled, 30, 0.2)
    rooms = held_by_all(cluster.nodes)
    everything = {(post.room, post.text): post.id for post in steady.sent}
    acknowledged = {post.id: post.room for post in steady.sent if post.id}
    found = {message["ID"]: name for name, messages in rooms.items() for message in messages}
    for name, messages in rooms.items():
        for message in messages:
            assert everything[name, message["Message"]] in (0, message["ID"]), "it is none that was posted"
    # Of the rooms with no policy of their own the oldest went: what came after the oldest that stays is there.
    oldest = min(id for id, name in found.items() if name != "short")
    assert {id for id, name in acknowledged.items() if id >= oldest and name != "short"} <= found.keys()
    oldest = min(id for id, name in found.items() if name == "short")
    assert {id for id, name in acknowledged.items() if id >= oldest and name == "short"} <= found.keys()
    said = "".join(node.output.read_text() for node in cluster)
    compactions, drops = said.count("Compacted segments"), said.count("Dropped the oldest segments")
    assert compactions + drops >= len(cluster.nodes), "too little was going on to mean anything"
    assert "Unexpected failure" not in said
    for node in cluster:
        assert node.stop() == 0
        verify = [*raft_chat(), "verify", str(node.data_dir)]
        done = subprocess.run(verify, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
    figure(
        f"{KILLS} kills, {in_the_act} of them while a file was being written; {len(acknowledged)} of"
        f" {len(steady.sent)} posts acknowledged, {compactions} compactions, {drops} drops; the {KEPT} that the"
        " policies keep are there, the same on all nodes"
    )


def wait_for_the_act(node: Node, at_most_s: float) -> bool:
    """Until this node writes a snapshot, an index or a compacted segment, or for that long. True: it does."""
    deadline = time.monotonic() + at_most_s
    while time.monotonic() < deadline:
        for part in ("log", "snapshots"):
            with contextlib.suppress(FileNotFoundError):
                if any(name.endswith(".tmp") and name != "spare.tmp" for name in os.listdir(node.data_dir / part)):
                    return True
        time.sleep(0.002)
    return False

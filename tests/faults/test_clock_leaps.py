"""A leader whose wall clock leaps removes nothing that is too young by the others' clocks, and says what it does.

Needs libfaketime, which lies about the wall clock alone: clocks that nobody sets go on as they are.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Callable, Iterator

import pytest

from bench import history
from tests.faults.cluster import Cluster, Node, wait_for
from tests.faults.kept import Rooms, details, held_by_all, left_by_age, posted_s, put

LIBRARY = next(iter(glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1")), "")

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not LIBRARY, reason="libfaketime is not installed: scripts/prerequisites test"),
]
DAY_S = 24 * 3600
MESSAGES = 1000
"""In the year before."""


def clock_of(node: Node) -> str:
    return str(node.directory / f"clock-{node.id}")


def set_clock(node: Node, offset: str) -> None:
    """`+366d`: so far from the true time."""
    with open(clock_of(node), "w") as file:
        file.write(offset)


def age_days(days: float) -> dict[str, int]:
    return {"MaxAge": round(days * DAY_S)}


def told(node: Node, what: str) -> bool:
    return what in node.output.read_text()


@pytest.fixture
def aged(new_cluster: Callable[..., Cluster]) -> Iterator[Cluster]:
    """Three nodes that hold a year of messages, and whose clocks can be set."""
    cluster = new_cluster(3, "--delete-grace", "0s", "--segment-size", "1MiB")
    ends_ms = int(time.time() * 1000)
    for node in cluster:
        history.make(
            node.data_dir, messages=MESSAGES, rooms=3, size_bytes=200, urls=cluster.peers,
            node_id=node.id, ends_ms=ends_ms, segment_size_bytes=2**20,
        )  # fmt: skip
        set_clock(node, "+0")
        node.environment |= {
            "LD_PRELOAD": LIBRARY,
            "FAKETIME_TIMESTAMP_FILE": clock_of(node),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
    return cluster.start()


def wait_for_holding(cluster: Cluster, rooms: Rooms) -> None:
    counts = {name: len(messages) for name, messages in rooms.items()}

    def settled() -> bool:
        return all(
            {name: room["Messages"] for name, room in details(node).items()} == counts
            for node in cluster
            if node.running()
        )

    wait_for(f"all hold {counts}", settled, 20, 0.1)
    assert held_by_all([node for node in cluster if node.running()]) == rooms


def test_a_leader_a_year_ahead_removes_what_is_too_old_by_the_others_clocks_and_nothing_else(
    aged: Cluster, figure: Callable[[str], None]
) -> None:
    rooms, now_s = held_by_all(aged.nodes), time.time()
    leader = aged.leader()
    set_clock(leader, "+366d")
    put(aged[1], "/retention", age_days(202))
    wait_for("the leader's doubt", lambda: told(leader, "the wall clock leapt forward"), 20, 0.1)
    rooms = left_by_age(rooms, 202 * DAY_S, now_s)
    assert 0 < sum(map(len, rooms.values())) < MESSAGES
    wait_for_holding(aged, rooms)
    # What is posted now bears the wrong time, for good; it must not stand for the others' age.
    ahead = aged[1].must_post("room-00000", "from the future")
    rooms["room-00000"] = held_by_all(aged.nodes)["room-00000"]
    assert rooms["room-00000"][-1]["ID"] == ahead
    assert posted_s(rooms["room-00000"][-1]) > now_s + 365 * DAY_S
    put(aged[2], "/retention", age_days(152))
    rooms = left_by_age(rooms, 152 * DAY_S, now_s)
    wait_for_holding(aged, rooms)

    # Whoever leads next goes by its own clock, which is behind the log's time.
    leader.kill()
    follower = next(node for node in aged if node is not leader)
    wait_for("another leader", lambda: follower.post("room-00001", "after it").status_code == 201, 20)
    leader = aged.leader()
    rooms["room-00001"] = held_by_all([node for node in aged if node.running()])["room-00001"]
    put(follower, "/retention", age_days(102))
    wait_for("the next leader's doubt", lambda: told(leader, "the log's time is ahead"), 20, 0.1)
    rooms = left_by_age(rooms, 102 * DAY_S, now_s)
    wait_for_holding(aged, rooms)
    figure(f"leader 366 days ahead: of {MESSAGES} messages those stay that are young enough by the others' clocks")


def test_a_leader_a_year_behind_removes_nothing_until_its_clock_is_right_again(aged: Cluster) -> None:
    rooms, now_s = held_by_all(aged.nodes), time.time()
    newest_s = max(posted_s(messages[-1]) for messages in rooms.values())
    leader = aged.leader()
    set_clock(leader, "-366d")
    put(aged[1], "/retention", age_days(202))
    wait_for("the leader's doubt", lambda: told(leader, "the wall clock leapt back"), 20, 0.1)
    late = aged[1].must_post("room-00000", "log time does not go back")
    rooms["room-00000"] = held_by_all(aged.nodes)["room-00000"]
    assert rooms["room-00000"][-1]["ID"] == late
    assert posted_s(rooms["room-00000"][-1]) >= newest_s
    assert held_by_all(aged.nodes) == rooms
    set_clock(leader, "+0")
    wait_for_holding(aged, left_by_age(rooms, 202 * DAY_S, now_s))
    assert told(leader, "the wall clock is believed again")

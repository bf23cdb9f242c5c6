"""Policies: set, shown, tried; and what pages, lists and figures are while retention goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raftchat.chat.commands import KIND_RETENTION
from raftchat.chat.policy import Policy
from raftchat.ipc.frames import Refusal
from tests.worker.keeper import Keeper
from tests.worker.support import TIME_MS, Worker, record, wait_for
from tests.worker.test_machines import samples
from tests.worker.test_posts import later, problem
from tests.worker.test_reads import links

DAY_MS = 86_400_000
NO_LIMITS = {"MaxAge": None, "MaxMessages": None, "MaxBytes": None}
DEFAULT = {**NO_LIMITS, "MaxRooms": None, "EmptyRoomAge": 3600}


def put(worker: Worker, path: str, policy: dict[str, Any], **params: str) -> Any:
    response = worker.client.put(path, json=policy, params=params)
    assert response.status_code == 200, response.text
    return response.json()


def shown(worker: Worker, path: str) -> Any:
    response = worker.client.get(path)
    assert response.status_code == 200, response.text
    return response.json()


# Policies


def test_nothing_is_limited_unless_told(worker: Worker) -> None:
    assert shown(worker, "/retention") == DEFAULT
    assert shown(worker, "/rooms/no-such-room/retention") == {**NO_LIMITS, "Effective": NO_LIMITS}


def test_the_clusters_policy_is_set_shown_and_removed(worker: Worker) -> None:
    given = {"MaxAge": "30d", "MaxBytes": "64MiB", "MaxRooms": 10, "EmptyRoomAge": 90}
    expected = {"MaxAge": 2_592_000, "MaxMessages": None, "MaxBytes": 2**26, "MaxRooms": 10, "EmptyRoomAge": 90}
    assert put(worker, "/retention", given) == expected
    response = worker.client.get("/retention")
    assert response.json() == expected
    assert response.headers["x-raft-index"] == "2"
    assert response.headers["cache-control"] == "no-store"
    (entry,) = worker.call(lambda: worker.raft.log.entries(2, 2))
    assert (entry.kind, entry.key) == (KIND_RETENTION, b"")
    # The whole policy is replaced, and what is shown can be sent back.
    assert put(worker, "/retention", {"MaxMessages": 5}) == {**DEFAULT, "MaxMessages": 5}
    assert put(worker, "/retention", shown(worker, "/retention")) == {**DEFAULT, "MaxMessages": 5}
    response = worker.client.delete("/retention")
    assert (response.status_code, response.content, response.headers["x-raft-index"]) == (204, b"", "5")
    assert shown(worker, "/retention") == DEFAULT


def test_a_rooms_policy_is_its_own_and_what_is_in_force_is_told(worker: Worker) -> None:
    put(worker, "/retention", {"MaxAge": "30d", "MaxMessages": 1_000_000})
    own = {"MaxAge": None, "MaxMessages": 10, "MaxBytes": None}
    expected = {**own, "Effective": {**own, "MaxAge": 2_592_000}}
    assert put(worker, "/rooms/gr%C3%B6%C3%9Fe/retention", {"MaxMessages": 10}) == expected
    assert shown(worker, "/rooms/größe/retention") == expected
    # What is shown can be sent back, and pins nothing that was not its own.
    assert put(worker, "/rooms/größe/retention", expected) == expected
    assert put(worker, "/rooms/größe/retention", {"MaxAge": 1.5})["Effective"]["MaxAge"] == "1500ms"
    assert shown(worker, "/rooms/other/retention") == {**NO_LIMITS, "Effective": {**NO_LIMITS, "MaxAge": 2_592_000}}
    assert worker.client.delete("/rooms/größe/retention").status_code == 204
    assert shown(worker, "/rooms/größe/retention")["MaxMessages"] is None
    assert shown(worker, "/retention")["MaxMessages"] == 1_000_000


def test_a_policy_is_in_force_once_it_is_committed(worker: Worker) -> None:
    worker.raft.commit_at_once = False
    answer = later(lambda: worker.client.put("/retention", json={"MaxMessages": 5}))
    wait_for("appended", lambda: worker.raft.log.last_index == 2)
    assert not answer.done()
    assert worker.client.get("/retention", params={"consistency": "local"}).json() == DEFAULT
    worker.call(worker.raft.commit)
    assert answer.result(5).json()["MaxMessages"] == 5


def test_no_policy_is_removed_without_writing_anything_down(worker: Worker) -> None:
    for path in ("/retention", "/rooms/a/retention"):
        assert worker.client.delete(path).status_code == 204
    assert (worker.raft.log.last_index, worker.raft.reads) == (1, 2)


def test_it_goes_with_its_room(worker: Worker) -> None:
    put(worker, "/rooms/a/retention", {"MaxMessages": 5})
    assert worker.client.delete("/rooms/a").status_code == 204
    assert shown(worker, "/rooms/a/retention") == {**NO_LIMITS, "Effective": NO_LIMITS}


@pytest.mark.parametrize("path", ["/retention", "/rooms/a/retention"])
@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b"[]", 422, "body_wrong_type"),
        (b"null", 422, "body_wrong_type"),
        (b'{"MaxAge":"soon"}', 422, "retention_invalid"),
        (b'{"MaxAge":true}', 422, "retention_wrong_type"),
        (b'{"MaxAge":-1}', 422, "retention_out_of_range"),
        (b'{"MaxAge":1e300}', 422, "retention_out_of_range"),
        (b'{"MaxMessages":0}', 422, "retention_out_of_range"),
        (b'{"MaxMessages":"5"}', 422, "retention_wrong_type"),
        (b'{"MaxBytes":"5 parsecs"}', 422, "retention_invalid"),
        (b'{"MaxBytes":9999999999999999999}', 422, "retention_out_of_range"),
        (b'{"MaxMesages":5}', 422, "retention_unknown_member"),
        (b"x" * 200_000, 413, "body_too_large"),
    ],
)
@pytest.mark.parametrize("dry_run", ["", "?dry_run=true"])
def test_bad_policies_are_told_what_is_wrong_and_change_nothing(
    shared: Worker, path: str, body: bytes, status: int, code: str, dry_run: str
) -> None:
    before = shared.raft.log.last_index
    problem(shared.client.put(path + dry_run, content=body), status, code, retryable=False)
    assert shared.raft.log.last_index == before


def test_what_only_the_cluster_has_is_refused_for_a_room(shared: Worker) -> None:
    for member in ("MaxRooms", "EmptyRoomAge"):
        response = shared.client.put("/rooms/a/retention", json={member: 5})
        problem(response, 422, "retention_unknown_member", retryable=False)


def test_other_queries_are_refused(shared: Worker) -> None:
    for method, query in (("PUT", "dry_run=1"), ("PUT", "dry_run=true&dry_run=true"), ("GET", "consistency=x")):
        response = shared.client.request(method, f"/retention?{query}", content=b"{}")
        problem(response, 400, "invalid_query", retryable=False)


@pytest.mark.parametrize("method", ["PUT", "DELETE"])
def test_changes_end_as_posts_do(worker: Worker, method: str) -> None:
    put(worker, "/retention", {"MaxMessages": 5})
    for refusal, status, code, retryable in (
        (Refusal.NO_LEADER, 503, "no_leader", True),
        (Refusal.DISK_FULL, 507, "disk_full", True),
        (Refusal.LOST, 503, "outcome_unknown", False),
    ):
        worker.raft.refuse = refusal
        problem(worker.client.request(method, "/retention", content=b"{}"), status, code, retryable=retryable)
    assert shown(worker, "/retention")["MaxMessages"] == 5


def test_without_a_leader_only_a_local_read_is_answered(worker: Worker) -> None:
    worker.raft.leaderless_reads = True
    problem(worker.client.get("/retention"), 503, "no_leader", retryable=True)
    problem(worker.client.put("/retention?dry_run=true", json={}), 503, "no_leader", retryable=True)
    assert worker.client.get("/retention", params={"consistency": "local"}).json() == DEFAULT
    assert worker.client.get("/retention", params={"consistency": "local", "min_index": "1"}).status_code == 200


# Dry runs


@pytest.fixture
def kept(worker: Worker) -> Iterator[tuple[Worker, Keeper]]:
    keeper = Keeper(worker.raft)
    yield worker, keeper
    worker.call(keeper.close)


def fill(worker: Worker) -> None:
    """Ten messages in each of three rooms: of three days ago, of two and of one, by the log's time."""

    def append() -> None:
        for age, room in ((3, "old"), (2, "middle"), (1, "new")):
            for n in range(10):
                worker.raft.append(record(room, str(n)), TIME_MS - age * DAY_MS + DAY_MS)
        worker.raft.commit()

    worker.call(append)


def sizes(worker: Worker) -> dict[str, tuple[int, int]]:
    rooms = worker.client.get("/rooms", params={"details": "true"}).json()
    return {room["Name"]: (room["Messages"], room["Bytes"]) for room in rooms}


@pytest.mark.parametrize(
    ("path", "policy", "removed"),
    [
        ("/retention", {}, {}),
        ("/retention", {"MaxMessages": 30}, {}),
        ("/retention", {"MaxMessages": 25}, {"old": 5}),
        ("/retention", {"MaxMessages": 15}, {"old": 10, "middle": 5}),
        ("/rooms/middle/retention", {"MaxMessages": 3}, {"middle": 7}),
        ("/rooms/nowhere/retention", {"MaxMessages": 3}, {}),
    ],
)
def test_a_dry_run_tells_what_would_go_and_then_that_goes(
    kept: tuple[Worker, Keeper], path: str, policy: dict[str, Any], removed: dict[str, int]
) -> None:
    worker, keeper = kept
    fill(worker)
    before, index = sizes(worker), worker.raft.log.last_index
    told = put(worker, path, policy, dry_run="true")
    assert worker.raft.log.last_index == index
    assert shown(worker, path)["MaxMessages"] is None
    assert {room["Name"]: room["Messages"] for room in told["Rooms"]} == removed
    assert (told["Messages"], told["Truncated"]) == (sum(removed.values()), False)
    assert not any(room["Removed"] for room in told["Rooms"])
    put(worker, path, policy)
    worker.call(lambda: keeper.retain_by_policies(TIME_MS))
    after = sizes(worker)
    gone = {name: (before[name][0] - after[name][0], before[name][1] - after[name][1]) for name in before}
    assert {name: of for name, of in gone.items() if of != (0, 0)} == {
        room["Name"]: (room["Messages"], room["Bytes"]) for room in told["Rooms"]
    }
    assert told["Bytes"] == sum(room["Bytes"] for room in told["Rooms"])


def test_a_dry_run_goes_by_the_time_of_the_log_and_of_the_day(kept: tuple[Worker, Keeper]) -> None:
    """What was posted in 2023 is more than a day old by now, whenever that is."""
    worker, _ = kept
    fill(worker)
    told = put(worker, "/retention", {"MaxAge": "1d"}, dry_run="true")
    assert told["Messages"] == 30
    assert {room["Name"] for room in told["Rooms"]} == {"old", "middle", "new"}


def test_a_dry_run_tells_which_rooms_would_vanish(kept: tuple[Worker, Keeper]) -> None:
    worker, _ = kept
    fill(worker)
    told = put(worker, "/retention", {"MaxRooms": 1}, dry_run="true")
    assert [(room["Name"], room["Removed"]) for room in told["Rooms"]] == [("middle", True), ("old", True)]
    assert told["Messages"] == 20
    assert worker.client.get("/rooms").json() == ["middle", "new", "old"]


# While it goes on


def test_pages_lists_and_figures_after_a_trim(kept: tuple[Worker, Keeper]) -> None:
    worker, keeper = kept
    fill(worker)
    whole = worker.client.get("/rooms/middle", params={"limit": 1000}).json()
    worker.call(lambda: keeper.retain(TIME_MS, rooms={b"middle": Policy(max_messages=3)}))
    left = whole[7:]
    response = worker.client.get("/rooms/middle")
    assert (response.json(), links(response)) == (left, {})
    response = worker.client.get("/rooms/middle", params={"limit": 2})
    assert (response.json(), set(links(response))) == (left[1:], {"prev"})
    response = worker.client.get(links(response)["prev"])
    assert (response.json(), set(links(response))) == (left[:1], {"next"})
    # A cursor that was removed is as good as any.
    response = worker.client.get("/rooms/middle", params={"after": whole[2]["ID"], "limit": 2})
    assert (response.json(), set(links(response))) == (left[:2], {"next"})
    assert worker.client.get("/rooms/middle", params={"before": whole[5]["ID"]}).json() == []
    assert worker.client.get("/rooms/middle", params={"around": whole[5]["ID"], "limit": 2}).json() == left[:2]
    rooms = {room["Name"]: room for room in worker.client.get("/rooms", params={"details": "true"}).json()}
    assert (rooms["middle"]["Messages"], rooms["middle"]["FirstID"]) == (3, left[0]["ID"])
    assert rooms["middle"]["LastID"] == left[-1]["ID"]
    found = samples(worker)
    assert (found["raftchat_rooms"], found["raftchat_messages"]) == (3, 23)
    assert found["raftchat_messages_bytes"] == sum(room["Bytes"] for room in rooms.values())


def test_a_room_without_messages_is_listed_until_it_vanishes(kept: tuple[Worker, Keeper]) -> None:
    worker, keeper = kept
    fill(worker)
    last = worker.client.get("/rooms/old").json()[-1]
    worker.call(lambda: keeper.retain(TIME_MS, Policy(max_messages=20)))
    assert worker.texts("old") == []
    (room,) = worker.client.get("/rooms", params={"details": "true", "prefix": "old"}).json()
    assert room == {
        "Name": "old",
        "Messages": 0,
        "Bytes": 0,
        "FirstID": 0,
        "LastID": last["ID"],
        "LastPostedAt": last["PostedAt"],
    }
    assert worker.client.get("/old").status_code == 307
    worker.call(lambda: keeper.retain(TIME_MS + 2 * 3_600_000, Policy(max_messages=20)))
    assert worker.client.get("/rooms").json() == ["middle", "new"]
    worker.post("old", "again")
    assert worker.texts("old") == ["again"]


def test_a_dry_run_over_a_record_that_is_rotten_is_refused_as_a_page_is(
    worker: Worker, caplog: pytest.LogCaptureFixture
) -> None:
    """It was a 500 with a traceback."""
    for n in range(3):
        worker.post("general", f"message {n}")
    (segment,) = worker.call(worker.raft.log.segments)
    with Path(segment.path).open("r+b") as file:
        file.seek(file.read(1 << 16).index(b"message 1"))
        file.write(b"massage")
    response = worker.client.put("/retention", json={"MaxMessages": 1}, params={"dry_run": "true"})
    problem(response, 503, "unreadable", retryable=False)
    assert "cannot be found out" in caplog.text
    assert segment.path in caplog.text
    assert segment.path not in response.text

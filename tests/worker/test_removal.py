"""`DELETE /rooms/{room}`, and who may ask for what administrators do."""

from __future__ import annotations

import pytest

from raftchat import _log
from raftchat.chat.commands import KIND_REMOVE_ROOM
from raftchat.ipc.frames import Refusal
from raftchat.worker.change import require_loopback
from raftchat.worker.problems import Problem
from tests.worker.support import Worker, wait_for
from tests.worker.test_posts import later, problem
from tests.worker.test_socket import messages, watching


def test_a_room_is_gone_once_its_removal_is_committed(worker: Worker) -> None:
    for text in "abc":
        worker.post("general", text)
    worker.post("other", "stays")
    worker.raft.commit_at_once = False
    answer = later(lambda: worker.client.delete("/rooms/general"))
    wait_for("appended", lambda: worker.raft.log.last_index == 6)
    assert not answer.done()
    assert worker.texts("general", consistency="local") == ["a", "b", "c"]
    worker.call(worker.raft.commit)
    response = answer.result(5)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["x-raft-index"] == "6"
    assert response.headers["access-control-allow-origin"] == "*"
    (entry,) = worker.call(lambda: worker.raft.log.entries(6, 6))
    assert (entry.kind, entry.key, entry.value) == (KIND_REMOVE_ROOM, b"general", b"")
    assert worker.texts("general") == []
    assert worker.client.get("/rooms").json() == ["other"]
    problem(worker.client.get("/general"), 404, "room_not_found", retryable=False)
    for cursor in ({"before": 4}, {"after": 2}, {"around": 3}):
        page = worker.client.get("/rooms/general", params=cursor)
        assert (page.json(), "link" in page.headers) == ([], False)


def test_it_is_gone_already_or_never_was(worker: Worker) -> None:
    worker.post("general", "hello")
    for path in ("/rooms/general", "/rooms/general", "/rooms/never-was"):
        assert worker.client.delete(path).status_code == 204
    # What is not there is confirmed, not written down.
    assert worker.raft.log.last_index == 3
    assert worker.raft.reads >= 2


def test_that_it_is_unknown_here_must_be_confirmed(worker: Worker) -> None:
    worker.raft.leaderless_reads = True
    problem(worker.client.delete("/rooms/elsewhere"), 503, "no_leader", retryable=True)


def test_a_message_brings_it_back_with_nothing_of_before(worker: Worker) -> None:
    worker.post("general", "before")
    worker.client.delete("/rooms/general")
    posted = worker.post("general", "after").json()
    response = worker.client.get("/rooms/general")
    assert [message["Message"] for message in response.json()] == ["after"]
    assert "link" not in response.headers
    (room,) = worker.client.get("/rooms", params={"details": "true"}).json()
    assert (room["Messages"], room["FirstID"], room["LastID"]) == (1, posted["ID"], posted["ID"])


def test_its_sockets_stay_open_and_get_what_comes_later(worker: Worker) -> None:
    worker.post("general", "before")
    with watching(worker, "?room=general") as stream:
        worker.client.delete("/rooms/general")
        worker.post("general", "after")
        assert messages(stream, 1) == [("general", "after")]


@pytest.mark.parametrize(
    ("refusal", "status", "code", "retryable"),
    [
        (Refusal.NO_LEADER, 503, "no_leader", True),
        (Refusal.OVERLOADED, 503, "overloaded", True),
        (Refusal.SHUTTING_DOWN, 503, "shutting_down", True),
        (Refusal.DISK_FULL, 507, "disk_full", True),
        (Refusal.LOST, 503, "outcome_unknown", False),
    ],
)
def test_it_ends_as_posts_do(worker: Worker, refusal: Refusal, status: int, code: str, retryable: bool) -> None:
    worker.post("general", "hello")
    worker.raft.refuse = refusal
    response = worker.client.delete("/rooms/general")
    problem(response, status, code, retryable=retryable)
    assert "posted" not in response.json()["detail"]
    assert worker.texts("general") == ["hello"]


def test_what_a_new_leader_overwrote_was_not_done(worker: Worker) -> None:
    worker.post("general", "hello")
    worker.raft.commit_at_once = False
    answer = later(lambda: worker.client.delete("/rooms/general"))
    wait_for("appended", lambda: worker.raft.log.last_index == 3)
    worker.call(lambda: worker.raft.overwrite(2, _log.pack(_log.KIND_NOOP, b"", b"")))
    problem(answer.result(5), 503, "not_committed", retryable=True)
    assert worker.texts("general") == ["hello"]


def scope(client: str | None, *headers: tuple[bytes, bytes]) -> dict[str, object]:
    return {"client": client and (client, 50_000), "headers": list(headers)}


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
def test_who_is_on_this_machine_may(address: str) -> None:
    require_loopback(scope(address))
    for origin in (b"http://localhost:12380", b"http://127.0.0.1", b"http://[::1]:9121", b"https://LOCALHOST"):
        require_loopback(scope(address, (b"origin", origin)))


@pytest.mark.parametrize(
    "given",
    [
        scope("10.0.0.1"),
        scope("::ffff:10.0.0.1"),
        scope("fe80::1"),
        scope("localhost"),
        scope(None),
        scope("127.0.0.1", (b"x-forwarded-for", b"10.0.0.1")),
        scope("127.0.0.1", (b"forwarded", b"for=10.0.0.1")),
        scope("127.0.0.1", (b"x-real-ip", b"127.0.0.1")),
        scope("127.0.0.1", (b"origin", b"http://rebound.example:12380")),
        scope("127.0.0.1", (b"origin", b"http://127.0.0.1.example")),
        scope("127.0.0.1", (b"origin", b"null")),
        scope("127.0.0.1", (b"origin", b"http://[::1")),
    ],
)
def test_others_may_not(given: dict[str, object]) -> None:
    with pytest.raises(Problem) as raised:
        require_loopback(given)
    assert (raised.value.code, raised.value.status) == ("loopback_only", 403)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/rooms/general"),
        *((method, "/retention") for method in ("GET", "HEAD", "PUT", "DELETE")),
        *((method, "/rooms/a/retention") for method in ("GET", "HEAD", "PUT", "DELETE")),
    ],
)
def test_every_administrative_route_asks(worker: Worker, method: str, path: str) -> None:
    worker.post("general", "hello")
    response = worker.client.request(method, path, headers={"X-Forwarded-For": "10.0.0.1"}, content=b"{}")
    if method == "HEAD":
        assert response.status_code == 403
    else:
        problem(response, 403, "loopback_only", retryable=False)
    assert worker.raft.log.last_index == 2

"""Pages, lists of rooms and short ways: what is on them, how one walks them, and how fresh they are."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest

from raftchat.config import Config
from tests.worker.support import FakeRaft, Worker, record, running, wait_for
from tests.worker.test_posts import later, problem


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    """1,500 messages in `long`, between those of `other`; 30 rooms more."""

    def before(raft: FakeRaft) -> None:
        for n in range(1500):
            raft.append(record("long", str(n)) + record("other", "x"))
        for n in range(30):
            raft.append(record(f"room-{n:02}", "x"))
        raft.append(record("größe & more", "x"))

    with running(tmp_path_factory.mktemp("history"), prepare=before) as worker:
        yield worker


def links(response: httpx2.Response) -> dict[str, str]:
    return {rel: url for url, rel in re.findall(r'<([^>]*)>; rel="(\w+)"', response.headers.get("link", ""))}


def texts(response: httpx2.Response) -> list[int]:
    assert response.status_code == 200, response.text
    return [int(message["Message"]) for message in response.json()]


def test_the_newest_hundred_oldest_first(history: Worker) -> None:
    response = history.client.get("/rooms/long")
    assert texts(response) == list(range(1400, 1500))
    assert set(links(response)) == {"prev"}
    assert set(response.json()[0]) == {"ID", "PostedAt", "User", "Message"}
    assert response.headers["x-raft-index"] == str(history.raft.log.last_index)


@pytest.mark.parametrize("limit", [1, 7, 50, 100, 101, 350, 1000])
def test_walking_back_and_forth_finds_each_message_once(history: Worker, limit: int) -> None:
    response = history.client.get("/rooms/long", params={"limit": limit})
    back = texts(response)
    pages = 1
    while (url := links(response).get("prev")) and pages < 20:
        response = history.client.get(url)
        assert len(response.json()) <= limit
        back = texts(response) + back
        pages += 1
    assert back == list(range(1500 - len(back), 1500))
    assert len(back) == min(1500, 20 * limit)
    response = history.client.get("/rooms/long", params={"limit": limit, "after": 0})
    forth = texts(response)
    for _ in range(10):
        if (url := links(response).get("next")) is None:
            break
        response = history.client.get(url)
        forth += texts(response)
    assert forth == list(range(len(forth)))


def test_more_than_the_largest_page_is_the_largest_page(history: Worker) -> None:
    assert len(history.client.get("/rooms/long", params={"limit": 5000}).json()) == 1000


def test_around_a_message(history: Worker) -> None:
    id_of_700 = history.client.get("/rooms/long", params={"limit": 1000, "after": 0}).json()[700]["ID"]
    for cursor in (id_of_700, id_of_700 - 1):  # the other one is of another room
        response = history.client.get("/rooms/long", params={"around": cursor, "limit": 5})
        assert texts(response) == [698, 699, 700, 701, 702]
        assert set(links(response)) == {"prev", "next"}


def test_a_page_that_is_too_large_ends_early_and_says_so(tmp_path: Path) -> None:
    def before(raft: FakeRaft) -> None:
        for n in range(500):
            raft.append(record("big", f"{n}" + "x" * 1000))

    with running(tmp_path, config=Config(page_size_max_bytes=150_000), prepare=before) as worker:

        def numbers(response: httpx2.Response) -> list[int]:
            return [int(message["Message"].rstrip("x")) for message in response.json()]

        newest = worker.client.get("/rooms/big", params={"limit": 1000})
        assert numbers(newest) == list(range(300, 500))
        assert numbers(worker.client.get(links(newest)["prev"])) == list(range(100, 300))
        oldest = worker.client.get("/rooms/big", params={"limit": 1000, "after": 0})
        assert numbers(oldest) == list(range(200))
        assert set(links(oldest)) == {"next"}
        assert numbers(worker.client.get(links(oldest)["next"])) == list(range(200, 400))


def test_an_unknown_room_is_empty(history: Worker) -> None:
    response = history.client.get("/rooms/nothing-here")
    assert (response.status_code, response.json(), links(response)) == (200, [], {})


def test_head_is_get_without_a_body(history: Worker) -> None:
    paths = "/rooms/long /rooms / /raft /retention /rooms/long/retention /livez /readyz /metrics /openapi.json /long"
    for path in paths.split():
        get, head = history.client.get(path), history.client.head(path)
        assert (head.status_code, head.content) == (get.status_code, b"")
        if path != "/metrics":
            assert head.headers["content-length"] == get.headers["content-length"]
        assert set(head.headers) == set(get.headers)


@pytest.mark.parametrize(
    "query",
    [
        *("limit=ten", "limit=0", "limit=-1", "limit=%", "before=x", "after=-1", "around=1e3", "before=" + "9" * 40),
        *("before=1&after=2", "consistency=x", "consistency=local&consistency=local", "min_index=x", "x=%ff"),
    ],
)
def test_queries_that_are_refused(history: Worker, query: str) -> None:
    answer = history.exchange(b"GET /rooms/long?%b HTTP/1.1\r\nHost: x\r\n\r\n" % query.encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["code"] == "invalid_query"
    if not query.startswith(("limit=", "before", "after", "around")):
        answer = history.exchange(b"GET /rooms?%b HTTP/1.1\r\nHost: x\r\n\r\n" % query.encode())
        assert answer.startswith(b"HTTP/1.1 400 ")


# Rooms


def test_rooms_in_order_of_name(history: Worker) -> None:
    names = history.client.get("/rooms").json()
    assert names == sorted(["long", "other", "größe & more", *(f"room-{n:02}" for n in range(30))])


@pytest.mark.parametrize("details", [False, True])
def test_walking_the_rooms_finds_each_once(history: Worker, details: bool) -> None:
    params = {"limit": "7", "prefix": "room-", **({"details": "true"} if details else {})}
    response = history.client.get("/rooms", params=params)
    found = response.json()
    while url := links(response).get("next"):
        response = history.client.get(url)
        found += response.json()
    assert [room["Name"] if details else room for room in found] == [f"room-{n:02}" for n in range(30)]


def test_names_with_all_kinds_of_characters_survive_a_link(history: Worker) -> None:
    response = history.client.get("/rooms", params={"limit": 1})
    assert response.json() == ["größe & more"]
    assert history.client.get(links(response)["next"]).json() == ["long"]


def test_details_of_a_room(worker: Worker) -> None:
    first, last = worker.post("r", "1").json(), worker.post("r", "2").json()
    (room,) = worker.client.get("/rooms", params={"details": "true"}).json()
    assert room.pop("Bytes") > 2 * 48
    assert room == {
        "Name": "r",
        "Messages": 2,
        "FirstID": first["ID"],
        "LastID": last["ID"],
        "LastPostedAt": last["PostedAt"],
    }


def test_the_short_way_to_a_room(history: Worker) -> None:
    response = history.client.get("/long?limit=1")
    assert (response.status_code, response.headers["location"]) == (307, "rooms/long?limit=1")
    assert history.client.get("/long?limit=1", follow_redirects=True).json()[0]["Message"] == "1499"
    problem(history.client.get("/nothing"), 404, "room_not_found", retryable=False)
    assert history.client.get("/gr%C3%B6%C3%9Fe%20&%20more").headers["location"] == "rooms/gr%C3%B6%C3%9Fe%20&%20more"


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/rooms/x", "DELETE, GET, HEAD, POST"),
        ("OPTIONS", "/rooms/x", "DELETE, GET, HEAD, POST"),
        ("POST", "/rooms/x/retention", "DELETE, GET, HEAD, PUT"),
        ("OPTIONS", "/retention", "DELETE, GET, HEAD, PUT"),
        ("DELETE", "/rooms", "GET, HEAD"),
        ("POST", "/rooms", "GET, HEAD"),
        ("POST", "/general", "GET, HEAD"),
        ("POST", "/", "GET, HEAD"),
        ("DELETE", "/raft", "GET, HEAD"),
        ("POST", "/ws", "GET, HEAD"),
        ("PUT", "/web/main.js", "GET, HEAD"),
    ],
)
def test_wrong_methods_are_405_and_told_the_right_ones(history: Worker, method: str, path: str, allow: str) -> None:
    response = history.client.request(method, path)
    problem(response, 405, "method_not_allowed", retryable=False)
    assert response.headers["allow"] == allow


@pytest.mark.parametrize(
    "path",
    [
        *("/rooms/a/retention/b", "/rooms//retention", "/retention/", "/a/b", "/rooms/a/b", "/raft/1/2", "/raft/x"),
        *("/raft/%31", "/web/", "/web/nothing", "/web/../index.html"),
    ],
)
def test_unknown_paths_are_404(history: Worker, path: str) -> None:
    answer = history.exchange(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"application/problem+json" in answer


# Freshness


def test_reads_that_come_together_share_rounds(worker: Worker) -> None:
    worker.post("general", "hello")
    reads = worker.raft.reads
    with ThreadPoolExecutor(16) as pool:
        pages = list(pool.map(lambda _: worker.texts("general"), range(160)))
    assert pages == [["hello"]] * 160
    assert worker.raft.reads - reads < 160


def test_a_linearizable_read_waits_for_what_the_leader_has_committed(worker: Worker) -> None:
    """The round's index may be ahead of what this node knows to be committed."""
    raft = worker.raft

    def append_quietly() -> None:
        raft.append(record("general", "committed elsewhere"))
        raft.committed = raft.log.last_index

    worker.call(append_quietly)
    answer = later(lambda: worker.client.get("/rooms/general"))
    listed = later(lambda: worker.client.get("/rooms"))
    wait_for("asked", lambda: raft.reads >= 1)
    time.sleep(0.05)
    assert not answer.done()
    assert worker.texts("general", consistency="local") == []
    worker.call(raft.commit)
    assert answer.result(5).json()[0]["Message"] == "committed elsewhere"
    assert listed.result(5).json() == ["general"]


@pytest.mark.parametrize("path", ["/rooms/general", "/rooms", "/nothing"])
def test_without_a_leader_reads_are_503_and_local_ones_are_answered(worker: Worker, path: str) -> None:
    worker.post("general", "hello")
    worker.raft.leaderless_reads = True
    problem(worker.client.get(path), 503, "no_leader", retryable=True)
    assert worker.client.get(path, params={"consistency": "local"}).status_code in (200, 404)
    assert worker.texts("general", consistency="local") == ["hello"]


def test_a_round_that_is_not_answered_ends_as_no_leader(tmp_path: Path) -> None:
    with running(tmp_path, config=Config(request_timeout_ms=300)) as worker:
        worker.raft.answer_reads = False
        problem(worker.client.get("/rooms/general"), 503, "no_leader", retryable=True)
        worker.raft.answer_reads = True
        assert worker.texts("general") == []


@pytest.mark.parametrize("path", ["/rooms/general", "/rooms"])
@pytest.mark.parametrize("consistency", ["local", "linearizable"])
def test_min_index_waits_until_it_is_applied(worker: Worker, path: str, consistency: str) -> None:
    params = {"min_index": 2, "consistency": consistency}
    answer = later(lambda: worker.client.get(path, params=params))
    time.sleep(0.05)
    assert not answer.done()
    worker.call(lambda: worker.raft.post("general", "hello"))
    response = answer.result(5)
    assert len(response.json()) == 1
    assert int(response.headers["x-raft-index"]) >= 2


def test_a_min_index_that_never_comes_is_told_and_forgotten(tmp_path: Path) -> None:
    with running(tmp_path, config=Config(request_timeout_ms=300)) as worker:
        for path in ("/rooms/general", "/rooms"):
            response = worker.client.get(path, params={"min_index": 2**62, "consistency": "local"})
            problem(response, 503, "not_applied", retryable=True)
        assert worker.call(lambda: worker.server._replica._waiting) == []


def test_while_it_replays_a_worker_answers_nothing_empty_or_old(tmp_path: Path) -> None:
    """Row 36 of what must be survived."""

    def before(raft: FakeRaft) -> None:
        for n in range(100):
            raft.append(record("general", str(n)))
        hello = raft.hello
        raft.hello = lambda committed=None: None  # type: ignore[method-assign]
        raft.say = hello  # type: ignore[attr-defined]

    with Worker(tmp_path, config=Config(request_timeout_ms=300), prepare=before) as worker:
        assert worker.client.get("/livez").status_code == 200
        problem(worker.client.get("/readyz"), 503, "not_ready", retryable=True)
        problem(worker.client.get("/rooms/general", params={"consistency": "local"}), 503, "not_ready", retryable=True)
        problem(worker.client.get("/rooms", params={"consistency": "local"}), 503, "not_ready", retryable=True)
        assert worker.raft.serving == 0
        answer = later(lambda: worker.client.get("/rooms/general", params={"consistency": "local"}))
        worker.call(worker.raft.say)  # type: ignore[attr-defined]
        assert len(answer.result(5).json()) == 100
        worker.wait_serving()
        assert worker.client.get("/readyz").status_code == 200


def test_an_entry_of_an_unknown_kind_ends_the_worker_and_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 33: to skip it would be to disagree with newer nodes for ever."""
    from raftchat import _log
    from raftchat.chat.state import UnknownKind

    with Worker(tmp_path) as worker:
        worker.wait_serving()
        worker.post("general", "hello")

        def append() -> None:
            worker.raft.append(_log.pack(99, b"", b"from the future"))
            worker.raft.commit()

        worker.call(append)
        worker._thread.join(10)
        assert isinstance(worker.error, UnknownKind)
        assert (worker.error.kind, worker.error.index) == (99, 3)
    assert "entry 3 is of kind 99" in caplog.text


def test_a_corrupt_entry_is_never_served(tmp_path: Path) -> None:
    """Neither in a page, where it is 503 and told in the log, nor by a worker that comes later, which ends."""
    from raftchat import _log

    with Worker(tmp_path) as worker:
        worker.wait_serving()
        for n in range(3):
            worker.post("general", f"message {n}")
        (segment,) = worker.call(worker.raft.log.segments)
        with Path(segment.path).open("r+b") as file:
            offset = file.read(1 << 16).index(b"message 1")
            file.seek(offset)
            file.write(b"massage")
        problem(worker.client.get("/rooms/general"), 503, "unreadable", retryable=False)
        problem(worker.client.request("GET", "/rooms/general", content=b""), 503, "unreadable", retryable=False)
        assert worker.client.get("/rooms").json() == ["general"]
        worker.call(lambda: worker.raft.append(record("general", "after it")))
        worker.call(worker.raft.commit)
        assert worker.client.get("/rooms/general", params={"limit": 1}).json()[0]["Message"] == "after it"
        reader = _log.LogReader(str(worker.raft.directory))
        reader.add_segment(segment.sequence, segment.base_index)
        with pytest.raises(_log.CorruptLog):
            reader.scan(1, 4)

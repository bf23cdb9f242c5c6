"""Posts: answered once they are committed, with the truth about every other end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import httpx2
import orjson
import pytest

from raftchat import _log
from raftchat.config import Config
from raftchat.ipc import frames
from raftchat.ipc.frames import Accepted, Refusal
from tests.worker.support import TIME_MS, FakeRaft, Worker, record, running, wait_for


def later(function: Callable[[], httpx2.Response]) -> Future[httpx2.Response]:
    done: Future[httpx2.Response] = Future()

    def run() -> None:
        try:
            done.set_result(function())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return done


def in_chunks(worker: Worker, room: str, text: str) -> httpx2.Response:
    """The same post, the long way round: through ASGI."""
    body = orjson.dumps({"Message": text, "User": "u"})
    return worker.client.post(f"/rooms/{room}", content=iter([body]))


@pytest.mark.parametrize("way", [Worker.post, in_chunks])
def test_a_post_is_201_once_it_is_committed(worker: Worker, way: Callable[..., httpx2.Response]) -> None:
    worker.raft.commit_at_once = False
    answer = later(lambda: way(worker, "general", "hello"))
    wait_for("appended", lambda: worker.raft.log.last_index == 2)
    assert not answer.done()
    assert worker.texts("general", consistency="local") == []
    worker.call(worker.raft.commit)
    response = answer.result(5)
    assert response.status_code == 201
    assert response.json() == {"ID": 2, "PostedAt": "2023-11-14T22:13:20.123Z"}
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-raft-index"] == "2"
    assert response.headers["access-control-allow-origin"] == "*"
    assert worker.client.get(response.headers["location"]).json() == [
        {"ID": 2, "PostedAt": "2023-11-14T22:13:20.123Z", "User": "u", "Message": "hello"}
    ]


def test_both_ways_answer_alike(worker: Worker) -> None:
    short, long = worker.post("general", "1"), in_chunks(worker, "general", "2")
    drop = {"date", "location", "x-raft-index"}
    assert {k: v for k, v in short.headers.items() if k not in drop} == {
        k: v for k, v in long.headers.items() if k not in drop
    }
    refused = worker.post("general", ""), in_chunks(worker, "general", "")
    assert refused[0].content == refused[1].content
    assert set(refused[0].headers) == set(refused[1].headers)


def test_what_curl_sends_is_parsed_whatever_its_content_type(worker: Worker) -> None:
    response = worker.client.post(
        "/rooms/general",
        content=b'{"Message": "hello", "User": "username"}',
        headers={"Content-Type": "application/x-www-form-urlencoded"},
    )
    assert response.status_code == 201


def test_posts_of_one_turn_leave_in_one_frame(worker: Worker) -> None:
    with ThreadPoolExecutor(32) as pool:
        responses = list(pool.map(lambda n: worker.post("general", str(n)), range(400)))
    assert {response.status_code for response in responses} == {201}
    assert len({response.json()["ID"] for response in responses}) == 400
    assert sum(worker.raft.proposals) == 400
    assert len(worker.raft.proposals) < 400
    by_id = {response.json()["ID"]: str(n) for n, response in enumerate(responses)}
    assert worker.texts("general", limit=1000) == [by_id[number] for number in sorted(by_id)]


def test_more_than_a_frame_holds_is_split(tmp_path: Path) -> None:
    with running(tmp_path, config=Config(proposal_batch_max_bytes=10_000)) as worker:

        def propose() -> None:
            for n in range(40):
                worker.server._link.propose(record("general", f"{n} " + "x" * 900), lambda outcome: None)

        worker.call(propose)
        wait_for("all there", lambda: sum(worker.raft.proposals) == 40)
        assert len(worker.raft.proposals) == 4
        assert [text.split()[0] for text in worker.texts("general")] == [str(n) for n in range(40)]


def problem(response: httpx2.Response, status: int, code: str, *, retryable: bool) -> None:
    assert response.headers["content-type"] == "application/problem+json"
    value = response.json()
    assert (response.status_code, value["status"], value["code"], value["retryable"]) == (
        status,
        status,
        code,
        retryable,
    )
    assert value["detail"]
    assert ("retry-after" in response.headers) == (status in (503, 507) and retryable)


@pytest.mark.parametrize("way", [Worker.post, in_chunks])
@pytest.mark.parametrize(
    ("reason", "status", "code", "retryable"),
    [
        (Refusal.NO_LEADER, 503, "no_leader", True),
        (Refusal.OVERLOADED, 503, "overloaded", True),
        (Refusal.DISK_FULL, 507, "disk_full", True),
        (Refusal.LOST, 503, "outcome_unknown", False),
        (Refusal.SHUTTING_DOWN, 503, "shutting_down", True),
    ],
)
def test_refusals(
    shared: Worker,
    way: Callable[..., httpx2.Response],
    reason: Refusal,
    status: int,
    code: str,
    retryable: bool,
) -> None:
    shared.raft.refuse = reason
    try:
        problem(way(shared, "refused", "hello"), status, code, retryable=retryable)
    finally:
        shared.raft.refuse = None
    assert shared.texts("refused") == []


@pytest.mark.parametrize("way", [Worker.post, in_chunks])
def test_a_post_that_a_new_leader_overwrote_is_not_committed(
    worker: Worker, way: Callable[..., httpx2.Response]
) -> None:
    worker.raft.commit_at_once = False
    answer = later(lambda: way(worker, "general", "lost"))
    wait_for("appended", lambda: worker.raft.log.last_index == 2)
    worker.call(lambda: worker.raft.overwrite(1, record("general", "of the new leader")))
    problem(answer.result(5), 503, "not_committed", retryable=True)
    assert worker.texts("general") == ["of the new leader"]


@pytest.mark.parametrize("overwritten", [False, True])
def test_an_answer_that_comes_after_the_commit_is_enough(worker: Worker, overwritten: bool) -> None:
    """A former leader's answer to a forward may be slower than its successor's commit index, and nothing may follow."""
    worker.raft.answer_proposals = False
    answer = later(lambda: worker.post("general", "slow answer"))
    wait_for("proposed", lambda: worker.raft.proposals)

    def commit() -> int:
        first, _ = worker.raft.append(record("general", "slow answer"))
        if overwritten:
            worker.raft.overwrite(first - 1, record("general", "of the new leader"))
        worker.raft.commit()
        return first

    first = worker.call(commit)
    wait_for("applied", lambda: worker.texts("general"))
    worker.call(lambda: worker.raft.send(frames.encode_accepted(Accepted(1, first, 1, TIME_MS))))
    if overwritten:
        problem(answer.result(5), 503, "not_committed", retryable=True)
    else:
        assert answer.result(5).status_code == 201


def test_a_post_is_not_committed_once_a_later_term_is_below_it(worker: Worker) -> None:
    worker.raft.commit_at_once = False
    answers = [later(lambda n=n: worker.post("general", str(n))) for n in range(2)]
    wait_for("appended", lambda: worker.raft.log.last_index == 3)
    worker.call(lambda: worker.raft.overwrite(1, _log.pack(_log.KIND_NOOP, b"", b"")))
    for answer in answers:
        problem(answer.result(5), 503, "not_committed", retryable=True)


@pytest.mark.parametrize("way", [Worker.post, in_chunks])
def test_an_unknown_outcome_does_not_ask_to_be_retried(shared: Worker, way: Callable[..., httpx2.Response]) -> None:
    """`curl --retry` and its like repeat whatever has Retry-After, and would post twice."""
    shared.raft.refuse = Refusal.LOST
    try:
        response = way(shared, "general", "perhaps")
    finally:
        shared.raft.refuse = None
    assert response.json()["code"] == "outcome_unknown"
    assert "retry-after" not in response.headers


@pytest.mark.parametrize("accepted", [False, True])
def test_a_post_that_is_not_decided_in_time_is_unknown(tmp_path: Path, accepted: bool) -> None:
    with running(tmp_path, config=Config(request_timeout_ms=300)) as worker:
        worker.raft.commit_at_once = False
        worker.raft.answer_proposals = accepted
        problem(worker.post("general", "perhaps"), 503, "outcome_unknown", retryable=False)
        assert worker.call(lambda: len(worker.server._link.pending)) == 0
        # And the truth is told afterwards.
        if accepted:
            worker.call(worker.raft.commit)
            assert worker.texts("general") == ["perhaps"]


def test_beyond_what_may_be_uncommitted_posts_are_refused(tmp_path: Path) -> None:
    with running(tmp_path, config=Config(uncommitted_max_bytes=2000)) as worker:
        worker.raft.commit_at_once = False
        answers = []
        for number in (1, 2):
            answers.append(later(lambda: worker.post("general", "x" * 1000)))
            wait_for("proposed", lambda number=number: sum(worker.raft.proposals) == number)
        problem(worker.post("general", "one more"), 503, "overloaded", retryable=True)
        worker.call(worker.raft.commit)
        assert {answer.result(5).status_code for answer in answers} == {201}
        assert worker.call(lambda: worker.server._link.pending.size_bytes) == 0


def test_an_idempotency_key_is_refused_rather_than_ignored(shared: Worker) -> None:
    response = shared.client.post("/rooms/keyed", json={"Message": "m", "User": "u"}, headers={"Idempotency-Key": "1"})
    problem(response, 422, "idempotency_not_supported", retryable=False)
    assert shared.texts("keyed") == []


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"hello", 400, "invalid_json"),
        (b'{"Message":"hello","User":"teste', 400, "invalid_json"),
        (b'{"Message":"gr\xfcn","User":"u"}', 400, "invalid_json"),
        (b'{"Message":NaN,"User":"u"}', 400, "invalid_json"),
        (b'{"Message":"\\ud800","User":"u"}', 400, "invalid_json"),
        (b"[" * 20_000 + b"]" * 20_000, 400, "invalid_json"),
        (b'{"Message":"a","User":"u"}{"Message":"a","User":"u"}', 400, "invalid_json"),
        (b"[1]", 422, "body_wrong_type"),
        (b"null", 422, "body_wrong_type"),
        (b"{}", 422, "message_missing"),
        (b'{"Message":"m"}', 422, "user_missing"),
        (b'{"Message":7,"User":"u"}', 422, "message_wrong_type"),
        (b'{"Message":"m","User":["u"]}', 422, "user_wrong_type"),
        (b'{"Message":"","User":"u"}', 422, "message_empty"),
        (b'{"Message":"m","User":" "}', 422, "user_empty"),
        (b'{"Message":"m","User":"a\\u0000"}', 422, "user_control_character"),
        (b'{"Message":"a\\u0000b","User":"u"}', 422, "message_nul"),
        (b'{"Message":"m","User":"%b"}' % (b"u" * 256), 422, "user_too_long"),
        (b'{"Message":"%b","User":"u"}' % (b"x" * 32_769), 422, "message_too_long"),
        (b'{"Message":"%b","User":"u"}' % (b"x" * 1_048_576), 413, "body_too_large"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_bad_bodies_are_told_what_is_wrong_and_change_nothing(
    shared: Worker, body: bytes, status: int, code: str, chunked: bool
) -> None:
    before = shared.raft.log.last_index
    response = shared.client.post("/rooms/general", content=iter([body]) if chunked else body)
    problem(response, status, code, retryable=False)
    assert response.headers["x-raft-index"] == str(before)
    assert shared.raft.log.last_index == before


@pytest.mark.parametrize(
    ("segment", "status", "code"),
    [
        (b"", 422, "room_empty"),
        (b"a%2Fb", 422, "room_slash"),
        (b"%2e%2e", 422, "room_dot"),
        (b"..", 422, "room_dot"),
        (b"..%2f..", 422, "room_slash"),
        (b"a%00b", 422, "room_control_character"),
        (b"a%0ab", 422, "room_control_character"),
        (b"%ff%fe", 400, "invalid_path"),
        (b"100%", 400, "invalid_path"),
        (b"r" * 256, 422, "room_too_long"),
        (b"r" * 10_000, 422, "room_too_long"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_bad_room_names_are_told_what_is_wrong(
    shared: Worker, method: str, segment: bytes, status: int, code: str
) -> None:
    body = b'{"Message":"m","User":"u"}' if method == "POST" else b""
    request = b"%b /rooms/%b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (
        method.encode(),
        segment,
        len(body),
        body,
    )
    answer = shared.exchange(request if body else request.replace(b"Content-Length: 0\r\n", b""))
    assert int(answer[9:12]) == status
    assert orjson.loads(answer.partition(b"\r\n\r\n")[2])["code"] == code


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "a+b",
        "grün",
        "gru\u0308n",
        "日本語",
        "🦆",
        "...",
        "r" * 255,
        "Case",
        "case",
        "\u05e9\u05dc\u05d5\u05dd",
        "?#&=",
        '"<>\\',
    ],
)
def test_names_round_trip_exactly(shared: Worker, name: str) -> None:
    path = b"/rooms/" + b"".join(b"%%%02X" % byte for byte in name.encode())
    url = httpx2.URL(f"http://127.0.0.1:{shared.port}").copy_with(raw_path=path)
    response = shared.client.post(url, json={"Message": name, "User": name})
    assert response.status_code == 201
    (message,) = shared.client.get(url).json()
    assert (message["Message"], message["User"]) == (name, name)
    assert name in shared.client.get("/rooms").json()
    located = httpx2.URL(f"http://127.0.0.1:{shared.port}").copy_with(raw_path=response.headers["location"].encode())
    assert shared.client.get(located).json() == [message]


def test_when_the_raft_process_is_gone_posts_are_told_and_the_worker_ends(tmp_path: Path) -> None:
    with Worker(tmp_path) as worker:
        worker.wait_serving()
        worker.raft.answer_proposals = False
        answer = later(lambda: worker.post("general", "hello"))
        wait_for("proposed", lambda: worker.raft.proposals)
        worker.call(lambda: worker.raft.transport.close())
        problem(answer.result(5), 503, "outcome_unknown", retryable=False)
        worker._thread.join(10)
        assert isinstance(worker.error, ConnectionError)


def test_bad_frames_end_the_worker_too(tmp_path: Path) -> None:
    with Worker(tmp_path) as worker:
        worker.wait_serving()
        worker.call(lambda: worker.raft.send(b"\x05\x00\x00\x00\xffoops"))
        worker._thread.join(10)
        assert worker.error is not None


def test_a_worker_that_starts_over_a_log_has_all_of_it(tmp_path: Path) -> None:
    def before(raft: FakeRaft) -> None:
        for n in range(3000):
            raft.append(record(f"room {n % 7}", str(n)))

    with running(tmp_path, prepare=before) as worker:
        assert worker.texts("room 3", limit=1000) == [str(n) for n in range(3, 3000, 7)]
        assert worker.raft.serving == 1

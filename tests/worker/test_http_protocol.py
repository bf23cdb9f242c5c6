"""Requests that do not arrive, lie about themselves or come in heaps: answered or dropped, and never in the way."""

from __future__ import annotations

import json
import socket
import struct
import time
from pathlib import Path

import pytest

from raftchat.config import Config
from tests.worker.support import Worker, read_answer, running, wait_for

GOOD = b'{"Message":"hello","User":"tester"}'


def post(body: bytes, *headers: bytes, path: bytes = b"/rooms/general") -> bytes:
    head = [b"POST %b HTTP/1.1" % path, b"Host: x", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*head, b"", b""]) + body


def chunked(*chunks: bytes) -> bytes:
    head = b"POST /rooms/general HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in [*chunks, b""])


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer[9:12])


def problem(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/problem+json" in head
    value = json.loads(body)
    assert value["status"] == status(answer)
    return value["code"]


def connect(worker: Worker, timeout_s: float = 10) -> socket.socket:
    return socket.create_connection(("127.0.0.1", worker.port), timeout=timeout_s)


def connections(worker: Worker) -> list:
    return worker.call(lambda: list(worker.server._server.server_state.connections))


@pytest.mark.parametrize(
    "request_",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64 + b"\r\n\r\n",
        b"BREW / HTTP/1.1\r\n\r\n",
        b"GET /rooms/gr\xc3\xbcn HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHo\x00st: x\r\n\r\n",
        b"POST /rooms/general HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /rooms/general HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /rooms/general HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        post(GOOD, b"Content-Length: 5"),
        post(GOOD, b"Transfer-Encoding: chunked"),
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
)
def test_what_is_no_http_gets_400_and_the_connection_closes(shared: Worker, request_: bytes) -> None:
    answer = shared.exchange(request_)
    assert (status(answer), problem(answer)) == (400, "bad_request")
    assert b"\r\nconnection: close\r\n" in answer


def test_a_bad_chunk_is_400(shared: Worker) -> None:
    assert problem(shared.exchange(chunked(GOOD).replace(b"23\r\n", b"zz\r\n"))) == "bad_request"


@pytest.mark.parametrize("path", [b"*", b"//", b"http://elsewhere/a/b", b"/a//b", b"/%2e%2e/%2e%2e/etc/passwd"])
def test_odd_targets_are_not_found(shared: Worker, path: bytes) -> None:
    assert status(shared.exchange(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)) == 404


@pytest.mark.parametrize(
    "whole", [post(GOOD), chunked(GOOD[:10], GOOD[10:]), chunked(*(GOOD[i : i + 1] for i in range(len(GOOD))))]
)
def test_bodies_may_come_in_pieces(worker: Worker, whole: bytes) -> None:
    with connect(worker) as connection:
        for part in (whole[:10], whole[10:90], whole[90:-1], whole[-1:]):
            connection.sendall(part)
            time.sleep(0.005)
        assert status(read_answer(connection)) == 201
    assert worker.texts("general") == ["hello"]


def test_a_body_above_the_protocols_high_water_mark_arrives(worker: Worker) -> None:
    """uvicorn stops reading at 64 KiB until the application asks; a post below ASGI never asks."""
    body = json.dumps({"Message": "\x01" * 20_000, "User": "u"}).encode()
    assert 65536 < len(body) < worker.config.body_size_max_bytes
    request = post(body)
    with connect(worker) as connection:
        connection.sendall(request[:70_000])
        wait_for("head", lambda: any(c.cycle is not None for c in connections(worker)))
        for _ in range(10):
            connections(worker)  # each is a turn of the loop, in which it reads what has come
        connection.sendall(request[70_000:])
        assert status(read_answer(connection)) == 201


@pytest.mark.parametrize("size", [131_073, 1 << 20])
def test_a_body_over_the_limit_is_413_and_the_connection_lives_on(worker: Worker, size: int) -> None:
    with connect(worker) as connection:
        connection.sendall(post(b"x" * size))
        answer = read_answer(connection)
        assert (status(answer), problem(answer)) == (413, "body_too_large")
        connection.sendall(post(GOOD))
        assert status(read_answer(connection)) == 201


def test_a_body_over_the_limit_is_refused_before_it_comes(worker: Worker) -> None:
    with connect(worker) as connection:
        connection.sendall(b"POST /rooms/general HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n")
        assert problem(read_answer(connection)) == "body_too_large"


def test_a_body_over_the_limit_in_chunks_is_413_without_keeping_it(worker: Worker) -> None:
    assert problem(worker.exchange(chunked(*[b"x" * 65536] * 16))) == "body_too_large"


def test_after_expect_continue_a_refusal_closes(worker: Worker) -> None:
    request = b"POST /rooms/general HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
    answer = worker.exchange(request)
    assert problem(answer) == "body_too_large"
    assert b"\r\nconnection: close\r\n" in answer


def test_expect_continue_is_honoured(worker: Worker) -> None:
    with connect(worker) as connection:
        connection.sendall(post(GOOD, b"Expect: 100-continue")[: -len(GOOD)])
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(GOOD)
        assert status(read_answer(connection)) == 201


def test_of_a_refused_body_only_so_much_is_read(tmp_path: Path) -> None:
    with running(tmp_path, config=Config(request_discard_max_bytes=1 << 20)) as worker, connect(worker) as connection:
        connection.sendall(b"POST /rooms/general HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
        assert problem(read_answer(connection)) == "body_too_large"
        with pytest.raises(ConnectionError):
            connection.sendall(b"x" * (64 << 20))


@pytest.mark.parametrize("cut", [1, 20, -len(GOOD) - 1, -len(GOOD), -1])
def test_half_a_request_is_400_and_posts_nothing(shared: Worker, cut: int) -> None:
    answer = shared.exchange(post(GOOD, path=b"/rooms/half")[:cut], shut=True)
    assert problem(answer) == "incomplete_request"
    assert shared.texts("half") == []


def test_a_client_that_closed_its_half_still_gets_its_answer(worker: Worker) -> None:
    worker.raft.commit_at_once = False
    with connect(worker) as connection:
        connection.sendall(post(GOOD))
        connection.shutdown(socket.SHUT_WR)
        wait_for("proposed", lambda: worker.raft.proposals)
        worker.call(worker.raft.commit)
        answer = read_answer(connection)
        assert status(answer) == 201
        assert connection.recv(1) == b""


@pytest.mark.parametrize(
    "sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow", post(GOOD)[:-5], chunked(GOOD)[:-9]]
)
def test_a_request_that_does_not_arrive_is_ended(tmp_path: Path, sent: bytes) -> None:
    with running(tmp_path, config=Config(request_header_timeout_ms=300)) as worker, connect(worker) as connection:
        connection.sendall(sent)
        answer = read_answer(connection)
        if sent:
            assert (status(answer), problem(answer)) == (408, "request_timeout")
        else:
            assert answer == b""
        assert connection.recv(1) == b""
        assert worker.post("general", "others are served").status_code == 201


def test_slow_writers_are_ended_although_each_byte_is_in_time(tmp_path: Path) -> None:
    with running(tmp_path, config=Config(request_header_timeout_ms=500)) as worker, connect(worker) as connection:
        began = time.monotonic()
        for byte in post(GOOD, b"X-Long: " + b"a" * 10_000):
            try:
                connection.sendall(bytes([byte]))
            except ConnectionError:
                break
            assert time.monotonic() - began < 5, "still taken"
            time.sleep(0.005)


def test_a_head_without_end_is_431(worker: Worker) -> None:
    answer = worker.exchange(b"GET / HTTP/1.1\r\n" + b"X-A: " + b"a" * 100_000)
    assert (status(answer), problem(answer)) == (431, "head_too_large")


@pytest.mark.parametrize("where", ["url", "one field", "many fields"])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_head_above_the_limit_is_431_also_if_it_comes_at_once(worker: Worker, where: str, parts: int) -> None:
    limit_bytes = worker.config.request_head_max_bytes

    def request(size_bytes: int) -> bytes:
        filler = {
            "url": b"GET /livez?%b HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * size_bytes),
            "one field": b"GET /livez HTTP/1.1\r\nHost: x\r\nX-A: %b\r\n\r\n" % (b"a" * size_bytes),
            "many fields": b"GET /livez HTTP/1.1\r\nHost: x\r\n%b\r\n" % (b"X-A: aaa\r\n" * (size_bytes // 10)),
        }
        return filler[where]

    for size_bytes, expected in ((limit_bytes - 200, 200), (limit_bytes + 200, 431), (limit_bytes * 3 // 2, 431)):
        with connect(worker) as connection:
            head = request(size_bytes)
            for start in range(0, len(head), len(head) // parts + 1):
                connection.sendall(head[start : start + len(head) // parts + 1])
            answer = read_answer(connection)
        assert status(answer) == expected, size_bytes
        if expected == 431:
            assert problem(answer) == "head_too_large"


@pytest.mark.parametrize(
    "endless", [b"0\r\n" + b"x: y\r\n" * 100_000, b"0\r\nx: " + b"y" * 700_000, b"1;" + b"y" * 700_000]
)
def test_trailers_and_chunk_extensions_without_end_are_431_and_not_kept(worker: Worker, endless: bytes) -> None:
    held: list[int] = []
    with connect(worker) as connection:
        connection.sendall(chunked(GOOD)[: -len(b"0\r\n\r\n")])
        for start in range(0, len(endless), 10_000):
            try:
                connection.sendall(endless[start : start + 10_000])
            except OSError:
                break
            held += [len(c.headers) for c in connections(worker)]
        else:
            pytest.fail("everything was taken")
        assert max(held) <= 2
    assert worker.texts("general") == []


def test_a_head_cut_by_the_end_of_a_large_read_is_not_too_large(worker: Worker) -> None:
    large = post(b'{"Message":"%b","User":"u"}' % (b"\\u0041" * 20_000))
    with connect(worker) as connection:
        connection.sendall(large + b"GET /livez HTTP/1.1\r\nHo")
        assert status(read_answer(connection)) == 201
        connection.sendall(b"st: x\r\n\r\n")
        assert status(read_answer(connection)) == 200


def test_pipelined_requests_are_answered_in_order(worker: Worker) -> None:
    requests = [post(b'{"Message":"%d","User":"u"}' % number) for number in range(50)]
    with connect(worker) as connection:
        connection.sendall(
            b"".join(requests) + b"GET /rooms/general?limit=1000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert answer.count(b"HTTP/1.1 201 Created") == 50
    assert [message["Message"] for message in json.loads(answer[answer.rindex(b"[{") :])] == [str(n) for n in range(50)]


def test_a_bad_request_behind_good_ones_does_not_cost_their_answers(worker: Worker) -> None:
    worker.raft.commit_at_once = False
    with connect(worker) as connection:
        connection.sendall(post(GOOD) + b"GARBAGE\r\n\r\n")
        wait_for("proposed", lambda: worker.raft.proposals)
        worker.call(worker.raft.commit)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert status(answer) == 201
    assert b"connection: close" in answer


UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def test_an_upgrade_behind_a_post_neither_posts_it_again_nor_mixes_frames_into_its_answer(worker: Worker) -> None:
    worker.raft.commit_at_once = False
    with connect(worker) as connection:
        connection.sendall(post(GOOD) + UPGRADE)
        wait_for("proposed", lambda: worker.raft.proposals)
        worker.call(worker.raft.commit)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
    assert status(answer) == 201
    assert answer.count(b"HTTP/1.1 ") == 1
    assert worker.texts("general") == ["hello"]


@pytest.mark.parametrize("behind", [b"", post(GOOD), post(GOOD) * 20, UPGRADE])
def test_a_client_that_vanishes_with_posts_under_way_does_not_end_the_worker(worker: Worker, behind: bytes) -> None:
    worker.raft.commit_at_once = False
    connection = connect(worker)
    connection.sendall(post(GOOD) + behind)
    wait_for("proposed", lambda: worker.raft.proposals)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    time.sleep(0.1)
    worker.raft.commit_at_once = True
    worker.call(worker.raft.commit)
    assert worker.post("general", "next").status_code == 201
    assert worker.server.error is None


def test_pipelined_requests_do_not_heap_up(worker: Worker) -> None:
    """uvicorn reads on whenever one of them is answered; a client that only sends would fill the memory."""
    worker.raft.commit_at_once = False
    flood = post(GOOD) * 200
    highest = 0
    with connect(worker, timeout_s=0.2) as connection:
        for _ in range(1000):
            worker.call(worker.raft.commit)
            try:
                connection.sendall(flood)
            except TimeoutError:
                break
            highest = max(highest, *(len(c.pipeline) for c in connections(worker)))
        else:
            pytest.fail("everything was taken")
        assert 0 < highest < 8000


def test_answers_that_are_not_read_do_not_heap_up(worker: Worker) -> None:
    one = post(GOOD)
    highest = 0
    with connect(worker, timeout_s=0.5) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                connection.sendall(one)
            except TimeoutError:
                break
            highest = max(highest, *(c.transport.get_write_buffer_size() for c in connections(worker)))
        else:
            pytest.fail("everything was taken")
        assert highest < 1 << 20


def test_an_upgrade_to_something_else_is_answered_as_if_it_were_none(worker: Worker) -> None:
    answer = worker.exchange(
        b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n"
    )
    assert status(answer) == 200
    assert b"connection: close" in answer


def test_http_1_0_is_answered_and_closed(worker: Worker) -> None:
    with connect(worker) as connection:
        connection.sendall(post(GOOD).replace(b"HTTP/1.1", b"HTTP/1.0"))
        assert status(read_answer(connection)) == 201
        assert connection.recv(1) == b""


def test_an_idle_connection_is_closed_after_a_while(tmp_path: Path) -> None:
    with running(tmp_path, config=Config(keep_alive_timeout_ms=1000)) as worker, connect(worker) as connection:
        connection.sendall(post(GOOD))
        assert status(read_answer(connection)) == 201
        assert connection.recv(1) == b""


def test_clients_that_go_away_leave_nothing_behind(tmp_path: Path) -> None:
    with running(tmp_path, config=Config(request_timeout_ms=400)) as worker:
        worker.raft.answer_proposals = False
        for _ in range(20):
            with connect(worker) as connection:
                connection.sendall(post(GOOD))
        wait_for("all proposed", lambda: sum(worker.raft.proposals) == 20)
        wait_for("connections forgotten", lambda: not connections(worker))
        assert worker.call(lambda: worker.server._link.pending.size_bytes) == 0

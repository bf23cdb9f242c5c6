"""Bad input over real sockets gets its documented 4xx and changes nothing."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.faults.cluster import Cluster, Node

pytestmark = pytest.mark.process
GOOD = b'{"Message":"hello","User":"tester"}'
LENGTH = b"Length: %d" % len(GOOD)
CHUNKED = b"POST /rooms/general HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Cluster(1) as cluster:
        cluster.start()
        cluster[1].must_post("general", "the only message")
        yield cluster[1]
        print(cluster[1].tail())


def state(node: Node) -> tuple[object, ...]:
    """Everything that a client can see, and how far the log goes."""
    rooms = node.get("/rooms")
    return (
        rooms.json(),
        rooms.headers["x-raft-index"],
        {room: node.history(room) for room in rooms.json()},
        {process.pid for process in node.wait_processes().all()},
    )


def exchange(node: Node, request: bytes, *, shut: bool = False) -> bytes:
    """Send raw bytes; all that comes back until the server closes or has answered once."""
    address = urlsplit(node.url)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.sendall(request)
        if shut:
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := connection.recv(65536):
            answer += chunk
            head, separator, body = answer.partition(b"\r\n\r\n")
            if separator:
                lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                if not lengths or len(body) >= int(lengths[0].split(b":")[1]):
                    break
        return answer


def post(body: bytes, path: str = "/rooms/general", *headers: str) -> bytes:
    head = [f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {len(body)}", "Content-Type: application/json"]
    return "\r\n".join([*head, *headers, "", ""]).encode("latin-1") + body


def get(query: str) -> bytes:
    return f"GET /rooms/general?{query} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


class Case(NamedTuple):
    name: str
    request: bytes
    statuses: set[int]


def message(**members: object) -> bytes:
    return json.dumps({"Message": "hello", "User": "tester"} | members).encode()


CASES = [
    Case("no body", post(b""), {400}),
    Case("no JSON", post(b"hello"), {400}),
    Case("half of a JSON text", post(GOOD[:-5]), {400}),
    Case("two JSON texts", post(GOOD + GOOD), {400}),
    Case("JSON in Latin-1", post('{"Message":"grün","User":"tester"}'.encode("latin-1")), {400}),
    Case("NaN", post(b'{"Message":NaN,"User":"tester"}'), {400}),
    Case("a lone surrogate", post(b'{"Message":"\\ud800","User":"tester"}'), {400, 422}),
    Case("deeply nested", post(b"[" * 20_000 + b"]" * 20_000), {400, 422}),
    Case("an array", post(b"[1]"), {400, 422}),
    Case("a string", post(b'"hello"'), {400, 422}),
    Case("null", post(b"null"), {400, 422}),
    Case("an empty object", post(b"{}"), {400, 422}),
    Case("no user", post(b'{"Message":"hello"}'), {400, 422}),
    Case("no message", post(b'{"User":"tester"}'), {400, 422}),
    Case("message of wrong type", post(message(Message=7)), {400, 422}),
    Case("message null", post(message(Message=None)), {400, 422}),
    Case("message an object", post(message(Message={"a": 1})), {400, 422}),
    Case("user of wrong type", post(message(User=["tester"])), {400, 422}),
    Case("empty message", post(message(Message="")), {400, 422}),
    Case("empty user", post(message(User="")), {400, 422}),
    Case("user of 256 bytes", post(message(User="u" * 256)), {400, 422}),
    Case("message over the limit", post(message(Message="x" * (32 * 1024 + 1))), {400, 413, 422}),
    Case("message over the limit in bytes only", post(message(Message="ü" * (16 * 1024 + 1))), {400, 413, 422}),
    Case("message of 1 MiB", post(message(Message="x" * 1024 * 1024)), {413}),
    Case("1 MiB is promised", post(GOOD).replace(LENGTH, b"Length: 1048576"), {413}),
    Case("room with /", post(GOOD, "/rooms/a/b"), {404}),
    Case("room with an escaped /", post(GOOD, "/rooms/a%2Fb"), {400, 404, 422}),
    Case("room with NUL", post(GOOD, "/rooms/a%00b"), {400, 422}),
    Case("room with a line feed", post(GOOD, "/rooms/a%0Ab"), {400, 422}),
    Case("room ..", post(GOOD, "/rooms/.."), {400, 404, 422}),
    Case("room .. escaped", post(GOOD, "/rooms/%2E%2E"), {400, 404, 422}),
    Case("room ../..", post(GOOD, "/rooms/..%2F.."), {400, 404, 422}),
    Case("room of 10 kB", post(GOOD, "/rooms/" + "r" * 10_000), {400, 414, 422}),
    Case("room of 256 bytes", post(GOOD, "/rooms/" + "r" * 256), {400, 422}),
    Case("room not UTF-8", post(GOOD, "/rooms/%ff%fe"), {400, 422}),
    Case("room not UTF-8, unescaped", post(GOOD, "/rooms/\xff\xfe"), {400, 422}),
    Case("no room", post(GOOD, "/rooms/"), {400, 404, 405, 422}),
    Case("wrong method on a room", post(GOOD).replace(b"POST", b"PUT"), {405}),
    Case("wrong method on rooms", post(GOOD, "/rooms"), {405}),
    Case("no such method", post(GOOD).replace(b"POST", b"BREW"), {400, 405, 501}),
    Case("no such path", post(GOOD, "/nothing/here"), {404}),
    Case("post to /general", post(GOOD, "/general"), {404, 405}),
    Case("limit of letters", get("limit=ten"), {400, 422}),
    Case("limit below zero", get("limit=-1"), {400, 422}),
    Case("before of letters", get("before=x"), {400, 422}),
    Case("before of 40 digits", get("before=" + "9" * 40), {400, 422}),
    Case("consistency of a kind unknown", get("consistency=x"), {400, 422}),
    Case("no handshake on /ws", b"GET /ws HTTP/1.1\r\nHost: x\r\n\r\n", {400, 404, 405, 426}),
    Case("not HTTP", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64 + b"\r\n\r\n", {400}),
    Case("negative length", post(GOOD).replace(LENGTH, b"Length: -1"), {400}),
    Case("length of letters", post(GOOD).replace(LENGTH, b"Length: many"), {400}),
    Case("two lengths", post(GOOD, "/rooms/general", "Content-Length: 5"), {400}),
    Case("length and chunks", post(GOOD, "/rooms/general", "Transfer-Encoding: chunked"), {400}),
    Case("bad chunk size", CHUNKED + b"zz\r\n" + GOOD + b"\r\n0\r\n\r\n", {400}),
    Case("1 MiB in chunks", CHUNKED + b"100000\r\n" + b"x" * 0x100000 + b"\r\n0\r\n\r\n", {413}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_bad_input_is_answered_and_changes_nothing(node: Node, case: Case) -> None:
    before = state(node)
    answer = exchange(node, case.request)
    assert answer.startswith(b"HTTP/1."), answer[:200]
    status = int(answer.split()[1])
    assert status in case.statuses, answer[:500]
    head = answer.partition(b"\r\n\r\n")[0].lower()
    if status == 405:
        assert b"\r\nallow:" in head
    if b"application/problem+json" in head:
        problem = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert problem["status"] == status
        assert problem["code"]
        assert problem["detail"]
        assert problem["retryable"] is False
    else:
        # Refused by the HTTP parser, before anything of ours saw a request.
        assert status in {400, 501}, "an error of ours that is no problem+json"
    assert state(node) == before


@pytest.mark.parametrize("cut", [1, 10, len(post(b"")) - 3, len(post(GOOD)) - 1])
def test_half_a_request_changes_nothing(node: Node, cut: int) -> None:
    before = state(node)
    answer = exchange(node, post(GOOD)[:cut], shut=True)
    assert not answer or answer.split()[1] == b"400"
    assert state(node) == before


def test_half_a_request_does_not_hold_up_others(node: Node) -> None:
    address = urlsplit(node.url)
    idle = [socket.create_connection((address.hostname, address.port)) for _ in range(50)]
    try:
        for connection in idle:
            connection.sendall(post(GOOD)[:60])
        assert node.texts("general") == ["the only message"]
    finally:
        for connection in idle:
            connection.close()


def test_names_round_trip_exactly(new_cluster: Callable[..., Cluster]) -> None:
    """What is not forbidden is kept byte for byte: no normal form, no case folding, nothing a path component."""
    node = new_cluster(1).start()[1]
    names = [
        "general",
        "General",
        "grün",
        "gru\u0308n",
        "a b",
        "a+b",
        "a%2",
        "日本語",
        "🦆",
        "...",
        "r" * 255,
    ]
    for name in names:
        response = httpx2.post(
            httpx2.URL(node.url).copy_with(raw_path=b"/rooms/" + quote(name)), json={"Message": name, "User": name}
        )
        assert response.status_code == 201, (name, response.text)
    assert node.get("/rooms").json() == sorted(names)
    for name in names:
        (message,) = httpx2.get(httpx2.URL(node.url).copy_with(raw_path=b"/rooms/" + quote(name))).json()
        assert (message["Message"], message["User"]) == (name, name)


def quote(name: str) -> bytes:
    return "".join(f"%{byte:02X}" for byte in name.encode()).encode()

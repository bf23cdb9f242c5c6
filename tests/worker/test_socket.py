"""The stream over real WebSockets: what comes, in which order, and how connections end."""

from __future__ import annotations

import contextlib
import json
import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from raftchat.config import Config
from tests.worker.support import FakeRaft, Worker, record, running, wait_for


@contextlib.contextmanager
def watching(worker: Worker, query: str = "", **keywords: Any) -> Iterator[ClientConnection]:
    before = worker.call(lambda: len(worker.server._hub))
    with connect(f"ws://127.0.0.1:{worker.port}/ws{query}", compression=None, **keywords) as stream:
        wait_for("subscribed", lambda: worker.call(lambda: len(worker.server._hub)) > before)
        yield stream


def messages(stream: ClientConnection, count: int) -> list[tuple[str, str]]:
    found = []
    while len(found) < count:
        frame = json.loads(stream.recv(timeout=10))
        if "Post" in frame:
            found.append((frame["RoomName"], frame["Post"]["Message"]))
    return found


def closed(stream: ClientConnection) -> int:
    """Read to the end; the code that it was closed with."""
    while True:
        try:
            stream.recv(timeout=10)
        except ConnectionClosed as end:
            return end.rcvd.code if end.rcvd else 1006


def test_every_message_of_every_room(worker: Worker) -> None:
    with watching(worker) as stream:
        posted = worker.post("a", "1").json()
        assert json.loads(stream.recv(timeout=10)) == {
            "RoomName": "a",
            "Post": {"ID": posted["ID"], "PostedAt": posted["PostedAt"], "User": "u", "Message": "1"},
        }
        worker.call(lambda: worker.raft.post("b", "2", "3"))
        worker.post("größe", "4")
        assert messages(stream, 3) == [("b", "2"), ("b", "3"), ("größe", "4")]


def test_only_the_rooms_that_were_asked_for(worker: Worker) -> None:
    with watching(worker, "?room=a&room=gr%C3%B6%C3%9Fe") as stream:
        for room in ("b", "a", "c", "größe", "b", "a"):
            worker.post(room, "x")
        assert messages(stream, 3) == [("a", "x"), ("größe", "x"), ("a", "x")]


def test_history_is_not_news(tmp_path: Path) -> None:
    def before(raft: FakeRaft) -> None:
        raft.append(record("a", "old"))

    with running(tmp_path, prepare=before) as worker, watching(worker) as stream:
        worker.post("a", "new")
        assert messages(stream, 1) == [("a", "new")]


def test_a_stream_that_comes_during_the_replay_waits_for_its_end(tmp_path: Path) -> None:
    held: list[Any] = []

    def before(raft: FakeRaft) -> None:
        raft.append(record("a", "old"))
        held.append(raft.hello)
        raft.hello = lambda committed=None: None  # type: ignore[method-assign]

    with Worker(tmp_path, config=Config(request_timeout_ms=300), prepare=before) as worker:
        with pytest.raises(InvalidStatus) as caught:
            connect(f"ws://127.0.0.1:{worker.port}/ws")
        assert caught.value.response.status_code == 503
        assert json.loads(caught.value.response.body)["code"] == "not_ready"
        worker.call(held[0])
        worker.wait_serving()
        with watching(worker) as stream:
            worker.post("a", "new")
            assert messages(stream, 1) == [("a", "new")]


def test_a_thousand_messages_come_in_order_and_few_writes(worker: Worker) -> None:
    with watching(worker, max_queue=None) as stream:
        worker.call(lambda: worker.raft.post("a", *map(str, range(1000))))
        assert [text for _, text in messages(stream, 1000)] == [str(n) for n in range(1000)]


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/ws?room=", 422, "room_empty"),
        ("/ws?room=a%2Fb", 422, "room_slash"),
        ("/ws?room=%ff", 400, "invalid_query"),
        ("/ws?" + "&".join(f"room={n}" for n in range(101)), 400, "invalid_query"),
        ("/other", 404, "not_found"),
        ("/rooms/a", 404, "not_found"),
    ],
)
def test_handshakes_that_are_refused(shared: Worker, path: str, status: int, code: str) -> None:
    with pytest.raises(InvalidStatus) as caught:
        connect(f"ws://127.0.0.1:{shared.port}{path}")
    response = caught.value.response
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert json.loads(response.body)["code"] == code


def test_a_refused_handshake_is_nothing_to_log(worker: Worker, caplog: pytest.LogCaptureFixture) -> None:
    for path in ("/ws?room=", "/other"):
        with pytest.raises(InvalidStatus):
            connect(f"ws://127.0.0.1:{worker.port}{path}")
    wait_for("their tasks ended", lambda: not worker.server._server.server_state.tasks)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_what_a_client_says_is_answered_with_an_error_and_changes_nothing(worker: Worker) -> None:
    with watching(worker) as stream:
        for said in ('{"RoomName":"a","Message":"m","User":"u"}', "not JSON", b"\x00\xff"):
            stream.send(said)
            assert json.loads(stream.recv(timeout=10))["Error"]["code"] == "posting_not_supported"
        worker.post("a", "1")
        assert messages(stream, 1) == [("a", "1")]
    assert worker.raft.log.last_index == 2


def test_a_frame_over_the_limit_closes_with_1009(worker: Worker) -> None:
    with watching(worker) as stream:
        stream.send("x" * (64 * 1024 + 1))
        assert closed(stream) == 1009
    with watching(worker) as stream:
        stream.send(["x" * 40_000, "x" * 40_000])
        assert closed(stream) == 1009


def test_shutdown_closes_with_1012_and_answers_what_is_in_flight(tmp_path: Path) -> None:
    with Worker(tmp_path) as worker:
        worker.wait_serving()
        with watching(worker) as stream:
            worker.call(worker.server.stop)
            assert closed(stream) == 1012
        worker._thread.join(10)
        assert not worker._thread.is_alive()
        assert worker.error is None


def test_shutdown_does_not_wait_for_those_that_do_not_read(tmp_path: Path) -> None:
    with Worker(tmp_path, config=Config(shutdown_timeout_ms=1000, socket_close_timeout_ms=500)) as worker:
        worker.wait_serving()
        silent = silent_reader(worker)
        fill(worker, 4)
        began = time.monotonic()
        worker.stop()
        assert time.monotonic() - began < 5
        silent.close()


def test_heartbeats_tell_the_applied_index(tmp_path: Path) -> None:
    with running(tmp_path, config=Config(socket_heartbeat_ms=1000)) as worker, watching(worker) as stream:
        worker.post("a", "1")
        messages(stream, 1)
        assert json.loads(stream.recv(timeout=10)) == {"Heartbeat": 2}
        assert json.loads(stream.recv(timeout=10)) == {"Heartbeat": 2}


def silent_reader(worker: Worker, query: str = "") -> socket.socket:
    """A WebSocket that never reads after its handshake."""
    before = worker.call(lambda: len(worker.server._hub))
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.connect(("127.0.0.1", worker.port))
    raw.sendall(
        b"GET /ws%b HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % query.encode()
    )
    wait_for("subscribed", lambda: worker.call(lambda: len(worker.server._hub)) > before)
    return raw


def fill(worker: Worker, mebibytes: int) -> None:
    for _ in range(mebibytes * 4):
        worker.call(lambda: worker.raft.post("a", *["x" * 8000] * 32))


def wait_applied(worker: Worker) -> None:
    wait_for("applied", lambda: worker.call(lambda: worker.server._replica.applied_index) == worker.raft.log.last_index)


def test_a_slow_reader_is_closed_with_1013_and_others_get_everything(worker: Worker) -> None:
    silent = silent_reader(worker)
    with watching(worker, max_queue=None) as stream:
        sent = 0
        while worker.call(lambda: len(worker.server._hub)) == 2:
            assert sent < 3000, "it is still served"
            worker.call(lambda: worker.raft.post("a", *["x" * 8000] * 32))
            sent += 32
            messages(stream, 32)
        worker.post("a", "the last")
        assert messages(stream, 1) == [("a", "the last")]
    wait_for("counted", lambda: worker.raft.counters.get("sockets_lagged") == 1)
    # What it finds when it reads after all: whole frames, then the close frame with its code.
    received = bytearray()
    silent.settimeout(10)
    with contextlib.suppress(ConnectionError):
        while chunk := silent.recv(1 << 16):
            received += chunk
    assert received.endswith(b"\x03\xf5reading too slowly")
    silent.close()


def test_a_reader_that_never_reads_is_cut_off(tmp_path: Path) -> None:
    """`close()` would wait for its buffer to drain, for ever; here it holds no memory and no connection."""
    with running(tmp_path, config=Config(socket_close_timeout_ms=300)) as worker:
        silent = [silent_reader(worker) for _ in range(5)]
        for _ in range(400):
            worker.call(lambda: worker.raft.post("a", *["x" * 8000] * 32))
            if not worker.call(lambda: len(worker.server._hub)):
                break
        else:
            pytest.fail("still served")
        wait_for("cut off", lambda: not worker.call(lambda: len(worker.server._server.server_state.connections)))
        for raw in silent:
            raw.close()


def test_a_peer_that_does_not_answer_pings_is_dropped(tmp_path: Path) -> None:
    config = Config(socket_ping_interval_ms=200, socket_ping_timeout_ms=200, socket_close_timeout_ms=200)
    with running(tmp_path, config=config) as worker:
        silent = silent_reader(worker)
        wait_for("dropped", lambda: not worker.call(lambda: len(worker.server._hub)))
        wait_for("gone", lambda: not worker.call(lambda: len(worker.server._server.server_state.connections)))
        silent.close()


def test_pings_whose_answers_are_not_read_do_not_heap_up(tmp_path: Path) -> None:
    with running(tmp_path, config=Config(socket_queue_max_bytes=200_000)) as worker:
        silent = silent_reader(worker)
        silent.settimeout(0.5)
        ping = b"\x89\xfd" + b"\0\0\0\0" + b"x" * 125
        highest = 0
        with contextlib.suppress(OSError):
            for _ in range(20_000):
                silent.sendall(ping * 100)
                sizes = worker.call(
                    lambda: [
                        c.transport.get_write_buffer_size() for c in worker.server._server.server_state.connections
                    ]
                )
                if not sizes:
                    break
                highest = max(highest, *sizes)
        assert highest < 1 << 20
        wait_for("dropped", lambda: not worker.call(lambda: len(worker.server._hub)))
        silent.close()


def test_sockets_that_come_and_go_leave_nothing(worker: Worker) -> None:
    for n in range(30):
        with watching(worker, f"?room={n % 3}"):
            pass
    wait_for("all gone", lambda: not worker.call(lambda: len(worker.server._hub)))
    assert worker.call(lambda: worker.server._hub._by_room) == {}
    wait_for("counted", lambda: worker.raft.counters.get("sockets_opened") == 30)

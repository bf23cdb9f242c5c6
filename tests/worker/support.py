"""A worker without a node: the real server in a thread of its own, and a Raft process that does what the test says.

`FakeRaft` speaks the real frames over a real socket pair and appends to a real log. It knows nothing of elections or
peers: terms, commits and refusals are the test's to give.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar, cast

import httpx2
import uvloop

from raftchat import _log
from raftchat.config import Config
from raftchat.ipc import frames
from raftchat.ipc.frames import Accepted, FrameType, Hello, Leader, Refusal
from raftchat.worker.__main__ import load_state
from raftchat.worker.server import WorkerServer
from raftchat.worker.static import web_directory

T = TypeVar("T")
TIME_MS = 1_700_000_000_123


class FakeRaft(asyncio.Protocol):
    """Its switches may be set from any thread; everything else is called in the loop (`Worker.call`)."""

    def __init__(self, directory: Path, segment_size_bytes: int = 1 << 20) -> None:
        directory.mkdir(exist_ok=True)
        self.log = _log.Log(
            str(directory),
            new_segment_id=itertools.count(7_000_000).__next__,
            segment_size_bytes=segment_size_bytes,
        )
        self.directory = directory
        self.term = 1
        # What every leader's term begins with; so a message's ID is at least 2.
        self.log.append(_log.pack(_log.KIND_NOOP, b"", b""), self.term, TIME_MS)
        self.committed = 0
        self.refuse: Refusal | None = None
        self.answer_proposals = True
        self.commit_at_once = True
        self.answer_reads = True
        self.answer_status = True
        self.leaderless_reads = False
        self.counters: dict[str, Any] = {}
        self.serving = 0
        self.proposals: list[int] = []
        """Records in each PROPOSE."""
        self.reads = 0
        self.snapshot: str | None = None
        """Path of the one that a worker is told to begin from."""
        self._announced: set[tuple[int, int]] = set()
        self._indexed: set[int] = set()
        self._reader = frames.FrameReader(1 << 22)
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def hello(self, committed: int | None = None) -> None:
        """What the Raft process says first."""
        self.send(frames.encode_hello(Hello(str(self.directory), 1, 1, self.snapshot)))
        self._announced.clear()
        self.announce()
        for segment in self.log.segments():
            if segment.sequence in self._indexed:
                self.send(frames.encode_indexed(segment.sequence))
        self.lead()
        self.commit(self.log.last_index if committed is None else committed)

    def lead(self, node_id: int = 1, *, ready: bool = True) -> None:
        self.send(frames.encode_leader(Leader(node_id, self.term, ready)))

    def announce(self) -> None:
        for segment in self.log.segments():
            name = (segment.sequence, segment.revision)
            if name not in self._announced:
                self._announced.add(name)
                self.send(frames.encode_segment(segment.sequence, segment.base_index, segment.revision))

    def indexed(self, sequence: int) -> None:
        self._indexed.add(sequence)
        self.send(frames.encode_indexed(sequence))

    def append(self, records: bytes, time_ms: int = TIME_MS) -> tuple[int, int]:
        found = self.log.append(records, self.term, time_ms)
        self.announce()
        return found

    def commit(self, index: int | None = None) -> None:
        self.committed = self.log.last_index if index is None else index
        self.send(frames.encode_commit(self.committed))

    def post(self, room: str, *texts: str, user: str = "u") -> None:
        """As if another worker had posted."""
        for text in texts:
            self.append(record(room, text, user))
        self.commit()

    def overwrite(self, last_index: int, records: bytes) -> None:
        """A new leader cuts this log's tail and puts its own entries there."""
        self.log.truncate_suffix(last_index)
        self.announce()
        self.term += 1
        self.append(records)
        self.commit()

    def data_received(self, data: bytes) -> None:
        for kind, body in self._reader.feed(data):
            if kind == FrameType.PROPOSE:
                self._propose(*frames.decode_propose(body))
            elif kind == FrameType.READ:
                self.reads += 1
                if self.answer_reads:
                    index = 0 if self.leaderless_reads else self.committed
                    self.send(frames.encode_read_at(frames.decode_u64(body), index))
            elif kind == FrameType.STATUS:
                if self.answer_status:
                    self.send(frames.encode_status_is(frames.decode_u64(body), json.dumps(self.status()).encode()))
            elif kind == FrameType.COUNTERS:
                self.counters = frames.decode_counters(body)
            elif kind == FrameType.SERVING:
                self.serving += 1

    def _propose(self, batch: int, records: memoryview) -> None:
        self.proposals.append(_log.check_unstamped(records, 256 * 1024))
        if not self.answer_proposals:
            return
        if self.refuse is not None:
            self.send(frames.encode_refused(batch, self.refuse))
            return
        first, _ = self.append(bytes(records))
        self.send(frames.encode_accepted(Accepted(batch, first, self.term, TIME_MS)))
        if self.commit_at_once:
            self.commit()

    def status(self) -> dict[str, Any]:
        return {
            "ID": 1,
            "Role": "leader",
            "Term": self.term,
            "Leader": 1,
            "CommitIndex": self.committed,
            "LastIndex": self.log.last_index,
            "Members": [{"ID": 1, "Role": "voter", "MatchIndex": self.log.last_index}],
            "Counters": {"turns": 11, "batches": 12, "syncs": 13, "peer_bytes_sent": 14, "peer_frames_dropped": 15}
            | self.counters,
        }

    def send(self, frame: bytes) -> None:
        if self.transport is not None:
            self.transport.write(frame)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None


def record(room: str, text: str, user: str = "u") -> bytes:
    value = json.dumps({"User": user, "Message": text}, ensure_ascii=False, separators=(",", ":"))[1:-1]
    return _log.pack(_log.KIND_POST, room.encode(), value.encode())


class Worker:
    """A running worker. `client` and plain sockets talk to it; `call` runs something in its loop."""

    def __init__(
        self,
        directory: Path,
        config: Config | None = None,
        prepare: Callable[[FakeRaft], None] | None = None,
        segment_size_bytes: int = 1 << 20,
    ) -> None:
        """`prepare` is given the Raft process before it says hello; it may replace `raft.hello`."""
        self.config = config or Config()
        self.directory = directory
        self.raft = FakeRaft(directory / "log", segment_size_bytes)
        if prepare is not None:
            prepare(self.raft)
        self.error: Exception | None = None
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self.client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=15)
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker")

    def __enter__(self) -> Worker:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.stop()

    def stop(self) -> None:
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.server.stop)
            self._thread.join(15)
            assert not self._thread.is_alive(), "the worker did not end"

    def call(self, function: Callable[[], T]) -> T:
        async def run() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result(10)

    def _run(self) -> None:
        uvloop.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        for sock in (ours, theirs, self._listening):
            sock.setblocking(False)
        await self._loop.create_unix_connection(lambda: self.raft, sock=theirs)
        self.server = WorkerServer(
            self.config, open_reader=_log.LogReader, load_state=load_state, pack=_log.pack, web=web_directory()
        )
        self.raft.hello()
        self._loop.call_later(0, self._started.set)
        try:
            await self.server.serve([self._listening], ours)
            self.error = self.server.error
        finally:
            if self.raft.transport is not None:
                self.raft.transport.close()
            self.raft.log.close()

    def post(self, room: str, text: str, user: str = "u") -> httpx2.Response:
        return self.client.post(f"/rooms/{room}", json={"Message": text, "User": user})

    def wait_serving(self) -> None:
        wait_for("serving", lambda: self.raft.serving)

    def texts(self, room: str, **params: Any) -> list[str]:
        return [message["Message"] for message in self.client.get(f"/rooms/{room}", params=params).json()]

    def exchange(self, request: bytes, *, shut: bool = False, timeout_s: float = 10) -> bytes:
        """Send raw bytes; everything that comes back until the server closes or has answered once."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=timeout_s) as connection:
            with contextlib.suppress(ConnectionError):
                connection.sendall(request)
            if shut:
                connection.shutdown(socket.SHUT_WR)
            return read_answer(connection)


def read_answer(connection: socket.socket) -> bytes:
    answer = b""
    while chunk := connection.recv(65536):
        answer += chunk
        head, separator, body = answer.partition(b"\r\n\r\n")
        if separator and head.startswith((b"HTTP/1.1 204", b"HTTP/1.1 304")):
            return answer
        if separator and not head.startswith(b"HTTP/1.1 100"):
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:") and len(body) >= int(line.split(b":")[1]):
                    return answer
    return answer


def wait_for(what: str, probe: Callable[[], T], timeout_s: float = 10) -> T:
    deadline = time.monotonic() + timeout_s
    while not (found := probe()):
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s} s"
        time.sleep(0.005)
    return found


@contextlib.contextmanager
def running(directory: Path, **keywords: Any) -> Iterator[Worker]:
    """A worker that serves."""
    with Worker(directory, **keywords) as worker:
        worker.wait_serving()
        yield worker

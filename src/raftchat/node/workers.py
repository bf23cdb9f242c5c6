"""The Raft process's end of the IPC sockets: frames of `ipc/frames.py` in, calls of the driver out, and back.

Knows how many workers there are and what each was told. Does not know Raft's rules or HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from raftchat.config import Config
from raftchat.ipc import frames
from raftchat.ipc.adopt import adopt
from raftchat.ipc.frames import Accepted, BadFrame, FrameReader, FrameType, Hello, Leader, Refusal
from raftchat.node.codec import Buffer

log = logging.getLogger(__name__)

GAUGE_SUFFIXES = ("_open", "_pending")
"""Counters that end so tell what is now, and are worth nothing once their worker is gone."""


class Segment(Protocol):
    @property
    def sequence(self) -> int: ...
    @property
    def base_index(self) -> int: ...
    @property
    def revision(self) -> int: ...


class Requests(Protocol):
    """What workers ask for; the driver."""

    def propose(self, client: Worker, batch: int, records: Buffer) -> None: ...
    def read(self, client: Worker, context: int) -> None: ...


class Workers:
    """All workers that are connected. `on_input` is called when something arrived that a turn should look at."""

    def __init__(
        self,
        config: Config,
        hello: Callable[[], Hello],
        segments: Callable[[], Sequence[Segment]],
        indexed: Callable[[int], bool],
        status: Callable[[], bytes],
        on_input: Callable[[], None],
        on_serving: Callable[[int], None],
        on_bad_index: Callable[[int], None],
    ) -> None:
        """`hello()`: what a worker that connects now is told. `segments()`: all of the log, in order.
        `indexed(sequence)`: whether the index of that segment can be used. `status()`: what `GET /raft` tells.
        `on_serving(worker number)`. `on_bad_index(sequence)`: have the index of that segment made again."""
        self.config = config
        self.hello = hello
        self.status = status
        self.on_input = on_input
        self.on_serving = on_serving
        self.on_bad_index = on_bad_index
        self.requests: Requests | None = None
        """Set once, before the first worker connects."""
        self._segments = segments
        self._indexed = indexed
        self._workers: list[Worker] = []
        self._commit_index = 0
        self._leader = Leader(0, 0, False)
        self._ended: Counter[str] = Counter()
        """Counters of workers that are gone: sums must not go back."""

    async def connect(self, number: int, sock: socket.socket) -> None:
        """Serve a worker over its connected Unix socket."""
        await adopt(lambda: Worker(self, number), sock)

    # Clients, as the driver sees them all

    def segments_changed(self) -> None:
        for worker in self._workers:
            worker.announce(self._segments())

    def indexed(self, sequence: int) -> None:
        """The index of a segment that they know can be used from now on."""
        for worker in self._workers:
            worker.put(frames.encode_indexed(sequence))

    def commit(self, index: int) -> None:
        self._commit_index = index
        for worker in self._workers:
            worker.commit(index)

    def leader(self, leader: Leader) -> None:
        self._leader = leader
        for worker in self._workers:
            worker.leader(leader)

    def flush(self) -> None:
        """Write what this turn had for the workers, in one call for each."""
        for worker in self._workers:
            worker.flush()

    def counters(self) -> dict[str, int | float]:
        """Sums over all workers since the node was started."""
        sums: dict[str, int | float] = dict(self._ended)
        for worker in self._workers:
            for name, value in worker.counters.items():
                sums[name] = sums.get(name, 0) + value
        return sums

    def __len__(self) -> int:
        return len(self._workers)

    # Called by Worker

    def opened(self, worker: Worker) -> None:
        segments = self._segments()
        worker.put(frames.encode_hello(self.hello()))
        worker.announce(segments)
        for segment in segments:
            if self._indexed(segment.sequence):
                worker.put(frames.encode_indexed(segment.sequence))
        worker.commit(self._commit_index)
        worker.leader(self._leader)
        self._workers.append(worker)
        worker.flush()

    def closed(self, worker: Worker) -> None:
        self._workers.remove(worker)
        for name, value in worker.counters.items():
            if not name.endswith(GAUGE_SUFFIXES):
                self._ended[name] += value  # type: ignore[assignment]  # seconds are floats


class Worker(asyncio.Protocol):
    """One worker's connection."""

    def __init__(self, workers: Workers, number: int) -> None:
        self.number = number
        self.counters: dict[str, int | float] = {}
        self._workers = workers
        self._reader = FrameReader(workers.config.ipc_frame_max_bytes)
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._announced: set[tuple[int, int]] = set()
        """(sequence, revision)."""
        self._first_index = 0
        """Where what was announced begins."""
        self._commit_index: int | None = None
        """To be told; the newest is enough."""
        self._leader: Leader | None = None
        self._paused = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._workers.opened(self)

    def data_received(self, data: bytes) -> None:
        requests = self._workers.requests
        assert requests is not None
        try:
            for kind, body in self._reader.feed(data):
                if kind == FrameType.PROPOSE:
                    batch, records = frames.decode_propose(body)
                    requests.propose(self, batch, records)
                    self._workers.on_input()
                elif kind == FrameType.READ:
                    requests.read(self, frames.decode_u64(body))
                    self._workers.on_input()
                elif kind == FrameType.COUNTERS:
                    self.counters = frames.decode_counters(body)
                elif kind == FrameType.STATUS:
                    self.put(frames.encode_status_is(frames.decode_u64(body), self._workers.status()))
                    self.flush()
                elif kind == FrameType.BAD_INDEX:
                    self._workers.on_bad_index(frames.decode_u64(body))
                elif kind == FrameType.SERVING:
                    self._workers.on_serving(self.number)
                else:
                    raise BadFrame(f"unknown type {kind}")
        except BadFrame as error:
            log.error("A worker sent a bad frame, disconnecting it: %s", error, extra={"worker": self.number})
            assert self._transport is not None
            self._transport.abort()

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        self.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._workers.closed(self)

    # Answers and notices

    def accepted(self, accepted: Accepted) -> None:
        self._out.append(frames.encode_accepted(accepted))

    def refused(self, batch: int, reason: Refusal) -> None:
        self._out.append(frames.encode_refused(batch, reason))

    def read_at(self, context: int, index: int) -> None:
        self._out.append(frames.encode_read_at(context, index))

    def commit(self, index: int) -> None:
        self._commit_index = index

    def leader(self, leader: Leader) -> None:
        self._leader = leader

    def announce(self, segments: Sequence[Segment]) -> None:
        """Those that it was not told of yet, and where they begin if the oldest are gone. `segments`: not empty."""
        announced, self._announced = self._announced, set()
        for segment in segments:
            name = (segment.sequence, segment.revision)
            self._announced.add(name)
            if name not in announced:
                self._out.append(frames.encode_segment(segment.sequence, segment.base_index, segment.revision))
        if self._first_index < segments[0].base_index:
            if self._first_index:
                self._out.append(frames.encode_dropped(segments[0].base_index))
            self._first_index = segments[0].base_index

    def put(self, frame: bytes) -> None:
        self._out.append(frame)

    def flush(self) -> None:
        """Write what is due. A worker that stands still is not told every commit index, only the last."""
        if not self._paused:
            if self._commit_index is not None:
                self._out.append(frames.encode_commit(self._commit_index))
                self._commit_index = None
            if self._leader is not None:
                # Behind the commit index: "ready" promises that this one covers what was committed.
                self._out.append(frames.encode_leader(self._leader))
                self._leader = None
        if self._out:
            out, self._out = self._out, []
            if self._transport is not None:
                self._transport.write(b"".join(out))

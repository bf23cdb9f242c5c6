"""The worker's end of the IPC socket: what goes to the Raft process, and whom its answers concern.

All proposals of one turn of the loop leave in one frame, and so do all reads. Does not know HTTP, rooms or files.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, cast

import orjson

from raftchat.config import Config
from raftchat.ipc import frames
from raftchat.ipc.frames import FrameType, Hello, Leader
from raftchat.worker.pending import Failure, Outcome, PendingPosts
from raftchat.worker.rounds import ReadRounds

_log = logging.getLogger(__name__)

_EXPIRE_INTERVAL_MS = 250


class RaftLink(asyncio.Protocol):
    """`on_hello`, `on_segment(sequence, base index, revision)`, `on_indexed(sequence)` and `on_commit(index)` are
    called as the frames come, and `on_turn()` once after all frames that came together; `on_lost(error or None)` when
    the connection ended."""

    def __init__(self, config: Config, loop: asyncio.AbstractEventLoop, pending: PendingPosts) -> None:
        self.leader = Leader(0, 0, False)
        self.pending = pending
        self.on_hello: Callable[[Hello], None] = lambda hello: None
        self.on_segment: Callable[[int, int, int], None] = lambda sequence, base_index, revision: None
        self.on_indexed: Callable[[int], None] = lambda sequence: None
        self.on_dropped: Callable[[int], None] = lambda first_index: None
        self.on_commit: Callable[[int], None] = lambda index: None
        self.on_turn: Callable[[], None] = lambda: None
        self.on_lost: Callable[[Exception | None], None] = lambda error: None
        self.connected = False
        self._config = config
        self._loop = loop
        self._reader = frames.FrameReader(config.ipc_frame_max_bytes)
        self._transport: asyncio.Transport | None = None
        self._batch = 0
        self._records: list[bytes] = []
        self._waiting: list[Callable[[Outcome], None]] = []
        self._flushing = False
        self._clogged = False
        """The Raft process does not read: what timed out meanwhile is not pending any more, but still to be written."""
        self._rounds = ReadRounds(lambda context: self._send(frames.encode_read(context)))
        self._status_context = 0
        self._status: dict[int, asyncio.Future[bytes]] = {}
        self._handlers: dict[int, Callable[[memoryview], None]] = {
            FrameType.HELLO: lambda body: self.on_hello(frames.decode_hello(body)),
            FrameType.SEGMENT: lambda body: self.on_segment(*frames.decode_segment(body)),
            FrameType.INDEXED: lambda body: self.on_indexed(frames.decode_u64(body)),
            FrameType.DROPPED: lambda body: self.on_dropped(frames.decode_u64(body)),
            FrameType.COMMIT: lambda body: self.on_commit(frames.decode_u64(body)),
            FrameType.LEADER: self._on_leader,
            FrameType.ACCEPTED: lambda body: self.pending.accept(frames.decode_accepted(body)),
            FrameType.REFUSED: lambda body: self.pending.refuse(*frames.decode_refused(body)),
            FrameType.READ_AT: lambda body: self._rounds.answer(*frames.decode_read_at(body)),
            FrameType.STATUS_IS: self._on_status,
        }

    @property
    def rounds(self) -> int:
        """Rounds of linearizable reads begun so far."""
        return self._rounds.rounds

    # What the routes ask for

    def propose(self, record: bytes, resolve: Callable[[Outcome], None]) -> None:
        """Have an unstamped record committed. `resolve` is called exactly once, by the time-out at the latest."""
        if not self.connected:
            resolve(Failure.NO_LEADER)
            return
        if self._clogged or self.pending.size_bytes > self._config.uncommitted_max_bytes:
            resolve(Failure.OVERLOADED)
            return
        self._records.append(record)
        self._waiting.append(resolve)
        self._flush_soon()

    def read(self, resolve: Callable[[int], None]) -> None:
        """Call `resolve` once with the index to apply before a linearizable read; 0: no leader confirms one in time."""
        if not self.connected:
            resolve(0)
            return
        self._rounds.join(self._deadline_ms(), resolve)
        self._flush_soon()

    def read_index(self) -> asyncio.Future[int]:
        """`read` as a future."""
        future: asyncio.Future[int] = self._loop.create_future()

        def resolve(index: int) -> None:
            if not future.done():
                future.set_result(index)

        self.read(resolve)
        return future

    async def status(self, timeout_ms: int) -> dict[str, Any]:
        """The Raft process's own report. Raises TimeoutError or ConnectionError if it gives none."""
        if not self.connected or self._clogged:
            raise ConnectionError("the Raft process is not connected, or does not read")
        self._status_context += 1
        context = self._status_context
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._status[context] = future
        try:
            self._send(frames.encode_status(context))
            async with asyncio.timeout(timeout_ms / 1000):
                status: dict[str, Any] = orjson.loads(await future)
                return status
        finally:
            del self._status[context]

    def send_counters(self, counters: dict[str, int | float]) -> None:
        self._send(frames.encode_counters(counters))

    def send_bad_index(self, sequence: int) -> None:
        self._send(frames.encode_bad_index(sequence))

    def send_serving(self) -> None:
        self._send(frames.encode_serving())

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=self._config.uncommitted_max_bytes)
        self.connected = True
        self._expire()

    def pause_writing(self) -> None:
        self._clogged = True

    def resume_writing(self) -> None:
        self._clogged = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.connected = False
        self.leader = Leader(0, 0, False)
        waiting, self._waiting = self._waiting, []
        self._records.clear()
        for resolve in waiting:
            resolve(Failure.NO_LEADER)
        self.pending.abandon()
        self._rounds.expire(float("inf"))
        for future in self._status.values():
            if not future.done():
                future.set_exception(ConnectionError("the Raft process is gone"))
        self.on_lost(exc)

    def data_received(self, data: bytes) -> None:
        try:
            for frame_type, body in self._reader.feed(data):
                handler = self._handlers.get(frame_type)
                if handler is None:
                    raise frames.BadFrame(f"unknown type {frame_type}")
                handler(body)
        except frames.BadFrame:
            _log.exception("The Raft process sent what is no frame of this version")
            self.close()
            return
        self.on_turn()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _on_leader(self, body: memoryview) -> None:
        self.leader = frames.decode_leader(body)

    def _on_status(self, body: memoryview) -> None:
        context, status = frames.decode_status_is(body)
        future = self._status.get(context)
        if future is not None and not future.done():
            future.set_result(bytes(status))

    def _send(self, frame: bytes) -> None:
        if self.connected and self._transport is not None:
            self._transport.write(frame)

    def _deadline_ms(self) -> float:
        return self._loop.time() * 1000 + self._config.request_timeout_ms

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        if self._records and self.connected:
            deadline_ms = self._deadline_ms()
            records, self._records = self._records, []
            waiting, self._waiting = self._waiting, []
            start = size_bytes = 0
            for stop, record in enumerate(records):
                if stop > start and size_bytes + len(record) > self._config.proposal_batch_max_bytes:
                    self._propose(records[start:stop], waiting[start:stop], size_bytes, deadline_ms)
                    start, size_bytes = stop, 0
                size_bytes += len(record)
            self._propose(records[start:], waiting[start:], size_bytes, deadline_ms)
        self._rounds.begin()

    def _propose(
        self, records: list[bytes], waiting: list[Callable[[Outcome], None]], size_bytes: int, deadline_ms: float
    ) -> None:
        self._batch += 1
        self.pending.propose(self._batch, waiting, size_bytes, deadline_ms)
        self._send(frames.encode_propose(self._batch, records))

    def _expire(self) -> None:
        if self.connected:
            now_ms = self._loop.time() * 1000
            self.pending.expire(now_ms)
            self._rounds.expire(now_ms)
            self._loop.call_later(_EXPIRE_INTERVAL_MS / 1000, self._expire)

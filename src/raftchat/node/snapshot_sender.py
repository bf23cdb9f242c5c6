"""Gives a snapshot and its segments to a member that asks: one file after the other, at a bounded rate.

Files are read in other threads, a chunk at a time, so that a slow disk holds up nobody; what the receiver does not
read is not read here either. Knows files by name; which they are is for `Source`.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable
from typing import Protocol, cast

from raftchat.config import Config
from raftchat.node.transfer import BadTransfer, Frames, Manifest, Refused, WantFile, WantManifest, decode_want, frame

log = logging.getLogger(__name__)


class Source(Protocol):
    def manifests(self, index: int) -> list[Manifest]:
        """Of snapshots at or above that index, the best first."""

    def is_whole(self, manifest: Manifest) -> bool:
        """Whether the snapshot's own file can be read. In any thread."""

    def path(self, name: str) -> str:
        """Of a file that a manifest named."""


class SnapshotSender(asyncio.Protocol):
    """Takes over an accepted connection after the handshake: `transport.set_protocol(sender)`, then `begin`."""

    def __init__(
        self,
        config: Config,
        source: Source,
        peer: int,
        on_asked: Callable[[int], None],
        on_closed: Callable[[SnapshotSender], None],
    ) -> None:
        """`on_asked(peer)`: it begins, or begins again."""
        self.peer = peer
        self.sent_bytes = 0
        self._config = config
        self._source = source
        self._on_asked = on_asked
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None
        self._arrived = asyncio.Event()
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._task: asyncio.Task[None] | None = None

    def begin(self, transport: asyncio.BaseTransport, trailing: bytes) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=2 * self._config.transfer_chunk_bytes)
        self._task = self._loop.create_task(self._run(), name=f"snapshot for {self.peer}")
        if trailing:
            self.data_received(trailing)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        self._frames.feed(data)
        self._arrived.set()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if self._task is not None:
            self._task.cancel()
        self._on_closed(self)

    # Answers

    async def _run(self) -> None:
        transport = self._transport
        assert transport is not None
        try:
            while True:
                fields = self._frames.next()
                if fields is None:
                    self._arrived.clear()
                    await self._arrived.wait()
                    continue
                try:
                    await self._answer(transport, decode_want(fields))
                except Refused as refused:
                    transport.write(frame({"Error": str(refused)}))
        except BadTransfer as error:
            log.warning("A peer that asked for a snapshot makes no sense: %s", error, extra={"peer": self.peer})
            transport.abort()
        except OSError as error:
            # Half a file cannot be taken back: hang up, and it will ask again.
            log.error("Cannot read what a peer asked for: %s", error, extra={"peer": self.peer})
            transport.abort()

    async def _answer(self, transport: asyncio.Transport, want: WantManifest | WantFile) -> None:
        if isinstance(want, WantManifest):
            manifest = await self._manifest(want.index)
            log.info(
                "Sending a snapshot",
                extra={"peer": self.peer, "index": manifest.index, "size_bytes": manifest.size_bytes},
            )
            transport.write(frame(manifest.encode()))
            return
        path = self._source.path(want.name)
        try:
            fd = await self._loop.run_in_executor(None, os.open, path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise Refused(f"{want.name} is gone: it was compacted meanwhile") from None
        try:
            left = os.fstat(fd).st_size - want.offset
            if left < 0:
                raise Refused(f"{want.name} ends before byte {want.offset}")
            transport.write(frame({"Size": left}))
            await self._send(transport, fd, want.offset, left)
        finally:
            os.close(fd)

    async def _manifest(self, index: int) -> Manifest:
        """Raises Refused."""
        self._on_asked(self.peer)
        for manifest in self._source.manifests(index):
            if await self._loop.run_in_executor(None, self._source.is_whole, manifest):
                return manifest
        raise Refused(f"no snapshot up to {index} or beyond is here yet")

    async def _send(self, transport: asyncio.Transport, fd: int, offset: int, left: int) -> None:
        chunk_bytes, rate = self._config.transfer_chunk_bytes, self._config.transfer_rate_max_bytes_per_s
        due_s = self._loop.time()
        while left:
            data = await self._loop.run_in_executor(None, os.pread, fd, min(chunk_bytes, left), offset)
            if not data:
                raise OSError("the file became shorter")
            transport.write(data)
            self.sent_bytes += len(data)
            offset += len(data)
            left -= len(data)
            await self._may_write.wait()
            now_s = self._loop.time()
            # What was not used of the rate is not saved up.
            due_s = max(due_s + len(data) / rate, now_s)
            if due_s > now_s:
                await asyncio.sleep(due_s - now_s)

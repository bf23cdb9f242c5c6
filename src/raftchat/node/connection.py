"""The two ends of a connection between nodes: `Outgoing` dials and writes, `Incoming` was accepted and reads.

asyncio protocols around `handshake.py` and the frames of `codec.py`. They know their own connection; who is a member,
when to dial again and what a message means is for others.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Callable, Container
from typing import cast

from raftchat.config import Config
from raftchat.ipc.frames import BadFrame, FrameSplitter
from raftchat.node import handshake
from raftchat.node.codec import HEADER_SIZE_BYTES, Buffer, ParseBatch, WireMessage, decode

log = logging.getLogger(__name__)

KEEPALIVE_IDLE_S = 10


class Outgoing(asyncio.Protocol):
    """`welcomed` is done once frames may be written, `lost` when the connection is gone; both may fail before."""

    def __init__(self, dialled: handshake.Dialled, loop: asyncio.AbstractEventLoop) -> None:
        self._dialled = dialled
        self._transport: asyncio.Transport | None = None
        self.welcomed: asyncio.Future[None] = loop.create_future()
        self.lost: asyncio.Future[None] = loop.create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        # How much may wait is decided by whoever writes.
        self._transport.set_write_buffer_limits(high=1 << 30)
        self._transport.write(self._dialled.request)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        if self.welcomed.done():
            # Frames travel the other way only.
            self._transport.abort()
            return
        try:
            welcome = self._dialled.feed(data)
        except handshake.HandshakeFailed as error:
            self.welcomed.set_exception(error)
            self._transport.abort()
            return
        if welcome is not None:
            self.welcomed.set_result(None)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        if not self.welcomed.done():
            try:
                self._dialled.feed(b"")
                failure = handshake.HandshakeFailed("the connection was closed during the handshake", closed=True)
            except handshake.HandshakeFailed as told:
                failure = told
            self.welcomed.set_exception(failure)
        if not self.lost.done():
            self.lost.set_result(None)

    def write(self, buffers: list[Buffer]) -> None:
        """Into the void once the connection is gone: whoever waits for `lost` may not have run yet."""
        if self._transport is not None:
            self._transport.writelines(buffers)

    @property
    def waiting_bytes(self) -> int:
        """Written and not yet taken by the operating system."""
        return self._transport.get_write_buffer_size() if self._transport is not None else 0

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


class Incoming(asyncio.Protocol):
    """Reads frames of one peer. `peer` is 0 until the handshake is over."""

    def __init__(
        self,
        config: Config,
        cluster_id: str,
        node_id: int,
        members: Callable[[], Container[int]],
        parse_batch: ParseBatch,
        on_welcome: Callable[[Incoming], None],
        on_message: Callable[[int, WireMessage], None],
        on_lost: Callable[[Incoming], None],
        on_refused: Callable[[str, str], None],
        on_snapshot: Callable[[int, asyncio.Transport, bytes], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """`on_refused(address, reason)`: a stranger, or a node that does not belong here. `on_snapshot(peer, transport,
        trailing)`: it wants a snapshot; the connection has another protocol from then on, and this one is done."""
        self.peer = 0
        self._accepted = handshake.Accepted(cluster_id, node_id, members)
        self._splitter = FrameSplitter(config.peer_frame_max_bytes + HEADER_SIZE_BYTES)
        self._parse_batch = parse_batch
        self._on_welcome, self._on_message, self._on_lost = on_welcome, on_message, on_lost
        self._on_refused = on_refused
        self._on_snapshot = on_snapshot
        self._transport: asyncio.Transport | None = None
        self._timeout = loop.call_later(config.peer_handshake_timeout_ms / 1000, self.abort)
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._closing:
            # One too many: `abort` came before there was anything to abort.
            self._transport.abort()
            return
        try:
            tune(transport)
        except OSError:
            self.abort()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        try:
            if not self.peer:
                data = self._shake_hands(data)
            # Read once: replaced by a newer connection of the same peer, this one must not go on delivering.
            for frame in self._splitter.feed(data) if data else ():
                self._on_message(self.peer, decode(frame, self.peer, self._parse_batch))
        except BadFrame as error:
            log.error("Closing the connection of a peer that sent a bad frame: %s", error, extra={"peer": self.peer})
            self.abort()
        except handshake.HandshakeFailed:
            self.abort()

    def _shake_hands(self, data: bytes) -> bytes:
        """What came behind the handshake, or nothing."""
        assert self._transport is not None
        match self._accepted.feed(data):
            case handshake.Welcome(peer, reply, trailing, handshake.SNAPSHOT):
                transport, self._transport = self._transport, None
                transport.write(reply)
                self._on_snapshot(peer, transport, trailing)
                self.connection_lost(None)
            case handshake.Welcome(peer, reply, trailing):
                self._timeout.cancel()
                self.peer = peer
                self._transport.write(reply)
                self._on_welcome(self)
                return trailing
            case handshake.Refused(reply, reason):
                self._on_refused(_address(self._transport.get_extra_info("peername")), reason)
                self._transport.write(reply)
                self._transport.close()
                self._closing = True
        return b""

    def connection_lost(self, error: Exception | None) -> None:
        self._timeout.cancel()
        self._closing = True
        self._on_lost(self)

    def abort(self) -> None:
        """Nothing is delivered any more; `on_lost` follows."""
        self._closing = True
        if self._transport is not None:
            self._transport.abort()


def _address(peername: tuple[object, ...] | None) -> str:
    """`127.0.0.1:4711`, `[::1]:4711`."""
    if not peername:
        return "unknown"
    host, port = str(peername[0]), peername[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def tune(transport: asyncio.BaseTransport, user_timeout_ms: int = 0) -> None:
    """No delay; notice a peer that vanished without a word: by keep-alive, and for what we send within the time-out.

    Raises OSError if the connection is already gone.
    """
    sock = transport.get_extra_info("socket")
    if sock is None:
        raise ConnectionAbortedError(errno.ECONNABORTED, os.strerror(errno.ECONNABORTED))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    if user_timeout_ms and hasattr(socket, "TCP_USER_TIMEOUT"):
        # Without it, retransmission backs off so far that a healed network goes unnoticed for minutes.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, user_timeout_ms)

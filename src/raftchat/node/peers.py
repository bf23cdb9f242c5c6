"""Connections to the other members: dials each and sends on what it dialled, receives on what it accepted.

Sending never blocks and promises nothing: what cannot be sent now is dropped, for Raft sends again. `send` says so, for
those who do not. Knows who is a member by asking; does not know what a message means, except which may be dropped
first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from random import Random
from urllib.parse import urlsplit

from raftchat.config import Config
from raftchat.node import handshake
from raftchat.node.codec import Buffer, Forward, ParseBatch, WireMessage, encode
from raftchat.node.connection import Incoming, Outgoing, tune
from raftchat.node.seldom import Seldom
from raftchat.node.snapshot_sender import SnapshotSender, Source
from raftchat.raft.messages import AppendEntries

log = logging.getLogger(__name__)

REFUSAL_LOG_INTERVAL_S = 60.0
REFUSALS_REMEMBERED = 256


class Peers:
    """All other members of the cluster. `on_broken(peer)`: what was sent to it, or it to us, may be lost."""

    def __init__(
        self,
        config: Config,
        cluster_id: str,
        node_id: int,
        members: Callable[[], Mapping[int, str]],
        random: Random,
        parse_batch: ParseBatch,
        on_message: Callable[[int, WireMessage], None],
        on_broken: Callable[[int], None],
        snapshots: Source,
        on_snapshot_asked: Callable[[int], None],
    ) -> None:
        self._config = config
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._members = members
        self._random = random
        self._parse_batch = parse_batch
        self._on_message = on_message
        self._on_broken = on_broken
        self._snapshots = snapshots
        self._on_snapshot_asked = on_snapshot_asked
        self._senders: set[SnapshotSender] = set()
        self._loop = asyncio.get_running_loop()
        self._servers: list[asyncio.Server] = []
        self._diallers: dict[int, _Dialler] = {}
        self._incoming: dict[int, Incoming] = {}
        self._shaking: set[Incoming] = set()
        self._all_incoming: set[Incoming] = set()
        self._encoded: dict[int, tuple[AppendEntries, list[Buffer]]] = {}
        """Of this turn, by identity: followers at the same place are sent the same object."""
        self._refusals = Seldom(REFUSAL_LOG_INTERVAL_S, REFUSALS_REMEMBERED)
        self.dropped_frames = 0
        self.sent_bytes = 0

    async def start(self, listening: list[socket.socket]) -> None:
        """Accept on these sockets, and dial all members."""
        for sock in listening:
            self._servers.append(await self._loop.create_server(self._accept, sock=sock))
        self.refresh()

    def refresh(self) -> None:
        """The membership may have changed: dial who is new, let go of who is gone or has moved."""
        members = {peer: url for peer, url in self._members().items() if peer != self._node_id}
        for peer, dialler in list(self._diallers.items()):
            if members.get(peer) != dialler.url:
                dialler.stop()
                del self._diallers[peer]
        for peer, url in members.items():
            if peer not in self._diallers:
                self._diallers[peer] = _Dialler(self, peer, url)
        for peer, connection in list(self._incoming.items()):
            if peer not in members:
                connection.abort()
        for sender in list(self._senders):
            if sender.peer not in members:
                sender.abort()

    def send(self, to: int, message: WireMessage) -> bool:
        """Have it sent by the next `flush`. False: it certainly was not and will not be.

        A peer that is slow to read goes without log entries and forwards. One that does not make room even for the
        others, which are small, is cut off: some of those are not sent again.
        """
        if isinstance(message, AppendEntries):
            may_drop = True
            encoded = self._encoded.get(id(message))
            if encoded is None:
                encoded = self._encoded[id(message)] = (message, encode(message))
            frame = encoded[1]
        else:
            may_drop = isinstance(message, Forward)
            frame = encode(message)
        dialler = self._diallers.get(to)
        connection = dialler.connection if dialler is not None else None
        if dialler is None or connection is None:
            self.dropped_frames += 1
            return False
        size = sum(map(len, frame))
        waiting = connection.waiting_bytes + dialler.queued_bytes
        limit = self._config.peer_send_buffer_max_bytes
        if waiting + size > (limit if may_drop else 2 * limit):
            self.dropped_frames += 1
            if not may_drop:
                log.warning("Cutting off a peer that does not read", extra={"peer": to, "waiting_bytes": waiting})
                connection.abort()
            return False
        dialler.queue.extend(frame)
        dialler.queued_bytes += size
        return True

    def flush(self) -> None:
        """Write what was queued, in one call for each peer."""
        self._encoded.clear()
        for dialler in self._diallers.values():
            if dialler.queue:
                queue, dialler.queue = dialler.queue, []
                self.sent_bytes += dialler.queued_bytes
                dialler.queued_bytes = 0
                if dialler.connection is not None:
                    dialler.connection.write(queue)

    def connected(self, peer: int) -> bool:
        """Whether frames to it can be written now."""
        dialler = self._diallers.get(peer)
        return dialler is not None and dialler.connection is not None

    async def close(self) -> None:
        """Write what is queued, and hang up."""
        self.flush()
        for server in self._servers:
            server.close()
        diallers = list(self._diallers.values())
        self._diallers.clear()
        for dialler in diallers:
            dialler.stop()
        for connection in list(self._all_incoming):
            connection.abort()
        for sender in list(self._senders):
            sender.abort()
        await asyncio.gather(*(dialler.task for dialler in diallers), return_exceptions=True)

    # Incoming

    def _accept(self) -> asyncio.Protocol:
        connection = Incoming(
            self._config,
            self._cluster_id,
            self._node_id,
            self._members,
            self._parse_batch,
            self._welcome,
            self._on_message,
            self._lost,
            self._refused,
            self._send_snapshot,
            self._loop,
        )
        self._all_incoming.add(connection)
        self._shaking.add(connection)
        if len(self._shaking) > self._config.peer_handshakes_max:
            self._loop.call_soon(connection.abort)
        return connection

    def _welcome(self, connection: Incoming) -> None:
        self._shaking.discard(connection)
        before = self._incoming.get(connection.peer)
        self._incoming[connection.peer] = connection
        if before is not None:
            before.abort()
        # Also if there was none: answers that it owed may have been dropped meanwhile.
        self._on_broken(connection.peer)
        if dialler := self._diallers.get(connection.peer):
            dialler.hurry()

    def _lost(self, connection: Incoming) -> None:
        self._shaking.discard(connection)
        self._all_incoming.discard(connection)
        if self._incoming.get(connection.peer) is connection:
            del self._incoming[connection.peer]
            self._on_broken(connection.peer)

    def _send_snapshot(self, peer: int, transport: asyncio.Transport, trailing: bytes) -> None:
        for other in list(self._senders):
            if other.peer == peer:
                other.abort()  # It asks again: what it asked before, it has given up.
        sender = SnapshotSender(self._config, self._snapshots, peer, self._on_snapshot_asked, self._senders.discard)
        self._senders.add(sender)
        transport.set_protocol(sender)
        sender.begin(transport, trailing)

    def _refused(self, address: str, reason: str) -> None:
        """Told once for each host and reason, then at most once a minute: whoever is refused dials again and again."""
        host = address.rpartition(":")[0]
        more = self._refusals.seen((host, reason), self._loop.time())
        if more is not None:
            extra: dict[str, object] = {"from": address}
            if more:
                extra["refused_meanwhile"] = more
            log.warning("Refused a connection to the peer port: %s", reason, extra=extra)

    # Outgoing

    async def dial(self, peer: int, url: str) -> Outgoing:
        """A connection that frames may be written to. Raises OSError, HandshakeFailed, TimeoutError."""
        parts = urlsplit(url)
        assert parts.hostname is not None, url
        dialled = handshake.Dialled(self._cluster_id, self._node_id, peer, parts.netloc)
        async with asyncio.timeout(self._config.peer_handshake_timeout_ms / 1000):
            transport, connection = await self._loop.create_connection(
                lambda: Outgoing(dialled, self._loop), parts.hostname, parts.port or 80
            )
            try:
                tune(transport, 2 * self._config.election_timeout_ms)
                await connection.welcomed
            except BaseException:
                transport.abort()
                raise
        return connection

    def broken(self, peer: int) -> None:
        self._on_broken(peer)

    def redial_delay_s(self, attempt: int) -> float:
        """Doubles with each attempt, up to the maximum; the jitter keeps nodes from dialling in step."""
        low, high = self._config.peer_redial_min_ms, self._config.peer_redial_max_ms
        return min(high, low << min(attempt, 20)) * self._random.uniform(0.5, 1.0) / 1000


class _Dialler:
    """Keeps one peer connected."""

    def __init__(self, peers: Peers, peer: int, url: str) -> None:
        self.url = url
        self.connection: Outgoing | None = None
        self.queue: list[Buffer] = []
        self.queued_bytes = 0
        self._peers = peers
        self._peer = peer
        self._hurry = asyncio.Event()
        self.task = asyncio.create_task(self._run(), name=f"dial {peer}")

    def hurry(self) -> None:
        """The peer is known to be up: do not wait for the next attempt."""
        self._hurry.set()

    def stop(self) -> None:
        self.task.cancel()

    async def _run(self) -> None:
        attempt = 0
        told = ""
        while True:
            try:
                connection = await self._peers.dial(self._peer, self.url)
            except (OSError, handshake.HandshakeFailed) as error:
                # TimeoutError is an OSError. Each reason is told once, not once a second.
                if (reason := _plain(error)) != told:
                    # A peer that is down, or just ending, is no fault of anybody's; one that says no is.
                    refused = isinstance(error, handshake.HandshakeFailed) and not error.closed
                    log.log(
                        logging.WARNING if refused else logging.INFO,
                        "Cannot connect to a peer, will keep trying: %s",
                        reason,
                        extra={"peer": self._peer, "url": self.url},
                    )
                    told = reason
            else:
                log.info("Connected to a peer", extra={"peer": self._peer, "url": self.url})
                attempt, told = 0, ""
                await self._stay(connection)
                log.info("Lost the connection to a peer", extra={"peer": self._peer, "url": self.url})
            self._hurry.clear()
            try:
                async with asyncio.timeout(self._peers.redial_delay_s(attempt)):
                    await self._hurry.wait()
            except TimeoutError:
                attempt += 1

    async def _stay(self, connection: Outgoing) -> None:
        self.connection = connection
        try:
            await connection.lost
        finally:
            self.connection = None
            self.queue.clear()
            self.queued_bytes = 0
            connection.abort()
            self._peers.broken(self._peer)


def _plain(error: Exception) -> str:
    """Why a peer cannot be reached, without the words of the event loop."""
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return str(error)

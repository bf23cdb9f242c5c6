"""One worker from its sockets to its end: makes the parts, connects them, serves, and stops in order.

Knows uvicorn and the loop. Does not know the supervisor or how this process was started (`__main__.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from importlib.resources.abc import Traversable

import orjson
import uvicorn

from raftchat.chat.state import ChatState
from raftchat.config import Config
from raftchat.ipc.adopt import adopt
from raftchat.ipc.frames import Hello
from raftchat.worker.app import App
from raftchat.worker.counters import Counters
from raftchat.worker.http_protocol import HttpProtocol
from raftchat.worker.hub import Hub
from raftchat.worker.known_heads import KnownHeads
from raftchat.worker.link import RaftLink
from raftchat.worker.pending import PendingPosts
from raftchat.worker.query import segment_decoder
from raftchat.worker.replica import Reader, Replica
from raftchat.worker.services import Services
from raftchat.worker.short_cuts import ShortCut, short_cuts
from raftchat.worker.socket_protocol import SocketProtocol

log = logging.getLogger(__name__)

_SWEEP_INTERVAL_S = 1.0


class _Server(uvicorn.Server):
    """uvicorn ends a process by the signal it was sent. A worker that was asked to stop, stops with exit code 0."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._on_started()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield  # only the main thread can; whoever runs this elsewhere calls `stop`
            return
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        self.should_exit = True


class WorkerServer:
    """`error` is what ended it, if something did."""

    def __init__(
        self,
        config: Config,
        *,
        open_reader: Callable[[str], Reader],
        load_state: Callable[[str], ChatState],
        pack: Callable[[int, bytes, bytes], bytes],
        web: Traversable,
        clock_s: Callable[[], float] = time.monotonic,
        time_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Must be called in the loop that will run it. `open_reader(log directory)`, `pack`: those of `_log`.
        `load_state(path of a snapshot)`: the state in it."""
        self.error: Exception | None = None
        self._config = config
        self._loop = asyncio.get_running_loop()
        pending = PendingPosts()
        self._link = RaftLink(config, self._loop, pending)
        self._hub = Hub()
        self._replica = Replica(
            config,
            self._loop,
            clock_s,
            open_reader,
            load_state,
            pending,
            self._hub,
            on_fatal=self._fail,
            on_replayed=self._announce,
        )
        self._link.on_hello = self._on_hello
        self._link.on_segment = self._replica.add_segment
        self._link.on_indexed = self._replica.use_index
        self._link.on_dropped = self._replica.drop_prefix
        self._link.on_commit = self._replica.commit
        self._link.on_turn = self._replica.advance
        self._link.on_lost = self._on_lost
        self._sent: dict[str, int | float] = {}
        self._told_bad: set[int] = set()
        self._services = services = Services(
            config=config,
            link=self._link,
            replica=self._replica,
            hub=self._hub,
            counters=Counters(),
            pack=pack,
            room_of_segment=segment_decoder(config),
            clock_s=clock_s,
            time_ms=time_ms,
        )
        self._server = _Server(self._uvicorn(App(services, web), short_cuts(services)), self._announce)
        self._stopping = False

    async def serve(self, http: list[socket.socket], ipc: socket.socket) -> None:
        """Until SIGTERM, or until the Raft process is gone or the log cannot be read; then `error` says so."""
        await adopt(lambda: self._link, ipc)
        sweeper = self._loop.create_task(self._sweep())
        try:
            await self._server.serve(sockets=http)
        finally:
            self._stopping = True
            sweeper.cancel()
            self._send_counters()
            self._link.close()
            self._replica.close()

    def stop(self) -> None:
        """What SIGTERM does."""
        self._server.stop()

    def _uvicorn(self, app: App, short_cut: ShortCut) -> uvicorn.Config:
        config = self._config
        return uvicorn.Config(
            app,
            http=type(
                "HttpProtocol",
                (HttpProtocol,),
                {"limits": config, "short_cut": staticmethod(short_cut), "known_heads": KnownHeads(config)},
            ),
            ws=type("SocketProtocol", (SocketProtocol,), {"limits": config}),
            ws_max_size=config.socket_frame_max_bytes,
            ws_ping_interval=config.socket_ping_interval_ms / 1000,
            ws_ping_timeout=config.socket_ping_timeout_ms / 1000,
            ws_per_message_deflate=False,
            lifespan="off",
            interface="asgi3",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, config.shutdown_timeout_ms // 1000),
        )

    # From the link and the replica

    def _on_hello(self, hello: Hello) -> None:
        self._replica.open(hello.log_directory, hello.snapshot)

    def _announce(self) -> None:
        """Whichever comes last: the sockets are open, and what was committed is applied."""
        if self._server.started and self._replica.replayed:
            log.info("Serving", extra={"applied": self._replica.applied_index, "rooms": len(self._replica.state)})
            self._link.send_serving()

    def _on_lost(self, error: Exception | None) -> None:
        if not self._stopping:
            self._fail(error or ConnectionError("the Raft process closed the connection"))

    def _fail(self, error: Exception) -> None:
        if self.error is None:
            self.error = error
            log.error("This worker must end: %s", error, extra={"error": type(error).__name__})
        self._server.stop()

    # Now and then

    async def _sweep(self) -> None:
        beat_s = self._loop.time()
        while True:
            await asyncio.sleep(_SWEEP_INTERVAL_S)
            now_s = self._loop.time()
            for connection in list(self._server.server_state.connections):
                if isinstance(connection, HttpProtocol):
                    connection.expire(now_s)
            if now_s - beat_s >= self._config.socket_heartbeat_ms / 1000:
                beat_s = now_s
                self._hub.broadcast(orjson.dumps({"Heartbeat": self._replica.applied_index}))
            self._send_counters()
            self._send_bad_indexes()

    def _send_bad_indexes(self) -> None:
        """Each once, until a new one has come."""
        bad = set(self._replica.bad_indexes())
        for sequence in bad - self._told_bad:
            self._link.send_bad_index(sequence)
        self._told_bad = bad

    def _send_counters(self) -> None:
        counters = self._services.counted()
        if counters != self._sent:
            self._sent = counters
            self._link.send_counters(counters)

"""uvicorn's WebSocket protocol with three things added: frames written as they are, a bound on what waits for one
socket, and an end for peers that do not take part in one.

Knows transports and close codes. Does not know messages or rooms. That `close()` of a transport waits for its buffer to
drain is why a peer that stopped reading must be aborted: it would hold its memory for ever otherwise.
"""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.http11 import Request

from raftchat.config import Config

EXTENSION = "raftchat.socket"
"""Key in the scope's extensions under which a connection's own SocketProtocol is found."""

TRY_AGAIN_LATER = 1013


class SocketProtocol(WebSocketsSansIOProtocol):
    """A `hub.Sink`."""

    limits: ClassVar[Config]
    lagged = False
    """Closed because it read too slowly."""

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            # The application's task, made just now, runs in a later turn.
            extensions: dict[str, Any] = self.scope["extensions"]
            extensions[EXTENSION] = self

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            # A refusal completes the handshake as well. uvicorn takes it for an application's fault, and logs it.
            self.handshake_complete = True

    def write(self, data: bytes) -> None:
        """Send whole frames, or if more than `socket_queue_max_bytes` would wait then, close with 1013.

        With nothing waiting, anything may be sent: a burst is no sign of a slow reader.
        """
        if self.close_sent or self.disconnected or self.transport.is_closing():
            return
        waiting_bytes = self.transport.get_write_buffer_size()
        if waiting_bytes and waiting_bytes + len(data) > self.limits.socket_queue_max_bytes:
            self.lagged = True
            self._end(TRY_AGAIN_LATER, "reading too slowly")
            return
        self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        # Answers to pings are written by the library without asking how much waits already.
        if self.transport.get_write_buffer_size() > self.limits.socket_queue_max_bytes:
            self.transport.abort()
            return
        super().data_received(data)

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._abort_later()

    def handle_parser_exception(self) -> None:
        super().handle_parser_exception()
        self._abort_later()

    def handle_close(self, event: Any) -> None:
        super().handle_close(event)
        self._abort_later()

    def shutdown(self) -> None:
        with contextlib.suppress(InvalidState):  # the closing handshake is under way already
            super().shutdown()
        self._abort_later()

    def _end(self, code: int, reason: str) -> None:
        self.stop_keepalive()
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        with contextlib.suppress(InvalidState):
            self.conn.send_close(code, reason)
            self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        # Set, so that the end of the application's task leaves the connection to the closing handshake.
        self.close_timer = self._abort_later()

    def _abort_later(self) -> Any:
        return self.loop.call_later(self.limits.socket_close_timeout_ms / 1000, self.transport.abort)

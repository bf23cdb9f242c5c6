"""uvicorn's HTTP/1.1 protocol with what it lacks: deadlines for requests that do not arrive, bounds on heads and
refused bodies, and problem details for what is no HTTP.

Knows connections and bytes. Does not know routes or what a request means.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from raftchat.config import Config
from raftchat.worker.known_heads import HEAD_END, KnownHeads
from raftchat.worker.problems import Problem
from raftchat.worker.security import API_HEADERS
from raftchat.worker.short_cuts import MakeCycle, ShortCut
from raftchat.worker.short_cycle import ShortCycle

log = logging.getLogger(__name__)

_FIELD_EXTRA_BYTES = 4
"""Colon, space and line end."""


class _Flow(FlowControl):
    """Reads on only when no request waits for its turn: uvicorn would go on with each answer, and heap up the rest."""

    def __init__(self, transport: asyncio.Transport, pipeline: deque[Any]) -> None:
        super().__init__(transport)
        self._pipeline = pipeline

    def resume_reading(self) -> None:
        if not self._pipeline:
            super().resume_reading()


class HttpProtocol(HttpToolsProtocol):
    limits: ClassVar[Config]
    short_cut: ClassVar[ShortCut]
    """What makes the cycle of a request that need not go through ASGI; None for all others."""
    known_heads: ClassVar[KnownHeads]
    parser: Any
    cycle: Any

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._arriving_since_s: float | None = None
        """Loop time at which the request that is arriving began (or the connection, before the first one)."""
        self._idle_since_s = 0.0
        """Loop time of the last answer."""
        self._in_head = False
        self._in_step = False
        """What was read last held some of a body, or the end of a request."""
        self._head_bytes = 0
        """Read since then: of a head, a trailer, or a chunk's extension."""
        self._read_bytes = 0
        """What was read last."""
        self._discarded_bytes = 0
        self._begun = 0
        """Messages that began in what was read last."""
        self._make: MakeCycle | None = None
        """What made the cycle of the message that began last; None: it went the long way."""
        self._default_headers: list[tuple[bytes, bytes]] | None = None
        self._default_lines = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]
        self.flow = _Flow(self.transport, self.pipeline)
        self._arriving_since_s = self.loop.time()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        cycle = self.cycle
        # Neither a request that is arriving nor one that is not answered. (The first of a connection is parsed.)
        in_between = self._arriving_since_s is None and (cycle is None or cycle.response_complete)
        if in_between and not self.flow.write_paused:
            end = data.find(HEAD_END) + len(HEAD_END)
            known = self.known_heads.find(data[:end])
            if known is not None and len(data) - end == known.body_size_bytes:
                # What the parser would do with it was seen before, and leave it where it is: between two messages.
                self.cycle = cycle = known.make(self)
                cycle.body = data[end:]
                cycle.more_body = False
                cycle.run()
                return
        self._parse(data)
        if in_between and self._make is not None and self._begun == 1 and self._arriving_since_s is None:
            cycle = self.cycle
            if cycle.keep_alive:
                self.known_heads.learn(data, len(cycle.body), self._make)

    def _parse(self, data: bytes) -> None:
        self._begun = 0
        self._in_step = False
        self._read_bytes = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            if self._should_upgrade():
                if self.cycle is None or self.cycle.response_complete:
                    self.handle_websocket_upgrade()
                else:
                    # Its frames would come before the answers that are still due.
                    self._refuse(Problem("bad_request", "An upgrade cannot be pipelined."))
            else:
                # Answered as if it had not asked (RFC 9110 section 7.8); the parser has no way back: nothing follows.
                self._arriving_since_s = None
                self.cycle.keep_alive = False
            return
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, Problem):  # raised in a callback
                self._refuse(error.__context__)
                return
            self._refuse(Problem("bad_request", f"This is not a request of HTTP/1.1: {_reason(error)}."))
            return
        if self._in_step:
            self._head_bytes = 0
        elif self._arriving_since_s is not None:
            self._head_bytes += len(data)
            if self._head_bytes > self.limits.request_head_max_bytes:
                self._end_arrival(self._head_too_large())

    def on_message_begin(self) -> None:
        self._begun += 1
        self._make = None
        self._head_bytes = 0
        self._arriving_since_s = self.loop.time()
        self._in_head = True
        self._discarded_bytes = 0
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_header(self, name: bytes, value: bytes) -> None:
        # A trailer is of no use to anybody, and their number has no bound.
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        limit_bytes = self.limits.request_head_max_bytes
        # One read may hold more than the limit, and bodies too: only then is it worth counting.
        if self._head_bytes + self._read_bytes > limit_bytes:
            fields_bytes = sum(len(name) + len(value) + _FIELD_EXTRA_BYTES for name, value in self.headers)
            if len(self.url) + fields_bytes > limit_bytes:
                raise self._head_too_large()
        answered = self.cycle is None or self.cycle.response_complete
        if answered and not self.flow.write_paused and not self.parser.should_upgrade():
            make = type(self).short_cut(self)
            if make is not None:
                self._make = make
                self.cycle = make(self)
                return
        # The scope is made only here, by the class that knows what belongs into it.
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers += headers
        super().on_headers_complete()

    @property
    def default_lines(self) -> bytes:
        """The headers of every response, Date for one."""
        if self._default_headers is not self.server_state.default_headers:
            self._default_headers = self.server_state.default_headers
            self._default_lines = b"".join(b"%b: %b\r\n" % header for header in self._default_headers)
        return self._default_lines

    def on_body(self, body: bytes) -> None:
        self._in_step = True
        if self.cycle is not None and self.cycle.response_complete:
            self._discarded_bytes += len(body)
            if self._discarded_bytes > self.limits.request_discard_max_bytes:
                self.transport.close()
            return
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._in_step = True
        self._arriving_since_s = None
        cycle = self.cycle
        # An upgrade has no cycle: then this is that of the request before, which runs already.
        arrives = isinstance(cycle, ShortCycle) and cycle.more_body
        super().on_message_complete()
        if arrives and not cycle.response_complete:
            cycle.run()

    def on_response_complete(self) -> None:
        # As the base class has it, but for its timer, made and cancelled with every request: `expire` sees to that.
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        if self.flow.read_paused:
            self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self._idle_since_s = self.loop.time()

    def eof_received(self) -> bool | None:  # type: ignore[override]
        if self._arriving_since_s is not None and (self._in_head or self._awaits_body()):
            self._refuse(Problem("incomplete_request", "The connection ended before the request did."))
            return None
        if self.cycle is not None and not self.cycle.response_complete:
            # Closed for writing only: the answer is still wanted.
            self.cycle.keep_alive = False
            return True
        return None

    def expire(self, now_s: float) -> None:
        """Called every second or so: end what should have arrived by `now_s` (loop time)."""
        since_s = self._arriving_since_s
        if since_s is None and (self.cycle is None or self.cycle.response_complete):
            if now_s - self._idle_since_s >= self.limits.keep_alive_timeout_ms / 1000:
                self.transport.close()
            return
        if since_s is None or now_s - since_s < self.limits.request_header_timeout_ms / 1000:
            return
        seconds = self.limits.request_header_timeout_ms // 1000
        self._end_arrival(Problem("request_timeout", f"The request did not arrive within {seconds} seconds."))

    def _end_arrival(self, problem: Problem) -> None:
        if self._in_head or self._awaits_body():
            self._refuse(problem)
        else:
            # Nothing was ever sent, or a body that was refused is dribbling in.
            self.transport.close()

    def _head_too_large(self) -> Problem:
        return Problem("head_too_large", f"Headers may have {self.limits.request_head_max_bytes} bytes together.")

    def _awaits_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete

    def _refuse(self, problem: Problem) -> None:
        """Answer the request that is arriving, and close."""
        cycle = self.cycle
        self._arriving_since_s = None
        self._in_head = False
        if cycle is not None and not cycle.response_complete:
            if not cycle.more_body or cycle.response_started:
                # Earlier requests are still to be answered, in order. Then the connection is closed.
                cycle.keep_alive = False
                self.flow.pause_reading()
                return
            # Its application waits for a body that does not come. It is told that there is nobody to answer.
            cycle.disconnected = True
            cycle.message_event.set()
        content = [STATUS_LINE[problem.status]]
        body = problem.body()
        for name, value in [*self.server_state.default_headers, *problem.headers(), *API_HEADERS]:
            content += [name, b": ", value, b"\r\n"]
        content += [b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body), body]
        self.transport.write(b"".join(content))
        self.transport.close()


def _reason(error: httptools.HttpParserError) -> str:
    """The parser's own words, without line ends and not more than a line's worth."""
    text = str(error) or "it cannot be parsed"
    return "".join(character if character.isprintable() else " " for character in text)[:200].rstrip(".")

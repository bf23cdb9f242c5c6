"""A request below ASGI: what the HTTP protocol does with the hot routes instead of starting a task.

A `ShortCycle` takes the place of uvicorn's `RequestResponseCycle` for one request: the protocol collects the body into
it and looks at the same attributes, so pipelining, keep-alive, deadlines and shutdown need not know the difference. It
answers with one write. What is unusual goes the long way (`short_cuts.py`).

Knows bytes of HTTP/1.1. Does not know what a request means (`post_cycle.py`, `page_cycle.py`).
"""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from raftchat.worker.problems import Problem, internal_error
from raftchat.worker.respond import Headers
from raftchat.worker.security import API_HEADERS
from raftchat.worker.services import Services

if TYPE_CHECKING:
    from raftchat.worker.http_protocol import HttpProtocol

log = logging.getLogger(__name__)


def lines(headers: Headers) -> bytes:
    return b"".join([b"%b: %b\r\n" % header for header in headers])


class _NobodyWaits:
    """Stands for the event that wakes an ASGI application."""

    __slots__ = ()

    def set(self) -> None:
        pass


class ShortCycle:
    """One request, from its head to its answer."""

    message_event = _NobodyWaits()
    # What a request begins with is here, once for all of them.
    body = b""
    more_body = True
    disconnected = False
    response_started = False
    response_complete = False

    def __init__(self, services: Services, segment: bytes, keep_alive: bool, protocol: HttpProtocol) -> None:
        """`segment`: the raw path segment that names the room."""
        self._services = services
        self._segment = segment
        self.keep_alive = keep_alive
        self._protocol = protocol

    def run(self) -> None:
        """The request is whole. It is answered now or later, but exactly once."""
        try:
            self._run()
        except Problem as problem:
            self._refuse(problem)
        except Exception:
            log.exception("A request failed")
            self._refuse(internal_error())

    def _run(self) -> None:
        """Raises Problem."""
        raise NotImplementedError

    def _refuse(self, problem: Problem) -> None:
        if problem.status < 500:
            self._services.counters.requests_refused += 1
        status = HTTPStatus(problem.status)
        line = b"HTTP/1.1 %d %b\r\n" % (status, status.phrase.encode())
        self._answer(line, lines([*problem.headers(), *API_HEADERS]), problem.body())

    def _answer(self, status_line: bytes, header_lines: bytes, body: bytes) -> None:
        self._send(
            b"%b%b%bx-raft-index: %d\r\ncontent-length: %d\r\n%b\r\n%b"
            % (
                status_line,
                self._protocol.default_lines,
                header_lines,
                self._services.replica.applied_index,
                len(body),
                b"" if self.keep_alive else b"connection: close\r\n",
                body,
            )
        )

    def _send(self, answer: bytes) -> None:
        """The whole of it, from the status line on."""
        protocol = self._protocol
        transport = protocol.transport
        # Of pipelined requests, only the last is told that the client is gone.
        if self.disconnected or transport.is_closing():
            return
        self.response_started = True
        self.response_complete = True
        transport.write(answer)
        if not self.keep_alive:
            transport.close()
        protocol.on_response_complete()

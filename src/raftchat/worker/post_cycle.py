"""A post below ASGI: what the HTTP protocol does with most requests of `POST /rooms/{room}` instead of starting a task.

A `PostCycle` takes the place of uvicorn's `RequestResponseCycle` for one request: the protocol collects the body into
it and looks at the same attributes, so pipelining, keep-alive, deadlines and shutdown need not know the difference.
What is unusual (chunked or large bodies, `Expect`, `Upgrade`, a query, a pipelined successor, a client that does not
read its answers) goes the long way.

Knows bytes of HTTP/1.1. Does not know how a post is encoded or committed (`post.py`, `link`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from raftchat.worker.pending import Failure, Outcome
from raftchat.worker.post import CREATED, created, failed, record_of_post
from raftchat.worker.problems import Problem, internal_error
from raftchat.worker.respond import Headers
from raftchat.worker.security import API_HEADERS
from raftchat.worker.services import Services

if TYPE_CHECKING:
    from raftchat.worker.http_protocol import HttpProtocol

log = logging.getLogger(__name__)

_ROOM = b"/rooms/"
_UNUSUAL = frozenset((b"expect", b"transfer-encoding", b"upgrade", b"idempotency-key"))


def _lines(headers: Headers) -> bytes:
    return b"".join(b"%b: %b\r\n" % header for header in headers)


_CREATED_LINES = _lines(CREATED)


class _NobodyWaits:
    """Stands for the event that wakes an ASGI application."""

    __slots__ = ()

    def set(self) -> None:
        pass


_NOBODY_WAITS = _NobodyWaits()


class PostCycle:
    """One post, from its head to its answer."""

    __slots__ = (
        "_began_s",
        "_protocol",
        "_segment",
        "_services",
        "body",
        "disconnected",
        "keep_alive",
        "more_body",
        "response_complete",
        "response_started",
    )
    message_event = _NOBODY_WAITS

    def __init__(self, services: Services, protocol: HttpProtocol, segment: bytes, keep_alive: bool) -> None:
        self._services = services
        self._protocol = protocol
        self._segment = segment
        self._began_s = services.clock_s()
        self.body = b""
        self.keep_alive = keep_alive
        self.more_body = True
        self.disconnected = False
        self.response_started = False
        self.response_complete = False

    def run(self) -> None:
        """The body is whole: propose it. Answered now if it is refused, else once it is decided."""
        services = self._services
        try:
            record = record_of_post(services, self._segment, self.body)
            services.link.propose(record, self._decided)
        except Problem as problem:
            self._refuse(problem)
        except Exception:
            log.exception("A post failed")
            self._refuse(internal_error())

    def _decided(self, outcome: Outcome) -> None:
        services = self._services
        if isinstance(outcome, Failure):
            self._refuse(failed(services, outcome))
            return
        services.counters.observe_post(services.clock_s() - self._began_s)
        if self.disconnected:
            return
        answer, location = created(self._segment, outcome)
        self._write(
            b"HTTP/1.1 201 Created\r\n%b%blocation: %b\r\nx-raft-index: %d\r\ncontent-length: %d\r\n"
            % (self._protocol.default_lines, _CREATED_LINES, location, services.replica.applied_index, len(answer)),
            answer,
        )

    def _refuse(self, problem: Problem) -> None:
        if problem.status < 500:
            self._services.counters.requests_refused += 1
        if self.disconnected:
            return
        status = HTTPStatus(problem.status)
        body = problem.body()
        self._write(
            b"HTTP/1.1 %d %b\r\n%b%bx-raft-index: %d\r\ncontent-length: %d\r\n"
            % (
                status,
                status.phrase.encode(),
                self._protocol.default_lines,
                _lines([*problem.headers(), *API_HEADERS]),
                self._services.replica.applied_index,
                len(body),
            ),
            body,
        )

    def _write(self, head: bytes, body: bytes) -> None:
        protocol = self._protocol
        self.response_started = True
        self.response_complete = True
        if self.keep_alive:
            protocol.transport.write(head + b"\r\n" + body)
        else:
            protocol.transport.write(head + b"connection: close\r\n\r\n" + body)
            protocol.transport.close()
        protocol.on_response_complete()


def post_cycles(services: Services) -> Callable[[HttpProtocol], PostCycle | None]:
    """A function that makes the cycle for the request whose head is complete; None: it goes the long way.

    The caller sees to it that no earlier request of the connection is unanswered.
    """
    # Above its high water mark the protocol stops reading until an application asks for more; here is none to ask.
    size_max_bytes = min(services.config.body_size_max_bytes, HIGH_WATER_LIMIT)

    def cycle_for(protocol: HttpProtocol) -> PostCycle | None:
        url = protocol.url
        parser = protocol.parser
        if protocol.flow.write_paused or not url.startswith(_ROOM) or parser.get_method() != b"POST":
            return None
        segment = url[len(_ROOM) :]
        if b"/" in segment or b"?" in segment or b"#" in segment:
            return None
        sized = False
        for name, value in protocol.headers:
            if name == b"content-length":
                sized = int(value) <= size_max_bytes
            elif name in _UNUSUAL:
                return None
        if not sized:
            return None
        keep_alive = parser.get_http_version() != "1.0" and parser.should_keep_alive()
        return PostCycle(services, protocol, segment, keep_alive)

    return cycle_for

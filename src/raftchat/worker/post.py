"""`POST /rooms/{room}`: the one route that everything else is built around, as a narrow function below the framework.

Knows a request's body and what becomes of it. Does not know how it is committed (`link`, `pending`) or rendered for
others (`hub`). One `loads`, one `dumps`, one record, one future.
"""

from __future__ import annotations

import asyncio

import orjson
from starlette.types import Receive, Scope, Send

from raftchat.chat.commands import KIND_POST, Refused, post_value
from raftchat.worker.pending import Failure, Outcome, Posted
from raftchat.worker.problems import Problem, failed_post, refused_body
from raftchat.worker.respond import Headers
from raftchat.worker.security import API_HEADERS
from raftchat.worker.services import Services

CREATED: Headers = [(b"content-type", b"application/json"), *API_HEADERS]


def record_of_post(services: Services, segment: bytes, body: bytes) -> bytes:
    """The unstamped record of a request: `segment` is the raw path segment that names the room. Raises Problem."""
    key = services.room_of_segment(segment)
    try:
        value = post_value(orjson.loads(body), services.config)
    except orjson.JSONDecodeError as error:
        raise Problem("invalid_json", f"The body is not JSON: {error}.") from None
    except Refused as refused:
        raise refused_body(refused) from None
    return services.pack(KIND_POST, key, value)


def created(segment: bytes, posted: Posted) -> tuple[bytes, bytes]:
    """The body of a 201, and its Location."""
    answer = b'{"ID":%d,"PostedAt":"%b"}' % (posted.id, posted.posted_at)
    return answer, b"/rooms/%b?around=%d&limit=1" % (segment, posted.id)


def failed(services: Services, failure: Failure) -> Problem:
    """Counts it."""
    if failure is Failure.UNKNOWN:
        services.counters.posts_unknown += 1
    else:
        services.counters.posts_failed += 1
    return failed_post(failure)


class ClientGone(Exception):
    """The client closed the connection before its request was whole: there is nobody to answer."""


class PostMessage:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._loop = asyncio.get_running_loop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, segment: bytes) -> None:
        """`segment`: the raw path segment that names the room. Raises Problem, ClientGone."""
        services = self._services
        began_s = services.clock_s()
        content_length = None
        for name, value in scope["headers"]:
            if name == b"content-length":
                content_length = int(value)
            elif name == b"idempotency-key":
                raise Problem(
                    "idempotency_not_supported",
                    "Idempotency-Key is not supported yet, and to ignore it could post a message twice. "
                    "The message was not posted.",
                )
        record = record_of_post(services, segment, await self._read(receive, content_length, scope))
        decided: asyncio.Future[Outcome] = self._loop.create_future()

        def resolve(outcome: Outcome) -> None:
            if not decided.done():
                decided.set_result(outcome)

        services.link.propose(record, resolve)
        outcome = await decided
        if isinstance(outcome, Failure):
            raise failed(services, outcome)
        services.counters.observe_post(services.clock_s() - began_s)
        answer, location = created(segment, outcome)
        await send(
            {
                "type": "http.response.start",
                "status": 201,
                "headers": [
                    *CREATED,
                    (b"content-length", b"%d" % len(answer)),
                    (b"location", location),
                    (b"x-raft-index", b"%d" % services.replica.applied_index),
                ],
            }
        )
        await send({"type": "http.response.body", "body": answer})

    async def _read(self, receive: Receive, content_length: int | None, scope: Scope) -> bytes:
        size_max_bytes = self._services.config.body_size_max_bytes
        if content_length is not None and content_length > size_max_bytes:
            raise self._too_large(scope)
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body: bytes = message["body"]
        if message["more_body"]:
            parts = [body]
            size_bytes = len(body)
            while message["more_body"] and size_bytes <= size_max_bytes:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                parts.append(message["body"])
                size_bytes += len(message["body"])
            body = b"".join(parts)
        if len(body) > size_max_bytes:
            raise self._too_large(scope)
        return body

    def _too_large(self, scope: Scope) -> Problem:
        size_max_bytes = self._services.config.body_size_max_bytes
        # A client that waits for "100 Continue" may or may not send the body after a refusal (RFC 9110 section 10.1.1):
        # only closing makes clear where the next request begins. Other bodies are read and dropped by the protocol.
        waits = any(name == b"expect" for name, _ in scope["headers"])
        return Problem(
            "body_too_large",
            f"The body is larger than {size_max_bytes} bytes.",
            headers=[(b"connection", b"close")] if waits else [],
        )

"""`POST /rooms/{room}`: the one route that everything else is built around, as a narrow function below the framework.

Knows a request's body and what becomes of it. Does not know how it is committed (`link`, `pending`) or rendered for
others (`hub`). One `loads`, one `dumps`, one record, one future.
"""

from __future__ import annotations

import asyncio

import orjson
from starlette.types import Receive, Scope, Send

from raftchat.chat.commands import KIND_POST, Refused, post_value
from raftchat.worker.body import read_body
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


class PostMessage:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._loop = asyncio.get_running_loop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send, segment: bytes) -> None:
        """`segment`: the raw path segment that names the room. Raises Problem, ClientGone."""
        services = self._services
        began_s = services.clock_s()
        for name, _ in scope["headers"]:
            if name == b"idempotency-key":
                raise Problem(
                    "idempotency_not_supported",
                    "Idempotency-Key is not supported yet, and to ignore it could post a message twice. "
                    "The message was not posted.",
                )
        record = record_of_post(services, segment, await read_body(scope, receive, services.config.body_size_max_bytes))
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

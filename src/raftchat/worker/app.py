"""The ASGI application: routes by the path as it was sent, and turns every error into a problem.

Paths are matched before percent-decoding, so `/rooms/a%2Fb` is one segment and `/rooms/a/b` two. Rooms are served below
Starlette, everything else by it. Does not know what the routes do.
"""

from __future__ import annotations

import logging
from importlib.resources.abc import Traversable

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from raftchat.worker import health, openapi, raft, retention, rooms, static
from raftchat.worker.body import ClientGone
from raftchat.worker.messages import GetMessages
from raftchat.worker.post import PostMessage
from raftchat.worker.problems import Problem, internal_error
from raftchat.worker.respond import Headers, reject_socket, respond_problem
from raftchat.worker.rooms import RemoveRoom
from raftchat.worker.security import API_HEADERS
from raftchat.worker.services import Services
from raftchat.worker.socket import Stream

log = logging.getLogger(__name__)

_ROOM = b"/rooms/"
_ROOM_METHODS = "DELETE, GET, HEAD, POST"


class App:
    def __init__(self, services: Services, web: Traversable) -> None:
        self._services = services
        self._post = PostMessage(services)
        self._get = GetMessages(services)
        self._remove = RemoveRoom(services)
        self._stream = Stream(services)
        self._others = Starlette(
            routes=[
                *static.routes(web),
                *health.routes(services),
                *openapi.routes(services.config),
                *raft.routes(services),
                *retention.routes(services),
                Route("/ws", _upgrade_required),
                *rooms.routes(services),
            ],
            exception_handlers={
                Problem: self._on_problem,
                HTTPException: self._on_http_exception,
                Exception: self._on_fault,
            },
        )
        self._others.router.redirect_slashes = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: bytes = scope["raw_path"]
        if scope["type"] == "websocket":
            if path == b"/ws":
                await self._stream(scope, receive, send)
            else:
                await receive()
                await reject_socket(send, Problem("not_found", "There is no such WebSocket: it is /ws."))
        elif path.startswith(_ROOM) and b"/" not in path[7:]:
            await self._room(scope, receive, send, path[7:])
        else:
            scope["path"] = path.decode("latin-1")
            try:
                await self._others(scope, receive, send)
            except Exception:
                # Answered by `_on_fault`; Starlette raises it again for whoever logs.
                log.exception("A request failed", extra={"method": scope["method"], "path": scope["path"]})

    async def _room(self, scope: Scope, receive: Receive, send: Send, segment: bytes) -> None:
        method = scope["method"]
        try:
            if method == "POST":
                await self._post(scope, receive, send, segment)
            elif method in ("GET", "HEAD"):
                await self._get(scope, send, segment)
            elif method == "DELETE":
                await self._remove(scope, send, segment)
            else:
                raise Problem(
                    "method_not_allowed",
                    f"A room takes {_ROOM_METHODS}.",
                    headers=[(b"allow", _ROOM_METHODS.encode())],
                )
        except Problem as problem:
            await self._answer(send, problem)
        except ClientGone:
            pass
        except Exception:
            log.exception("A request failed", extra={"method": method, "path": scope["path"]})
            await self._answer(send, internal_error())

    async def _answer(self, send: Send, problem: Problem) -> None:
        if problem.status < 500:
            self._services.counters.requests_refused += 1
        index = (b"x-raft-index", b"%d" % self._services.replica.applied_index)
        await respond_problem(send, problem, [index])

    async def _on_problem(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, Problem)
        if error.status < 500:
            self._services.counters.requests_refused += 1
        headers: Headers = [*error.headers(), *API_HEADERS]
        return Response(error.body(), error.status, headers={name.decode(): value.decode() for name, value in headers})

    async def _on_http_exception(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            allow = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
            problem = Problem("method_not_allowed", f"This path takes {allow}.", headers=[(b"allow", allow.encode())])
        elif error.status_code == 404:
            problem = Problem("not_found", "There is nothing at this path.")
        else:
            raise error
        return await self._on_problem(request, problem)

    async def _on_fault(self, request: Request, error: Exception) -> Response:
        return await self._on_problem(request, internal_error())


async def _upgrade_required(request: Request) -> Response:
    raise Problem("upgrade_required", "This is a WebSocket.", headers=[(b"upgrade", b"websocket")])

"""One whole response over ASGI. Does not know what is in it."""

from __future__ import annotations

from typing import Any

from starlette.types import Send

from raftchat.worker.problems import Problem
from raftchat.worker.security import API_HEADERS

Headers = list[tuple[bytes, bytes]]


async def respond(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """`headers` without Content-Length. For a HEAD the server leaves out the body and keeps the length."""
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def respond_problem(send: Send, problem: Problem, extra: Headers) -> None:
    await respond(send, problem.status, [*problem.headers(), *API_HEADERS, *extra], problem.body())


async def reject_socket(send: Send, problem: Problem) -> None:
    """Refuse a WebSocket's handshake with a problem (ASGI extension "websocket.http.response")."""
    body = problem.body()
    headers: list[Any] = [*problem.headers(), *API_HEADERS, (b"content-length", b"%d" % len(body))]
    await send({"type": "websocket.http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})

"""A request's body, bounded before it is buffered. Does not know what is in it."""

from __future__ import annotations

from starlette.types import Receive, Scope

from raftchat.worker.problems import Problem


class ClientGone(Exception):
    """The client closed the connection before its request was whole: there is nobody to answer."""


async def read_body(scope: Scope, receive: Receive, size_max_bytes: int) -> bytes:
    """The whole body. Raises Problem `body_too_large`, ClientGone."""
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > size_max_bytes:
            raise _too_large(scope, size_max_bytes)
    parts: list[bytes] = []
    size_bytes = 0
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        parts.append(message["body"])
        size_bytes += len(parts[-1])
        if size_bytes > size_max_bytes:
            raise _too_large(scope, size_max_bytes)
        more = message["more_body"]
    return b"".join(parts)


def _too_large(scope: Scope, size_max_bytes: int) -> Problem:
    # A client that waits for "100 Continue" may or may not send the body after a refusal (RFC 9110 section 10.1.1):
    # only closing makes clear where the next request begins. Other bodies are read and dropped by the protocol.
    waits = any(name == b"expect" for name, _ in scope["headers"])
    return Problem(
        "body_too_large",
        f"The body is larger than {size_max_bytes} bytes.",
        headers=[(b"connection", b"close")] if waits else [],
    )

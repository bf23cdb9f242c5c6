"""Which requests need not go through ASGI. Knows heads of requests, not what becomes of them.

The short way is taken only where it is certain to behave like the long one; all else is left to that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT

from raftchat.worker.messages import Pages
from raftchat.worker.page_cycle import PageCycle
from raftchat.worker.post_cycle import PostCycle
from raftchat.worker.services import Services
from raftchat.worker.short_cycle import ShortCycle

if TYPE_CHECKING:
    from raftchat.worker.http_protocol import HttpProtocol

MakeCycle = Callable[["HttpProtocol"], ShortCycle]
ShortCut = Callable[["HttpProtocol"], MakeCycle | None]

_ROOM = b"/rooms/"
_UNUSUAL = frozenset((b"expect", b"transfer-encoding", b"upgrade", b"idempotency-key"))


def short_cuts(services: Services) -> ShortCut:
    """A function that tells what makes the cycle of the request whose head is complete; None: it goes the long way.

    That follows from the bytes of the head alone. The caller sees to it that no earlier request of the connection is
    unanswered, and that the client reads its answers: for one that does not, only an application can wait.
    """
    pages = Pages(services)
    # Above its high water mark the protocol stops reading until an application asks for more; here is none to ask.
    size_max_bytes = min(services.config.body_size_max_bytes, HIGH_WATER_LIMIT)

    def short_cut(protocol: HttpProtocol) -> MakeCycle | None:
        url = protocol.url
        if not url.startswith(_ROOM):
            return None
        segment, question, query = url[len(_ROOM) :].partition(b"?")
        if b"/" in segment or b"#" in url:
            return None
        size_bytes = None
        for name, value in protocol.headers:
            if name == b"content-length":
                size_bytes = int(value)
            elif name in _UNUSUAL:
                return None
        parser = protocol.parser
        method = parser.get_method()
        keep_alive = parser.get_http_version() != "1.0" and parser.should_keep_alive()
        if method == b"POST" and not question and size_bytes is not None and size_bytes <= size_max_bytes:
            return partial(PostCycle, services, segment, keep_alive)
        if method == b"GET" and size_bytes is None:
            return partial(PageCycle, pages, query, services, segment, keep_alive)
        return None

    return short_cut

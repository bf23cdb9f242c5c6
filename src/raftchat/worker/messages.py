"""`GET /rooms/{room}`: one page of a room's messages.

Knows cursors and Link headers. Does not know how a message is rendered (`_log.LogReader.page`).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote

from starlette.types import Scope, Send

from raftchat.chat import pages
from raftchat.chat.pages import Page
from raftchat.worker.problems import Problem, unreadable
from raftchat.worker.query import Query
from raftchat.worker.respond import Headers, respond
from raftchat.worker.security import API_HEADERS
from raftchat.worker.services import Services

log = logging.getLogger(__name__)

PAGE: Headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *API_HEADERS]

_REMEMBERED_MAX_BYTES = 256
"""Clients ask the same again and again; what they ask is parsed once, unless it is long enough to be an attack."""
_BLOCK = 100
"""Messages rendered at once, between two looks at how large the page has become."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    key: bytes
    limit: int
    how: str
    """newest, before, after, around."""
    cursor: int
    local: bool
    min_index: int


class Pages:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._remembered = lru_cache(maxsize=4096)(self._parse)

    def request(self, segment: bytes, query_string: bytes) -> PageRequest:
        """What is asked for. `segment`: the raw path segment that names the room. Raises Problem."""
        if len(segment) + len(query_string) <= _REMEMBERED_MAX_BYTES:
            return self._remembered(segment, query_string)
        return self._parse(segment, query_string)

    def _parse(self, segment: bytes, query_string: bytes) -> PageRequest:
        services = self._services
        query = Query(query_string, services.config)
        how, cursor = "newest", 0
        for name in ("before", "after", "around"):
            given = query.number(name)
            if given is not None:
                if how != "newest":
                    raise Problem("invalid_query", f"Only one of {how} and {name} can be given.")
                how, cursor = name, given
        return PageRequest(
            services.room_of_segment(segment),
            query.limit(services.config.page_limit_default, services.config.page_limit_max),
            how,
            cursor,
            query.local(),
            query.min_index(),
        )

    def render(self, request: PageRequest) -> tuple[bytes, bytes]:
        """The page as JSON, and its Link header or nothing. Raises what reading the log may raise (`unreadable`).

        In one turn of the loop, in which neither the state nor what is known of the log changes: what was selected
        can be rendered, whatever is removed meanwhile.
        """
        services = self._services
        services.counters.pages += 1
        replica = services.replica
        room = replica.state.room(request.key)
        if room is None:
            return b"[]", b""
        page = pages.select(
            replica.reader, room, request.key, replica.applied_index, request.how, request.cursor, request.limit
        )
        body = b"[]"
        if len(page.ids) > _BLOCK:
            body, shown = self._render_blocks(page, newest_first=request.how in ("newest", "before"))
            page = pages.part(room, shown)
        elif page.ids:
            body = replica.reader.page(page.ids)
        if page.older is None and page.newer is None:
            return body, b""
        return body, _link(request, page)

    def unreadable(self, error: Exception) -> Problem:
        """For whoever asked: which file, and where, is for the log alone."""
        log.error("A page cannot be read: %s", error, extra={"error": type(error).__name__})
        return unreadable()

    def _render_blocks(self, page: Page, *, newest_first: bool) -> tuple[bytes, Sequence[int]]:
        """The page as JSON, and the IDs that were rendered: if it becomes too large it ends before its limit."""
        reader = self._services.replica.reader
        starts = range(0, len(page.ids), _BLOCK)
        blocks: list[bytes] = []
        used = 0
        size_bytes = 0
        for start in starts:
            stop = len(page.ids) - start
            block = page.ids[max(0, stop - _BLOCK) : stop] if newest_first else page.ids[start : start + _BLOCK]
            blocks.append(reader.page(block)[1:-1])
            used += len(block)
            size_bytes += len(blocks[-1])
            if size_bytes >= self._services.config.page_size_max_bytes:
                break
        if newest_first:
            blocks.reverse()
        return b"[" + b",".join(blocks) + b"]", page.ids[-used:] if newest_first else page.ids[:used]


class GetMessages:
    """The long way: as an ASGI application."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._pages = Pages(services)

    async def __call__(self, scope: Scope, send: Send, segment: bytes) -> None:
        """`segment`: the raw path segment that names the room. Raises Problem."""
        request = self._pages.request(segment, scope["query_string"])
        await self._services.settle(request.local, request.min_index)
        try:
            body, link = self._pages.render(request)
        except Exception as error:
            raise self._pages.unreadable(error) from None
        headers = [*PAGE, (b"x-raft-index", b"%d" % self._services.replica.applied_index)]
        if link:
            headers.append((b"link", link))
        await respond(send, 200, headers, body)


@lru_cache(maxsize=4096)
def _path(key: bytes) -> str:
    return f"/rooms/{quote(key, safe='')}"


def _link(request: PageRequest, page: Page) -> bytes:
    """RFC 8288: `prev` holds older messages, `next` newer ones."""
    path = _path(request.key)
    tail = f"&limit={request.limit}" + ("&consistency=local" if request.local else "")
    links = []
    if page.older is not None:
        links.append(f'<{path}?before={page.older}{tail}>; rel="prev"')
    if page.newer is not None:
        links.append(f'<{path}?after={page.newer}{tail}>; rel="next"')
    return ", ".join(links).encode()

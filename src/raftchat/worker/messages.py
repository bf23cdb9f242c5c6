"""`GET /rooms/{room}`: one page of a room's messages, below the framework like the posts.

Knows cursors and Link headers. Does not know how a message is rendered (`_log.LogReader.page`).
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from starlette.types import Scope, Send

from raftchat.chat import pages
from raftchat.chat.pages import Page
from raftchat.worker.problems import Problem
from raftchat.worker.query import Query
from raftchat.worker.respond import Headers, respond
from raftchat.worker.security import API_HEADERS
from raftchat.worker.services import Services

_BLOCK = 100
"""Messages rendered at once, between two looks at how large the page has become."""
_PAGE: Headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store"), *API_HEADERS]


class GetMessages:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, send: Send, segment: bytes) -> None:
        """`segment`: the raw path segment that names the room. Raises Problem."""
        services = self._services
        query = Query(scope["query_string"], services.config)
        key = services.room_of_segment(segment)
        limit = query.limit(services.config.page_limit_default, services.config.page_limit_max)
        select = _selector(query)
        await services.settle(query)
        applied_index = services.replica.applied_index
        room = services.replica.state.room(key)
        headers = [*_PAGE, (b"x-raft-index", b"%d" % applied_index)]
        body = b"[]"
        if room is not None:
            page = select(room.ids, limit)
            if page.ids:
                body, page = self._render(page, room.ids, newest_first=select.newest_first)
            link = _link(key, page, limit, local=query.local())
            if link:
                headers.append((b"link", link))
        services.counters.pages += 1
        await respond(send, 200, headers, body)

    def _render(self, page: Page, ids: Sequence[int], *, newest_first: bool) -> tuple[bytes, Page]:
        """The page as JSON, and what of it was rendered: if it becomes too large it ends before its limit."""
        reader = self._services.replica.reader
        if len(page.ids) <= _BLOCK:
            return reader.page(page.ids), page
        starts = range(0, len(page.ids), _BLOCK)
        blocks: list[bytes] = []
        used: list[int] = []
        size_bytes = 0
        for number in range(len(starts)):
            stop = len(page.ids) - number * _BLOCK
            block = page.ids[max(0, stop - _BLOCK) : stop] if newest_first else page.ids[starts[number] :][:_BLOCK]
            rendered = reader.page(block)[1:-1]
            if newest_first:
                blocks.insert(0, rendered)
                used = [*block, *used]
            else:
                blocks.append(rendered)
                used += block
            size_bytes += len(rendered)
            if size_bytes >= self._services.config.page_size_max_bytes:
                break
        return b"[" + b",".join(blocks) + b"]", Page(
            used,
            older=used[0] if used[0] != ids[0] else None,
            newer=used[-1] if used[-1] != ids[-1] else None,
        )


class _Selector:
    """One of the four ways to choose a page."""

    __slots__ = ("_cursor", "_how", "newest_first")

    def __init__(self, how: str, cursor: int) -> None:
        self._how = how
        self._cursor = cursor
        self.newest_first = how in ("newest", "before")

    def __call__(self, ids: Sequence[int], limit: int) -> Page:
        if self._how == "newest":
            return pages.newest(ids, limit)
        if self._how == "before":
            return pages.before(ids, self._cursor, limit)
        if self._how == "after":
            return pages.after(ids, self._cursor, limit)
        return pages.around(ids, self._cursor, limit)


def _selector(query: Query) -> _Selector:
    cursors = {name: cursor for name in ("before", "after", "around") if (cursor := query.number(name)) is not None}
    if len(cursors) > 1:
        raise Problem("invalid_query", f"Only one of {', '.join(cursors)} can be given.")
    for name, cursor in cursors.items():
        return _Selector(name, cursor)
    return _Selector("newest", 0)


def _link(key: bytes, page: Page, limit: int, *, local: bool) -> bytes:
    """RFC 8288: `prev` holds older messages, `next` newer ones."""
    path = f"/rooms/{quote(key, safe='')}"
    tail = f"&limit={limit}" + ("&consistency=local" if local else "")
    links = []
    if page.older is not None:
        links.append(f'<{path}?before={page.older}{tail}>; rel="prev"')
    if page.newer is not None:
        links.append(f'<{path}?after={page.newer}{tail}>; rel="next"')
    return ", ".join(links).encode()

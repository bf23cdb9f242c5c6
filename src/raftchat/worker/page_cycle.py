"""`GET /rooms/{room}` below ASGI. Does not know what is on a page (`messages.py`) or what makes a read linearizable."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from raftchat.worker.messages import PAGE, PageRequest, Pages
from raftchat.worker.problems import Problem, no_leader
from raftchat.worker.services import Services
from raftchat.worker.short_cycle import ShortCycle, lines

if TYPE_CHECKING:
    from raftchat.worker.http_protocol import HttpProtocol

_STATUS = b"HTTP/1.1 200 OK\r\n"
_PAGE_LINES = lines(PAGE)


class PageCycle(ShortCycle):
    _request: PageRequest

    def __init__(
        self, pages: Pages, query: bytes, services: Services, segment: bytes, keep_alive: bool, protocol: HttpProtocol
    ) -> None:
        super().__init__(services, segment, keep_alive, protocol)
        self._pages = pages
        self._query = query
        self._waiting: asyncio.Task[None] | None = None

    def _run(self) -> None:
        self._request = self._pages.request(self._segment, self._query)
        if self._request.local:
            self._confirmed(self._request.min_index)
        else:
            self._services.link.read(self._leader_answered)

    def _leader_answered(self, index: int) -> None:
        if index == 0:
            self._refuse(no_leader())
        else:
            self._confirmed(max(index, self._request.min_index))

    def _confirmed(self, index: int) -> None:
        if self._services.is_applied(index):
            self._show()
        else:
            self._waiting = asyncio.get_running_loop().create_task(self._wait(index))

    async def _wait(self, index: int) -> None:
        try:
            await self._services.wait_applied(index)
        except Problem as problem:
            self._refuse(problem)
        else:
            self._show()

    def _show(self) -> None:
        if self.disconnected:
            return
        try:
            body, link = self._pages.render(self._request)
        except Exception as error:
            self._refuse(self._pages.unreadable(error))
            return
        self._answer(_STATUS, b"%blink: %b\r\n" % (_PAGE_LINES, link) if link else _PAGE_LINES, body)

"""`POST /rooms/{room}` below ASGI. Does not know how a post is encoded or committed (`post.py`, `link`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from raftchat.worker.pending import Failure, Outcome
from raftchat.worker.post import CREATED, created, failed, record_of_post
from raftchat.worker.services import Services
from raftchat.worker.short_cycle import ShortCycle, lines

if TYPE_CHECKING:
    from raftchat.worker.http_protocol import HttpProtocol

_STATUS = b"HTTP/1.1 201 Created\r\n"
_CREATED_LINES = lines(CREATED)


class PostCycle(ShortCycle):
    __slots__ = ("_began_s",)

    def __init__(self, services: Services, protocol: HttpProtocol, segment: bytes, keep_alive: bool) -> None:
        super().__init__(services, protocol, segment, keep_alive)
        self._began_s = services.clock_s()

    def _run(self) -> None:
        services = self._services
        services.link.propose(record_of_post(services, self._segment, self.body), self._decided)

    def _decided(self, outcome: Outcome) -> None:
        services = self._services
        if isinstance(outcome, Failure):
            self._refuse(failed(services, outcome))
            return
        services.counters.observe_post(services.clock_s() - self._began_s)
        answer, location = created(self._segment, outcome)
        self._answer(_STATUS, b"%blocation: %b\r\n" % (_CREATED_LINES, location), answer)

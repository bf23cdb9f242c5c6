"""`POST /rooms/{room}` below ASGI. Does not know how a post is encoded or committed (`post.py`, `link`)."""

from __future__ import annotations

from raftchat.worker.pending import Failure, Outcome
from raftchat.worker.post import CREATED, created, failed, record_of_post
from raftchat.worker.short_cycle import ShortCycle, lines

_CREATED = (
    b"HTTP/1.1 201 Created\r\n%b"
    + lines(CREATED)
    + b"location: %b\r\nx-raft-index: %d\r\ncontent-length: %d\r\n%b\r\n%b"
)
_CLOSE = b"connection: close\r\n"


class PostCycle(ShortCycle):
    def _run(self) -> None:
        services = self._services
        self._began_s = services.clock_s()
        services.link.propose(record_of_post(services, self._segment, self.body), self._decided)

    def _decided(self, outcome: Outcome) -> None:
        services = self._services
        if isinstance(outcome, Failure):
            self._refuse(failed(services, outcome))
            return
        services.counters.observe_post(services.clock_s() - self._began_s)
        answer, location = created(self._segment, outcome)
        self._send(
            _CREATED
            % (
                self._protocol.default_lines,
                location,
                services.replica.state.applied_index,
                len(answer),
                b"" if self.keep_alive else _CLOSE,
                answer,
            )
        )

"""What the routes are given: the parts of one worker, made once at start. Knows nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from raftchat.config import Config
from raftchat.worker.counters import Counters
from raftchat.worker.hub import Hub
from raftchat.worker.link import RaftLink
from raftchat.worker.problems import Problem, no_leader
from raftchat.worker.query import Query
from raftchat.worker.replica import NotApplied, Replica


@dataclass(frozen=True, slots=True)
class Services:
    config: Config
    link: RaftLink
    replica: Replica
    hub: Hub
    counters: Counters
    pack: Callable[[int, bytes, bytes], bytes]
    """`_log.pack`: kind, key, value → unstamped record."""
    room_of_segment: Callable[[bytes], bytes]
    """`query.segment_decoder`: raw path segment → key of the room. Raises Problem."""
    clock_s: Callable[[], float]
    """Monotonic seconds."""

    async def settle(self, query: Query) -> None:
        """Wait until this worker may answer a read with the consistency that `query` asks for (docs/api.md).

        Raises Problem: `invalid_query`, `no_leader`, `not_applied`, `not_ready`.
        """
        min_index = query.min_index()
        if query.local():
            index = 0
        else:
            index = await self.link.read_index()
            if index == 0:
                raise no_leader()
        replica = self.replica
        if replica.applied_index >= index and replica.applied_index >= min_index and replica.replayed:
            return
        if replica.failed:
            self._unreadable()
        try:
            await replica.wait_applied(max(index, min_index))
        except NotApplied:
            if replica.failed:
                self._unreadable()
            if not replica.replayed:
                raise Problem("not_ready", "This node is still reading its log.") from None
            raise Problem(
                "not_applied", f"This node has applied entry {replica.applied_index}, not {max(index, min_index)} yet."
            ) from None

    @staticmethod
    def _unreadable() -> NoReturn:
        raise Problem("unreadable", "This node cannot read its log; its own messages say why. Ask another node.")

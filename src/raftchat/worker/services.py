"""What the routes are given: the parts of one worker, made once at start. Knows nothing itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from raftchat.config import Config
from raftchat.worker.counters import Counters
from raftchat.worker.hub import Hub
from raftchat.worker.link import RaftLink
from raftchat.worker.problems import Problem, no_leader, unreadable
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
    time_ms: Callable[[], int]
    """Time of day, milliseconds since 1970-01-01 UTC."""

    def counted(self) -> dict[str, int | float]:
        """All counters of this worker by name."""
        return self.counters.snapshot(
            read_rounds=self.link.rounds,
            messages_delivered=self.hub.delivered,
            sockets_open=len(self.hub),
            post_bytes_pending=self.link.pending.size_bytes,
        )

    def is_applied(self, index: int) -> bool:
        """Whether this worker may answer now what needs `index` to be applied."""
        replica = self.replica
        return replica.replayed and replica.applied_index >= index and not replica.failed

    async def wait_applied(self, index: int) -> None:
        """Raises Problem: `unreadable`, `not_ready`, `not_applied`."""
        replica = self.replica
        if replica.failed:
            raise unreadable()
        try:
            await replica.wait_applied(index)
        except NotApplied:
            if replica.failed:
                raise unreadable() from None
            if not replica.replayed:
                raise Problem("not_ready", "This node is still reading its log.") from None
            raise Problem(
                "not_applied", f"This node has applied entry {replica.applied_index}, not {index} yet."
            ) from None

    async def settle(self, local: bool, min_index: int) -> None:
        """Wait until this worker may answer a read of the consistency that was asked for (docs/api.md).

        Raises Problem: `no_leader`, and those of `wait_applied`.
        """
        index = min_index
        if not local:
            read_index = await self.link.read_index()
            if read_index == 0:
                raise no_leader()
            index = max(index, read_index)
        if not self.is_applied(index):
            await self.wait_applied(index)

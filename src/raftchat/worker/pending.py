"""Posts that were proposed and are not decided yet, and how each of them ends.

Knows indexes, terms and deadlines. Does not know frames, HTTP, or what was posted.

A proposal is decided by the entry that is committed at the index it was accepted at: the same term there means that
it is that very entry (Log Matching, dissertation 3.5), another term that it was overwritten. It is also certain never
to be committed once an entry of a later term is committed below it, since terms never fall along a log.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from enum import Enum, auto
from functools import lru_cache
from typing import NamedTuple

from raftchat.ipc.frames import Accepted, Refusal


class Posted(NamedTuple):
    """Committed."""

    id: int
    posted_at: bytes
    """RFC 3339, UTC, milliseconds."""


class Failure(Enum):
    """Not known to be committed. With all but UNKNOWN it was not and will never be."""

    NOT_COMMITTED = auto()
    """Accepted, then overwritten by a new leader."""
    UNKNOWN = auto()
    NO_LEADER = auto()
    OVERLOADED = auto()
    DISK_FULL = auto()
    SHUTTING_DOWN = auto()
    BAD = auto()


Outcome = Posted | Failure
Resolve = Callable[[Outcome], None]

_REFUSED = {
    Refusal.NO_LEADER: Failure.NO_LEADER,
    Refusal.OVERLOADED: Failure.OVERLOADED,
    Refusal.DISK_FULL: Failure.DISK_FULL,
    Refusal.LOST: Failure.UNKNOWN,
    Refusal.BAD: Failure.BAD,
    Refusal.SHUTTING_DOWN: Failure.SHUTTING_DOWN,
}


@lru_cache(maxsize=16)
def _second(seconds: int) -> bytes:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}".encode()


def rfc3339(time_ms: int) -> bytes:
    return b"%b.%03dZ" % (_second(time_ms // 1000), time_ms % 1000)


class _Batch:
    __slots__ = ("deadline_ms", "first_index", "posted_at", "size_bytes", "term", "waiting")

    def __init__(self, waiting: list[Resolve], size_bytes: int, deadline_ms: float) -> None:
        self.waiting = waiting
        self.size_bytes = size_bytes
        self.deadline_ms = deadline_ms
        self.first_index = 0
        self.term = 0
        self.posted_at = b""


class PendingPosts:
    def __init__(self) -> None:
        self.size_bytes = 0
        """Records proposed and not decided."""
        self._proposed: dict[int, _Batch] = {}
        self._accepted: dict[int, _Batch] = {}

    def __len__(self) -> int:
        """Number of batches."""
        return len(self._proposed) + len(self._accepted)

    def propose(self, batch: int, waiting: list[Resolve], size_bytes: int, deadline_ms: float) -> None:
        """Remember a batch: whom to tell, in the order of its records. `deadline_ms` never falls from call to call."""
        self._proposed[batch] = _Batch(waiting, size_bytes, deadline_ms)
        self.size_bytes += size_bytes

    def accept(self, accepted: Accepted) -> None:
        """The leader appended it. A batch that timed out meanwhile is unknown here, and stays so."""
        batch = self._proposed.pop(accepted.batch, None)
        if batch is not None:
            batch.first_index = accepted.first_index
            batch.term = accepted.term
            batch.posted_at = rfc3339(accepted.time_ms)
            self._accepted[accepted.batch] = batch

    def refuse(self, number: int, reason: Refusal) -> None:
        batch = self._proposed.pop(number, None)
        if batch is not None:
            self._end(batch, _REFUSED[reason])

    def has_decided(self, applied_index: int) -> bool:
        """Whether the committed entries up to `applied_index` decide somebody's fate."""
        return any(batch.first_index <= applied_index for batch in self._accepted.values())

    def decide(self, applied_index: int, term_at: Callable[[int], int]) -> None:
        """Tell everybody whose fate the committed entries up to `applied_index` decide."""
        if not self._accepted:
            return
        applied_term = term_at(applied_index)
        for number, batch in list(self._accepted.items()):
            first = batch.first_index
            decided = min(len(batch.waiting), applied_index - first + 1)
            if decided > 0:
                waiting, batch.waiting = batch.waiting[:decided], batch.waiting[decided:]
                batch.first_index += decided
                if term_at(first) == term_at(first + decided - 1) == batch.term:
                    # Terms never fall along a log, so all between are of this term as well.
                    for index, resolve in enumerate(waiting, first):
                        resolve(Posted(index, batch.posted_at))
                else:
                    for index, resolve in enumerate(waiting, first):
                        if term_at(index) == batch.term:
                            resolve(Posted(index, batch.posted_at))
                        else:
                            resolve(Failure.NOT_COMMITTED)
            if not batch.waiting or applied_term > batch.term:
                del self._accepted[number]
                self._end(batch, Failure.NOT_COMMITTED)

    def expire(self, now_ms: float) -> None:
        """Whoever has waited up to the deadline is told that the outcome is unknown."""
        for batches in (self._proposed, self._accepted):
            # In order of insertion, which for accepted batches may differ from that of deadlines: look at all.
            for number in [number for number, batch in batches.items() if batch.deadline_ms <= now_ms]:
                self._end(batches.pop(number), Failure.UNKNOWN)

    def abandon(self) -> None:
        """The Raft process is gone, and with it all knowledge of what becomes of them."""
        self.expire(float("inf"))

    def _end(self, batch: _Batch, failure: Failure) -> None:
        self.size_bytes -= batch.size_bytes
        for resolve in batch.waiting:
            resolve(failure)

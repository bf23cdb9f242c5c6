"""What clients ask for while there is nobody to ask: held until a leader can be reached, for a bounded time and size.

Only what was certainly not proposed waits: it arrived when no leader was known, the connection to a new one was still
being made, or the leader said that it does not lead. What may have reached a leader's log is never here again. Keeps
the order of arrival. Does not know who leads, nor what records are; clocks are arguments.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from raftchat.ipc.frames import Accepted, Refusal
from raftchat.node.codec import Buffer

READ_SIZE_BYTES = 64
"""What a read that waits is taken for."""


class Client(Protocol):
    """A worker that asked for something; its answers."""

    def accepted(self, accepted: Accepted) -> None: ...
    def refused(self, batch: int, reason: Refusal) -> None: ...
    def read_at(self, context: int, index: int) -> None: ...


@dataclass(slots=True, order=True)
class Asked:
    number: int
    """Grows with each arrival."""
    deadline_ms: float = field(compare=False)
    """Until when it may wait."""
    client: Client = field(compare=False)
    size_bytes: int = field(compare=False)


@dataclass(slots=True, order=True)
class Proposal(Asked):
    """Records of one batch. Stands for its client while the leader is being asked: a NO_LEADER lets it wait again."""

    batch: int = field(compare=False)
    records: Buffer = field(compare=False)
    again: Callable[[Proposal], bool] = field(compare=False)
    """Have it wait once more; False: it may not."""

    def accepted(self, accepted: Accepted) -> None:
        self.client.accepted(accepted)

    def refused(self, batch: int, reason: Refusal) -> None:
        if reason is not Refusal.NO_LEADER or not self.again(self):
            self.client.refused(batch, reason)


@dataclass(slots=True, order=True)
class Question(Asked):
    """A linearizable read."""

    context: int = field(compare=False)


T = TypeVar("T", bound=Asked)


class Waiting(Generic[T]):
    """In order of arrival, and so of their deadlines."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._size_bytes = 0
        self._items: list[T] = []

    def put(self, item: T) -> bool:
        """At its place in the order of arrival. False: there is no room."""
        if self._size_bytes + item.size_bytes > self._limit_bytes:
            return False
        self._size_bytes += item.size_bytes
        insort(self._items, item)
        return True

    def drain(self, go: Callable[[T], bool]) -> None:
        """Let them go in order until one cannot: `go` says whether it could."""
        while self._items:
            item = self._items[0]
            self._drop(1)
            if not go(item):
                # The room that it had is still there.
                self._size_bytes += item.size_bytes
                insort(self._items, item)
                return

    def expired(self, now_ms: float) -> Iterator[T]:
        """Those that may wait no longer, in order; they are gone from here. inf: all."""
        count = 0
        while count < len(self._items) and self._items[count].deadline_ms <= now_ms:
            count += 1
        expired = self._items[:count]
        self._drop(count)
        return iter(expired)

    def _drop(self, count: int) -> None:
        self._size_bytes -= sum(item.size_bytes for item in self._items[:count])
        del self._items[:count]

    @property
    def deadline_ms(self) -> float:
        """When the first of them has waited long enough; inf if none waits."""
        return self._items[0].deadline_ms if self._items else float("inf")

    def __len__(self) -> int:
        return len(self._items)

"""Linearizable reads share rounds (ReadIndex, dissertation 6.4): one at a time, each for all that waited when it began.

A read may only use a round that began after the read did. So whoever comes while a round is in flight waits for the
next one. Does not know frames, or what is read.
"""

from __future__ import annotations

from collections.abc import Callable

Resolve = Callable[[int], None]
"""Called with the index that must be applied before reading; 0: no leader confirmed one."""


class ReadRounds:
    def __init__(self, send: Callable[[int], None]) -> None:
        """`send(context)` asks the Raft process; the answer comes back through `answer`."""
        self._send = send
        self._context = 0
        self._flying: list[tuple[float, Resolve]] = []
        self._next: list[tuple[float, Resolve]] = []
        self.rounds = 0

    def __len__(self) -> int:
        return len(self._flying) + len(self._next)

    def join(self, deadline_ms: float, resolve: Resolve) -> None:
        """Wait for a round that has not begun yet; `begin` must be called at the end of the turn."""
        self._next.append((deadline_ms, resolve))

    def begin(self) -> None:
        """Start a round for all that wait, unless one is in flight."""
        if self._flying or not self._next:
            return
        self._flying, self._next = self._next, []
        self._context += 1
        self.rounds += 1
        self._send(self._context)

    def answer(self, context: int, index: int) -> None:
        if context == self._context and self._flying:
            self._end(index)

    def expire(self, now_ms: float) -> None:
        """Reads that have waited up to their deadline fail. A round that is overdue does not hold up the next one."""
        overdue = bool(self._flying) and self._flying[0][0] <= now_ms
        waiting, self._next = self._next, []
        for deadline_ms, resolve in waiting:
            if deadline_ms <= now_ms:
                resolve(0)
            else:
                self._next.append((deadline_ms, resolve))
        if overdue:
            self._end(0)

    def _end(self, index: int) -> None:
        flown, self._flying = self._flying, []
        for _, resolve in flown:
            resolve(index)
        self.begin()

"""This worker's copy of the chat: begins from a snapshot, applies what is committed, slice by slice, and tells whoever
waits for it.

Knows the order in which one applied slice concerns others: state, then posts, then sockets, then reads. Does not know
frames of the IPC, HTTP, or who sits behind a socket. Of messages it keeps nothing: where they lie, the reader knows.
"""

from __future__ import annotations

import asyncio
import heapq
from array import array
from collections.abc import Callable, Sequence
from typing import Protocol

from raftchat.chat import apply, retention
from raftchat.chat.state import ChatState
from raftchat.config import Config
from raftchat.worker.hub import FrameSource, Hub
from raftchat.worker.pending import PendingPosts

_SLICE_MIN = 256
_SLICE_MAX = 65_536
_SLICE_TIME_MAX_S = 0.005


class Reader(FrameSource, apply.Source, retention.Source, Protocol):
    """The part of `_log.LogReader` that a worker uses."""

    def add_segment(self, sequence: int, base_index: int, revision: int = 0) -> None: ...
    def drop_prefix(self, first_index: int) -> None: ...
    def use_index(self, sequence: int) -> bool: ...
    def bad_indexes(self) -> list[int]: ...
    def term_at(self, index: int) -> int: ...
    def below(self, key: bytes, index: int, limit: int, floor: int) -> array[int]: ...
    def above(self, key: bytes, index: int, limit: int, last_index: int) -> array[int]: ...
    def page(self, indexes: Sequence[int]) -> bytes: ...
    def close(self) -> None: ...


class NotApplied(Exception):
    """The entry that was waited for was not applied in time."""


class CannotBegin(Exception):
    """The snapshot cannot be used: it was replaced by a newer one since this worker was told of it, or it is bad.

    The next worker is told of another.
    """


class Replica:
    """`on_fatal(error)` is called once if the snapshot cannot be used, or a committed entry not be read or interpreted;
    nothing is applied after it. `on_replayed()` is called once, when what was committed before this worker came has
    been applied."""

    def __init__(
        self,
        config: Config,
        loop: asyncio.AbstractEventLoop,
        clock_s: Callable[[], float],
        open_reader: Callable[[str], Reader],
        load_state: Callable[[str], ChatState],
        pending: PendingPosts,
        hub: Hub,
        on_fatal: Callable[[Exception], None],
        on_replayed: Callable[[], None],
    ) -> None:
        self.state = ChatState()
        self.committed_index = 0
        self.replayed = False
        self.failed = False
        self._config = config
        self._loop = loop
        self._clock_s = clock_s
        self._open_reader = open_reader
        self._load_state = load_state
        self._pending = pending
        self._hub = hub
        self._on_fatal = on_fatal
        self._on_replayed = on_replayed
        self._reader: Reader | None = None
        self._replay_index: int | None = None
        self._slice = _SLICE_MIN
        self._scheduled = False
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._tickets = 0

    @property
    def applied_index(self) -> int:
        return self.state.applied_index

    @property
    def reader(self) -> Reader:
        """Only once something was applied: before that there is nothing to read."""
        assert self._reader is not None
        return self._reader

    # From the Raft process

    def open(self, log_directory: str, snapshot: str | None) -> None:
        """Begin with the state of a snapshot (its path), or with nothing, at the first entry."""
        assert self._reader is None, "a second HELLO"
        self._reader = self._open_reader(log_directory)
        if snapshot is not None:
            try:
                self.state = self._load_state(snapshot)
            except Exception as error:
                self._fail(CannotBegin(f"the snapshot {snapshot} cannot be used: {error}"))
            else:
                self.committed_index = self.state.applied_index

    def add_segment(self, sequence: int, base_index: int, revision: int) -> None:
        self.reader.add_segment(sequence, base_index, revision)

    def drop_prefix(self, first_index: int) -> None:
        self.reader.drop_prefix(first_index)

    def bad_indexes(self) -> list[int]:
        """Segments (sequences) whose index turned out to be rotten; look-ups make do without it."""
        return self._reader.bad_indexes() if self._reader is not None else []

    def use_index(self, sequence: int) -> None:
        # If it cannot be used, the reader makes its own, in memory.
        self.reader.use_index(sequence)

    def commit(self, index: int) -> None:
        """Entries up to `index` are committed. They are applied by `advance`."""
        assert index >= self.committed_index, (index, self.committed_index)
        self.committed_index = index
        if self._replay_index is None:
            self._replay_index = index

    def advance(self) -> None:
        """Apply the next slice, and the rest in later turns, so that a long replay leaves room for others."""
        if self.failed or self._scheduled:
            return
        first = self.applied_index + 1
        last = min(self.committed_index, self.applied_index + self._slice_size())
        if last >= first:
            began = self._clock_s()
            try:
                self._apply(first, last)
            except Exception as error:
                # Whatever it was, applying it again would fail again, and to go on without it would be wrong.
                self._fail(error)
                return
            self._adapt(last - first + 1, self._clock_s() - began)
            if self.applied_index < self.committed_index:
                self._scheduled = True
                self._loop.call_soon(self._advance_again)
        elif self._pending.has_decided(self.applied_index):
            # Answered by a former leader only after its successor's commit index had come.
            self._decide()
        if not self.replayed and self._replay_index is not None and self.applied_index >= self._replay_index:
            self.replayed = True
            self._on_replayed()

    def _slice_size(self) -> int:
        """At most so many entries in one turn."""
        if not self.replayed:
            return _SLICE_MAX  # Nobody is answered before the end of it, and large slices take less time in all.
        # With sockets, small slices: what a slice brings a socket is one write, which must fit into its queue.
        return _SLICE_MIN if self._hub.watched else self._slice

    def _advance_again(self) -> None:
        self._scheduled = False
        self.advance()

    def _apply(self, first: int, last: int) -> None:
        apply.advance(self.state, self.reader, first, last)
        self._decide()
        self._hub.publish(self.reader, first, last)
        while self._waiting and self._waiting[0][0] <= last:
            future = heapq.heappop(self._waiting)[2]
            if not future.done():
                future.set_result(None)

    def _decide(self) -> None:
        try:
            self._pending.decide(self.applied_index, self.reader.term_at)
        except IndexError:
            # Its answer was so late that the entry has been compacted away.
            self._pending.abandon()

    def _fail(self, error: Exception) -> None:
        self.failed = True
        self._on_fatal(error)

    def _adapt(self, entries: int, took_s: float) -> None:
        """Slices as large as fit into a turn that others hardly notice."""
        if took_s > _SLICE_TIME_MAX_S:
            self._slice = max(_SLICE_MIN, self._slice // 2)
        elif entries == self._slice:
            self._slice = min(_SLICE_MAX, self._slice * 2)

    # From the routes

    async def wait_applied(self, index: int) -> None:
        """Return once `index` and what was committed at start are applied. Raises NotApplied after the time-out.

        Before the replay is through there is nothing to answer from: what is there is empty or old.
        """
        if self.applied_index >= index and self.replayed:
            return
        self._tickets += 1
        target = max(index, self._replay_index or 0, self.applied_index + 1)
        waiter = (target, self._tickets, self._loop.create_future())
        heapq.heappush(self._waiting, waiter)
        try:
            async with asyncio.timeout(self._config.request_timeout_ms / 1000):
                await waiter[2]
        except BaseException as error:
            # Clients choose the index: what will never come must not stay here.
            if waiter in self._waiting:
                self._waiting.remove(waiter)
                heapq.heapify(self._waiting)
            if isinstance(error, TimeoutError):
                raise NotApplied from None
            raise

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()

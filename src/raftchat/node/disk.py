"""Makes the log and the hard state durable: one write in flight, in a thread, so that turns go on meanwhile.

What is written most often, the log alone, is left to a thread that never takes the GIL (`_log_sync`): handing it over
and back costs more than the rest of a sync. A failed write is final: what is on disk is unknown then, and a second try
may lie (docs/log-format.md, assumption 5). Does not know when something must be written.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, Protocol

from raftchat.raft import HardState, Persisted
from raftchat.storage.hard_state import HardStateFile


class SyncPoint(Protocol):
    @property
    def last_index(self) -> int: ...
    @property
    def generation(self) -> int: ...
    def wait(self) -> None: ...


class Syncs(Protocol):
    """Where points are flushed without the GIL (`_log_sync.SyncThread`)."""

    def run(self) -> None: ...
    def start(self, point: Any) -> None: ...
    def end(self) -> Any: ...
    def stop(self) -> None: ...
    def fileno(self) -> int: ...


class SyncedLog(Protocol):
    """The part of the log that is made durable (`_log.Log`)."""

    def begin_sync(self) -> Any:
        """A `SyncPoint`, to be given back to this log's `end_sync`."""

    def end_sync(self, point: Any) -> None: ...


class Disk:
    """`on_persisted` and `on_failed` are called in the thread that called `start`, by way of `call_soon`."""

    def __init__(
        self,
        log: SyncedLog,
        hard_state_file: HardStateFile,
        call_soon: Callable[..., object],
        on_persisted: Callable[[Persisted], None],
        on_failed: Callable[[Exception], None],
        syncs: Syncs,
        add_reader: Callable[[int, Callable[[], None]], object],
    ) -> None:
        """`call_soon(function, *arguments)` may be called from any thread: `loop.call_soon_threadsafe`.

        `add_reader(fd, function)`: `loop.add_reader`.
        """
        self.busy = False
        self._log = log
        self._file = hard_state_file
        self._call_soon = call_soon
        self._on_persisted = on_persisted
        self._on_failed = on_failed
        self._written: HardState | None = None
        self._work: SimpleQueue[tuple[HardState | None, SyncPoint] | None] = SimpleQueue()
        self._syncs = syncs
        self._closed = False
        self._threads = [
            threading.Thread(target=self._run, name="disk", daemon=True),
            threading.Thread(target=syncs.run, name="sync", daemon=True),
        ]
        for thread in self._threads:
            thread.start()
        add_reader(syncs.fileno(), self._synced)

    def start(self, hard_state: HardState | None) -> None:
        """Write the hard state, if any, and everything that is in the log now."""
        assert not self.busy, "one write at a time"
        self.busy = True
        point = self._log.begin_sync()
        if hard_state is None:
            self._syncs.start(point)
        else:
            self._work.put((hard_state, point))

    def close(self) -> None:
        """Wait for the write in flight, and end the threads. What was written is not reported any more."""
        self._closed = True
        self._work.put(None)
        self._syncs.stop()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            hard_state, point = work
            try:
                if hard_state is not None:
                    self._file.write(hard_state.term, hard_state.vote, hard_state.commit)
                point.wait()
            except Exception as error:
                # Whatever it was: a node whose disk stands still without a word would lead on and commit nothing.
                self._call_soon(self._on_failed, error)
                return
            self._call_soon(self._done, hard_state, point)

    def _synced(self) -> None:
        if self._closed:
            return
        try:
            point = self._syncs.end()
        except Exception as error:
            self._closed = True
            self._on_failed(error)
        else:
            self._done(None, point)

    def _done(self, hard_state: HardState | None, point: SyncPoint) -> None:
        self.busy = False
        self._log.end_sync(point)
        if hard_state is not None:
            self._written = hard_state
        self._on_persisted(Persisted(self._written, point.last_index, point.generation))

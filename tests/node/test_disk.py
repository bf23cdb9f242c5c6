"""The disk thread: what it reports is durable, it is asked for one write at a time, and a failure is final."""

from __future__ import annotations

import errno
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raftchat.node.disk import Disk
from raftchat.raft import HardState, Persisted
from raftchat.storage import hard_state
from raftchat.storage.hard_state import HardStateFile, OsFile


class Point:
    def __init__(self, log: Log, last_index: int) -> None:
        self.last_index, self.generation = last_index, 0
        self._log = log

    def wait(self) -> None:
        self._log.events.append(("sync", threading.current_thread().name))
        self._log.gate.wait()
        if self._log.error is not None:
            raise self._log.error


class Log:
    """As the disk sees it; `gate` holds its syncs."""

    def __init__(self) -> None:
        self.last_index = 0
        self.synced_index = 0
        self.gate = threading.Event()
        self.error: Exception | None = None
        self.events: list[tuple[str, str]] = []

    def begin_sync(self) -> Point:
        return Point(self, self.last_index)

    def end_sync(self, point: Point) -> None:
        self.synced_index = point.last_index


class Loop:
    """Calls from the thread, run by the test."""

    def __init__(self) -> None:
        self.calls: queue.Queue[tuple[Callable[..., None], tuple[Any, ...]]] = queue.Queue()

    def call_soon(self, function: Callable[..., None], *arguments: Any) -> None:
        self.calls.put((function, arguments))

    def run_one(self) -> None:
        function, arguments = self.calls.get(timeout=5)
        function(*arguments)


class Syncs:
    """`SyncThread` for points of the test's; instead of a descriptor it calls."""

    def __init__(self, call_soon: Callable[..., None]) -> None:
        self._call_soon = call_soon
        self._work: queue.SimpleQueue[Point | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[Point | Exception] = queue.SimpleQueue()
        self.on_done: Callable[[], None] = lambda: None

    def run(self) -> None:
        while (point := self._work.get()) is not None:
            try:
                point.wait()
                self._done.put(point)
            except Exception as error:
                self._done.put(error)
            self._call_soon(lambda: self.on_done())

    def start(self, point: Point) -> None:
        self._work.put(point)

    def end(self) -> Point:
        done = self._done.get(timeout=5)
        if isinstance(done, Exception):
            raise done
        return done

    def stop(self) -> None:
        self._work.put(None)

    def fileno(self) -> int:
        return 77


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Disk, Log, Loop, list[Any], str]:
    path = str(tmp_path / "hard-state")
    hard_state.create(path)
    log, loop, told = Log(), Loop(), []
    syncs = Syncs(loop.call_soon)

    def add_reader(fd: int, function: Callable[[], None]) -> None:
        assert fd == syncs.fileno()
        syncs.on_done = function

    disk = Disk(log, HardStateFile(OsFile(path)), loop.call_soon, told.append, told.append, syncs, add_reader)
    return disk, log, loop, told, path


def test_nothing_is_reported_before_it_is_durable(parts: tuple[Disk, Log, Loop, list[Any], str]) -> None:
    disk, log, loop, told, path = parts
    log.last_index = 5
    disk.start(HardState(3, 1, 2))
    log.last_index = 9
    assert disk.busy
    with pytest.raises(AssertionError, match="one write at a time"):
        disk.start(None)
    assert told == []
    assert loop.calls.empty()
    log.gate.set()
    loop.run_one()
    assert told == [Persisted(HardState(3, 1, 2), 5, 0)]
    assert log.synced_index == 5
    assert not disk.busy
    stored = HardStateFile(OsFile(path))
    assert (stored.term, stored.vote, stored.commit) == (3, 1, 2)
    disk.start(None)
    loop.run_one()
    assert told[1] == Persisted(HardState(3, 1, 2), 9, 0), "the hard state written last is told again"
    assert [thread for _, thread in log.events] == ["disk", "sync"]
    disk.close()


@pytest.mark.parametrize("written", [None, HardState(3, 1, 2)], ids=["log alone", "hard state"])
@pytest.mark.parametrize("error", [OSError(errno.EIO, "Input/output error"), AssertionError("term goes back")])
def test_a_failed_write_is_told_once_and_never_tried_again(
    parts: tuple[Disk, Log, Loop, list[Any], str], error: Exception, written: HardState | None
) -> None:
    disk, log, loop, told, _ = parts
    log.error = error
    log.gate.set()
    disk.start(written)
    loop.run_one()
    assert told == [log.error]
    assert disk.busy, "nothing may be written after it"
    assert log.synced_index == 0
    disk.close()
    assert len(log.events) == 1


def test_what_ends_after_the_close_is_not_reported(parts: tuple[Disk, Log, Loop, list[Any], str]) -> None:
    disk, log, loop, told, _ = parts
    disk.start(None)
    log.gate.set()
    disk.close()
    loop.run_one()
    assert told == []
    assert len(log.events) == 1

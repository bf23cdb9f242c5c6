"""Syncs in a thread that does without the GIL: what they cover, what a failure ends, and who waits for whom."""

from __future__ import annotations

import select
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftchat import _log
from raftchat._log_sync import SyncPoint, SyncThread
from tests.log.kit import Kit
from tests.log.test_disk import traced


@pytest.fixture
def syncs() -> Iterator[SyncThread]:
    thread = SyncThread()
    runner = threading.Thread(target=thread.run)
    runner.start()
    yield thread
    thread.stop()
    runner.join(10)
    assert not runner.is_alive()


def end(thread: SyncThread) -> SyncPoint:
    assert select.select([thread], [], [], 10)[0], "not flushed within 10 s"
    return thread.end()


def test_a_point_covers_what_was_there_when_it_was_begun(fast_directory: Path, syncs: SyncThread) -> None:
    kit = Kit(_log, fast_directory)
    log = kit.open()
    log.append(kit.posts(3, size=20), 1, 1)
    point = log.begin_sync()
    syncs.start(point)
    log.append(kit.posts(3, size=20), 1, 1)
    assert not log.synced_index
    assert end(syncs) is point
    log.end_sync(point)
    assert log.synced_index == 3
    assert not select.select([syncs], [], [], 0)[0]


def test_one_at_a_time(fast_directory: Path, syncs: SyncThread) -> None:
    kit = Kit(_log, fast_directory)
    log = kit.open()
    with pytest.raises(AssertionError, match="none was started"):
        syncs.end()
    syncs.start(log.begin_sync())
    with pytest.raises(AssertionError, match="one at a time"):
        syncs.start(log.begin_sync())
    end(syncs)


def test_the_log_rolls_while_it_is_synced(fast_directory: Path, syncs: SyncThread) -> None:
    kit = Kit(_log, fast_directory)
    log = kit.open()
    point = None
    for _ in range(400):
        log.append(kit.posts(7, size=20), 1, 1)
        if point is None:
            point = log.begin_sync()
            syncs.start(point)
        elif select.select([syncs], [], [], 0)[0]:
            log.end_sync(syncs.end())
            assert log.synced_index >= point.last_index
            point = None
    if point is not None:
        log.end_sync(end(syncs))
    assert len(log.segments()) > 50
    assert log.verify() == (2800, [])


def test_what_was_asked_for_is_flushed_before_the_end(fast_directory: Path) -> None:
    kit = Kit(_log, fast_directory)
    log = kit.open()
    log.append(kit.post(), 1, 1)
    thread = SyncThread()
    point = log.begin_sync()
    thread.start(point)
    thread.stop()
    thread.run()
    assert end(thread) is point


def test_a_failed_sync_is_final(fast_directory: Path) -> None:
    """fdatasync 1 is of the first segment, 2 the one that fails, of which both the log and a later point must learn."""
    printed = traced(
        fast_directory,
        ["-o", "/dev/null", "-e", "inject=fdatasync:error=EIO:when=2"],
        "from raftchat._log_sync import SyncThread\n"
        "log = kit.open()\n"
        "log.append(kit.posts(25, size=20), 1, 1)\n"
        "thread = SyncThread()\n"
        "points = [log.begin_sync(), log.begin_sync()]\n"
        "def sync(point):\n"
        "    thread.start(point)\n"
        "    thread.stop()\n"
        "    thread.run()\n"
        "    thread.end()\n"
        "roll = lambda: log.append(kit.posts(25, size=20), 1, 1)\n"
        "again = lambda: sync(points[1])\n"
        "for refused in (lambda: sync(points[0]), again, points[1].wait, roll, log.begin_sync):\n"
        "    try:\n"
        "        refused()\n"
        "    except OSError as error:\n"
        "        print(error.errno, log.last_index, log.synced_index)\n",
    )
    assert printed.split() == ["5", "25", "0"] * 5


def test_the_log_learns_of_a_failure_before_its_owner_does(fast_directory: Path) -> None:
    """The kernel reports a failed write once for each open file: a roll must not sync that file again and go on."""
    printed = traced(
        fast_directory,
        ["-o", "/dev/null", "-e", "inject=fdatasync:error=EIO:when=2"],
        "from raftchat._log_sync import SyncThread\n"
        "log = kit.open()\n"
        "log.append(kit.posts(25, size=20), 1, 1)\n"
        "thread = SyncThread()\n"
        "thread.start(log.begin_sync())\n"
        "thread.stop()\n"
        "thread.run()\n"
        "try:\n"
        "    log.append(kit.posts(25, size=20), 1, 1)\n"
        "except OSError as error:\n"
        "    print(error.errno, log.last_index, len(log.segments()))\n",
    )
    assert printed.split() == ["5", "25", "1"]

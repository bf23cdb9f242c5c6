"""Nothing is pulled from under those who read: tails are cut and segments dropped while threads and processes look."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from raftchat import _log
from tests.log.kit import Kit, sync

READERS = 8
SECONDS = 1.5


def test_views_outlive_everything(kit: Kit) -> None:
    log = kit.filled(200)
    batches = [log.slice(index, 10**6) for index in range(1, 200, 10)]
    copies = [bytes(batch.data) for batch in batches]
    views = [batch.data for batch in batches]
    log.truncate_suffix(3)
    log.drop_prefix(3)
    log.reset(10**6, 100, 1)
    log.close()
    del log, batches
    gc.collect()
    for path in kit.files():
        path.unlink()
    assert [bytes(view) for view in views] == copies


def test_batches_are_read_only(kit: Kit) -> None:
    batch = kit.filled(5).slice(1, 1000)
    assert batch.data.readonly
    with pytest.raises(TypeError):
        batch.data[0] = 1


def test_descriptors_and_mappings_are_given_back(fast_directory: Path) -> None:
    """Many segments made, cut and dropped leave nothing open once they are closed."""

    def held() -> tuple[int, int]:
        gc.collect()
        maps = Path("/proc/self/maps").read_text().count(str(fast_directory))
        return len(os.listdir("/proc/self/fd")), maps

    before = held()
    kit = Kit(_log, fast_directory)
    log = kit.filled(500)
    reader = kit.reader(log)
    batch = log.slice(1, 100)
    for last_index in (400, 300, 200):
        log.truncate_suffix(last_index)
    log.drop_prefix(150)
    log.close()
    reader.close()
    assert held()[1] == before[1] + 1
    del log, reader, batch
    assert held() == before


def check_pages(reader: Any, committed: int, random_: random.Random) -> None:
    """Read a random committed range in every way and check that it is what was written."""
    first = random_.randrange(1, committed + 1)
    last = min(committed, first + 50)
    for entry in reader.entries(first, last):
        assert entry.value.startswith(b'"User":"u%d","' % entry.index), entry
    assert sum(len(run.indexes) for run in reader.scan(first, last)) == last - first + 1
    assert len(reader.frames(first, last, None)) == last - first + 1


def read_for_ever(path: str, told: Any, ready: Any) -> None:
    """A reader process: what it is told of are commit indexes and segments."""
    reader, committed, looks = _log.LogReader(path), 0, 0
    random_ = random.Random(os.getpid())
    ready.set()
    stopping = False
    while not stopping or looks < 10:
        while not stopping and told.poll():
            message = told.recv()
            if message is None:
                stopping = True
            elif isinstance(message, int):
                committed = message
            else:
                reader.add_segment(*message)
        if committed:
            # What retention unlinked before we came to it is gone, and said to be.
            with contextlib.suppress(FileNotFoundError):
                check_pages(reader, committed, random_)
                looks += 1
    os._exit(0)


def cut_and_append(log: Any, kit: Kit, random_: random.Random, tell: Any) -> int:
    """One round of a leader's and a follower's life: append, sometimes cut what is not committed, sometimes roll."""
    known = log.active_sequence
    committed = log.last_index
    for _ in range(random_.randrange(1, 4)):
        extra = random_.randrange(1, 60)
        records = b"".join(kit.post(log.last_index + 1 + n, size=random_.randrange(60)) for n in range(extra))
        log.append(records, max(log.last_term, log.generation + 1), 1)
        if random_.random() < 0.6:
            log.truncate_suffix(committed)
    sync(log)
    for segment in log.segments():
        if segment.sequence > known:
            tell((segment.sequence, segment.base_index))
    tell(log.last_index)
    return int(log.last_index)


def test_eight_processes_read_while_tails_are_cut(fast_directory: Path) -> None:
    kit = Kit(_log, fast_directory)
    log = kit.open()
    context = multiprocessing.get_context("fork")
    pipes, processes = [], []
    for _ in range(READERS):
        ours, theirs = context.Pipe()
        ready = context.Event()
        process = context.Process(target=read_for_ever, args=(kit.path(), theirs, ready), daemon=True)
        process.start()
        assert ready.wait(20)
        pipes.append(ours)
        processes.append(process)

    def tell(message: Any) -> None:
        for pipe in pipes:
            pipe.send(message)

    for segment in log.segments():
        tell((segment.sequence, segment.base_index))
    random_ = random.Random(6)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        committed = cut_and_append(log, kit, random_, tell)
        if random_.random() < 0.1:
            log.unlink(log.drop_prefix(committed // 2))
    tell(None)
    for process in processes:
        process.join(20)
        assert process.exitcode == 0, signal.strsignal(-process.exitcode) if process.exitcode else None


def test_eight_threads_read_views_while_tails_are_cut(fast_directory: Path) -> None:
    kit = Kit(_log, fast_directory)
    log = kit.filled(100)
    views: list[tuple[bytes, memoryview]] = []
    stop, failures = threading.Event(), []

    def look() -> None:
        random_ = random.Random(threading.get_ident())
        try:
            while not stop.is_set():
                expected, view = views[random_.randrange(len(views))]
                assert bytes(view) == expected
        except BaseException as error:
            failures.append(error)

    def tell(message: Any) -> None:
        batch = log.slice(max(log.first_index, log.last_index - 20), 4000)
        views.append((bytes(batch.data), batch.data))
        del views[: len(views) - 200]

    tell(None)
    threads = [threading.Thread(target=look) for _ in range(READERS)]
    for thread in threads:
        thread.start()
    random_ = random.Random(7)
    deadline = time.monotonic() + SECONDS
    try:
        while time.monotonic() < deadline and not failures:
            committed = cut_and_append(log, kit, random_, tell)
            if random_.random() < 0.3:
                log.drop_prefix(committed)
        log.close()
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert not failures


def test_a_sync_runs_in_a_thread_while_the_log_goes_on(kit: Kit) -> None:
    """Appends, rolls, cuts and drops meanwhile: what is said to be durable afterwards is right."""
    log = kit.filled(20)
    deadline = time.monotonic() + 1
    random_ = random.Random(8)
    while time.monotonic() < deadline:
        log.append(kit.posts(random_.randrange(1, 40)), 9, 1)
        synced, point = log.synced_index, log.begin_sync()
        thread = threading.Thread(target=point.wait)
        thread.start()
        cut = random_.random() < 0.3
        for _ in range(random_.randrange(4)):
            log.append(kit.posts(random_.randrange(1, 60)), 9, 1)
        if cut:
            log.truncate_suffix(random_.randrange(log.first_index, log.last_index))
            log.append(kit.posts(5), 9, 1)
        before = log.synced_index
        log.unlink(log.drop_prefix(synced))
        thread.join()
        log.end_sync(point)
        assert log.synced_index == (before if cut else max(before, point.last_index))
        assert log.synced_index <= log.last_index

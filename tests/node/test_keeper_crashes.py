"""The keeper killed, or refused by the disk, at each of its own system calls: opened again, or tried again, nothing is
lost and nothing comes back."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from raftchat import _log
from raftchat.chat.commands import remove_room
from tests.node.store_kit import Store, open_store, small_config

CALLS = ("open", "write", "pwrite", "rename", "unlink", "fsync", "fdatasync")


class Killed(BaseException):
    """The process is gone: no handler of the keeper's own means it."""


@contextmanager
def system_calls(monkeypatch: pytest.MonkeyPatch, before: Callable[[str, tuple[Any, ...]], None]) -> Iterator[None]:
    """`before(name, arguments)` is called before each of them."""

    def wrapped(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **keywords: Any) -> Any:
            before(name, arguments)
            return real(*arguments, **keywords)

        return call

    with monkeypatch.context() as patched:
        for name in CALLS:
            patched.setattr(os, name, wrapped(name))
        yield


def scenario(store: Store, upkeep: Callable[[Store], Store]) -> Store:
    """Rooms that come and go beside one that stays; nothing but what is given here is ever in the log."""
    store.owner.leads = False
    began_ms = store.clock.now_ms
    for number in range(3):
        store.clock.now_ms = began_ms + 900 * number  # However long the upkeep took: posts bear the same times.
        for _ in range(2):
            store.post(f"gone-{number}", 25)
            store.post("stays", 2)
        store.owner.append(_log.pack(*remove_room(f"gone-{number}".encode())))
        store.fill("stays")
        store = upkeep(store)
        store.owner.leads = False
    store.clock.now_ms += 2000
    return upkeep(store)


def finished(store: Store) -> tuple[str, list[int], list[str]]:
    """What is left in the end, when all that was put off is done."""
    store.rounds(12, ms=4000)
    assert not store.opened.log.retired()
    assert store.upkeep.counters.failures == 0 or store.upkeep.due_ms > store.clock.now_ms
    names = [name for name in os.listdir(store.path / "log") if name.endswith(".tmp")]
    return store.state.state_hash(), store.page("stays"), names


def reopened(store: Store) -> Store:
    """As after a kill: nothing was closed or written in order."""
    store.abandon()
    opened = open_store(store.path, store.config, store.clock)
    assert opened.opened.log.last_index == store.owner.commit_index
    opened.owner.commit_index = store.owner.commit_index
    return opened


def no_trouble(store: Store) -> Store:
    store.rounds(3)
    return store


def expected(path: Path) -> tuple[str, list[int], list[str]]:
    store = scenario(open_store(path), no_trouble)
    result = finished(store)
    assert store.upkeep.counters.compactions > 1
    assert result[2] == []
    return result


def count_calls(path: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    calls = 0

    def before(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal calls
        calls += 1

    def upkeep(store: Store) -> Store:
        with system_calls(monkeypatch, before):
            store.rounds(3)
        return store

    scenario(open_store(path), upkeep)
    return calls


def killed_at(number: int, monkeypatch: pytest.MonkeyPatch) -> Callable[[Store], Store]:
    left = number

    def before(name: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed

    def upkeep(store: Store) -> Store:
        nonlocal left
        try:
            with system_calls(monkeypatch, before):
                store.rounds(3)
        except Killed:
            left = 1 << 60
            store = reopened(store)
            store.rounds(3)
        return store

    return upkeep


@pytest.mark.parametrize("part", range(4))
def test_killed_at_each_system_call_the_store_opens_again_and_comes_to_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    result = expected(tmp_path / "expected")
    calls = count_calls(tmp_path / "counted", monkeypatch)
    assert calls > 60
    for number in range(part, calls, 4):
        store = scenario(open_store(tmp_path / str(number)), killed_at(number, monkeypatch))
        assert finished(store) == result, f"killed at call {number}"
        again = reopened(store)
        again.owner.leads = False
        assert finished(again) == result, f"killed at call {number}, opened once more"
        again.abandon()


class Full:
    """A disk that is full from the n-th call on, for a while."""

    def __init__(self, number: int, failures: int) -> None:
        self.left = number
        self.failures = failures
        self.failed: list[str] = []

    def before(self, name: str, arguments: tuple[Any, ...]) -> None:
        # These take no space; a disk that is full lets them go.
        if name in ("unlink", "fsync", "fdatasync") or (name == "open" and not arguments[1] & os.O_CREAT):
            return
        self.left -= 1
        if self.left < 0 and self.failures > 0:
            self.failures -= 1
            self.failed.append(name)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("part", range(4))
def test_a_full_disk_puts_off_what_the_keeper_writes_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int, caplog: pytest.LogCaptureFixture
) -> None:
    config = small_config(store_retry_ms=100)
    result = expected(tmp_path / "expected")
    hits = 0
    for number in itertools.count(part, 4):
        full = Full(number, 3)

        def upkeep(store: Store, full: Full = full) -> Store:
            with system_calls(monkeypatch, full.before):
                store.rounds(6, ms=100)
            return store

        store = scenario(open_store(tmp_path / str(number), config), upkeep)
        if not full.failed:
            break
        hits += 1
        assert finished(store) == result, f"refused at call {number}"
        assert store.upkeep.counters.failures > 0
        store.abandon()
    assert hits > 4
    lines = [record.message for record in caplog.records if "could not be written" in record.message]
    assert 0 < len(lines) <= 3 * hits


@pytest.mark.parametrize("place", ["snapshots", ".tmp"])
def test_a_failed_flush_of_a_file_that_nothing_relies_on_yet_is_no_reason_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is never taken for flushed: the file is written anew."""
    result = expected(tmp_path / "expected")
    failed: list[str] = []

    def before(name: str, arguments: tuple[Any, ...]) -> None:
        if name in ("fsync", "fdatasync") and len(failed) < 2:
            path = os.readlink(f"/proc/self/fd/{arguments[0]}")
            if place in path and os.path.isfile(path):
                failed.append(path)
                raise OSError(errno.EIO, os.strerror(errno.EIO))

    def upkeep(store: Store) -> Store:
        with system_calls(monkeypatch, before):
            store.rounds(6, ms=100)
        return store

    store = scenario(open_store(tmp_path / "store", small_config(store_retry_ms=100)), upkeep)
    assert failed
    assert finished(store) == result
    assert store.upkeep.counters.failures == len(failed)
    assert any("Input/output error" in record.message for record in caplog.records)
    store.abandon()


def test_a_record_that_is_bad_keeps_its_segment_as_it_is_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store(tmp_path)
    store.owner.leads = False
    store.post("gone", 100)
    store.post("stays", 3)
    store.fill("stays")
    store.rounds()
    path = store.path / "log" / store.names()[0]
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    for name in store.names(".idx"):
        (store.path / "log" / name).unlink()
    store.owner.append(_log.pack(*remove_room(b"gone")))
    store = reopened(store)
    store.owner.leads = False
    for _ in range(3):
        store.fill("stays")
        store.rounds(3, ms=2000)
    assert any("A record is bad" in record.message and path.name in record.message for record in caplog.records)
    assert path.exists()
    assert path.read_bytes() == bytes(data)
    assert len(store.names(".idx")) > 0
    assert len(store.owner.taken) >= 2, "snapshots go on"
    store.abandon()

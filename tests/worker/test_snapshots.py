"""A worker that begins from a snapshot, and what becomes of one that cannot."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from raftchat.chat.policy import Policy
from raftchat.worker.replica import CannotBegin
from tests.worker.keeper import Keeper
from tests.worker.support import TIME_MS, FakeRaft, Worker, record, running, wait_for
from tests.worker.test_machines import samples


def sealed(raft: FakeRaft) -> None:
    """150 messages of `a` trimmed and 50 left, 200 of `b`, a snapshot, and ten of `a` behind it."""
    keeper = Keeper(raft)
    for n in range(200):
        raft.append(record("a", str(n)) + record("b", str(n)), TIME_MS + n)
    raft.commit()
    keeper.retain(TIME_MS + 500, rooms={b"a": Policy(max_messages=50)})
    keeper.seal()
    for n in range(200, 210):
        raft.append(record("a", str(n)), TIME_MS + 1000)
    raft.commit()
    keeper.close()


def sealed_and_compacted(raft: FakeRaft) -> None:
    sealed(raft)
    keeper = Keeper(raft)
    keeper.apply()
    keeper.seal()
    keeper.compact()
    keeper.close()


@pytest.mark.parametrize("prepare", [sealed, sealed_and_compacted])
def test_it_has_all_that_one_has_that_read_everything(tmp_path: Path, prepare: object) -> None:
    with running(tmp_path, prepare=prepare) as worker:
        assert worker.texts("a", limit=1000) == [str(n) for n in range(150, 210)]
        assert worker.texts("b", limit=1000) == [str(n) for n in range(200)]
        first = worker.client.get("/rooms/b", params={"after": 0, "limit": 1}).json()[0]["ID"]
        assert worker.texts("b", around=first, limit=3) == ["0", "1", "2"]
        found = samples(worker)
        assert (found["raftchat_messages"], found["raftchat_rooms"]) == (260, 2)
        assert worker.post("a", "210").status_code == 201
        assert worker.texts("a", limit=2) == ["209", "210"]


def test_it_reads_nothing_that_the_snapshot_covers(tmp_path: Path) -> None:
    """Nor what retention removed and is still there: a rotten message of that kind keeps nobody from anything."""

    def rotten(raft: FakeRaft) -> None:
        sealed(raft)
        path = Path(raft.log.segments()[0].path)
        offset = path.read_bytes().index(b'"Message":"100"')
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b'"Massage":"100"')

    with running(tmp_path, prepare=rotten) as worker:
        assert worker.texts("a", limit=1) == ["209"]
        assert worker.texts("a", limit=1000) == [str(n) for n in range(150, 210)]
        assert worker.texts("b", limit=1000) == [str(n) for n in range(200)]


def gone(path: Path) -> None:
    path.unlink()


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def cut(path: Path) -> None:
    os.truncate(path, 40)


@pytest.mark.parametrize("harm", [gone, flipped, cut])
def test_a_snapshot_that_cannot_be_used_ends_the_worker_and_the_next_begins_from_another(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, harm: object
) -> None:
    paths: list[Path] = []

    def prepare(raft: FakeRaft) -> None:
        sealed(raft)
        assert raft.snapshot is not None
        paths.append(Path(raft.snapshot))
        harm(paths[0])  # type: ignore[operator]

    with Worker(tmp_path, prepare=prepare) as worker:
        worker._thread.join(10)
        assert isinstance(worker.error, CannotBegin)
        assert worker.raft.serving == 0
    assert f"the snapshot {paths[0]} cannot be used" in caplog.text
    # What the supervisor does next. The Raft process may well know of none that is newer.
    with running(tmp_path) as worker:
        assert len(worker.texts("a", limit=1000)) == 60


def test_compaction_that_is_ahead_of_this_worker_makes_pages_shorter_and_nothing_else(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of a file was decided by entries that this worker, which is slow, has not been told of yet."""
    raft = worker.raft

    def fill() -> None:
        for n in range(10):
            raft.append(record("a", str(n)) + record("b", str(n)))
        raft.commit()

    def compact() -> None:
        keeper = Keeper(raft)
        keeper.seal()
        with monkeypatch.context() as patch:
            patch.setattr(raft, "commit", lambda: setattr(raft, "committed", raft.log.last_index))
            raft.append(record("b", "last"), TIME_MS + 1000)
            raft.commit()
            keeper.retain(TIME_MS + 1000, rooms={b"a": Policy(max_messages=3), b"b": Policy(max_messages=1)})
            keeper.compact()
        keeper.close()

    worker.call(fill)
    assert len(worker.texts("a")) == 10
    worker.call(compact)
    for cursor in ({}, {"before": 12}, {"after": 1}, {"around": 10}, {"limit": 1}):
        assert set(worker.texts("a", consistency="local", **cursor)) <= {"7", "8", "9"}
        assert worker.texts("b", consistency="local", **cursor) == []
    assert worker.texts("a", consistency="local") == ["7", "8", "9"]
    worker.call(raft.commit)
    assert worker.texts("b") == ["last"]
    assert worker.texts("a") == ["7", "8", "9"]


def test_memory_does_not_grow_with_history(tmp_path: Path) -> None:
    """Neither objects nor bytes that Python knows of are kept for a message."""

    def prepare(raft: FakeRaft) -> None:
        raft.append(record("a", "x"))

    with running(tmp_path, prepare=prepare, segment_size_bytes=64 << 20) as worker:

        def grow() -> None:
            for _ in range(10):
                worker.raft.append(record("a", "x") * 1000)
            worker.raft.commit()

        def objects() -> int:
            gc.collect()
            return len(gc.get_objects())

        worker.call(grow)
        wait_for("applied", lambda: worker.call(lambda: worker.server._replica.applied_index) == 10_002)
        before = worker.call(objects)
        for _ in range(5):
            worker.call(grow)
        wait_for("applied", lambda: worker.call(lambda: worker.server._replica.applied_index) == 60_002)
        assert worker.call(objects) - before < 500
        room = worker.call(lambda: worker.server._replica.state.room(b"a"))
        assert room is not None
        assert not [name for name in type(room).__slots__ if hasattr(getattr(room, name), "__len__") and name != "name"]

"""Restore: from every kind of copy what it holds, as a new cluster; never over something; never half."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from raftchat import _log
from raftchat.config import Config
from raftchat.node.directory import open_directory
from raftchat.node.restore import NewCluster, Restored, restore
from raftchat.raft import Membership
from raftchat.storage import hard_state, identity, snapshot
from raftchat.storage.backup import backup
from raftchat.storage.errors import CorruptFile, StorageError
from raftchat.storage.verify import verify
from tests.storage.data_dir import SEGMENT_SIZE_BYTES, DataDir, as_copy, contents, new_segment_id

NEW_URLS = ["http://127.0.0.1:22379", "http://127.0.0.1:32379"]


def restored(source: Path, target: Path, member_id: int = 1, epoch: int = 5, **options: Any) -> Restored:
    cluster = NewCluster(member_id, NEW_URLS, lambda old: epoch, new_segment_id, SEGMENT_SIZE_BYTES)
    made = restore(str(source), str(target), cluster, **options)
    report = verify(str(target))
    assert (report.corrupt, report.unreadable, report.notes) == ([], [], [])
    return made


def holds(directory: DataDir, target: Path) -> None:
    """Exactly what was posted and not removed."""
    expected = {
        room: {index: f'"User":"u","Message":"{text}"'.encode() for index, text in messages.items()}
        for room, messages in directory.posts.items()
    }
    assert contents(target) == expected


@pytest.fixture
def filled(tmp_path: Path) -> DataDir:
    """Three snapshots, a room removed, old segments compacted, and a tail."""
    directory = DataDir(tmp_path / "node")
    directory.post("a", 60)
    directory.post("gone", 30)
    directory.seal()
    directory.post("b", 40)
    directory.remove("gone")
    directory.seal()
    directory.compact(0, 1)
    directory.post("a", 20)
    directory.seal()
    directory.post("c", 45)
    return directory


def test_a_stopped_nodes_directory(filled: DataDir, tmp_path: Path) -> None:
    last_index, term, time_ms = filled.log.last_index, filled.log.last_term, filled.log.last_time_ms
    filled.close()
    made = restored(filled.path, tmp_path / "new")
    assert (made.last_index, made.messages, made.rooms) == (last_index, 165, 3)
    assert made.faults == []
    holds(filled, tmp_path / "new")
    # The log goes on where the copy ends, and Raft has nothing of the old life.
    log = _log.Log(
        str(tmp_path / "new" / "log"),
        new_segment_id=new_segment_id,
        segment_size_bytes=4096,
        durable_hint=last_index + 1,
    )
    # One entry of nothing is behind it, so that there are two snapshots.
    assert (log.first_index, log.last_index, log.last_term, log.last_time_ms) == (
        last_index + 1,
        last_index + 1,
        term,
        time_ms,
    )
    assert [entry.kind for entry in log.entries(last_index + 1, last_index + 1)] == [_log.KIND_NOOP]
    assert log.append(_log.pack(16, b"a", b'"User":"u","Message":"x"'), 4, 0) == (last_index + 2, last_index + 2)
    log.close()
    state = hard_state.HardStateFile(hard_state.OsFile(str(tmp_path / "new" / "hard-state")))
    assert (state.term, state.vote, state.commit) == (term, 0, last_index + 1)


def test_the_new_cluster_is_another_one(filled: DataDir, tmp_path: Path) -> None:
    filled.close()
    made = restored(filled.path, tmp_path / "new", member_id=2)
    stored = identity.load(str(tmp_path / "new"))
    assert stored == made.identity
    assert stored.cluster_id != filled.identity.cluster_id
    assert (stored.member_id, stored.epoch, list(stored.members.values())) == (2, 5, NEW_URLS)
    paths = snapshot.paths(str(tmp_path / "new" / "snapshots"))
    assert len(paths) == 2
    for path in paths:
        state = snapshot.load(path)
        assert (state.cluster_id, state.epoch) == (stored.cluster_id, 5)
        assert Membership.decode(state.membership) == Membership({1: NEW_URLS[0], 2: NEW_URLS[1]})


def test_a_node_opens_it(filled: DataDir, tmp_path: Path) -> None:
    filled.close()
    made = restored(filled.path, tmp_path / "new", member_id=2)
    opened = open_directory(Config(), str(tmp_path / "new"))
    assert opened.identity == made.identity
    assert opened.history == [(made.last_index + 1, Membership({1: NEW_URLS[0], 2: NEW_URLS[1]}))]
    assert opened.hard_state.commit == opened.log.last_index == made.last_index + 1
    filled.final_state.applied_index += 1
    assert opened.start.state.encode() == filled.final_state.encode()
    assert opened.log.retired() == []
    opened.log.close()


def test_members_restored_from_one_copy_are_one_cluster(filled: DataDir, tmp_path: Path) -> None:
    filled.close()
    one = restored(filled.path, tmp_path / "one", 1)
    two = restored(filled.path, tmp_path / "two", 2)
    assert one.identity.cluster_id == two.identity.cluster_id
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    later = restored(filled.path, tmp_path / "later", 2, epoch=6)
    assert later.identity.cluster_id != two.identity.cluster_id


def test_an_old_epoch_is_refused(filled: DataDir, tmp_path: Path) -> None:
    filled.close()
    with pytest.raises(StorageError, match="greater than that of the copy, 1"):
        restored(filled.path, tmp_path / "new", epoch=1)
    assert not (tmp_path / "new").exists()


def test_a_restored_directory_can_be_restored(filled: DataDir, tmp_path: Path) -> None:
    filled.close()
    restored(filled.path, tmp_path / "new")
    again = restored(tmp_path / "new", tmp_path / "again", epoch=9)
    holds(filled, tmp_path / "again")
    assert again.identity.epoch == 9


def test_a_log_without_a_snapshot(tmp_path: Path) -> None:
    directory = DataDir(tmp_path / "node")
    directory.post("a", 90)
    directory.close()
    assert restored(directory.path, tmp_path / "new").messages == 90
    holds(directory, tmp_path / "new")


def test_an_empty_node(tmp_path: Path) -> None:
    directory = DataDir(tmp_path / "node")
    directory.close()
    made = restored(directory.path, tmp_path / "new")
    assert (made.last_index, made.messages) == (0, 0)


def test_old_membership_entries_are_gone(tmp_path: Path) -> None:
    directory = DataDir(tmp_path / "node")
    directory.post("a", 3)
    members = Membership({1: "http://127.0.0.1:1", 2: "http://127.0.0.1:2", 3: "http://127.0.0.1:3"})
    directory.log.append(_log.pack(2, b"", members.encode()), 3, 0)
    directory.post("a", 3)
    directory.close()
    restored(directory.path, tmp_path / "new")
    log = _log.Log(str(tmp_path / "new" / "log"), new_segment_id=new_segment_id, segment_size_bytes=4096)
    assert log.find_kind(2) == []


def test_a_backup_of_a_directory_in_use(filled: DataDir, tmp_path: Path) -> None:
    made = backup(str(filled.path), str(tmp_path / "backup"))
    assert made.last_index == filled.log.last_index
    restored(tmp_path / "backup", tmp_path / "new")
    holds(filled, tmp_path / "new")


def test_the_newest_snapshot_names_segments_that_were_replaced_before_it_was_copied(
    filled: DataDir, tmp_path: Path
) -> None:
    """As in a copy of the log that was made later, after the grace: what replaced them holds enough."""
    for retired in filled.compact(1, 2):
        os.unlink(retired)
    filled.close()
    restored(filled.path, tmp_path / "new")
    holds(filled, tmp_path / "new")


def test_old_segments_in_which_nothing_lived_were_dropped(tmp_path: Path) -> None:
    directory = DataDir(tmp_path / "node")
    directory.post("gone", 60)
    directory.seal()
    directory.remove("gone")
    directory.post("a", 60)
    directory.seal()
    dropped = directory.log.drop_prefix(60)
    assert dropped
    directory.log.unlink(dropped)
    directory.close()
    restored(directory.path, tmp_path / "new")
    holds(directory, tmp_path / "new")


def test_a_snapshot_that_is_newer_than_the_copied_log(filled: DataDir, tmp_path: Path) -> None:
    shutil.copytree(filled.path / "log", tmp_path / "old-log")
    posts = {room: dict(messages) for room, messages in filled.posts.items()}
    filled.post("d", 60)
    filled.seal()
    filled.close()
    shutil.rmtree(filled.path / "log")
    shutil.move(tmp_path / "old-log", filled.path / "log")
    restored(as_copy(filled, tmp_path), tmp_path / "new")
    filled.posts = posts
    holds(filled, tmp_path / "new")


def test_a_rotten_newest_snapshot(filled: DataDir, tmp_path: Path) -> None:
    filled.close()
    newest = Path(snapshot.paths(str(filled.path / "snapshots"))[0])
    data = bytearray(newest.read_bytes())
    data[-1] ^= 1
    newest.write_bytes(data)
    made = restored(filled.path, tmp_path / "new")
    assert [fault for fault in made.faults if newest.name in fault]
    holds(filled, tmp_path / "new")


def test_up_to_the_first_gap_of_a_copy(tmp_path: Path) -> None:
    """In the directory itself nothing explains a gap."""
    directory = DataDir(tmp_path / "node")
    directory.post("a", 90)
    segments = directory.log.segments()
    directory.close()
    copy = as_copy(directory, tmp_path)
    os.unlink(copy / "log" / Path(segments[1].path).name)
    made = restored(copy, tmp_path / "new")
    assert made.last_index == segments[0].last_index
    os.unlink(segments[1].path)
    with pytest.raises(CorruptFile, match="what comes before it is missing"):
        restored(directory.path, tmp_path / "refused")
    directory.posts["a"] = {i: text for i, text in directory.posts["a"].items() if i <= made.last_index}
    holds(directory, tmp_path / "new")


def test_a_torn_record_ends_it_and_is_told(tmp_path: Path) -> None:
    """It lies in a sealed segment, which had been durable: only what is asked for is given up."""
    directory = DataDir(tmp_path / "node")
    directory.post("a", 90)
    segments = directory.log.segments()
    directory.close()
    with open(segments[1].path, "r+b") as file:
        file.seek(64 + 24)
        file.write(b"\xff")
    with pytest.raises(CorruptFile, match=f"{segments[1].path}: byte 64: entry .*--up-to-fault"):
        restored(directory.path, tmp_path / "new")
    made = restored(directory.path, tmp_path / "new", up_to_fault=True)
    assert made.last_index == segments[0].last_index
    assert f"{segments[1].path}, byte 64: " in made.ends_because
    assert f"{segments[1].path}: byte 64: " in made.lost[0]


def test_a_cut_tail_stays_cut(tmp_path: Path) -> None:
    directory = DataDir(tmp_path / "node")
    directory.post("a", 90)
    directory.log.truncate_suffix(40)
    directory.posts["a"] = {index: text for index, text in directory.posts["a"].items() if index <= 40}
    directory.term = 4
    directory.post("b", 20)
    directory.close()
    made = restored(directory.path, tmp_path / "new")
    assert made.last_index == 60
    holds(directory, tmp_path / "new")


def test_rot_in_what_the_snapshot_stands_on_is_named(tmp_path: Path) -> None:
    directory = DataDir(tmp_path / "node")
    directory.post("a", 60)
    directory.seal()
    directory.post("a", 1)
    (first, *_) = directory.log.segments()
    directory.close()
    with open(first.path, "r+b") as file:
        file.seek(300)
        byte = file.read(1)[0]
        file.seek(300)
        file.write(bytes([byte ^ 1]))
    # The state from the first entry to the fault could be had, but not what was acknowledged after it.
    with pytest.raises(CorruptFile, match=f"{first.path}: byte .*--up-to-fault"):
        restored(directory.path, tmp_path / "new")
    made = restored(directory.path, tmp_path / "new", up_to_fault=True)
    assert made.last_index < 60
    assert first.path in made.ends_because


def test_what_a_compacted_segment_was_made_of_can_take_its_place(filled: DataDir, tmp_path: Path) -> None:
    (compacted, *_) = filled.log.segments()
    assert compacted.revision
    filled.close()
    os.unlink(compacted.path)
    restored(filled.path, tmp_path / "new")
    holds(filled, tmp_path / "new")


def test_nothing_that_bears_a_state(filled: DataDir, tmp_path: Path) -> None:
    filled.close()
    for path in (filled.path / "log").glob(f"*-{1:020}*.log"):
        path.unlink()
    with pytest.raises(CorruptFile, match="this copy cannot be restored"):
        restored(filled.path, tmp_path / "new")
    assert identity.RESTORING in os.listdir(tmp_path / "new")


def test_what_is_not_a_copy(tmp_path: Path) -> None:
    (tmp_path / "stranger").mkdir()
    with pytest.raises(StorageError, match="has no identity file"):
        restored(tmp_path / "stranger", tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["identity", "something"])
def test_never_over_something(filled: DataDir, tmp_path: Path, name: str) -> None:
    filled.close()
    target = tmp_path / "new"
    target.mkdir()
    (target / name).write_text("mine")
    with pytest.raises(StorageError, match="is not empty"):
        restored(filled.path, target)
    assert os.listdir(target) == [name]


def test_never_into_the_copy_itself(filled: DataDir) -> None:
    filled.close()
    with pytest.raises(StorageError, match="lie within each other"):
        restored(filled.path, filled.path / "new")
    with pytest.raises(StorageError, match="lie within each other"):
        restored(filled.path, filled.path)


class Broken(Exception):
    pass


def test_a_broken_off_restore_is_no_node_and_can_be_repeated(
    filled: DataDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off before each of its durable steps in turn."""
    filled.close()
    target = tmp_path / "new"
    calls = ["fsync", "rename", "unlink", "posix_fallocate"]
    real = {name: getattr(os, name) for name in calls}
    left = 0

    def counted(name: str) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            if left == 0:
                raise Broken
            left -= 1
            return real[name](*arguments, **named)

        return call

    for name in calls:
        monkeypatch.setattr(os, name, counted(name))
    steps = 0
    while True:
        left = steps
        try:
            restored(filled.path, target)
            break
        except Broken:
            steps += 1
        if (target / identity.RESTORING).exists() and not (target / identity.FILE_NAME).exists():
            with pytest.raises(StorageError, match="give the same restore command again"):
                identity.load(str(target))
        if (target / identity.FILE_NAME).exists():
            left = 1000
            assert verify(str(target)).corrupt == []
            holds(filled, target)
            shutil.rmtree(target)
            assert steps > 10
            break
    left = 1000
    restored(filled.path, tmp_path / "whole")
    holds(filled, tmp_path / "whole")


def test_a_marker_that_a_restore_left_when_all_was_done_goes_when_the_node_starts(
    filled: DataDir, tmp_path: Path
) -> None:
    """It was killed between its last two system calls."""
    filled.close()
    restored(filled.path, tmp_path / "new")
    (tmp_path / "new" / identity.RESTORING).write_bytes(b"left")
    opened = open_directory(Config(), str(tmp_path / "new"))
    assert not (tmp_path / "new" / identity.RESTORING).exists()
    opened.log.close()

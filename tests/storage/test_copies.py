"""What a restore must not leave out, however the directory came to be, and that reading a copy costs no more than it
has files."""

from __future__ import annotations

import itertools
import os
import shutil
import time
from pathlib import Path

import pytest

from raftchat import _log
from raftchat.chat.commands import set_retention
from raftchat.chat.policy import Policy
from raftchat.chat.state import ChatState
from raftchat.config import Config
from raftchat.node.directory import open_directory
from raftchat.node.restore import NewCluster, Restored, _Directory, restore
from raftchat.raft import Membership
from raftchat.storage import segment_files, snapshot
from raftchat.storage.copies import Copy, Story
from raftchat.storage.errors import CorruptFile
from raftchat.storage.verify import verify
from tests.storage.data_dir import SEGMENT_SIZE_BYTES, DataDir, as_copy, contents, flip, new_segment_id

URLS = ["http://127.0.0.1:22379"]
LARGE_BYTES = 1 << 20


def cluster(retention: bool = True, segment_size_bytes: int = LARGE_BYTES) -> NewCluster:
    return NewCluster(1, URLS, lambda old: old + 1, new_segment_id, segment_size_bytes, retention)


def restored(source: Path, target: Path, *, up_to_fault: bool = False) -> Restored:
    return restore(str(source), str(target), cluster(), up_to_fault=up_to_fault)


def ids(target: Path) -> list[int]:
    return sorted(id for messages in contents(target).values() for id in messages)


@pytest.fixture
def installed(tmp_path: Path) -> DataDir:
    """It installed a snapshot of entry 200 and went on in the last segment of that, 101 to 200."""
    directory = DataDir(tmp_path / "node", segment_size_bytes=LARGE_BYTES)
    directory.post("a", 100)
    directory.log.roll()
    directory.post("a", 100)
    directory.seal()
    active = Path(directory.log.segments()[-1].path)
    directory.log.close()
    active.unlink()
    directory.log = _log.Log(
        str(directory.path / "log"), new_segment_id=new_segment_id, segment_size_bytes=LARGE_BYTES, durable_hint=200
    )
    assert directory.log.segments()[-1].base_index == 101
    directory.post("later", 200)
    # So that the log cannot be read from its first entry on.
    for retired in directory.compact(0, 0):
        os.unlink(retired)
    return directory


def test_a_node_that_went_on_in_the_last_segment_of_an_installed_snapshot(installed: DataDir, tmp_path: Path) -> None:
    """What an older snapshot took for the end of the segment is not that of the newer one."""
    installed.seal()
    installed.post("newest", 50)
    installed.close()
    assert [len(story.base) for story in Copy(str(installed.path)).stories()] == [2, 1]
    assert restored(installed.path, tmp_path / "new").last_index == 450
    assert ids(tmp_path / "new") == list(range(1, 451))


@pytest.mark.parametrize("newer", ["unlinked", "rotten"])
def test_the_same_with_the_older_snapshot_alone(installed: DataDir, tmp_path: Path, newer: str) -> None:
    path = installed.seal()
    installed.post("newest", 50)
    installed.close()
    if newer == "unlinked":
        os.unlink(path)
    else:
        flip(path, 200)
    restored(installed.path, tmp_path / "new")
    assert ids(tmp_path / "new") == list(range(1, 451))


def test_the_same_before_the_next_seal(installed: DataDir, tmp_path: Path) -> None:
    installed.close()
    restored(installed.path, tmp_path / "new")
    assert ids(tmp_path / "new") == list(range(1, 401))


@pytest.fixture
def tailed(tmp_path: Path) -> DataDir:
    directory = DataDir(tmp_path / "node", segment_size_bytes=LARGE_BYTES)
    directory.post("a", 100)
    directory.seal()
    directory.post("a", 49)
    directory.post("a", 1)
    return directory


@pytest.mark.parametrize("copied", [False, True])
def test_rot_that_a_later_record_proves_to_have_been_durable(tailed: DataDir, tmp_path: Path, copied: bool) -> None:
    tailed.close(commit=0)
    source = as_copy(tailed, tmp_path) if copied else tailed.path
    path = source / "log" / tailed.log_path().name
    flip(path, 64 + 48 + 20)
    with pytest.raises(CorruptFile, match=f"{path}: byte 64: entry 101: .*--up-to-fault"):
        restored(source, tmp_path / "new")
    made = restored(source, tmp_path / "new", up_to_fault=True)
    assert made.last_index == 100
    assert len(made.lost) == 1
    assert f"{path}: byte 64: entry 101: " in made.lost[0]
    assert ids(tmp_path / "new") == list(range(1, 101))


def test_a_tail_that_ends_before_the_commit_hint(tailed: DataDir, tmp_path: Path) -> None:
    """Of a copy that says nothing: it may have been made before."""
    tailed.close()
    with tailed.log_path().open("r+b") as file:
        file.seek(64)
        file.write(bytes(LARGE_BYTES - 64))
    with pytest.raises(CorruptFile, match="hard-state: entry 150 was committed here"):
        restored(tailed.path, tmp_path / "new")
    assert restored(tailed.path, tmp_path / "new", up_to_fault=True).last_index == 100
    assert restored(as_copy(tailed, tmp_path), tmp_path / "other").lost == []


def test_a_torn_tail_that_was_never_durable_is_no_loss(tailed: DataDir, tmp_path: Path) -> None:
    tailed.close(commit=0)
    path = tailed.log_path()
    flip(path, len(path.read_bytes().rstrip(b"\0")) - 3)
    made = restored(tailed.path, tmp_path / "new")
    assert (made.last_index, made.lost) == (149, [])


@pytest.mark.parametrize("copied", [False, True])
def test_a_segment_whose_header_is_rotten(tailed: DataDir, tmp_path: Path, copied: bool) -> None:
    tailed.close(commit=0)
    source = as_copy(tailed, tmp_path) if copied else tailed.path
    path = source / "log" / tailed.log_path().name
    flip(path, 30)
    with pytest.raises(CorruptFile, match=f"{path}.*--up-to-fault"):
        restored(source, tmp_path / "new")
    assert restored(source, tmp_path / "new", up_to_fault=True).last_index == 100


def test_a_page_that_was_copied_before_it_was_written_is_no_rot(tmp_path: Path) -> None:
    directory = DataDir(tmp_path / "node", segment_size_bytes=65536)
    for _ in range(3):
        directory.post("a", 100)
    directory.close()
    copy = as_copy(directory, tmp_path)
    for path in (copy / "log" / directory.log_path().name, directory.log_path()):
        with path.open("r+b") as file:
            file.seek(8192 + 700)
            file.write(bytes(4096 - 700))
    made = restored(copy, tmp_path / "new")
    assert 0 < made.last_index < 100
    assert made.lost == []
    # In the directory itself nothing explains it.
    with pytest.raises(CorruptFile, match=f"{directory.log_path()}: byte "):
        restored(directory.path, tmp_path / "refused")


def test_a_rotten_snapshot_in_a_copy_whose_log_does_not_reach_it(tailed: DataDir, tmp_path: Path) -> None:
    newest = Path(tailed.seal()).name
    middle = Path(tailed.log.segments()[1].path).name
    tailed.close()
    copy = as_copy(tailed, tmp_path)
    (copy / "log" / middle).unlink()
    flip(copy / "snapshots" / newest, 200)
    with pytest.raises(CorruptFile, match=f"{newest}: checksum does not match; .*--up-to-fault"):
        restored(copy, tmp_path / "new")
    assert restored(copy, tmp_path / "new", up_to_fault=True).last_index == 100


def test_no_segment_is_left_of_what_a_snapshot_proves(tailed: DataDir, tmp_path: Path) -> None:
    newest = tailed.seal()
    segments = tailed.log.segments()
    tailed.close(commit=0)
    for segment in segments[1:]:
        os.unlink(segment.path)
    with pytest.raises(CorruptFile, match=f"{newest}: is of entry 150, but the log can be read up to entry 100 only"):
        restored(tailed.path, tmp_path / "new")


def test_what_is_being_put_in_place_counts(tailed: DataDir, tmp_path: Path) -> None:
    """The node was stopped before it opened what it had received."""
    (tailed.path / "incoming").mkdir()
    tailed.seal()
    tailed.close()
    for name in ("log", "snapshots"):
        shutil.move(tailed.path / name, tailed.path / "incoming" / name)
        (tailed.path / name).mkdir()
    (tailed.path / "incoming" / "complete").write_bytes(b"")
    restored(tailed.path, tmp_path / "new")
    assert ids(tmp_path / "new") == list(range(1, 151))


def test_a_log_of_very_many_segments(tmp_path: Path) -> None:
    directory = DataDir(tmp_path / "node")
    state, names = ChatState(), []
    count = 1500
    files = [
        _log.Segment(number, number, 77 + number, "", 0, number, SEGMENT_SIZE_BYTES) for number in range(1, count + 1)
    ]
    for file in files:
        names.append(
            snapshot.SegmentName(file.sequence, file.base_index, 0, file.last_index, file.segment_id, file.size_bytes)
        )
    directory.close()
    for path in (directory.path / "log").iterdir():
        path.unlink()
    for file in files:
        write_header(directory.path, file.sequence, file.base_index, file.segment_id)
    write_snapshot(directory, count, names, state)
    (story, *_) = Copy(str(directory.path)).stories()
    assert [segment.base_index for segment in story.base] == list(range(1, count + 1))


def test_two_ways_at_every_step_and_none_to_the_end(tmp_path: Path) -> None:
    """Each pair of segments has its compacted one beside it; what comes last is missing."""
    directory = DataDir(tmp_path / "node")
    for _ in range(41):
        directory.post("a", 1)
        directory.log.roll()
    for first in range(1, 41, 2):
        chosen = [segment for segment in directory.log.segments() if segment.base_index in (first, first + 1)]
        floors = {b"a": 1}
        directory.log.install(_log.compact(str(directory.path / "log"), chosen, floors, new_segment_id=new_segment_id))
    segments = directory.log.segments()[:-1]
    assert len(segments) == 21
    names = [
        snapshot.SegmentName(s.sequence, s.base_index, s.revision, s.last_index, s.segment_id, s.size_bytes)
        for s in segments
    ]
    last = segments[-1].path
    os.unlink(directory.log.segments()[-1].path)
    directory.log.close()
    write_snapshot(directory, 41, names, ChatState())
    os.unlink(last)
    began = time.process_time()
    list(Copy(str(directory.path)).stories())
    assert time.process_time() - began < 5


def write_header(data_dir: Path, sequence: int, base_index: int, segment_id: int) -> None:
    header = segment_files.pack_header(
        segment_id=segment_id,
        sequence=sequence,
        prev_sequence=sequence - 1,
        base_index=base_index,
        prev_term=0,
        prev_time_ms=0,
        size_bytes=SEGMENT_SIZE_BYTES,
    )
    Path(segment_files.path_of(str(data_dir / "log"), sequence, base_index)).write_bytes(header)


def write_snapshot(directory: DataDir, index: int, names: list[snapshot.SegmentName], state: ChatState) -> None:
    membership = Membership(directory.identity.members).encode()
    cluster_id = directory.identity.cluster_id
    made = snapshot.Snapshot(index, 3, 0, cluster_id, 1, membership, tuple(names), state.encode())
    snapshot.write(str(directory.path / "snapshots"), made)


def test_a_compacted_segment_stands_for_less_than_2_to_the_32_entries(tmp_path: Path) -> None:
    directory = DataDir(tmp_path / "node")
    directory.close()
    copy = Copy(str(directory.path))
    story = Story(None, [], [], 0, 0, 0, "", [])
    attempt = _Directory(str(tmp_path / "new"), copy, story, cluster(), copy.identity, lambda done, total: None)
    ends = [0, 2**31, 2**32, 2**32 + 5, 2**33]
    segments = [
        _log.Segment(number + 1, first + 1, 1, "", 1, last, 200)
        for number, (first, last) in enumerate(itertools.pairwise(ends))
    ]
    groups = attempt._groups(segments)
    assert [segment for group in groups for segment in group] == segments
    assert [len(group) for group in groups] == [2, 2]
    assert all(group[-1].last_index - group[0].base_index < 2**32 for group in groups)


@pytest.mark.parametrize("number", [0, 1])
def test_one_flipped_bit_in_a_snapshot_after_a_restore(tailed: DataDir, tmp_path: Path, number: int) -> None:
    """The node starts with the other one."""
    tailed.close()
    new = tmp_path / "new"
    restored(tailed.path, new)
    assert verify(str(new)).corrupt == []
    flip(snapshot.paths(str(new / "snapshots"))[number], 150)
    opened = open_directory(Config(), str(new))
    assert opened.start.state.messages == 150
    assert opened.log.last_index == 151
    opened.log.close()


def test_without_the_policies_of_the_copy(tailed: DataDir, tmp_path: Path) -> None:
    """Else a MaxAge would remove at the first start what the copy was kept for."""
    for key in (b"", b"a"):
        command = set_retention(key, Policy(max_age_ms=1000))
        tailed.log.append(_log.pack(*command), tailed.term, 0)
    tailed.close()
    assert tailed.final_state.policies.cluster is not None
    with_them = restored(tailed.path, tmp_path / "with")
    without = restore(str(tailed.path), str(tmp_path / "without"), cluster(retention=False))
    for name, expected in (("with", tailed.final_state.policies.cluster), ("without", None)):
        for path in snapshot.paths(str(tmp_path / name / "snapshots")):
            policies = ChatState.decode(snapshot.load(path).state).policies
            assert policies.cluster == expected
            assert bool(policies.rooms) == (expected is not None)
            # What the flags of the first start say does not take their place.
            assert policies.cluster_was_set
    assert contents(tmp_path / "with") == contents(tmp_path / "without")
    # Members that differ in this must not be one cluster.
    assert with_them.identity.cluster_id != without.identity.cluster_id

"""Verify names each fault with file, offset and reason; what power loss, a running node or a copy leaves is none."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from raftchat.storage import snapshot
from raftchat.storage.errors import StorageError
from raftchat.storage.incoming import install
from raftchat.storage.verify import BY_ITSELF, Report, verify
from tests.storage.data_dir import DataDir, as_copy, flip


@pytest.fixture
def filled(tmp_path: Path) -> DataDir:
    directory = DataDir(tmp_path / "node")
    directory.post("a", 60)
    directory.post("gone", 30)
    directory.seal()
    directory.post("b", 40)
    directory.remove("gone")
    directory.seal()
    directory.compact(0, 1)
    directory.post("c", 45)
    return directory


def clean(report: Report) -> bool:
    return not (report.corrupt or report.unreadable or report.notes)


def patch(path: Path | str, offset: int, data: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(data)


def test_all_is_well_while_the_log_is_open_and_after(filled: DataDir) -> None:
    assert clean(verify(str(filled.path)))
    last_index = filled.log.last_index
    filled.close()
    report = verify(str(filled.path))
    assert clean(report)
    assert report.last_index == last_index
    assert report.files == sum(len(files) for _, _, files in os.walk(filled.path)) - 1  # LOCK
    assert report.records > last_index  # the retired ones were read, too


def test_progress_ends_with_all_bytes(filled: DataDir) -> None:
    told: list[tuple[int, int]] = []
    verify(str(filled.path), lambda done, total: told.append((done, total)))
    assert told == sorted(told)
    size = sum((Path(below) / name).stat().st_size for below, _, names in os.walk(filled.path) for name in names)
    assert told[-1] == (size, size)


def test_each_fault_is_named_with_its_offset(filled: DataDir) -> None:
    paths = [segment.path for segment in filled.log.segments()]
    filled.close()
    flip(paths[0], 300)
    flip(paths[1], 64 + 20)
    flip(paths[1], 2000)
    found = [(Path(finding.path).name, finding.offset) for finding in verify(str(filled.path)).corrupt]
    assert [name for name, _ in found] == [Path(paths[0]).name, *[Path(paths[1]).name] * 2]
    assert found[0][1] is not None
    assert found[0][1] <= 300
    assert found[1][1] == 64
    assert found[2][1] is not None
    assert 1700 < found[2][1] <= 2000


@pytest.mark.parametrize("name", ["identity", "hard-state"])
def test_a_missing_file(filled: DataDir, name: str) -> None:
    filled.close()
    (filled.path / name).unlink()
    (finding,) = verify(str(filled.path)).corrupt
    assert finding.path == str(filled.path / name)
    assert "the file is missing" in finding.reason


def test_a_missing_segment(filled: DataDir) -> None:
    filled.post("a", 60)
    paths = [segment.path for segment in filled.log.segments()]
    filled.close()
    os.unlink(paths[-2])
    reasons = [finding.reason for finding in verify(str(filled.path)).corrupt]
    assert "a segment is missing between this one and the next" in reasons


def test_a_missing_oldest_segment(tmp_path: Path) -> None:
    """Nothing links to it but the snapshot: it may have been dropped."""
    directory = DataDir(tmp_path / "node")
    directory.post("a", 90)
    directory.seal()
    directory.close()
    oldest = min((directory.path / "log").glob("*.log"))
    oldest.with_suffix(".idx").unlink()
    oldest.unlink()
    report = verify(str(directory.path))
    assert not report.corrupt
    (note,) = report.notes
    assert "it names segment 1, entries 1 to " in note.reason


def test_a_torn_tail_is_a_note(filled: DataDir) -> None:
    filled.close(commit=0)
    path = filled.log_path()
    data = path.read_bytes()
    end = len(data.rstrip(b"\0"))
    patch(path, end - 40, bytes(40))
    report = verify(str(filled.path))
    assert not report.corrupt
    (note,) = report.notes
    assert "never became durable" in note.reason


def test_a_record_that_is_known_to_have_been_durable_is_no_torn_tail(filled: DataDir) -> None:
    filled.close()
    path = filled.log_path()
    end = len(path.read_bytes().rstrip(b"\0"))
    patch(path, end - 40, bytes(40))
    (finding,) = verify(str(filled.path)).corrupt
    assert finding.path == str(path)
    patch(path, 64, bytes(4096 - 64))
    (finding,) = verify(str(filled.path)).corrupt
    assert "was committed here, but the log ends before it" in finding.reason


def test_what_may_lie_around_is_a_note(filled: DataDir) -> None:
    filled.close()
    (filled.path / "log" / "spare.tmp").write_bytes(b"x")
    (filled.path / "incoming" / "log").mkdir(parents=True)
    (filled.path / "incoming" / "log" / "00000001-00000000000000000001.log.part").write_bytes(b"x")
    report = verify(str(filled.path))
    assert not report.corrupt
    assert len(report.notes) == 2


def test_a_file_that_cannot_be_read(filled: DataDir, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = filled.log.segments()[0].path
    filled.close()
    pread = os.pread

    def failing(fd: int, size: int, offset: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{fd}") == segment:
            raise OSError(5, "Input/output error")
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", failing)
    report = verify(str(filled.path))
    assert [(finding.path, finding.reason) for finding in report.unreadable] == [(segment, "Input/output error")]
    assert not report.corrupt


def test_a_newer_format_is_not_called_corrupt(filled: DataDir) -> None:
    import xxhash

    segment = Path(filled.log.segments()[0].path)
    filled.close()
    header = b"\x03" + segment.read_bytes()[1:56]
    patch(segment, 0, header + xxhash.xxh3_64_intdigest(header).to_bytes(8, "little"))
    report = verify(str(filled.path))
    assert [Path(finding.path) for finding in report.unreadable] == [segment]


def test_a_strangers_file_is_not_called_corrupt_and_a_spoilt_one_of_ours_is(filled: DataDir) -> None:
    segment = Path(filled.log.segments()[0].path)
    filled.close()
    (filled.path / "log" / "notes.log").write_bytes(b"mine")
    report = verify(str(filled.path))
    assert not report.corrupt
    assert [(Path(finding.path).name, finding.remedy) for finding in report.unreadable] == [
        ("notes.log", "move it away")
    ]
    (filled.path / "log" / "notes.log").unlink()
    state = Path(snapshot.paths(str(filled.path / "snapshots"))[0])
    flip(segment, 3)
    flip(state, 3)
    report = verify(str(filled.path))
    assert {str(segment), str(state)} <= {finding.path for finding in report.corrupt}
    assert not report.unreadable


def test_no_directory_of_a_node(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="is not a data directory"):
        verify(str(tmp_path))
    with pytest.raises(FileNotFoundError):
        verify(str(tmp_path / "nowhere"))


def test_a_copy_in_which_the_log_ends_earlier_than_the_hint(filled: DataDir, tmp_path: Path) -> None:
    filled.close()
    copy = as_copy(filled, tmp_path)
    name = filled.log_path().name
    data = (copy / "log" / name).read_bytes()
    end = len(data.rstrip(b"\0")) // 2
    (copy / "log" / name).write_bytes(data[:end] + bytes(len(data) - end))
    report = verify(str(copy))
    assert not report.corrupt
    assert report.copied
    assert report.last_index < filled.log_last_index


def test_a_copy_of_which_a_page_was_read_before_it_was_written(tmp_path: Path) -> None:
    directory = DataDir(tmp_path / "node", segment_size_bytes=65536)
    directory.post("a", 300)
    directory.close()
    copy = as_copy(directory, tmp_path)
    path = copy / "log" / directory.log_path().name
    patch(path, 8192 + 700, bytes(4096 - 700))
    report = verify(str(copy))
    assert not report.corrupt
    (note,) = report.notes
    assert "copied while it was written" in note.reason
    # In the directory itself nothing explains it.
    patch(directory.log_path(), 8192 + 700, bytes(4096 - 700))
    assert len(verify(str(directory.path)).corrupt) == 1


def test_rot_in_a_copy_is_rot(filled: DataDir, tmp_path: Path) -> None:
    segments = [Path(segment.path).name for segment in filled.log.segments()]
    filled.close()
    copy = as_copy(filled, tmp_path)
    for name in segments:
        flip(copy / "log" / name, 64 + 60)
    assert sorted(Path(finding.path).name for finding in verify(str(copy)).corrupt) == sorted(segments)


def test_any_flipped_bit_is_found_or_lies_where_nothing_is(filled: DataDir) -> None:
    """In every file: what verify does not find does not change what the directory holds."""
    live = {Path(segment.path).name for segment in filled.log.segments()}
    filled.close()
    rng = random.Random(1)
    for below, _, names in os.walk(filled.path):
        for name in sorted(names):
            path = Path(below) / name
            data = path.read_bytes()
            used = len(data.rstrip(b"\0"))
            for _ in range(25):
                offset, bit = rng.randrange(len(data)), rng.randrange(8)
                flip(path, offset, bit)
                report = verify(str(filled.path))
                found = report.corrupt or report.unreadable
                if found:
                    assert str(path) in {finding.path for finding in found}
                else:
                    padding = offset >= used or (name == "hard-state" and offset % 4096 >= 48)
                    assert padding or name == "LOCK" or (path.suffix == ".log" and name not in live), (
                        name,
                        offset,
                        bit,
                    )
                flip(path, offset, bit)
    assert clean(verify(str(filled.path)))


def test_snapshots_are_read(filled: DataDir) -> None:
    filled.close()
    path = snapshot.paths(str(filled.path / "snapshots"))[1]
    flip(path, 100)
    (finding,) = verify(str(filled.path)).corrupt
    assert finding.path == path


def test_an_index_that_power_loss_left_without_its_bytes_is_named_with_what_becomes_of_it(filled: DataDir) -> None:
    """It is not flushed before it gets its name."""
    filled.close()
    path = next((filled.path / "log").glob("*.idx"))
    for torn in (b"", bytes(path.stat().st_size), path.read_bytes()[:-8]):
        path.write_bytes(torn)
        (finding,) = verify(str(filled.path)).corrupt
        assert (finding.path, finding.remedy) == (str(path), BY_ITSELF)


def test_a_snapshot_that_was_only_half_put_in_place_is_no_fault(
    filled: DataDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed anywhere between the renames, what is to be opened next is read, and nothing is missing."""
    filled.close()
    (filled.path / "log").rename(tmp_path / "log")
    (filled.path / "snapshots").rename(tmp_path / "snapshots")
    real = os.rename
    for stop in range(4):
        path = tmp_path / str(stop)
        for name in ("identity", "hard-state"):
            path.mkdir(exist_ok=True)
            shutil.copy(filled.path / name, path)
        for name in ("log", "snapshots"):
            shutil.copytree(tmp_path / name, path / "incoming" / name)
            (path / name).mkdir()
            (path / name / f"old.{name}").write_bytes(b"old")
        (path / "incoming" / "complete").write_text('{"Index":1}')
        left = stop

        def rename(source: str, target: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise InterruptedError
            real(source, target)

        with monkeypatch.context() as patched:
            patched.setattr(os, "rename", rename)
            with pytest.raises(InterruptedError):
                install(str(path))
        report = verify(str(path))
        assert (report.corrupt, report.unreadable) == ([], []), stop
        assert report.records > report.last_index == filled.log_last_index

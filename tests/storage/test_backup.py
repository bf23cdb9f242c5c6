"""Backup: links what never changes, copies the rest, and leaves nothing that looks like a copy when it fails."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from raftchat import _log
from raftchat.storage.backup import backup
from raftchat.storage.errors import StorageError
from raftchat.storage.verify import verify
from tests.storage.data_dir import DataDir


@pytest.fixture
def filled(tmp_path: Path) -> DataDir:
    directory = DataDir(tmp_path / "node")
    directory.post("a", 90)
    directory.seal()
    directory.post("b", 90)
    return directory


def clean(path: Path) -> bool:
    report = verify(str(path))
    return not (report.corrupt or report.unreadable or report.notes)


def active(directory: DataDir) -> Path:
    return Path(directory.log.segments()[-1].path)


def test_of_a_log_in_use(filled: DataDir, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    made = backup(str(filled.path), str(copy))
    name = active(filled).name
    assert (made.copied, made.last_index) == (2, 180)
    others = [path for path in (copy / "log").iterdir() if path.name != name] + list((copy / "snapshots").iterdir())
    assert made.linked == len(others) > 10
    for path in (copy / "log").iterdir():
        assert path.samefile(filled.path / "log" / path.name) == (path.name != name)
        assert path.stat().st_mode & 0o777 == 0o600
    assert clean(copy)
    # What is written afterwards is not in it.
    filled.post("b", 90)
    assert clean(copy)
    assert verify(str(copy)).last_index == 180


def test_whole_records_only(filled: DataDir, tmp_path: Path) -> None:
    """A record that is being written when it is read."""
    path = active(filled)
    end = len(path.read_bytes().rstrip(b"\0"))
    with path.open("r+b") as file:
        file.seek(end + 64)
        file.write(b"the end of something")
    made = backup(str(filled.path), str(tmp_path / "copy"))
    assert made.last_index == 180
    assert clean(tmp_path / "copy")


def test_on_another_file_system(filled: DataDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refusing)
    told: list[tuple[int, int]] = []
    made = backup(str(filled.path), str(tmp_path / "copy"), lambda done, total: told.append((done, total)))
    assert made.linked == 0
    assert told[-1][0] == told[-1][1] > 0
    assert clean(tmp_path / "copy")
    assert not (tmp_path / "copy" / "identity").samefile(filled.path / "identity")


def test_never_over_something(filled: DataDir, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "mine").touch()
    with pytest.raises(StorageError, match="is not empty"):
        backup(str(filled.path), str(tmp_path / "copy"))
    assert os.listdir(tmp_path / "copy") == ["mine"]
    with pytest.raises(StorageError, match="lies within"):
        backup(str(filled.path), str(filled.path / "copy"))
    with pytest.raises(StorageError, match="it has no identity file"):
        backup(str(tmp_path / "copy"), str(tmp_path / "other"))


def test_a_segment_that_goes_away_while_it_is_copied(
    filled: DataDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grace of what was replaced may end just then: from the start."""
    filled.remove("a")
    retired = filled.compact(0, 1)
    link = os.link

    def slow(source: str, destination: str) -> None:
        for path in retired:
            if os.path.exists(path):
                os.unlink(path)
        link(source, destination)

    monkeypatch.setattr(os, "link", slow)
    backup(str(filled.path), str(tmp_path / "copy"))
    assert clean(tmp_path / "copy")
    assert not [path for path in retired if (tmp_path / "copy" / "log" / Path(path).name).exists()]


def test_a_corrupt_log_is_named_and_leaves_no_copy(filled: DataDir, tmp_path: Path) -> None:
    path = active(filled)
    filled.post("b")  # which says that what came before it is durable
    assert active(filled) == path
    data = path.read_bytes()
    with path.open("r+b") as file:
        file.seek(70)
        file.write(bytes([data[70] ^ 1]))
    with pytest.raises(_log.CorruptLog, match=path.name):
        backup(str(filled.path), str(tmp_path / "copy"))
    assert not (tmp_path / "copy" / "identity").exists()


def test_a_full_disk_leaves_no_copy(filled: DataDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "link", full)
    with pytest.raises(OSError, match="No space left"):
        backup(str(filled.path), str(tmp_path / "copy"))
    assert not (tmp_path / "copy" / "identity").exists()


def test_not_while_a_snapshot_is_being_put_in_place(filled: DataDir, tmp_path: Path) -> None:
    """Of a node that was killed just then the log may be nowhere: a copy without it would look whole."""
    (filled.path / "log").rename(filled.path / "log.replaced")
    (filled.path / "incoming" / "log").mkdir(parents=True)
    (filled.path / "incoming" / "complete").write_text('{"Index":1}')
    with pytest.raises(StorageError, match="put in place"):
        backup(str(filled.path), str(tmp_path / "copy"))
    assert not (tmp_path / "copy").exists()

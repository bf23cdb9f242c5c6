"""One owner per directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from raftchat.storage.errors import StorageError
from raftchat.storage.lock import DirectoryLock, is_copy

HOLD = "import sys; from raftchat.storage.lock import DirectoryLock; l = DirectoryLock(sys.argv[1]); print('held', flush=True); sys.stdin.read()"  # noqa: E501


def test_a_second_owner_is_refused_by_name_and_gets_in_once_the_first_is_gone(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"held\n"
        with pytest.raises(StorageError, match=f"process {owner.pid}"):
            DirectoryLock(str(tmp_path))
        owner.kill()
        owner.wait()
    lock = DirectoryLock(str(tmp_path))
    assert (tmp_path / "LOCK").read_text() == f"{os.getpid()} {(tmp_path / 'LOCK').stat().st_ino}\n"
    lock.close()
    DirectoryLock(str(tmp_path)).close()


def test_a_copy_is_told_from_the_original(tmp_path: Path) -> None:
    original, copy = tmp_path / "original", tmp_path / "copy"
    original.mkdir()
    assert not is_copy(str(original))
    DirectoryLock(str(original)).close()
    shutil.copytree(original, copy)
    assert not is_copy(str(original))
    assert is_copy(str(copy))
    original.rename(tmp_path / "moved")
    assert not is_copy(str(tmp_path / "moved"))
    DirectoryLock(str(copy)).close()
    assert not is_copy(str(copy))

"""A snapshot on its way in: nothing counts until all is there, and then all of it does, wherever power was lost."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from raftchat.storage import incoming as module
from raftchat.storage.errors import CorruptFile
from raftchat.storage.incoming import Incoming, drop_stale, install


class PowerLost(Exception):
    pass


def directory(tmp_path: Path) -> Path:
    """A node that has a log of its own, and a complete snapshot that came in."""
    for name, text in (("log/1.log", "old"), ("snapshots/1.snapshot", "old")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    gathering = Incoming(str(tmp_path))
    gathering.begin(b"{}", {"log/9.log": (1, 3), "snapshots/9.snapshot": (2, 3)})
    for name in ("log/9.log", "snapshots/9.snapshot"):
        fd = gathering.open_part(name)
        os.write(fd, b"new")
        os.close(fd)
        gathering.keep(name)
    gathering.sync()
    return tmp_path


def held(path: Path) -> dict[str, str]:
    return {str(file.relative_to(path)): file.read_text() for file in sorted(path.rglob("*")) if file.is_file()}


NEW = {"log/9.log": "new", "snapshots/9.snapshot": "new"}
OLD = {"log/1.log": "old", "snapshots/1.snapshot": "old"}


def test_what_is_not_complete_changes_nothing_and_stays_for_the_next_attempt(tmp_path: Path) -> None:
    directory(tmp_path)
    before = held(tmp_path)
    assert install(str(tmp_path)) is None
    assert held(tmp_path) == before


def test_what_is_complete_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    directory(tmp_path)
    Incoming(str(tmp_path)).complete(9)
    assert install(str(tmp_path)) == 9
    assert held(tmp_path) == NEW
    assert install(str(tmp_path)) is None


@pytest.mark.parametrize("function", ["rename", "unlink", "rmtree", "sync_directory"])
def test_power_may_be_lost_before_any_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """Stop before the n-th call of each kind, for every n, and open again: it is installed, whole."""
    owner = {"rename": os, "unlink": os, "rmtree": shutil, "sync_directory": module}[function]
    real = getattr(owner, function)
    for stop in range(20):
        data_dir = tmp_path / str(stop)
        data_dir.mkdir()
        directory(data_dir)
        Incoming(str(data_dir)).complete(9)
        calls = 0

        def counted(*arguments: object, stop: int = stop, **more: object) -> object:
            nonlocal calls
            calls += 1
            if calls == stop + 1:
                raise PowerLost
            return real(*arguments, **more)

        with monkeypatch.context() as patched:
            patched.setattr(owner, function, counted)
            try:
                assert install(str(data_dir)) == 9
            except PowerLost:
                pass
            else:
                assert stop > 0, "nothing was interrupted"
                break
        install(str(data_dir))
        assert held(data_dir) == NEW
    else:
        pytest.fail("it never ended")


def test_another_attempt_keeps_what_is_still_wanted_whole_or_not_and_its_index(tmp_path: Path) -> None:
    gathering = Incoming(str(tmp_path))
    gathering.begin(b"{}", {"log/1.log": (1, 3), "log/2.log": (2, 3), "log/3.log": (3, 3)})
    log = tmp_path / "incoming" / "log"
    for name in ("1.log", "1.idx", "2.log.part", "3.log", "3.idx", "4.log"):
        (log / name).write_text("abc")
    gathering.begin(b"{}", {"log/1.log": (1, 3), "log/2.log": (2, 3), "log/3.log": (33, 3)})
    assert sorted(path.name for path in log.iterdir()) == ["1.idx", "1.log", "2.log.part"]
    assert gathering.has("log/1.log")
    assert not gathering.has("log/2.log")
    assert gathering.part_size_bytes("log/2.log") == 3
    gathering.drop("log/2.log")
    assert gathering.part_size_bytes("log/2.log") == 0


def test_a_manifest_that_rotted_costs_no_more_than_another_transfer(tmp_path: Path) -> None:
    gathering = Incoming(str(tmp_path))
    gathering.begin(b"{}", {"log/1.log": (1, 3)})
    (tmp_path / "incoming" / "log" / "1.log").write_text("abc")
    (tmp_path / "incoming" / "manifest").write_bytes(b"\xff[")
    gathering.begin(b"{}", {"log/1.log": (1, 3)})
    assert not gathering.has("log/1.log")


def test_a_marker_that_cannot_be_read_is_told_with_the_remedy(tmp_path: Path) -> None:
    directory(tmp_path)
    (tmp_path / "incoming" / "complete").write_text("{")
    with pytest.raises(CorruptFile, match="remove the directory"):
        install(str(tmp_path))
    assert OLD.items() <= held(tmp_path).items()


def test_it_can_be_given_up(tmp_path: Path) -> None:
    directory(tmp_path)
    gathering = Incoming(str(tmp_path))
    gathering.complete(9)
    gathering.discard()
    assert held(tmp_path) == OLD


@pytest.mark.parametrize(
    ("manifest", "index", "goes"),
    [(b'{"Index":9}', 8, False), (b'{"Index":9}', 9, True), (b"{}", 0, True), (None, 0, True)],
)
def test_what_came_of_a_snapshot_that_nobody_needs_any_more_does_not_stay_for_ever(
    tmp_path: Path, manifest: bytes | None, index: int, goes: bool
) -> None:
    """The leader changed, and the next one's log had all that was missing."""
    assert not drop_stale(str(tmp_path), 100), "there is nothing"
    directory(tmp_path)
    gathering = Incoming(str(tmp_path))
    if manifest is None:
        (tmp_path / "incoming" / "manifest").unlink()
    else:
        gathering.begin(manifest, {"log/9.log": (1, 3)})
    assert drop_stale(str(tmp_path), index) is goes
    assert (tmp_path / "incoming").exists() is not goes
    assert OLD.items() <= held(tmp_path).items()


def test_what_is_complete_is_not_stale(tmp_path: Path) -> None:
    directory(tmp_path)
    Incoming(str(tmp_path)).complete(9)
    assert not drop_stale(str(tmp_path), 100)
    assert install(str(tmp_path)) == 9

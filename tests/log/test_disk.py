"""What the log asks of the disk, in which order, and what it does when the disk refuses."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from raftchat import log_reference
from raftchat.log_disk import File, OsDisk, OsFile
from tests.log.kit import SEGMENT_SIZE_BYTES, Kit, contents, sync

FIRST, SECOND, THIRD, FOURTH = (
    "00000001-00000000000000000001.log",
    "00000002-00000000000000000026.log",
    "00000003-00000000000000000011.log",
    "00000004-00000000000000000101.log",
)

# What a program that opens a log, appends, rolls, cuts, drops and closes must have done, in this order.
STEPS = [
    ("create", "spare.tmp"), ("sync", "spare.tmp"), ("rename", f"spare.tmp {FIRST}"), ("sync", "directory"),
    ("sync", FIRST),
    ("create", "spare.tmp"), ("sync", "spare.tmp"), ("sync", FIRST), ("rename", f"spare.tmp {SECOND}"),
    ("sync", "directory"),
    ("sync", SECOND),
    ("create", "spare.tmp"), ("sync", "spare.tmp"), ("sync", SECOND), ("rename", f"spare.tmp {THIRD}"),
    ("sync", "directory"),
    ("unlink", SECOND), ("sync", "directory"),
    ("create", "spare.tmp"), ("sync", "spare.tmp"), ("sync", THIRD),
    ("rename", f"spare.tmp {FOURTH}"), ("sync", "directory"),
    ("unlink", THIRD), ("sync", "directory"), ("unlink", FIRST), ("sync", "directory"),
    # Opened again: what is found may so far be in memory only. Its blocks are reserved before the first append.
    ("sync", "directory"), ("sync", FOURTH),
    ("reserve", FOURTH), ("sync", FOURTH),
]  # fmt: skip


def live(kit: Kit, **options: Any) -> None:
    """The life that `STEPS` describes."""
    log = kit.open(**options)
    log.append(kit.posts(25, size=20), 1, 1)
    sync(log)
    log.append(kit.posts(25, size=20), 1, 1)
    sync(log)
    log.truncate_suffix(10)
    log.reset(100, 5, 5)
    log.close()
    log = kit.open(**options)
    log.append(kit.posts(5), 5, 5)
    sync(log)
    log.close()


class SpyDisk(OsDisk):
    """The real disk, with a diary."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, str]] = []
        self.failing: dict[tuple[str, str], OSError] = {}

    def note(self, what: str, name: str) -> None:
        self.steps.append((what, name))
        if error := self.failing.get((what, name)):
            raise error

    def create(self, path: str, size: int) -> OsFile:
        self.note("create", Path(path).name)
        return SpyFile.of(super().create(path, size), self, path)

    def open(self, path: str, writable: bool) -> OsFile:
        return SpyFile.of(super().open(path, writable), self, path)

    def rename(self, old: str, new: str) -> None:
        self.note("rename", f"{Path(old).name} {Path(new).name}")
        super().rename(old, new)
        SpyFile.names = {file: (new if path == old else path) for file, path in SpyFile.names.items()}

    def unlink(self, path: str) -> None:
        if Path(path).exists():  # As strace shows it: what is not there was not removed.
            self.note("unlink", Path(path).name)
        super().unlink(path)

    def sync_directory(self, path: str) -> None:
        self.note("sync", "directory")
        super().sync_directory(path)


class SpyFile(OsFile):
    names: dict[OsFile, str] = {}  # noqa: RUF012

    @classmethod
    def of(cls, file: OsFile, disk: SpyDisk, path: str) -> SpyFile:
        file.__class__ = cls
        assert isinstance(file, SpyFile)
        file.disk = disk
        cls.names[file] = path
        return file

    disk: SpyDisk

    def sync(self) -> None:
        self.disk.note("sync", Path(self.names[self]).name)
        super().sync()

    def reserve(self) -> None:
        self.disk.note("reserve", Path(self.names[self]).name)
        super().reserve()


def test_the_reference_syncs_in_the_order_that_is_specified(fast_directory: Path) -> None:
    disk = SpyDisk()
    kit = Kit(log_reference, fast_directory)
    (fast_directory / "log").mkdir()
    live(kit, disk=disk)
    # The one before the first step is of opening: a rename that was found may not be durable yet.
    assert disk.steps == [("sync", "directory"), *STEPS]


def test_a_new_directory_is_durable_itself(fast_directory: Path) -> None:
    disk = SpyDisk()
    Kit(log_reference, fast_directory).open(disk=disk)
    assert disk.steps[:2] == [("sync", "directory"), ("sync", "directory")]


def test_the_compiled_one_makes_the_same_system_calls(fast_directory: Path) -> None:
    trace = fast_directory / "trace"
    (fast_directory / "log").mkdir()
    calls = "trace=openat,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,fallocate"
    traced(fast_directory, ["-y", "-e", calls, "-o", str(trace)], "live(kit)")
    assert parse_trace(trace.read_text(), fast_directory / "log") == [("sync", "directory"), *STEPS]


def traced(directory: Path, options: list[str], program: str) -> str:
    """Run a program with a `kit` of the compiled log under strace: what it printed."""
    strace = shutil.which("strace")
    if strace is None:
        assert os.geteuid() != 0, "strace is missing: apt-get install strace"
        pytest.skip("no strace")
    preamble = (
        "import pathlib\n"
        "from raftchat import _log\n"
        "from tests.log.kit import Kit\n"
        "from tests.log.test_disk import live\n"
        f"kit = Kit(_log, pathlib.Path({str(directory)!r}))\n"
    )
    done = subprocess.run(
        [strace, "-f", *options, sys.executable, "-c", preamble + program],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "PTRACE" in done.stderr:
        pytest.skip("tracing is not permitted here")
    assert done.returncode == 0, done.stderr
    return done.stdout


def parse_trace(text: str, directory: Path) -> list[tuple[str, str]]:
    """The lines of strace that touch the log's directory, as steps."""
    steps = []

    def name(path: str) -> str:
        return "directory" if Path(path) == directory else Path(path).name

    for line in text.splitlines():
        call = line.partition(" ")[2].strip()
        if str(directory) not in call or ") = -1" in call:
            continue
        what, _, rest = call.partition("(")
        if what in ("fsync", "fdatasync"):
            steps.append(("sync", name(rest.partition("<")[2].partition(">")[0])))
        elif what == "fallocate":
            assert f", {SEGMENT_SIZE_BYTES})" in rest
            file = name(rest.partition("<")[2].partition(">")[0])
            steps.append(("create" if file == "spare.tmp" else "reserve", file))
        elif what.startswith("rename"):
            old, new = (part for part in rest.split('"')[1::2])
            steps.append(("rename", f"{name(old)} {name(new)}"))
        elif what.startswith("unlink"):
            steps.append(("unlink", name(rest.split('"')[1])))
    return steps


# Refusals


@pytest.fixture
def no_large_files() -> Iterator[Any]:
    """A switch: while it is on, no file of a segment's size can be made (EFBIG instead of ENOSPC)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def switch(on: bool) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SEGMENT_SIZE_BYTES - 8 if on else soft, hard))

    yield switch
    switch(False)


def test_what_needs_a_segment_is_refused_as_a_whole_and_works_later(kit: Kit, no_large_files: Any) -> None:
    log = kit.open()
    log.append(kit.posts(30), 1, 1)
    before = contents(log), log.segments(), log.last_time_ms, log.generation
    no_large_files(True)
    for refused in (
        lambda: log.append(kit.posts(30), 2, 99),
        lambda: log.append(kit.posts(200), 2, 99),
        lambda: log.truncate_suffix(7),
        lambda: log.reset(500, 5, 99),
    ):
        with pytest.raises(OSError, match="File too large"):
            refused()
        assert (contents(log), log.segments(), log.last_time_ms, log.generation) == before
        assert not list((kit.directory / "log").glob("*.tmp"))
    log.append(kit.post(30), 1, 1)
    no_large_files(False)
    log.append(kit.posts(200), 2, 99)
    sync(log)
    assert log.verify() == (231, [])
    log.truncate_suffix(7)
    assert kit.open().last_index == 7


def replicate(leader: Any, follower: Any) -> None:
    while (batch := leader.slice(follower.last_index + 1, 1000)) is not None:
        follower.append_batch(batch, batch.first_index)


def test_a_batch_is_refused_as_a_whole_too(kit: Kit, no_large_files: Any) -> None:
    leader = kit.filled(100)
    follower = kit.open("follower")
    no_large_files(True)
    with pytest.raises(OSError, match="File too large"):
        replicate(leader, follower)
    stopped = follower.last_index
    no_large_files(False)
    assert 0 < stopped < 100
    assert contents(follower) == contents(leader)[:stopped]
    follower.append_batch(leader.slice(stopped + 1, 1000), stopped + 1)


@pytest.fixture
def small_disk(fast_directory: Path) -> Iterator[Path]:
    path = fast_directory / "small"
    path.mkdir()
    size = 40 * 1024
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("cannot mount a small disk")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def fill(log: Any, kit: Kit) -> None:
    for number in range(10_000):
        assert log.append(kit.post(), 1, 1) == (number + 1, number + 1)


def test_a_full_disk_is_an_error_and_not_the_end(log_module: Any, small_disk: Path) -> None:
    kit = Kit(log_module, small_disk)
    log = kit.open()
    with pytest.raises(OSError, match="No space") as caught:
        fill(log, kit)
    assert caught.value.errno == errno.ENOSPC
    count = log.last_index
    assert count > 200
    with pytest.raises(OSError, match="No space"):
        log.append(kit.posts(1000), 1, 1)
    sync(log)
    log.close()
    log = kit.open(durable_hint=count)
    assert (log.last_index, log.verify()) == (count, (count, []))
    log.unlink(log.drop_prefix(count))
    assert log.append(kit.posts(50), 1, 1)[0] == count + 1


def sparse_copy(kit: Kit) -> Path:
    """Put a copy in place of a log's only file, in which what was never written takes no space."""
    log = kit.open(segment_size_bytes=256 * 1024)
    log.append(kit.posts(3), 1, 1)
    log.close()
    path = kit.files()[0]
    data = path.read_bytes()
    path.unlink()
    with path.open("wb") as file:
        file.write(data[:4096])
        file.truncate(len(data))
    assert path.stat().st_blocks * 512 < len(data)
    return path


def test_a_copy_with_holes_is_filled_before_it_is_written_to(log_module: Any, tmp_path: Path) -> None:
    """Else a store into a hole of a full disk would be a SIGBUS. (Not in memory: there, looking fills holes.)"""
    kit = Kit(log_module, tmp_path)
    path = sparse_copy(kit)
    log = kit.open(segment_size_bytes=256 * 1024)
    log.append(kit.posts(100), 1, 1)
    assert path.stat().st_blocks * 512 >= path.stat().st_size
    assert log.verify() == (103, [])


def test_holes_that_cannot_be_filled_refuse_the_append(tmp_path: Path) -> None:
    kit = Kit(log_reference, tmp_path)
    path = sparse_copy(kit)
    disk = SpyDisk()
    disk.failing["reserve", path.name] = OSError(errno.ENOSPC, "No space left on device")
    log = kit.open(disk=disk, segment_size_bytes=256 * 1024)
    with pytest.raises(OSError, match="No space"):
        log.append(kit.post(), 1, 1)
    assert log.last_index == 3
    disk.failing = {}
    log.append(kit.post(), 1, 1)
    log.append(kit.post(), 1, 1)
    assert disk.steps.count(("reserve", path.name)) == 2


def broken(step: tuple[str, str]) -> tuple[SpyDisk, OSError]:
    disk = SpyDisk()
    error = OSError(errno.EIO, "Input/output error")
    disk.failing[step] = error
    return disk, error


@pytest.mark.parametrize("step", [("sync", "spare.tmp"), ("rename", f"spare.tmp {SECOND}"), ("create", "spare.tmp")])
def test_before_the_new_name_nothing_has_happened(fast_directory: Path, step: tuple[str, str]) -> None:
    disk, error = broken(step)
    failing, disk.failing = disk.failing, {}
    kit = Kit(log_reference, fast_directory)
    log = kit.open(disk=disk)
    log.append(kit.posts(25, size=20), 1, 1)
    disk.failing = failing
    with pytest.raises(OSError, match="Input/output") as caught:
        log.append(kit.posts(25, size=20), 1, 1)
    assert caught.value is error
    assert log.last_index == 25
    disk.failing = {}
    log.append(kit.posts(25, size=20), 1, 1)
    assert log.verify() == (50, [])


@pytest.mark.parametrize("step", [("sync", FIRST), ("sync", "directory")])
def test_after_a_failed_sync_nothing_is_written_any_more(fast_directory: Path, step: tuple[str, str]) -> None:
    """It is never tried again: what is on disk is not known (assumption 5)."""
    disk, _ = broken(step)
    failing, disk.failing = disk.failing, {}
    kit = Kit(log_reference, fast_directory)
    log = kit.open(disk=disk)
    log.append(kit.posts(25, size=20), 1, 1)
    disk.failing = failing
    with pytest.raises(OSError, match="Input/output"):
        log.append(kit.posts(25, size=20), 1, 1)
    disk.failing, disk.steps = {}, []
    for refused in (lambda: log.append(kit.post(), 1, 1), lambda: log.truncate_suffix(3), log.begin_sync):
        with pytest.raises(OSError, match="cannot go on"):
            refused()
    assert disk.steps == []
    assert len(log.entries(1, 25)) == 25


def test_a_roll_waits_for_the_sync_under_way_and_learns_that_it_failed(fast_directory: Path) -> None:
    """The kernel reports a failed write once for each open file: the roll's own sync would have succeeded."""
    kit = Kit(log_reference, fast_directory)
    log = kit.open()
    log.append(kit.posts(25, size=20), 1, 1)
    point = log.begin_sync()
    flushing, reported = threading.Event(), threading.Event()

    def sync() -> None:
        flushing.set()
        assert reported.wait(10)
        raise OSError(errno.EIO, "Input/output error")

    file = point._file
    file.sync, real_sync = sync, file.sync
    failures: list[OSError] = []

    def wait() -> None:
        try:
            point.wait()
        except OSError as error:
            failures.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    assert flushing.wait(10)
    file.sync = real_sync  # Told once, forgotten.
    threading.Timer(0.1, reported.set).start()
    with pytest.raises(OSError, match="cannot go on"):
        log.append(kit.posts(25, size=20), 1, 1)
    thread.join()
    assert len(failures) == 1
    assert [name for name in os.listdir(fast_directory / "log") if name.endswith(".log")] == [FIRST]


def test_a_failed_wait_does_not_count(fast_directory: Path) -> None:
    disk, _ = broken(("sync", FIRST))
    failing, disk.failing = disk.failing, {}
    kit = Kit(log_reference, fast_directory)
    log = kit.open(disk=disk)
    log.append(kit.post(), 1, 1)
    point = log.begin_sync()
    disk.failing = failing
    with pytest.raises(OSError, match="Input/output"):
        point.wait()
    with pytest.raises(ValueError, match="failed"):
        log.end_sync(point)
    assert log.synced_index == 0
    with pytest.raises(OSError, match="cannot go on"):
        log.begin_sync()


@pytest.mark.parametrize(("refused", "when"), [("roll()", 3), ("log.begin_sync().wait()", 2)])
def test_after_a_failed_fdatasync_the_compiled_one_is_done(fast_directory: Path, refused: str, when: int) -> None:
    """fdatasync 1 is of the first segment; 2 of the spare, if it rolls; 3 then of the segment that is left."""
    printed = traced(
        fast_directory,
        ["-o", "/dev/null", "-e", f"inject=fdatasync:error=EIO:when={when}"],
        "log = kit.open()\n"
        "log.append(kit.posts(25, size=20), 1, 1)\n"
        "roll = lambda: log.append(kit.posts(25, size=20), 1, 1)\n"
        f"for refused in (lambda: {refused}, roll, log.begin_sync, lambda: log.truncate_suffix(3)):\n"
        "    try:\n"
        "        refused()\n"
        "    except OSError as error:\n"
        "        print(error.errno, log.last_index, log.synced_index)\n",
    )
    assert printed.split() == ["5", "25", "0"] * 4


def test_the_protocol_is_what_the_real_disk_offers() -> None:
    file: File = OsFile.__new__(OsFile)
    file._fd = -1  # type: ignore[attr-defined]
    for name in ("read", "write", "reserve", "sync", "close"):
        assert callable(getattr(file, name))

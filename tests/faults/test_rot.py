"""A flipped bit in any file of a data directory: `verify` names it, and opening repairs, rebuilds or refuses by name.

Never is there other data than was written, and never a traceback.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random

import httpx2
import orjson
import pytest

from raftchat import _log
from raftchat.chat.apply import advance
from raftchat.config import Config
from raftchat.node import directory
from raftchat.node.exits import CANNOT_START, CORRUPT, NodeFailed
from raftchat.storage.errors import StorageError
from raftchat.storage.verify import verify
from tests.faults.cluster import Cluster, wait_for
from tests.storage.data_dir import URLS, DataDir

FLIPS_OF_EACH_FILE = 20
CONFIG = Config(segment_size_bytes=512 * 1024)
SEED = 7


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> DataDir:
    """All kinds of files there are; nothing of it is changed by a test."""
    made = DataDir(tmp_path_factory.mktemp("rot") / "node")
    made.post("a", 60)
    made.post("gone", 30)
    made.seal()
    made.post("b", 40)
    made.remove("gone")
    made.seal()
    made.compact(0, 1)
    made.post("a", 20)
    made.post("c", 25)
    made.close()
    return made


def files(path: Path) -> list[str]:
    return sorted(str(file.relative_to(path)) for file in path.rglob("*") if file.is_file())


def flip(path: Path, offset: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1 << bit
    path.write_bytes(data)


def read_back(path: Path) -> dict[str, dict[int, str]]:
    """Everything as a node opens and serves it: room → texts by ID. Raises NodeFailed, LogError."""
    directory.examine(str(path), 1, URLS)
    opened = directory.open_directory(CONFIG, str(path))
    try:
        reader = _log.LogReader(str(path / "log"))
        segments = opened.log.segments()
        for segment in segments:
            reader.add_segment(segment.sequence, segment.base_index, segment.revision)
        for segment in segments[:-1]:
            if not (_log.has_index(segment) and reader.use_index(segment.sequence)):
                _log.write_index(segment)
                assert reader.use_index(segment.sequence), "an index that was just made"
        state = opened.start.state
        if state.applied_index < opened.log.last_index:
            advance(state, reader, state.applied_index + 1, opened.log.last_index)
        found = {}
        for room in state.rooms_after(1000)[0]:
            ids = reader.above(room.name.encode(), 0, 10_000, opened.log.last_index)
            live = [id for id in ids if id >= room.floor]
            assert len(live) == room.count, room.name
            found[room.name] = {message["ID"]: message["Message"] for message in orjson.loads(reader.page(live))}
        return found
    finally:
        opened.log.close()


def refuses(path: Path, written: DataDir) -> str | None:
    """Why it is not opened, or not read; None: it holds exactly what was written."""
    try:
        found = read_back(path)
    except NodeFailed as failure:
        return str(failure) if failure.code in (CANNOT_START, CORRUPT) else ""
    except _log.LogError as error:
        return str(error)
    assert found == written.posts
    return None


def test_without_rot(written: DataDir, tmp_path: Path) -> None:
    shutil.copytree(written.path, tmp_path / "node")
    assert read_back(tmp_path / "node") == written.posts
    names = files(written.path)
    for ending in (".log", "-0001.log", ".idx", ".snapshot", "identity", "hard-state", "LOCK"):
        assert [name for name in names if name.endswith(ending)], ending


def test_a_flipped_bit_in_any_file(written: DataDir, tmp_path: Path, figure: Callable[[str], None]) -> None:
    random = Random(SEED)
    copy = tmp_path / "node"
    total = found = refused = mended = 0
    for name in files(written.path):
        size = (written.path / name).stat().st_size
        used = len((written.path / name).read_bytes().rstrip(b"\0"))
        for number in range(FLIPS_OF_EACH_FILE):
            # Most of it where something is.
            offset, bit = random.randrange(size if number % 6 == 0 else used), random.randrange(8)
            where = f"{name}, byte {offset}, bit {bit}"
            shutil.copytree(written.path, copy)
            flip(copy / name, offset, bit)
            report = verify(str(copy))
            named = {finding.path for finding in report.corrupt + report.unreadable}
            total += 1
            if named:
                assert str(copy / name) in named, where
                found += 1
            refusal = refuses(copy, written)
            if refusal is None:
                mended += bool(named)
            else:
                refused += 1
                assert named, f"{where}: {refusal}"
                assert str(copy) in refusal, where
            shutil.rmtree(copy)
    assert total > 400
    assert refused > 50
    assert mended > 50
    assert found > total * 3 // 5
    figure(f"{total} flipped bits: {found} named by verify, {refused} refused by name, {mended} of those named mended")


def test_a_file_of_nothing_but_zeros_or_gone(written: DataDir, tmp_path: Path) -> None:
    """As an unlucky file system leaves it."""
    copy = tmp_path / "node"
    for name in files(written.path):
        for content in (b"", bytes((written.path / name).stat().st_size), None):
            shutil.copytree(written.path, copy)
            if content is None:
                (copy / name).unlink()
            else:
                (copy / name).write_bytes(content)
            try:
                report = verify(str(copy))
                well = not (report.corrupt or report.unreadable)
            except StorageError:
                well = False
            if refuses(copy, written) is not None:
                assert not well or content is None, name
            shutil.rmtree(copy)


@pytest.mark.process
def test_a_node_heals_refuses_by_name_or_serves_what_is_whole(new_cluster: Callable[..., Cluster]) -> None:
    node = new_cluster(1, "--segment-size", "260KiB").start()[1]
    for number in range(90):
        node.must_post("general", f"{number} ".ljust(12_000, "m"))
    wait_for("indexes and snapshots", lambda: len(list((node.data_dir / "snapshots").glob("*"))) > 2, 30)
    wait_for("indexes", lambda: len(list((node.data_dir / "log").glob("*.idx"))) > 2, 30)
    history = node.history("general")
    assert len(history) == 90
    assert node.stop() == 0
    untouched = node.directory / "untouched"
    shutil.copytree(node.data_dir, untouched)
    log = sorted((node.data_dir / "log").glob("*.log"))
    snapshot = sorted((node.data_dir / "snapshots").glob("*.snapshot"))[-1]

    def rot(path: Path, offset: int) -> None:
        shutil.rmtree(node.data_dir)
        shutil.copytree(untouched, node.data_dir)
        flip(path, offset, 3)
        node.start()

    # It heals.
    for path, offset in (
        (node.data_dir / "hard-state", 20),
        (log[0].with_suffix(".idx"), 70),
        (log[1].with_suffix(".idx"), log[1].with_suffix(".idx").stat().st_size - 4),
        (snapshot, 200),
    ):
        rot(path, offset)
        node.wait_ready()
        assert node.history("general") == history, path
        assert node.stop() == 0

    # It refuses.
    for path, offset in ((node.data_dir / "identity", 60), (log[-1], 200), (log[1], 20)):
        rot(path, offset)
        assert node.process is not None
        assert node.process.wait(20) == 4, path
        said = node.output.read_text().rpartition("--- start ")[2]
        assert str(path) in said
        assert "Traceback" not in said

    # A record in the middle of a sealed segment: it may end, or say that it cannot read, but what it serves is right.
    rot(log[1], 100_000)
    node.wait_ready()
    told = 0
    known = {message["ID"]: message for message in history}
    for id in known:
        try:
            answer = node.get("/rooms/general", around=id, limit=1)
        except httpx2.TransportError:
            answer = None
        if answer is None or answer.status_code != 200:
            told += 1
        else:
            assert answer.json() == [known[id]]
    assert 0 < told < len(history)
    assert str(log[1]) in node.output.read_text().rpartition("--- start ")[2]

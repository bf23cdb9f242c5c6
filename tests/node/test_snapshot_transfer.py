"""A snapshot travels from a member that has it to one that needs it: real sockets and files, one log, no Raft."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import uvloop

from raftchat import _log
from raftchat.config import KIB, Config
from raftchat.node.catch_up import CatchUp
from raftchat.node.peers import Peers
from raftchat.node.snapshot_files import SnapshotFiles
from raftchat.node.snapshot_receiver import SnapshotReceiver
from raftchat.node.transfer import Manifest
from raftchat.raft.messages import InstallSnapshot
from raftchat.storage import incoming
from raftchat.storage import snapshot as snapshots
from raftchat.storage.snapshot import SegmentName, Snapshot

CONFIG = Config(
    segment_size_bytes=512 * KIB,
    transfer_chunk_bytes=16 * KIB,
    transfer_timeout_ms=2_000,
    transfer_retry_ms=10,
    peer_redial_min_ms=5,
    peer_redial_max_ms=20,
)
CLUSTER = "c1"
_ids = itertools.count(1)


def open_log(directory: Path) -> _log.Log:
    return _log.Log(str(directory), new_segment_id=lambda: next(_ids), segment_size_bytes=CONFIG.segment_size_bytes)


def fill(log: _log.Log, rng: Random, segments: int) -> None:
    while len(log.segments()) < segments:
        records = [
            _log.pack(
                _log.KIND_POST, b"room-%d" % rng.randrange(5), b'"User":"u","Message":"%d"' % rng.randrange(10**9)
            )
            for _ in range(500)
        ]
        log.append(b"".join(records), 1, 1000)
    point = log.begin_sync()
    point.wait()
    log.end_sync(point)


class Leader:
    """A data directory with a snapshot at its last seal, and the `Peers` that give it away."""

    def __init__(self, data_dir: Path, segments: int = 4) -> None:
        self.log = open_log(data_dir / "log")
        self.snapshots = data_dir / "snapshots"
        self.snapshots.mkdir()
        self.rng = Random(3)
        fill(self.log, self.rng, segments)
        self.take_snapshot()
        self.files = SnapshotFiles(str(data_dir / "log"), str(self.snapshots), self.log.segments)
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.url = f"http://127.0.0.1:{self.sock.getsockname()[1]}"
        self.asked: list[int] = []

    def take_snapshot(self) -> None:
        sealed = self.log.segments()[:-1]
        index = sealed[-1].last_index
        names = tuple(
            SegmentName(s.sequence, s.base_index, s.revision, s.last_index, s.segment_id, s.size_bytes) for s in sealed
        )
        snapshots.write(
            str(self.snapshots), Snapshot(index, self.log.term_at(index), 1000, CLUSTER, 1, b"{}", names, b"state")
        )
        self.index = index

    async def serve(self) -> Peers:
        peers = Peers(
            CONFIG,
            CLUSTER,
            1,
            lambda: {1: self.url, 2: "http://127.0.0.1:9"},
            Random(1),
            _log.parse_batch,
            lambda sender, message: None,
            lambda peer: None,
            self.files,
            self.asked.append,
        )
        await peers.start([self.sock.dup()])
        return peers


@pytest.fixture
def leader(tmp_path: Path) -> Iterator[Leader]:
    (tmp_path / "1").mkdir()
    leader = Leader(tmp_path / "1")
    yield leader
    leader.log.close()
    leader.sock.close()


def receiver(
    leader: Leader, data_dir: Path, on_gathered: Callable[[Manifest], object], index: int = 1, node_id: int = 2
) -> SnapshotReceiver:
    data_dir.mkdir(exist_ok=True)
    return SnapshotReceiver(CONFIG, CLUSTER, node_id, str(data_dir), 1, leader.url, index, on_gathered)


def run(scenario: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(scenario, 60))


async def gathered(leader: Leader, data_dir: Path, index: int = 1) -> Manifest:
    """Start a receiver and wait until everything is there."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[Manifest] = loop.create_future()
    fetch = receiver(leader, data_dir, lambda manifest: loop.call_soon_threadsafe(done.set_result, manifest), index)
    fetch.start()
    try:
        return await done
    finally:
        fetch.cancel()
        await asyncio.to_thread(fetch.join)
        assert fetch.received_bytes == fetch.total_bytes


def check(leader: Leader, data_dir: Path) -> None:
    """Installed, it is the leader's log up to the snapshot, each record of it."""
    incoming.Incoming(str(data_dir)).complete(leader.index)
    assert incoming.install(str(data_dir)) == leader.index
    log = open_log(data_dir / "log")
    assert (log.last_index, log.last_term) == (leader.index, leader.log.term_at(leader.index))
    assert log.verify()[1] == []
    first = leader.log.first_index
    assert log.entries(first, leader.index) == leader.log.entries(first, leader.index)
    assert all(_log.has_index(segment) for segment in log.segments() if segment.last_index < log.last_index)
    log.close()
    (path,) = snapshots.paths(str(data_dir / "snapshots"))
    assert snapshots.load(path).state == b"state"


def test_everything_arrives_checked_and_becomes_the_log(leader: Leader, tmp_path: Path) -> None:
    async def scenario() -> None:
        peers = await leader.serve()
        manifest = await gathered(leader, tmp_path / "2")
        assert manifest.index == leader.index
        assert [segment.last_index for segment in manifest.segments][-1] == leader.index
        await peers.close()

    run(scenario())
    check(leader, tmp_path / "2")


def test_a_member_that_grows_meanwhile_gives_what_the_snapshot_stands_on_and_no_more(
    leader: Leader, tmp_path: Path
) -> None:
    """The segment behind the snapshot is sealed by now, but the snapshot does not cover it."""

    async def scenario() -> None:
        peers = await leader.serve()
        fill(leader.log, leader.rng, 7)
        manifest = await gathered(leader, tmp_path / "2")
        assert manifest.segments[-1].last_index == leader.index
        await peers.close()

    run(scenario())
    check(leader, tmp_path / "2")


class Relay:
    """Between the two: lets a limited number of bytes through on each connection."""

    def __init__(self, port: int, limit_bytes: int) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.server.getsockname()[1]}"
        self.connections = 0
        self.limit_bytes = limit_bytes
        self._port = port
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            self.connections += 1
            far = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._pump, args=(near, far, 1 << 40), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, self.limit_bytes), daemon=True).start()

    @staticmethod
    def _pump(source: socket.socket, sink: socket.socket, left: int) -> None:
        try:
            while left and (data := source.recv(min(4096, left))):
                sink.sendall(data)
                left -= len(data)
        except OSError:
            pass
        for sock in (source, sink):
            # Wakes the other direction, too; `close` alone would not.
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


def test_a_connection_that_breaks_again_and_again_costs_no_byte_twice(leader: Leader, tmp_path: Path) -> None:
    """Row 20: whatever chunk it broke in, the next connection goes on behind it."""

    async def scenario() -> None:
        peers = await leader.serve()
        relay = Relay(leader.sock.getsockname()[1], 150 * KIB)
        leader.url = relay.url
        manifest = await gathered(leader, tmp_path / "2")
        sent = relay.connections * relay.limit_bytes
        assert relay.connections >= manifest.size_bytes // relay.limit_bytes
        assert sent < 1.5 * manifest.size_bytes, "it began again from the start"
        relay.server.close()
        await peers.close()

    run(scenario())
    check(leader, tmp_path / "2")


def test_a_receiver_that_ended_in_the_middle_goes_on_where_it_was(leader: Leader, tmp_path: Path) -> None:
    """Any prefix of any file may be what a killed process left, and rubbish in a part is found when it is whole."""

    async def scenario() -> None:
        peers = await leader.serve()
        first = await gathered(leader, tmp_path / "2")
        rng = Random(8)
        names = [f"log/{segment.name}" for segment in first.segments] + [f"snapshots/{first.snapshot_name}"]
        for number, name in enumerate(names):
            whole = (tmp_path / "2" / "incoming" / name).read_bytes()
            data_dir = tmp_path / f"again-{number}"
            shutil.copytree(tmp_path / "2", data_dir)
            (data_dir / "incoming" / name).unlink()
            part = whole[: rng.randrange(len(whole))]
            if number % 2:
                part = bytes(len(part))
            (data_dir / "incoming" / f"{name}.part").write_bytes(part)
            await gathered(leader, data_dir)
            assert (data_dir / "incoming" / name).read_bytes() == whole
            shutil.rmtree(data_dir)
        await peers.close()

    run(scenario())


def test_rot_at_the_sender_is_never_installed_and_named(
    leader: Leader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(leader.log.segments()[1].path)
    good = path.read_bytes()
    bad = bytearray(good)
    bad[len(bad) // 3] ^= 0x10
    # Another file of that name, as what is mapped must not change under the leader.
    path.unlink()
    path.write_bytes(bad)

    async def scenario() -> None:
        peers = await leader.serve()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Manifest] = loop.create_future()
        fetch = receiver(leader, tmp_path / "2", lambda manifest: loop.call_soon_threadsafe(done.set_result, manifest))
        fetch.start()
        async with asyncio.timeout(20):
            while path.name not in caplog.text:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.01)
        assert not done.done()
        path.write_bytes(good)  # noqa: ASYNC240 (a small file)
        await done
        await asyncio.to_thread(fetch.join)
        await peers.close()

    run(scenario())
    check(leader, tmp_path / "2")


def test_what_was_compacted_meanwhile_is_asked_for_anew(leader: Leader, tmp_path: Path) -> None:
    """A file that is gone is refused in words; the next manifest names its successor."""

    class Gone(SnapshotFiles):
        refused = 0

        def path(self, name: str) -> str:
            if name == os.path.basename(leader.log.segments()[1].path) and not self.refused:
                Gone.refused += 1
                return super().path(name) + "-gone"
            return super().path(name)

    leader.files = Gone(str(tmp_path / "1" / "log"), str(leader.snapshots), leader.log.segments)

    async def scenario() -> None:
        peers = await leader.serve()
        await gathered(leader, tmp_path / "2")
        assert Gone.refused == 1
        await peers.close()

    run(scenario())
    check(leader, tmp_path / "2")


def test_a_snapshot_that_does_not_reach_far_enough_is_not_given(leader: Leader) -> None:
    assert leader.files.manifests(leader.index + 1) == []


def test_the_active_segment_is_never_given_although_it_is_empty(leader: Leader) -> None:
    """It has an identity that records will be written under."""
    fill(leader.log, leader.rng, 6)
    leader.log.roll()
    leader.take_snapshot()
    assert leader.log.segments()[-1].last_index == leader.index
    (newest, older) = leader.files.manifests(1)
    assert (newest.index, older.index < newest.index) == (leader.index, True)
    assert [file.sequence for file in newest.segments] == [s.sequence for s in leader.log.segments()[:-1]]


def test_a_rotten_newest_snapshot_is_passed_over_for_an_older_one(leader: Leader, tmp_path: Path) -> None:
    older = leader.index
    fill(leader.log, leader.rng, 6)
    leader.take_snapshot()
    path = Path(snapshots.paths(str(leader.snapshots))[0])
    path.write_bytes(path.read_bytes()[:-1] + b"?")

    async def scenario() -> None:
        peers = await leader.serve()
        assert (await gathered(leader, tmp_path / "2")).index == older
        await peers.close()

    run(scenario())


def test_what_goes_on_behind_the_snapshot_has_a_file_of_its_own(leader: Leader, tmp_path: Path) -> None:
    """No two files have one identity: what would tell one node's from another's, in copies and transfers?"""

    async def scenario() -> None:
        peers = await leader.serve()
        await gathered(leader, tmp_path / "2")
        await peers.close()

    run(scenario())
    check(leader, tmp_path / "2")
    log = open_log(tmp_path / "2" / "log")
    log.append(_log.pack(_log.KIND_POST, b"a", b'"User":"u","Message":"m"'), 1, 2000)
    assert log.segments()[-1].segment_id not in {segment.segment_id for segment in leader.log.segments()}
    log.close()


def test_what_an_attempt_left_of_another_member_is_not_taken_for_this_one_s(leader: Leader, tmp_path: Path) -> None:
    """One of the same name, identity and size, which counts up to another entry; and one that was never looked at."""

    async def scenario() -> None:
        peers = await leader.serve()
        first = await gathered(leader, tmp_path / "2")
        kept = tmp_path / "2" / "incoming"
        two, three = (kept / "log" / segment.name for segment in first.segments[1:3])
        rotten = bytearray(two.read_bytes())
        rotten[4000] ^= 1
        two.write_bytes(rotten)
        two.with_suffix(".idx").unlink()
        noted = json.loads((kept / "manifest").read_bytes())
        noted["Files"][f"log/{three.name}"][-1] -= 1
        (kept / "manifest").write_bytes(json.dumps(noted).encode())
        three.write_bytes(bytes(three.stat().st_size))
        await gathered(leader, tmp_path / "2")
        await peers.close()
        assert leader.asked == [2, 2]

    run(scenario())
    check(leader, tmp_path / "2")


class Stalled(SnapshotReceiver):
    """Ends when it is told to, and reports when it is told to."""

    def __init__(self, sender: int) -> None:
        self.sender = sender
        self.cancelled = False
        self.over = False

    @property
    def ended(self) -> bool:
        return self.over

    def cancel(self) -> None:
        self.cancelled = True


def test_only_one_receiver_gathers_at_a_time_and_only_its_word_counts() -> None:
    started: list[tuple[Stalled, Callable[[Manifest], None]]] = []
    installed: list[int] = []

    def start(snapshot: InstallSnapshot, on_gathered: Callable[[Manifest], None]) -> SnapshotReceiver:
        started.append((Stalled(snapshot.sender), on_gathered))
        return started[-1][0]

    catch_up = CatchUp(start, lambda index, term: True, installed.append)
    manifest = Manifest(9, 1, "x", 1, ())
    catch_up.want(InstallSnapshot(1, 5, 9, 1, 0, b""))
    catch_up.want(InstallSnapshot(1, 5, 9, 1, 0, b"", 2))
    assert len(started) == 1
    catch_up.want(InstallSnapshot(3, 6, 9, 1, 0, b""))
    assert started[0][0].cancelled
    assert len(started) == 1, "the first still writes"
    started[0][1](manifest)
    assert installed == []
    started[0][0].over = True
    catch_up.want(InstallSnapshot(3, 6, 9, 1, 0, b"", 2))
    assert len(started) == 2
    started[0][1](manifest)
    assert installed == [], "a word of the one that was cancelled"
    started[1][1](manifest)
    assert installed == [9]


def test_a_stranger_gets_no_snapshot(leader: Leader, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        peers = await leader.serve()
        fetch = receiver(leader, tmp_path / "9", lambda manifest: pytest.fail("given away"), node_id=9)
        fetch.start()
        async with asyncio.timeout(20):
            while "not a member" not in caplog.text:  # noqa: ASYNC110 (nobody tells)
                await asyncio.sleep(0.01)
        fetch.cancel()
        await asyncio.to_thread(fetch.join)
        await peers.close()

    run(scenario())

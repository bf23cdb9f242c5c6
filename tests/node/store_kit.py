"""A store without a node: a real log and real files, the keeper stepped by hand, and a cluster of one that commits what
it is given. Clocks are the test's."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from raftchat import _log
from raftchat.chat.retention import Command
from raftchat.chat.state import ChatState
from raftchat.config import KIB, Config
from raftchat.node import directory
from raftchat.node.directory import OpenDirectory
from raftchat.node.store_files import StoreFiles
from raftchat.node.store_ports import Taken, View
from raftchat.node.upkeep import Upkeep
from raftchat.storage.hard_state import OsFile

URLS = ["http://127.0.0.1:1"]
TIME_MS = 1_700_000_000_000
DAY_MS = 86_400_000


def small_config(**changes: Any) -> Config:
    """Segments of 8 KiB, and nothing waits."""
    values: dict[str, Any] = {
        "segment_size_bytes": 8 * KIB,
        "message_size_max_bytes": 100,
        "name_size_max_bytes": 100,
        "record_size_max_bytes": 4 * KIB,
        "append_size_max_bytes": 4 * KIB,
        "proposal_batch_max_bytes": 64 * KIB,
        "delete_grace_ms": 1000,
        "retention_interval_ms": 1000,
        "store_interval_ms": 10,
        "roll_interval_ms": 5000,
    }
    return Config(**(values | changes))


def post(room: str, text: str) -> bytes:
    return _log.pack(_log.KIND_POST, room.encode(), b'"User":"u","Message":"%s"' % text.encode())


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000_000.0
        self.wall_offset_ms = TIME_MS - 1_000_000

    def monotonic_ms(self) -> float:
        return self.now_ms

    def wall_ms(self) -> int:
        return round(self.now_ms + self.wall_offset_ms)

    def pause(self) -> None:
        pass


class Owner:
    """`store_ports.Owner` on the log itself."""

    def __init__(self, opened: OpenDirectory, clock: Clock) -> None:
        self.log = opened.log
        self.clock = clock
        self.commit_index = opened.hard_state.commit
        self.leads = True
        self.term = max(1, opened.log.last_term)
        self.takes_proposals = True
        self.heir = 0
        self.handed_over = 0
        self.indexed_segments: list[int] = []
        self.taken: list[Taken] = []
        self.proposed: list[Command] = []
        self.rolls = 0
        self.prepared = 0

    def append(self, records: bytes) -> tuple[int, int]:
        """Committed and durable on return."""
        found = self.log.append(records, self.term, self.clock.wall_ms())
        self.commit()
        return found

    def commit(self) -> None:
        point = self.log.begin_sync()
        point.wait()
        self.log.end_sync(point)
        self.commit_index = self.log.last_index

    def view(self) -> View:
        return View(
            self.log.segments(),
            self.log.retired(),
            self.commit_index,
            self.leads,
            self.term,
            self.log.active_used_bytes,
        )

    def indexed(self, sequence: int) -> None:
        self.indexed_segments.append(sequence)

    def snapshot_taken(self, taken: Taken) -> None:
        self.taken.append(taken)

    def install(self, compacted: _log.Compacted) -> None:
        self.log.install(compacted)

    def drop_prefix(self, first_index: int) -> None:
        self.log.drop_prefix(first_index)

    def unlink(self, retired: Sequence[_log.Segment]) -> None:
        self.log.unlink(retired)

    def prepare(self) -> None:
        self.prepared += 1
        self.log.prepare()

    def roll(self) -> None:
        self.rolls += 1
        self.log.roll()

    def hand_over(self, heard_within_ms: int) -> int:
        self.handed_over += self.heir > 0
        return self.heir

    def propose(self, commands: Sequence[Command]) -> int | None:
        if not self.takes_proposals:
            return None
        self.proposed += commands
        return self.append(b"".join(_log.pack(*command) for command in commands))[0]


@dataclass
class Store:
    """One run on a data directory."""

    config: Config
    path: Path
    opened: OpenDirectory
    owner: Owner
    clock: Clock
    files: StoreFiles
    reader: _log.LogReader
    upkeep: Upkeep
    hard_state: OsFile

    @property
    def state(self) -> ChatState:
        return self.upkeep.state

    def post(self, room: str, count: int = 1, *, size_bytes: int = 60) -> list[int]:
        """Their IDs."""
        ids: list[int] = []
        for number in range(count):
            first, _ = self.owner.append(post(room, f"{number:0{size_bytes}}"))
            ids.append(first)
        return ids

    def rounds(self, count: int = 3, *, ms: float = 0) -> None:
        for _ in range(count):
            self.clock.now_ms += ms
            self.upkeep.round()

    def fill(self, room: str = "filler") -> None:
        """Until the active segment is another one."""
        active = self.opened.log.active_sequence
        while self.opened.log.active_sequence == active:
            self.post(room)

    def page(self, room: str) -> list[int]:
        """The IDs of a room, from the log by its floor."""
        there = self.state.room(room.encode())
        if there is None or not there.count:
            return []
        last = self.state.applied_index
        return list(self.reader.below(room.encode(), last + 1, 1_000_000, there.floor))

    def names(self, suffix: str = ".log") -> list[str]:
        return sorted(file.name for file in (self.path / "log").iterdir() if file.name.endswith(suffix))

    def snapshots(self) -> list[str]:
        folder = self.path / "snapshots"
        return sorted(file.name for file in folder.iterdir()) if folder.exists() else []

    def used_bytes(self) -> int:
        return sum(file.stat().st_blocks * 512 for file in (self.path / "log").iterdir())

    def close(self) -> None:
        self.opened.hard_state_file.write(1, 0, self.owner.commit_index)
        self.abandon()

    def abandon(self) -> None:
        """Nothing is written; descriptors are given back."""
        self.reader.close()
        self.opened.log.close()
        self.hard_state.close()


def open_store(path: Path, config: Config | None = None, clock: Clock | None = None) -> Store:
    """Make or open it, as a node would."""
    config = config or small_config()
    clock = clock or Clock()
    data_dir = str(path)
    if directory.examine(data_dir, 1, URLS) is None:
        directory.bootstrap(data_dir, 1, URLS)
    opened = directory.open_directory(config, data_dir)
    owner = Owner(opened, clock)
    stopping = threading.Event()
    log_directory = directory.log_directory(data_dir)
    reader = _log.LogReader(log_directory)
    files = StoreFiles(config, log_directory, directory.snapshots_directory(data_dir), reader, stopping)
    identity = (opened.identity.cluster_id, opened.identity.epoch)
    upkeep = Upkeep(config, identity, opened.start, reader, files, owner, clock)
    hard_state = cast(OsFile, opened.hard_state_file._file)
    return Store(config, path, opened, owner, clock, files, reader, upkeep, hard_state)

"""A data directory as a node leaves it, made in this process: log, snapshots, compaction, hard state, identity."""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

from raftchat import _log
from raftchat.chat.apply import advance
from raftchat.chat.commands import KIND_POST, KIND_REMOVE_ROOM
from raftchat.chat.state import ChatState
from raftchat.raft import Membership
from raftchat.storage import hard_state, identity, segment_files, snapshot

URLS = ["http://127.0.0.1:12379"]
SEGMENT_SIZE_BYTES = 4096

_ids = itertools.count(1000)


def new_segment_id() -> int:
    return next(_ids)


class DataDir:
    """`posts`: room → texts by ID, of what was posted and not removed."""

    def __init__(self, path: Path, urls: list[str] = URLS, segment_size_bytes: int = SEGMENT_SIZE_BYTES) -> None:
        self.path = path
        (path / "snapshots").mkdir(parents=True)
        (path / "LOCK").write_text("1\n")
        self.identity = identity.bootstrap(1, urls)
        identity.store(str(path), self.identity)
        hard_state.create(str(path / "hard-state"))
        self.log = _log.Log(str(path / "log"), new_segment_id=new_segment_id, segment_size_bytes=segment_size_bytes)
        self.term = 3
        self.log_last_index = 0
        """When it was closed, as is `final_state`."""
        self.final_state = ChatState()
        self.posts: dict[str, dict[int, str]] = {}

    def post(self, room: str, count: int = 1, size: int = 100) -> None:
        for _ in range(count):
            index = self.log.last_index + 1
            text = f"{room} {index} ".ljust(size, "m")
            value = f'"User":"u","Message":"{text}"'.encode()
            record = _log.pack(KIND_POST, room.encode(), value)
            assert self.log.append(record, self.term, 1_700_000_000_000 + index) == (index, index)
            self.posts.setdefault(room, {})[index] = text
        self.sync()

    def remove(self, room: str) -> None:
        index = self.log.last_index + 1
        record = _log.pack(KIND_REMOVE_ROOM, room.encode(), b"")
        assert self.log.append(record, self.term, 1_700_000_000_000 + index) == (index, index)
        del self.posts[room]
        self.sync()

    def sync(self) -> None:
        point = self.log.begin_sync()
        point.wait()
        self.log.end_sync(point)

    def seal(self) -> str:
        """Roll, and write the snapshot that stands on all that is sealed: its path."""
        self.log.roll()
        index = self.log.last_index
        sealed = [segment for segment in self.log.segments() if segment.last_index <= index][:-1]
        state = self.state()
        self._index(sealed)
        return snapshot.write(
            str(self.path / "snapshots"),
            snapshot.Snapshot(
                index,
                self.log.last_term,
                self.log.last_time_ms,
                self.identity.cluster_id,
                self.identity.epoch,
                Membership(self.identity.members).encode(),
                tuple(
                    snapshot.SegmentName(s.sequence, s.base_index, s.revision, s.last_index, s.segment_id, s.size_bytes)
                    for s in sealed
                ),
                state.encode(),
            ),
        )

    def state(self) -> ChatState:
        """After the last entry, from the newest snapshot on."""
        paths = snapshot.paths(str(self.path / "snapshots"))
        state = ChatState.decode(snapshot.load(paths[0]).state) if paths else ChatState()
        reader = _log.LogReader(str(self.path / "log"))
        for segment in self.log.segments():
            reader.add_segment(segment.sequence, segment.base_index, segment.revision)
        if state.applied_index < self.log.last_index:
            advance(state, reader, state.applied_index + 1, self.log.last_index)
        reader.close()
        return state

    def compact(self, first: int, last: int) -> list[str]:
        """Rewrite these of the log's segments (by place) as one: paths of the retired ones."""
        chosen = self.log.segments()[first : last + 1]
        made = _log.compact(str(self.path / "log"), chosen, self.state().floors(), new_segment_id=new_segment_id)
        retired = [segment.path for segment in self.log.install(made)]
        self._index(self.log.segments()[:-1])
        return retired

    @staticmethod
    def _index(segments: list[_log.Segment]) -> None:
        for segment in segments:
            if not _log.has_index(segment):
                _log.write_index(segment)

    def close(self, commit: int | None = None) -> None:
        """Let go of the log, with the commit hint that an idle node leaves."""
        commit = self.log.last_index if commit is None else commit
        file = hard_state.HardStateFile(hard_state.OsFile(str(self.path / "hard-state")))
        file.write(self.term, 1, commit)
        self.log_last_index = self.log.last_index
        self.final_state = self.state()
        self._active = Path(self.log.segments()[-1].path)
        self.log.close()

    def log_path(self) -> Path:
        """The segment that was active when the log was closed."""
        return self._active


def as_copy(directory: DataDir, tmp_path: Path) -> Path:
    """What `cp -a` makes of a directory that had an owner."""
    (directory.path / "LOCK").write_text(f"1 {(directory.path / 'LOCK').stat().st_ino}\n")
    shutil.copytree(directory.path, tmp_path / "copy")
    return tmp_path / "copy"


def flip(path: Path | str, offset: int, bit: int = 0) -> None:
    data = bytearray(Path(path).read_bytes())
    data[offset] ^= 1 << bit
    Path(path).write_bytes(data)


def contents(path: Path) -> dict[str, dict[int, bytes]]:
    """Room → value by ID of every message that a directory which was restored, and not started yet, holds."""
    newest, _ = snapshot.paths(str(path / "snapshots"))
    state = ChatState.decode(snapshot.load(newest).state)
    found: dict[str, dict[int, bytes]] = {}
    for name in sorted(os.listdir(path / "log")):
        if segment_files.is_segment(name):
            file = segment_files.read_header(str(path / "log" / name))
            for index, key, value in _records(path / "log" / name, file):
                found.setdefault(key, {})[index] = value
    assert {room.name: room.count for room in state.rooms_after(10_000)[0] if room.count} == {
        key: len(messages) for key, messages in found.items()
    }
    return found


def _records(path: Path, file: segment_files.SegmentFile) -> list[tuple[int, str, bytes]]:
    data, offset, found = path.read_bytes(), file.start.offset, []
    while offset + 48 <= len(data) and data[offset + 20]:
        body_size = int.from_bytes(data[offset + 16 : offset + 20], "little")
        key_size = int.from_bytes(data[offset + 22 : offset + 24], "little")
        index = int.from_bytes(data[offset + 24 : offset + 32], "little")
        start = offset + 48
        value = start + key_size + data[offset + 21]
        if data[offset + 20] == KIND_POST:
            found.append((index, data[start : start + key_size].decode(), data[value : start + body_size]))
        offset = start + body_size + (-body_size % 8)
    return found

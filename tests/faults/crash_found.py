"""What is found in a node's directory when it is opened as a node opens it: everything that anybody could ask for.

Also which files are there that nothing needs, when all is done that an opened node does to be rid of such.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from raftchat import _log
from raftchat.chat.apply import advance
from raftchat.node.directory import OpenDirectory, open_directory
from raftchat.storage import identity, snapshot
from raftchat.storage.errors import StorageError
from raftchat.storage.hard_state import OsFile
from tests.node.store_kit import small_config

NEEDED = {"identity", "hard-state", "LOCK"}


@dataclass(slots=True)
class Found:
    """Of one directory."""

    identity: identity.Identity
    hard_state: tuple[int, int, int]
    """Term, vote, commit."""
    entries: list[tuple[Any, ...]]
    """Of the log without gaps."""
    messages: dict[str, dict[int, str]]
    """Room → text by ID, as pages show it."""
    state_hash: str
    last_index: int
    segments: list[tuple[int, int, int, int]]
    """Sequence, base index, revision, last entry that counts; without the active one."""
    retired: list[str]
    """Names of files."""
    snapshots: list[str]
    """Names, the newest first."""
    surplus: list[str] = field(default_factory=list)
    """Files that nobody needs and nobody will remove."""

    @property
    def content(self) -> tuple[Any, ...]:
        """All of it, but for how it lies in files."""
        return self.identity, self.hard_state, self.messages, self.state_hash, self.last_index

    def up_to(self, last_index: int) -> dict[str, dict[int, str]]:
        """The messages that were there when the log ended there."""
        cut = {room: {n: text for n, text in texts.items() if n <= last_index} for room, texts in self.messages.items()}
        return {room: texts for room, texts in cut.items() if texts}


def find(path: Path) -> Found | None:
    """None: it is not a node's. Raises what a node that is started on it would tell its user."""
    if not path.exists():
        return None
    if not (path / identity.FILE_NAME).exists() and (path / identity.RESTORING).exists():
        with pytest.raises(StorageError, match="was broken off"):
            identity.load(str(path))
        return None
    mine = identity.load(str(path))
    if mine is None:
        return None
    opened = open_directory(small_config(segment_size_bytes=4096, record_size_max_bytes=2048), str(path))
    try:
        return _read(path, mine, opened)
    finally:
        opened.log.close()
        file = opened.hard_state_file._file
        assert isinstance(file, OsFile)
        file.close()


def _read(path: Path, mine: identity.Identity, opened: OpenDirectory) -> Found:
    log, state = opened.log, opened.start.state
    reader = _log.LogReader(str(path / "log"))
    for segment in log.segments():
        reader.add_segment(segment.sequence, segment.base_index, segment.revision)
    for segment in log.segments()[:-1]:
        assert reader.use_index(segment.sequence) or not _log.has_index(segment)
    if state.applied_index < log.last_index:
        advance(state, reader, state.applied_index + 1, log.last_index)
    messages = {}
    for key, floor in state.floors().items():
        indexes = reader.above(key, floor - 1, 1 << 20, log.last_index)
        if indexes:
            page = orjson.loads(reader.page(indexes))
            messages[key.decode()] = {post["ID"]: post["Message"] for post in page}
    assert {room: len(texts) for room, texts in messages.items()} == {
        room.name: room.count for room in state.rooms_after(1 << 20)[0] if room.count
    }, "what the state counts is not what the segments hold"
    entries = [tuple(entry) for entry in log.entries(log.first_index, log.last_index)]
    assert [entry[0] for entry in entries] == list(range(log.first_index, log.last_index + 1))
    reader.close()
    file = opened.hard_state_file
    found = Found(
        mine,
        (file.term, file.vote, file.commit),
        entries,
        messages,
        state.state_hash(),
        log.last_index,
        [(s.sequence, s.base_index, s.revision, s.last_index) for s in log.segments()[:-1]],
        [os.path.basename(segment.path) for segment in log.retired()],
        [os.path.basename(name) for name in snapshot.paths(str(path / "snapshots"))],
    )
    found.surplus = _surplus(path, log)
    return found


def _surplus(path: Path, log: _log.Log) -> list[str]:
    """Files that are left when the keeper has done what it always does."""
    log.unlink(log.retired())
    live = log.segments()
    needed = NEEDED | {f"log/{os.path.basename(segment.path)}" for segment in live}
    needed |= {name.removesuffix(".log") + ".idx" for name in needed if name.endswith(".log")}
    if (path / "snapshots").is_dir():
        snapshot.prune(str(path / "snapshots"))
        needed |= {f"snapshots/{os.path.basename(name)}" for name in snapshot.paths(str(path / "snapshots"))}
    files = {str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir()}
    return sorted(files - needed)

"""What is written beside the log, and whole directories: made, received, restored, copied.

Each as a `crash_kit.Operation`.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast
from unittest import mock

from raftchat import _log
from raftchat.node import directory
from raftchat.node.restore import NewCluster, restore
from raftchat.node.snapshot_receiver import SnapshotReceiver
from raftchat.node.transfer import BadTransfer, Frames, Manifest, SegmentFile, WantFile, WantManifest
from raftchat.storage import identity, segment_files, snapshot
from raftchat.storage.backup import backup
from raftchat.storage.errors import StorageError
from raftchat.storage.hard_state import HardStateFile, OsFile
from raftchat.storage.incoming import Incoming, install
from tests.faults.crash_found import Found
from tests.faults.crash_kit import Operation, Say, filled
from tests.node.store_kit import small_config
from tests.storage.data_dir import SEGMENT_SIZE_BYTES, URLS, DataDir

NEW_URLS = ["http://127.0.0.1:22379"]


class Vote(Operation):
    """Two votes and a hint."""

    name = "vote"
    says = 3

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        file = HardStateFile(OsFile(str(root / "data" / "hard-state")))
        for vote in (2, 3):
            file.write(file.term + 1, vote, file.commit)
            say(f"{file.term} {vote}")
        file.write(file.term, file.vote, file.commit + 1, sync=False)
        say(f"{file.term} {vote}")

    def prepare(self, root: Path) -> None:
        data = filled(root / "data")
        data.close(data.log.last_index - 5)

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        assert found is not None
        assert before is not None
        term, vote, commit = before.hard_state
        sequence = [(term, vote), (term + 1, 2), (term + 2, 3)]
        least = [f"{term} {vote}" for term, vote in sequence].index(said[-1]) if said else 0
        return (
            found.hard_state[:2] in sequence[least:]
            and found.hard_state[2] in (commit, commit + 1)
            and found.entries == before.entries
        )

    def complete(self, final: Found, found: Found | None, after: Found) -> bool:
        assert found is not None
        return final.hard_state == (found.hard_state[0] + 2, 3, found.hard_state[2] + 1)


class Bootstrap(Operation):
    """A new node's directory, and the first segment."""

    name = "bootstrap"
    says = 2

    def prepare(self, root: Path) -> None:
        (root / "data").mkdir(parents=True)

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        data = str(root / "data")
        if directory.examine(data, 1, URLS) is None:
            directory.bootstrap(data, 1, URLS)
        say("made")
        self.open_log(root, ids).close()
        say("opened")

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        return not said if found is None else found.content == after.content


class _Receiver(SnapshotReceiver):
    """Its sender is a directory."""

    def __init__(self, data_dir: Path, sender: Path) -> None:
        config = small_config(segment_size_bytes=SEGMENT_SIZE_BYTES, record_size_max_bytes=2048)
        cluster_id = identity.bootstrap(1, URLS).cluster_id
        super().__init__(config, cluster_id, 1, str(data_dir), 2, "", 0, lambda manifest: None)
        self._sender = sender
        self._left = b""

    def gather(self, newest: snapshot.Snapshot) -> None:
        name = snapshot.name(newest.index, newest.term)
        segments = tuple(
            SegmentFile(
                os.path.basename(segment_files.path_of("", s.sequence, s.base_index, s.revision)),
                s.sequence,
                s.base_index,
                s.revision,
                s.last_index,
                s.segment_id,
                s.size_bytes,
            )
            for s in newest.segments
        )
        size_bytes = (self._sender / "snapshots" / name).stat().st_size
        manifest = Manifest(newest.index, newest.term, name, size_bytes, segments)
        self._gather(cast(Any, self), Frames(), manifest)
        self._finish(manifest)

    def _ask(self, sock: socket.socket, frames: Frames, want: WantManifest | WantFile) -> dict[str, Any]:
        assert isinstance(want, WantFile)
        (path,) = self._sender.glob(f"*/{want.name}")
        self._left = path.read_bytes()[want.offset :]
        return {"Size": len(self._left)}

    def recv_into(self, buffer: memoryview, size_bytes: int) -> int:
        count = min(size_bytes, 4096)
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count


class Receive(Operation):
    """A snapshot is gathered and put in place of the node's own files."""

    name = "receive"
    says = 2

    def prepare(self, root: Path) -> None:
        (root / "sender").parent.mkdir(exist_ok=True)
        sender = filled(root / "sender")
        sender.compact(0, 1)
        sender.close()
        behind = DataDir(root / "data")
        behind.post("a", 30)
        behind.close()

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        sender = root / "sender"
        newest = snapshot.load(snapshot.paths(str(sender / "snapshots"))[0])
        receiver = _Receiver(root / "data", sender)
        # What is flushed in one run and torn in another must be the same bytes.
        with mock.patch("secrets.randbits", side_effect=ids):
            try:
                receiver.gather(newest)
            except (_log.LogError, StorageError, BadTransfer):
                receiver.gather(newest)  # A part of a file was torn: it comes once more.
        Incoming(str(root / "data")).complete(newest.index)
        say("complete")
        install(str(root / "data"))
        say("installed")

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        assert found is not None
        assert before is not None
        return found.content in ([after.content] if said else [before.content, after.content])


class Restore(Operation):
    name = "restore"
    says = 1

    def prepare(self, root: Path) -> None:
        data = filled(root / "source")
        data.compact(0, 1)
        data.close()

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        cluster = NewCluster(1, NEW_URLS, lambda old: old + 7, ids.__next__, SEGMENT_SIZE_BYTES)
        restore(str(root / "source"), str(root / "data"), cluster)
        say("restored")

    def again(self, root: Path, ids: Iterator[int]) -> None:
        if not (root / "data" / identity.FILE_NAME).exists():
            super().again(root, ids)

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        return not said if found is None else found.content == after.content


class Backup(Operation):
    name = "backup"
    says = 1

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        backup(str(root / "data"), str(root / "copy"))
        say("copied")

    def result(self, root: Path) -> Path:
        return root / "copy"

    def again(self, root: Path, ids: Iterator[int]) -> None:
        """What was broken off has to be removed first: it is not overwritten."""
        if not (root / "copy" / identity.FILE_NAME).exists():
            shutil.rmtree(root / "copy", ignore_errors=True)
            super().again(root, ids)

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        return not said if found is None else found.content == after.content

"""Everything that a node writes durably, each as one operation that can be cut off anywhere and done again.

`prepare` makes the directory that it begins with, `perform` does it, and `permitted` says what may be found afterwards.
What `perform` says is what it acknowledges: from then on nobody may find less. Knows nothing of how it is cut off.
"""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from raftchat import _log
from raftchat.chat.state import ChatState
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
from tests.node.store_kit import small_config
from tests.storage.data_dir import SEGMENT_SIZE_BYTES, URLS, DataDir

Say = Callable[[str], None]
TIME_MS = 1_800_000_000_000
NEW_URLS = ["http://127.0.0.1:22379"]


def post(number: int, size: int = 100) -> bytes:
    return _log.pack(_log.KIND_POST, b"new", f'"User":"u","Message":"{number} {"m" * size}"'.encode())


def sync(log: _log.Log) -> None:
    point = log.begin_sync()
    point.wait()
    log.end_sync(point)


def filled(path: Path, gone: int = 15) -> DataDir:
    """Two snapshots, rooms that live and one that was removed, and a tail: five segments of 4 KiB."""
    data = DataDir(path)
    data.post("gone", gone)
    data.post("a", 12)
    data.seal()
    data.post("b", 12)
    data.remove("gone")
    data.seal()
    data.post("a", 8)
    return data


class Operation:
    """In `<root>/data` lies the node's directory, beside it what else is needed."""

    name: str
    says: int
    """How often it acknowledges something."""

    def prepare(self, root: Path) -> None:
        filled(root / "data").close()

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        """Raises OSError, StorageError, NodeFailed."""
        raise NotImplementedError

    def result(self, root: Path) -> Path:
        """The directory that is looked at."""
        return root / "data"

    def again(self, root: Path, ids: Iterator[int]) -> None:
        """The same operation, on what was found."""
        self.perform(root, lambda text: None, ids)

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        """Whether this may be found. None: no node's directory."""
        raise NotImplementedError

    def complete(self, final: Found, found: Found | None, after: Found) -> bool:
        """Whether this may be found after it was done once more on `found`."""
        return final.content == after.content

    def open_log(self, root: Path, ids: Iterator[int]) -> _log.Log:
        hint = HardStateFile(OsFile(str(root / "data" / "hard-state"))).commit
        return _log.Log(
            str(root / "data" / "log"),
            new_segment_id=ids.__next__,
            segment_size_bytes=SEGMENT_SIZE_BYTES,
            durable_hint=hint,
        )


class Append(Operation):
    """Batches that fit, that need a new segment, that a prepared one is there for, and that fill several."""

    name = "append"
    says = 6

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        log = self.open_log(root, ids)
        for count in (4, 9, 1, 16, 60, 1):
            if count == 1:
                log.prepare()
            log.append(b"".join(post(log.last_index + n) for n in range(1, count + 1)), 4, TIME_MS)
            sync(log)
            say(f"durable {log.last_index}")
        log.close()

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        assert found is not None
        assert before is not None
        durable = max([before.last_index, *(int(text.split()[1]) for text in said)])
        return (
            durable <= found.last_index
            and found.entries == after.entries[: len(found.entries)]
            and found.messages == after.up_to(found.last_index)
            and found.hard_state == before.hard_state
        )

    def complete(self, final: Found, found: Found | None, after: Found) -> bool:
        assert found is not None
        return (
            final.entries[: len(found.entries)] == found.entries
            and final.last_index == found.last_index + 91
            and len(final.messages["new"]) == len(found.messages.get("new", ())) + 91
        )


class Roll(Append):
    name = "roll"
    says = 4

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        log = self.open_log(root, ids)
        for prepared in (False, True):
            if prepared:
                log.prepare()
            log.append(post(log.last_index + 1), 4, TIME_MS)
            log.roll()
            say(f"durable {log.last_index}")
            log.append(post(log.last_index + 1), 4, TIME_MS)
            sync(log)
            say(f"durable {log.last_index}")
        log.close()

    def complete(self, final: Found, found: Found | None, after: Found) -> bool:
        assert found is not None
        return final.entries[: len(found.entries)] == found.entries and final.last_index == found.last_index + 4


class Cut(Operation):
    """A tail that was never committed is cut, and another one takes its place."""

    name = "cut"
    says = 2

    def prepare(self, root: Path) -> None:
        data = filled(root / "data")
        commit = data.log.last_index
        data.post("never", 30)
        data.close(commit)

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        log = self.open_log(root, ids)
        commit = HardStateFile(OsFile(str(root / "data" / "hard-state"))).commit
        log.truncate_suffix(commit)
        say("cut")
        log.append(post(0), log.last_term + 1, TIME_MS)
        sync(log)
        say("durable")
        log.close()

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        assert found is not None
        assert before is not None
        if "durable" in said:
            return found.content == after.content
        outcomes = [after.entries, after.entries[:-1]] if "cut" in said else [before.entries, after.entries]
        return found.entries in [*outcomes, after.entries[:-1]] and found.hard_state == before.hard_state


class Mend(Operation):
    """Opening, when power was lost in the middle of the last append."""

    name = "mend"
    says = 1

    def prepare(self, root: Path) -> None:
        data = filled(root / "data")
        commit = data.log.last_index
        data.log.append(post(0), 4, TIME_MS)
        data.close(commit)
        path = data.log_path()
        at = path.read_bytes().index(b"mmmm", path.read_bytes().index(b"new"))
        with path.open("r+b") as file:
            file.seek(at)
            file.write(b"torn")

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        self.open_log(root, ids).close()
        say("opened")

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        return found is not None and found.content == after.content


class Index(Operation):
    name = "index"
    says = 3

    def prepare(self, root: Path) -> None:
        super().prepare(root)
        for path in (root / "data" / "log").glob("*.idx"):
            path.unlink()

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        log = root / "data" / "log"
        live, _ = segment_files.chain(
            [segment_files.read_header(str(log / name)) for name in os.listdir(log) if name.endswith(".log")]
        )
        for segment, after in pairwise(live):
            known = _log.Segment(
                segment.sequence,
                segment.base_index,
                segment.segment_id,
                str(log / segment.name),
                0,
                after.base_index - 1,
                segment.size_bytes,
            )
            _log.write_index(known)
            say(f"indexed {segment.sequence}")

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        assert before is not None
        return found is not None and found.content == before.content


class Snapshot(Operation):
    """The newest of three is written, and the oldest removed."""

    name = "snapshot"
    says = 2

    def prepare(self, root: Path) -> None:
        data = filled(root / "data")
        os.rename(data.seal(), root / "taken")
        data.post("a", 3)
        data.close()

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        content = (root / "taken").read_bytes()
        index, term = (int.from_bytes(content[at : at + 8], "little") for at in (32, 40))
        taken = snapshot.decode(content, snapshot.name(index, term))
        snapshots = str(root / "data" / "snapshots")
        snapshot.write(snapshots, taken)
        say("written")
        snapshot.prune(snapshots)
        say("pruned")

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        assert found is not None
        assert before is not None
        newest, known = max(found.snapshots), max(before.snapshots)
        return (
            (newest > known if "written" in said else newest >= known)
            and len(found.snapshots) >= 2
            and found.content == before.content
        )

    def complete(self, final: Found, found: Found | None, after: Found) -> bool:
        return (final.content, final.snapshots) == (after.content, after.snapshots)


class Compact(Operation):
    name = "compact"
    says = 4

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        log = self.open_log(root, ids)
        snapshots = snapshot.paths(str(root / "data" / "snapshots"))
        floors = ChatState.decode(snapshot.load(snapshots[0]).state).floors()
        if self.is_due(log.segments()):
            made = _log.compact(str(root / "data" / "log"), log.segments()[:2], floors, new_segment_id=ids.__next__)
            say("compacted")
            log.install(made)
            say("installed")
        _log.write_index(log.segments()[0])
        say("indexed")
        log.unlink(log.retired())
        say("unlinked")
        log.close()

    def is_due(self, segments: list[_log.Segment]) -> bool:
        return segments[0].revision == 0

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        assert found is not None
        assert before is not None
        return (
            found.segments in ([after.segments] if "installed" in said else [before.segments, after.segments])
            and (found.messages, found.state_hash) == (before.messages, before.state_hash)
            and found.hard_state == before.hard_state
            and ("unlinked" not in said or not found.retired)
        )

    def complete(self, final: Found, found: Found | None, after: Found) -> bool:
        return (final.content, final.segments, final.retired) == (after.content, after.segments, [])


class CompactAgain(Compact):
    """What was compacted before becomes one with what follows."""

    name = "compact again"

    def prepare(self, root: Path) -> None:
        data = filled(root / "data", gone=30)
        data.compact(0, 1)
        data.close()

    def is_due(self, segments: list[_log.Segment]) -> bool:
        return segments[0].revision == 1


class Drop(Operation):
    """The oldest segments hold nothing that lives."""

    name = "drop"
    says = 1

    def prepare(self, root: Path) -> None:
        filled(root / "data", gone=60).close()

    def perform(self, root: Path, say: Say, ids: Iterator[int]) -> None:
        log = self.open_log(root, ids)
        log.drop_prefix(60)
        log.unlink(log.retired())
        say("unlinked")
        log.close()

    def permitted(self, found: Found | None, before: Found | None, after: Found, said: Sequence[str]) -> bool:
        assert found is not None
        assert before is not None
        return (
            found.segments[-len(after.segments) :] == after.segments
            and ("unlinked" not in said or found.segments == after.segments)
            and (found.messages, found.state_hash) == (before.messages, before.state_hash)
            and found.hard_state == before.hard_state
        )

    def complete(self, final: Found, found: Found | None, after: Found) -> bool:
        return (final.content, final.segments) == (after.content, after.segments)


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


ALL: dict[str, Operation] = {
    kind.name: kind()
    for kind in (
        Append,
        Roll,
        Cut,
        Mend,
        Index,
        Snapshot,
        Compact,
        CompactAgain,
        Drop,
        Vote,
        Bootstrap,
        Receive,
        Restore,
        Backup,
    )
}

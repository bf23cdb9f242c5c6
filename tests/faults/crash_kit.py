"""What a durable operation is that can be cut off anywhere and done again (`crash_operations`).

`prepare` makes the directory that it begins with, `perform` does it, and `permitted` says what may be found afterwards.
What `perform` says is what it acknowledges: from then on nobody may find less. Knows nothing of how it is cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from raftchat import _log
from raftchat.storage.hard_state import HardStateFile, OsFile
from tests.faults.crash_found import Found
from tests.storage.data_dir import SEGMENT_SIZE_BYTES, DataDir

Say = Callable[[str], None]
TIME_MS = 1_800_000_000_000


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

"""A directory of files on a disk that loses power: what was not synced may be there, in any order, torn at any byte.

Follows "What is relied on" of docs/log-format.md and nothing more. Knows nothing of segments, records or hard state.
`SimDisk` and `SimFile` are the log's `Disk` and `File`; `SimSlotFile` is the hard state's.

A file has what programs see (`data`) and what is certain to survive (`durable`). A sync that takes time is begun with
`begin_flush`: only what was written by then becomes durable when it ends. Names behave alike: a create, rename or
unlink is certain once its directory was synced.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random


class PowerLoss(Exception):
    """Raised out of a disk operation: the machine stopped there."""


class SimFile:
    """An inode. It stays readable and syncable after it was unlinked."""

    __slots__ = ("_disk", "claimed", "data", "durable", "size_is_durable")

    def __init__(self, disk: SimDisk, size: int) -> None:
        self._disk = disk
        self.data = bytearray(size)
        self.durable = bytes(size)
        self.size_is_durable = False
        self.claimed: bytes | None = None
        """Contents when the flush under way was begun, if they were not durable."""

    @property
    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, size: int) -> bytes:
        return bytes(self.data[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        assert offset + len(data) <= len(self.data), "a file does not grow"
        self._disk.operation()
        self.data[offset : offset + len(data)] = data
        self._disk.dirty[self] = None

    def reserve(self) -> None:
        """Every block is there: nothing simulated runs out of space yet."""

    def sync(self) -> None:
        """fdatasync. Within `SimDisk.flushing` it vouches only for what was there when the flush was begun."""
        self._disk.operation()
        if not self._disk.in_flush:
            self.durable = bytes(self.data)
            self._disk.dirty.pop(self, None)
        elif self.claimed is not None:
            self.durable = self.claimed
        self.claimed = None
        self.size_is_durable = True

    def close(self) -> None:
        """What was written stays in the page cache."""


class SimDisk:
    """One node's disk. A path is a plain string; there is one directory for all that matters here."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._names: dict[str, SimFile] = {}
        self._durable_names: dict[str, SimFile] = {}
        self._pending: list[dict[str, SimFile | None]] = []
        """Each create, rename or unlink since the last sync of the directory: what names mean from then on."""
        self._files: list[SimFile] = []
        self.dirty: dict[SimFile, None] = {}
        """Written since their last sync, in order."""
        self.in_flush = False
        self.torn_files = 0
        """How often a power loss left a file with neither all nor nothing of what was not synced."""
        self.operations_left = -1
        """So many operations until power is lost in the middle of one; negative: not planned."""

    def operation(self) -> None:
        """Called before anything changes."""
        if self.operations_left >= 0:
            self.operations_left -= 1
            if self.operations_left < 0:
                raise PowerLoss

    # Names

    def make_directory(self, path: str) -> None:
        """Directories need not be made: no fault takes them away."""

    def list_directory(self, path: str) -> list[str]:
        prefix = path + "/"
        return sorted(name.removeprefix(prefix) for name in self._names if name.startswith(prefix))

    def create(self, path: str, size: int) -> SimFile:
        self.operation()
        file = SimFile(self, size)
        self._files.append(file)
        self._change({path: file})
        return file

    def open(self, path: str, writable: bool = True) -> SimFile:
        try:
            return self._names[path]
        except KeyError:
            raise FileNotFoundError(path) from None

    def exists(self, path: str) -> bool:
        return path in self._names

    def rename(self, old: str, new: str) -> None:
        self.operation()
        self._change({old: None, new: self.open(old)})

    def unlink(self, path: str) -> None:
        self.operation()
        self.open(path)
        self._change({path: None})

    def sync_directory(self, path: str) -> None:
        self.operation()
        self._durable_names = dict(self._names)
        self._pending.clear()

    def _change(self, names: dict[str, SimFile | None]) -> None:
        self._pending.append(names)
        _apply(self._names, names)

    # Time and crashes

    def begin_flush(self) -> None:
        """A sync starts in another thread: what is written later is not part of it."""
        for file in self.dirty:
            file.claimed = bytes(file.data)

    @contextmanager
    def flushing(self) -> Iterator[None]:
        """The flush that was begun ends: syncs in this block are its own."""
        self.in_flush = True
        try:
            yield
        finally:
            self.in_flush = False
            for file in list(self.dirty):
                file.claimed = None
                if file.durable == file.data:
                    del self.dirty[file]

    def kill(self) -> None:
        """The process died. The page cache lives on; a flush under way vouches for nothing."""
        self.operations_left = -1
        self.in_flush = False
        for file in self._files:
            file.claimed = None
        reachable = {id(file) for names in (self._names, self._durable_names) for file in names.values()}
        reachable |= {id(file) for names in self._pending for file in names.values()}
        self._files = [file for file in self._files if id(file) in reachable]

    def lose_power(self) -> None:
        """Of what was not synced, any part is lost. What remains is on the disk: no cache is left to lose later."""
        names = dict(self._durable_names)
        share = self._random.choice((0.0, 1.0, self._random.random()))
        for change in self._pending:
            if self._random.random() < share:
                _apply(names, change)
        self._names, self._durable_names, self._pending = names, dict(names), []
        for file in self._files:
            if not file.size_is_durable and self._random.random() < 0.5:
                del file.data[self._random.randrange(len(file.data)) :]
                file.durable = file.durable[: len(file.data)]
            if file.durable != file.data:
                self._tear(file)
                file.durable = bytes(file.data)
            file.size_is_durable = True
        self.dirty.clear()
        self.kill()

    def _tear(self, file: SimFile) -> None:
        random = self._random
        written, durable = bytes(file.data), file.durable
        claimed = written if file.claimed is None else file.claimed[: len(written)]
        low = next(i for i in range(len(written)) if written[i] != durable[i])
        high = next(i for i in range(len(written), 0, -1) if written[i - 1] != durable[i - 1])
        mode = random.random()
        if mode < 0.2:
            cuts, kept = [low], [durable]
        elif mode < 0.3:
            cuts, kept = [low], [written]
        elif mode < 0.65:  # A prefix came through, up to any byte.
            cuts, kept = [low, random.randrange(low, high + 1)], [written, durable]
        else:  # Any pieces did.
            cuts = [low, *sorted(random.randrange(low, high + 1) for _ in range(random.randint(1, 6)))]
            kept = [random.choice((durable, written, claimed)) for _ in cuts]
        for start, end, version in zip(cuts, [*cuts[1:], high], kept, strict=True):
            file.data[start:end] = version[start:end]
        self.torn_files += file.data not in (written, durable)


def _apply(names: dict[str, SimFile], change: dict[str, SimFile | None]) -> None:
    for path, file in change.items():
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file


class SimSlotFile:
    """A `storage.hard_state.SlotFile`. If it is missing, it comes into being whole, as `storage.files` does it."""

    def __init__(self, disk: SimDisk, path: str, initial: bytes) -> None:
        self.path = path
        if not disk.exists(path):
            file = disk.create(path + ".tmp", len(initial))
            file.write(0, initial)
            file.sync()
            disk.rename(path + ".tmp", path)
            disk.sync_directory(path)
        self._file = disk.open(path, writable=True)

    def read(self, size_bytes: int, offset: int) -> bytes:
        return self._file.read(offset, size_bytes)

    def write(self, data: bytes, offset: int) -> None:
        self._file.write(offset, data)

    def sync(self) -> None:
        self._file.sync()

"""Copies a node's directory while it runs, without asking it: immutable files by hard link, the few others by content.

The copy holds everything that was committed before it began, is as whole as the original, and takes no room but for the
active segment. On another file system every file is copied. Order does it (ARCHITECTURE.md, "Copies"): the hard state
first, as its commit hint must not be ahead of the log; snapshots before segments, as those name these; the identity
last, so that a copy that broke off is not taken for one. Does not know how anything is shown.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass

from raftchat._log import CorruptLog
from raftchat.storage import hard_state, identity, incoming, segment_files, segment_records
from raftchat.storage.errors import CorruptFile, StorageError
from raftchat.storage.files import make_directory_durably, sync_directory, write_durably
from raftchat.storage.segment_records import Records

OnProgress = Callable[[int, int], None]

LINK_REFUSED = (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP)
CHUNK_BYTES = 4 * 1024 * 1024
ATTEMPTS = 10
"""A file may be unlinked, or a segment be made, between listing and linking; then from the start."""


@dataclass(slots=True)
class Backup:
    """What was made."""

    linked: int = 0
    """Files that share their blocks with the original."""
    copied: int = 0
    copied_bytes: int = 0
    last_index: int = 0
    """Everything up to here that retention has not removed is in it."""


def backup(source: str, destination: str, on_progress: OnProgress = lambda done, total: None) -> Backup:
    """Durable on return. Raises StorageError, CorruptFile, LogError, OSError; then `destination` holds no identity.

    `on_progress(bytes done, bytes in all)`.
    """
    mine = identity.load(source)
    if mine is None:
        raise StorageError(f"{source} is not the data directory of a node: it has no identity file")
    if incoming.is_complete(source):
        raise StorageError(
            f"in {source} a snapshot is being put in place; start the node, and try again when it is ready"
        )
    if os.path.realpath(destination).startswith(os.path.realpath(source) + os.sep):
        raise StorageError(f"{destination} lies within {source}; choose a place outside of it")
    require_empty(destination)
    for attempt in range(ATTEMPTS):
        try:
            return _Copy(source, destination, on_progress).make(identity.encode(mine))
        except (FileNotFoundError, CorruptLog):
            _clear(destination)
            if attempt == ATTEMPTS - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def require_empty(directory: str) -> None:
    """Raises StorageError unless it is empty or not there, OSError."""
    if os.path.lexists(directory) and (not os.path.isdir(directory) or os.listdir(directory)):
        raise StorageError(f"{directory} is not empty; choose a new directory, or remove that one first")


def _clear(destination: str) -> None:
    for below in ("log", "snapshots", ""):
        directory = os.path.join(destination, below)
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            path = os.path.join(directory, name)
            if not os.path.isdir(path):
                os.unlink(path)


class _Copy:
    def __init__(self, source: str, destination: str, on_progress: OnProgress) -> None:
        self._source = source
        self._destination = destination
        self._on_progress = on_progress
        self._done = self._total = 0
        self._backup = Backup()

    def make(self, identity_bytes: bytes) -> Backup:
        for below in ("", "log", "snapshots"):
            make_directory_durably(os.path.join(self._destination, below))
        hint = self._hard_state()
        snapshots = self._list("snapshots", ".snapshot")
        logs = self._list("log", ".log", ".idx")
        segments = [name for name in logs if segment_files.is_segment(name)]
        headers = [segment_files.read_header(os.path.join(self._source, name)) for name in segments]
        live, _ = segment_files.chain(headers)
        active = f"log/{live[-1].name}" if live and not live[-1].revision else None
        indexed = {name.removesuffix(".log") + ".idx" for name in segments}
        names = [name for name in snapshots + logs if name != active and (name in indexed or not name.endswith(".idx"))]
        self._total = sum(os.stat(os.path.join(self._source, name)).st_size for name in names)
        for name in names:
            self._link(name)
        if live:
            self._backup.last_index = live[-1].last_index
        if active is not None:
            self._active(active, hint)
        for below in ("log", "snapshots"):
            sync_directory(os.path.join(self._destination, below))
        write_durably(os.path.join(self._destination, identity.FILE_NAME), identity_bytes)
        self._on_progress(self._total, self._total)
        return self._backup

    def _list(self, below: str, *endings: str) -> list[str]:
        directory = os.path.join(self._source, below)
        names = sorted(os.listdir(directory)) if os.path.isdir(directory) else []
        return [f"{below}/{name}" for name in names if name.endswith(endings)]

    def _hard_state(self) -> int:
        """Its commit hint: the log is durable up to there at least."""
        path = os.path.join(self._source, hard_state.FILE_NAME)
        for _ in range(ATTEMPTS):  # The node may just be writing one slot.
            with open(path, "rb") as file:
                data = file.read(hard_state.FILE_SIZE_BYTES)
            slots = hard_state.slots(data, path)
            if None not in slots:
                break
        if slots == [None, None]:
            raise CorruptFile(path, "neither copy of term and vote can be read")
        write_durably(os.path.join(self._destination, hard_state.FILE_NAME), data)
        self._backup.copied += 1
        self._backup.copied_bytes += len(data)
        return max(slot for slot in slots if slot is not None)[3]

    def _link(self, name: str) -> None:
        source, destination = os.path.join(self._source, name), os.path.join(self._destination, name)
        try:
            os.link(source, destination)
        except OSError as error:
            if error.errno not in LINK_REFUSED:
                raise
            self._copy(source, destination)
        else:
            self._backup.linked += 1
            self._tell(os.stat(destination).st_size)

    def _copy(self, source: str, destination: str) -> None:
        with open(source, "rb", buffering=0) as original, open(destination, "xb", buffering=0) as copy:
            os.fchmod(copy.fileno(), 0o600)
            while data := original.read(CHUNK_BYTES):
                view = memoryview(data)
                while view:
                    view = view[copy.write(view) :]
                self._backup.copied_bytes += len(data)
                self._tell(len(data))
            os.fsync(copy.fileno())
        self._backup.copied += 1

    def _active(self, name: str, durable_hint: int) -> None:
        """Whole records only: what is being written just now would look torn. The rest is a hole of zeros."""
        source, destination = os.path.join(self._source, name), os.path.join(self._destination, name)
        with Records(segment_files.read_header(source)) as records:
            fault, _ = segment_records.check_tail(records, durable_hint)
            if fault is not None:
                raise CorruptLog(source, fault.offset, f"entry {fault.index}: {fault.reason}")
            with open(destination, "xb", buffering=0) as copy:
                os.fchmod(copy.fileno(), 0o600)
                for data in records.contents():
                    view = memoryview(data)
                    while view:
                        view = view[copy.write(view) :]
                copy.truncate(records.file.size_bytes)
                os.fsync(copy.fileno())
            self._backup.copied_bytes += records.place.offset
            self._backup.last_index = records.place.index - 1
        self._backup.copied += 1

    def _tell(self, count: int) -> None:
        self._done += count
        self._on_progress(self._done, self._total)

"""Reads every byte of a data directory and tells what is wrong, where, and what to do about it. Changes nothing.

The directory may be a stopped node's, a running node's, or a copy. What a power loss, a running node or a copying one
may leave is noted and is no fault; but an index or a slot of the hard state that was torn looks rotten, and is named,
with the remedy. Does not know what entries mean, nor how anything is shown.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from raftchat._log import CorruptLog, LogError, NewerFormat
from raftchat._log import ForeignFile as LogForeignFile
from raftchat.storage import hard_state, identity, incoming, index_file, lock, segment_files, segment_records, snapshot
from raftchat.storage.errors import CorruptFile, ForeignFile, StorageError
from raftchat.storage.segment_files import INDEX_MAX, SegmentFile
from raftchat.storage.segment_records import Fault, Records

OnProgress = Callable[[int, int], None]

FROM_PEERS = "docs/operations.md tells what to do: the other members, or a backup, have what was there"
BY_ITSELF = "it is made again when the node starts"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one file."""

    path: str
    offset: int | None
    """Byte; None: the whole file."""
    reason: str
    remedy: str = ""

    def __str__(self) -> str:
        where = "" if self.offset is None else f", byte {self.offset}"
        return f"{self.path}{where}: {self.reason}" + (f" ({self.remedy})" if self.remedy else "")


@dataclass(slots=True)
class Report:
    """What reading a directory brought."""

    directory: str
    files: int = 0
    bytes: int = 0
    records: int = 0
    last_index: int = 0
    """Of the log; 0 if it is empty or could not be read to its end."""
    copied: bool = False
    """It is a copy made file by file: of what was written meanwhile it may hold some and lack some."""
    corrupt: list[Finding] = field(default_factory=list)
    """Bytes that are not what was written."""
    unreadable: list[Finding] = field(default_factory=list)
    """What could not be read or understood: permissions, a bad sector, a newer format."""
    notes: list[Finding] = field(default_factory=list)
    """What is as it may be, and worth knowing."""


def verify(directory: str, on_progress: OnProgress = lambda done, total: None) -> Report:
    """Read everything. Raises StorageError if the directory is no node's, OSError if it cannot be listed.

    `on_progress(bytes done, bytes in all)`.
    """
    return _Verifier(directory, on_progress).run()


class _Verifier:
    def __init__(self, directory: str, on_progress: OnProgress) -> None:
        self._directory = directory
        self._report = Report(directory)
        self._on_progress = on_progress
        self._total = 0
        self._segments: list[SegmentFile] = []
        self._log_place = "log"
        self._gap = INDEX_MAX
        """First entry that is missing in a copy."""

    def run(self) -> Report:
        if not {identity.FILE_NAME, hard_state.FILE_NAME, "log", "snapshots"}.intersection(os.listdir(self._directory)):
            raise StorageError(f"{self._directory} is not a data directory of raft-chat: it holds no node's files")
        files = _listing(self._directory)
        self._report.copied = lock.is_copy(self._directory)
        self._total = sum(files.values())
        self._identity()
        hint = self._hard_state()
        snapshots_place = "snapshots"
        if not self._report.copied:  # In a copy of a node that was just putting them in place, any part may be missing.
            self._log_place = incoming.place(self._directory, "log")
            snapshots_place = incoming.place(self._directory, "snapshots")
        places = (f"{self._log_place}/", f"{snapshots_place}/")
        log, snapshots = ([name for name in files if name.startswith(place)] for place in places)
        self._log(log, hint)
        self._snapshots(snapshots)
        for name in files:
            if name.endswith(".tmp"):
                self._note(name, None, "left over or being written; it is not part of the data")
            elif name.startswith(places):
                continue
            elif name.startswith("incoming/"):
                self._note(name, None, "being received from another node; not looked at")
            elif name.startswith(("log/", "log.", "snapshots/", "snapshots.")):
                self._note(name, None, "replaced by what was received from another node; not looked at")
        self._on_progress(self._total, self._total)
        return self._report

    # What was found

    def _path(self, name: str) -> str:
        return os.path.join(self._directory, name)

    def _note(self, name: str, offset: int | None, reason: str) -> None:
        self._report.notes.append(Finding(self._path(name), offset, reason))

    def _corrupt(self, name: str, offset: int | None, reason: str, remedy: str = FROM_PEERS) -> None:
        self._report.corrupt.append(Finding(self._path(name), offset, reason, remedy))

    @contextmanager
    def _noted(self, name: str, remedy: str = FROM_PEERS) -> Iterator[None]:
        """Errors of reading one file are findings. One that is gone by now was not needed any more."""
        path = self._path(name)
        try:
            yield
        except CorruptFile as error:
            self._report.corrupt.append(Finding(error.path, None, error.reason))
        except NewerFormat as error:
            self._report.unreadable.append(Finding(error.path, error.offset, error.reason, "start the newer version"))
        except LogForeignFile as error:
            # A stranger's file, by its name; or, by its magic, one of ours that is not what it was.
            found = self._report.unreadable if error.offset is None else self._report.corrupt
            found.append(
                Finding(error.path, error.offset, error.reason, "move it away" if error.offset is None else remedy)
            )
        except LogError as error:
            self._report.corrupt.append(Finding(error.path, error.offset, error.reason, remedy))
        except ForeignFile as error:
            self._report.corrupt.append(Finding(path, None, str(error).removeprefix(f"{path}: "), remedy))
        except StorageError as error:
            self._report.unreadable.append(Finding(path, None, str(error).removeprefix(f"{path}: ")))
        except FileNotFoundError:
            self._note(name, None, "was removed while everything was read")
        except OSError as error:
            self._report.unreadable.append(Finding(path, None, error.strerror or str(error)))

    def _count(self, count: int) -> None:
        self._report.bytes += count
        self._on_progress(min(self._report.bytes, self._total), self._total)

    def _read(self, name: str) -> bytes:
        with open(self._path(name), "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            data = file.read()
        self._report.files += 1
        self._count(len(data))
        return data

    # The parts

    def _identity(self) -> None:
        path = self._path(identity.FILE_NAME)
        with self._noted(identity.FILE_NAME):
            if not os.path.lexists(path):
                raise CorruptFile(path, "the file is missing; put it back from a backup of this node")
            identity.decode(self._read(identity.FILE_NAME), path)

    def _hard_state(self) -> int:
        """The commit hint, 0 if there is none to believe."""
        name = hard_state.FILE_NAME
        path = self._path(name)
        with self._noted(name):
            if not os.path.lexists(path):
                raise CorruptFile(path, f"the file is missing, {hard_state.ADVICE}")
            for _ in range(2):  # A running node may just be writing one slot.
                data = self._read(name)
                slots = hard_state.slots(data, path)
                if None not in slots:
                    break
            whole = [slot for slot in slots if slot is not None]
            if not whole:
                raise CorruptFile(path, f"neither copy of term and vote can be read, {hard_state.ADVICE}")
            if len(whole) < 2:
                offset = slots.index(None) * hard_state.SLOT_STRIDE_BYTES
                self._corrupt(name, offset, "one of the two copies of term and vote cannot be read", BY_ITSELF)
            elif whole[0][0] == whole[1][0] and whole[0] != whole[1]:
                raise CorruptFile(path, f"the two copies of term and vote contradict each other, {hard_state.ADVICE}")
            return max(whole)[3]
        return 0

    def _log(self, names: list[str], hint: int) -> None:
        files = self._segments
        for name in names:
            if segment_files.is_segment(name):
                with self._noted(name):
                    files.append(segment_files.read_header(self._path(name)))
        live: list[SegmentFile] = []
        with self._noted("log"):
            try:
                live, _ = segment_files.chain(files)
            except CorruptLog as error:
                if not self._report.copied:
                    raise
                self._note(
                    f"{self._log_place}/{os.path.basename(error.path)}", None, f"{error.reason}: it was not copied"
                )
        if hint and not names and not self._report.copied:
            self._corrupt("log", None, f"entry {hint} was committed here, but there is no log")
        for file in files:
            with self._noted(f"{self._log_place}/{file.name}"):
                self._segment(file, live, hint)
        for name in names:
            if name.endswith(".idx"):
                self._index(name, {file.name: file for file in files})

    def _segment(self, file: SegmentFile, live: list[SegmentFile], hint: int) -> None:
        name = f"{self._log_place}/{file.name}"
        self._report.files += 1
        with Records(file, on_bytes=self._count) as records:
            faults: list[Fault]
            if file.revision:
                records.forget_cache()
                faults = segment_records.check_sealed(records, file.last_index)
            elif self._report.copied:
                faults = self._copied(records, live)
            elif file in live[:-1]:
                records.forget_cache()
                faults = segment_records.check_sealed(records, live[live.index(file) + 1].base_index - 1)
            else:
                active = live and file is live[-1]
                fault, dropped = segment_records.check_tail(records, hint if active else 0)
                faults = [fault] if fault else []
                if active and not fault:
                    self._report.last_index = records.place.index - 1
                if active and dropped and not fault:
                    reason = f"{dropped} bytes that never became durable; they do not count"
                    self._note(name, records.place.offset, reason)
            self._report.records += records.place.records
            records.finish()
        for found in faults:
            self._corrupt(name, found.offset, f"entry {found.index}: {found.reason}")

    def _copied(self, records: Records, live: list[SegmentFile]) -> list[Fault]:
        """A segment that may have been written while it was copied."""
        at = live.index(records.file) if records.file in live else -1
        last_index = live[at + 1].base_index - 1 if 0 <= at < len(live) - 1 else INDEX_MAX
        faults, gap = segment_records.check_copied(records, last_index)
        if gap is not None:
            last = 0 <= at == len(live) - 1 and not records.used_bytes()
            if last and gap.index < self._gap:
                self._report.last_index = gap.index - 1
            elif at >= 0 and not last:
                self._gap = min(self._gap, gap.index)
                self._report.last_index = self._gap - 1
                reason = f"copied while it was written: entry {gap.index} and what follows is not in this copy"
                self._note(f"{self._log_place}/{records.file.name}", gap.offset, reason)
        return faults

    def _index(self, name: str, files: dict[str, SegmentFile]) -> None:
        segment = files.get(os.path.basename(name).removesuffix(".idx") + ".log")
        with self._noted(name, BY_ITSELF):
            data = self._read(name)
            if segment is None:
                self._note(name, None, "an index without its segment")
            else:
                try:
                    index_file.check(data, self._path(name), segment.segment_id)
                except CorruptFile as error:
                    self._corrupt(name, None, error.reason, BY_ITSELF)

    def _snapshots(self, names: list[str]) -> None:
        loaded = []
        for name in names:
            if name.endswith(".snapshot"):
                with self._noted(name):
                    loaded.append(snapshot.decode(self._read(name), self._path(name)))
        if loaded and not self._report.copied:
            self._stands_on(max(loaded, key=lambda state: state.index))

    def _stands_on(self, newest: snapshot.Snapshot) -> None:
        """What it names may have been replaced since, or dropped when nothing lived in it any more."""
        for named in newest.segments:
            if not any(
                file.sequence == named.sequence
                or (file.base_index <= named.base_index and named.last_index <= file.last_index)
                for file in self._segments
            ):
                name = snapshot.name(newest.index, newest.term)
                reason = (
                    f"it names segment {named.sequence}, entries {named.base_index} to {named.last_index}, which is "
                    "not there: retention left nothing in it, or it is lost"
                )
                self._note(f"snapshots/{name}", None, reason)


def _listing(directory: str) -> dict[str, int]:
    """Files below a directory: relative name → size in bytes. Raises OSError."""
    found = {}
    pending = [""]
    while pending:
        below = pending.pop()
        with os.scandir(os.path.join(directory, below)) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                name = os.path.join(below, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name)
                else:
                    found[name] = entry.stat(follow_symlinks=False).st_size
    return found

"""Segments of a reference log: which are live, made, replaced, unlinked ("The directory" of docs/log-format.md).

Knows files and how they follow each other. Does not know what is appended, nor how far the log reaches.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

from raftchat.log_compact import Compacted, require_id
from raftchat.log_disk import Disk, File
from raftchat.log_header import (
    SEGMENT_HEADER_BYTES,
    CorruptLog,
    LogError,
    SegmentHeader,
    SegmentName,
    index_path,
    parse_segment_name,
    segment_path,
)
from raftchat.log_records import INDEX_MAX, BadBatch
from raftchat.log_segment import SegmentFile


class Spare(NamedTuple):
    path: str
    file: File


class Directory:
    """`live` segments in order, the last of which is active. `failure`: nothing may be written any more.

    `retired`: those that compacted ones stand for, or that were dropped, with the last entry that counted there.
    """

    def __init__(self, path: str, disk: Disk, new_segment_id: Callable[[], int], segment_size_bytes: int) -> None:
        self.path = path
        self.segment_size_bytes = segment_size_bytes
        self.live: list[SegmentFile] = []
        self.retired: list[tuple[SegmentFile, int]] = []
        self.failure: OSError | None = None
        self.syncing = threading.RLock()
        self._dead: list[SegmentFile] = []
        self._sequence = 0
        self._preparing = threading.Lock()
        self._prepared: Spare | None = None
        self._prepared_count = 0
        self._disk = disk
        self._new_segment_id = new_segment_id

    @property
    def active(self) -> SegmentFile:
        return self.live[-1]

    @property
    def first(self) -> SegmentFile:
        """The first behind all compacted ones: there the log without gaps begins."""
        at = len(self.live) - 1
        while at > 0 and not self.live[at - 1].header.revision:
            at -= 1
        return self.live[at]

    def open(self) -> bool:
        """Steps 1 and 2 of "Opening": whether there is a log. Raises OSError, CorruptLog, ForeignFile, NewerFormat."""
        self._disk.make_directory(self.path)
        names = set(self._disk.list_directory(self.path))
        for name in sorted(names):
            if name.endswith(".tmp"):
                self._unlink(f"{self.path}/{name}")
            elif name.endswith(".idx") and name.removesuffix(".idx") + ".log" not in names:
                self._disk.unlink(f"{self.path}/{name}")
        found = sorted((parse_segment_name(self.path, name) for name in names if name.endswith(".log")), key=_order)
        files = [
            SegmentFile.open(self._disk, self.path, *key[:2], key is found[-1] and not key.revision, key.revision)
            for key in found
        ]
        # A rename of a process that died may so far be in memory only.
        self._disk.sync_directory(self.path)
        if files:
            self.live, self.retired, self._dead = _chain(files)
            self._sequence = self.active.header.sequence
        return bool(files)

    def ranges(self, last_index: int) -> Iterator[tuple[SegmentFile, int]]:
        """Each live segment and the last entry that counts in it, for a log that reaches to `last_index`."""
        for at, segment in enumerate(self.live):
            yield segment, self.live[at + 1].base_index - 1 if at + 1 < len(self.live) else last_index

    def holder(self, index: int, last_index: int) -> tuple[SegmentFile, int]:
        """The segment of an entry, and the last that counts in it, of a log that reaches to `last_index`."""
        for segment in reversed(self.live):
            if segment.base_index <= index:
                return segment, last_index
            last_index = segment.base_index - 1
        raise AssertionError(f"entry {index} is below the first")

    def verify(self, last_index: int, on_progress: Callable[[int, int], None] | None) -> tuple[int, list[LogError]]:
        """Records found good, and each fault. `on_progress(bytes done, bytes in all)`."""
        good, done, faults = 0, 0, list[LogError]()
        total = sum(segment.header.size_bytes for segment in self.live)
        for segment, last in self.ranges(last_index):
            found, bad = segment.verify(last)
            good += found
            faults += bad
            done += segment.header.size_bytes
            if on_progress is not None:
                on_progress(done, total)
        return good, faults

    def place(self, sizes: list[int], last_index: int) -> list[int]:
        """How many of these records go into the active segment, and into each new one after it.

        Records that fit into one segment are not divided, so that a single roll comes before all of them. Only what
        is larger than a segment is cut, and then every file is set aside beforehand.
        """
        room = self.active.header.size_bytes - self.active.end
        capacity = self.segment_size_bytes - SEGMENT_HEADER_BYTES
        if sum(sizes) <= room:
            return [len(sizes)]
        # An empty segment is as good as a new one.
        rooms, left = [0], room if last_index < self.active.base_index else 0
        for size in sizes:
            if size > capacity:
                raise BadBatch(f"a record of {size} bytes does not fit into a segment")
            if size > left:
                rooms.append(0)
                left = capacity
            rooms[-1] += 1
            left -= size
        return rooms

    # Making

    def spares(self, count: int) -> list[Spare]:
        """All the files that are needed, or none: what a full disk may still refuse is refused here."""
        spares: list[Spare] = []
        if count and self._prepared is not None:
            spares.append(self._prepared)
            self._prepared = None
        try:
            for number in range(len(spares), count):
                path = f"{self.path}/spare{f'-{number}' if number else ''}.tmp"
                spares.append(Spare(path, self._disk.create(path, self.segment_size_bytes)))
        except OSError:
            self.discard(spares, 0)
            raise
        return spares

    def discard(self, spares: list[Spare], first: int) -> None:
        """Remove spares that are not needed, from that number on."""
        for spare in spares[first:]:
            spare.file.close()
            with contextlib.suppress(OSError):
                self._unlink(spare.path)

    def prepare(self) -> None:
        """Make the spare that will be needed next, durably, unless it is there."""
        if not self._preparing.acquire(blocking=False):
            return
        try:
            if self._prepared is None and self.failure is None:
                self._prepared_count += 1
                # A name of its own: the one before may be about to be renamed.
                path = f"{self.path}/prepared-{self._prepared_count}.tmp"
                spare = Spare(path, self._disk.create(path, self.segment_size_bytes))
                try:
                    spare.file.sync()
                except OSError:
                    self.discard([spare], 0)
                    raise
                self._prepared = spare
        finally:
            self._preparing.release()

    def reserve_active(self) -> None:
        """Before something is written to a segment that was found, not made. Raises OSError."""
        if not self.active.reserved:
            self.active.file.reserve()
            self.active.reserved = True

    def continue_after(
        self,
        last_index: int,
        last_term: int,
        last_time_ms: int,
        spares: list[Spare],
        number: int = 0,
        keep: bool = True,
    ) -> None:
        """Turn a spare into the active segment, which goes on after `last_index`.

        What it overrides is dead then, and all that was, unless `keep`. On OSError or ValueError before the rename,
        nothing changed and the spares from that one on are gone.
        """
        live = [segment for segment in self.live if keep and segment.base_index <= last_index]
        segment_id, sequence = self._new_segment_id(), self._sequence + 1
        prev_sequence = live[-1].header.sequence if live else 0
        header = SegmentHeader(
            segment_id, sequence, prev_sequence, last_index + 1, last_term, last_time_ms, self.segment_size_bytes
        )
        path, spare = segment_path(self.path, sequence, header.base_index), spares[number]
        try:
            require_id(segment_id)
            spare.file.write(0, header.pack())
            spare.file.sync()
            if self.live and not self.active.header.revision:
                with self.no_return():
                    self.active.file.sync()
            self._disk.rename(spare.path, path)
        except (OSError, ValueError):
            self.discard(spares, number)
            raise
        with self.no_return():
            self._disk.sync_directory(self.path)
        self._dead += self.live[len(live) :]
        if not keep:
            self._dead += [segment for segment, _ in self.retired]
            self.retired = []
        self._sequence = sequence
        self.live = [*live, SegmentFile(path, header, spare.file, reserved=True)]

    @contextlib.contextmanager
    def no_return(self) -> Iterator[None]:
        """What fails in here leaves it open what is on disk: the log refuses to be written to from then on.

        One at a time: the kernel tells of a failed write once for each open file. Of two syncs of a file, in two
        threads, the second would succeed, and a segment with a hole would be sealed.
        """
        with self.syncing:
            if self.failure is not None:
                raise OSError(self.failure.errno, "the log cannot go on after a failed sync") from self.failure
            try:
                yield
            except OSError as error:
                self.failure = error
                raise

    # Replacing

    def install(self, compacted: Compacted) -> list[tuple[SegmentFile, int]]:
        """Put a compacted segment in place of the live ones it was made of, which are retired."""
        name = SegmentName(compacted.sequence, compacted.base_index, compacted.revision)
        path = segment_path(self.path, *name)
        try:
            first, after = self._replaced_by(compacted)
            segment = SegmentFile.open_path(self._disk, compacted.path)
            header = segment.header
            its = (header.name, header.last_index, header.segment_id, header.prev_sequence)
            if its != (name, compacted.last_index, compacted.segment_id, self.live[first].header.prev_sequence):
                raise ValueError(f"{compacted.path} is not what was compacted")
            self._disk.rename(compacted.path, path)
        except (OSError, ValueError):
            with contextlib.suppress(OSError):
                self._unlink(compacted.path)
            raise
        with self.no_return():
            self._disk.sync_directory(self.path)
        segment.path = path
        replaced = [(self.live[at], self.live[at + 1].base_index - 1) for at in range(first, after)]
        self.retired = [*self.retired, *replaced]
        self.live = [*self.live[:first], segment, *self.live[after:]]
        return replaced

    def _replaced_by(self, compacted: Compacted) -> tuple[int, int]:
        """Where in `live` those begin and end that a compacted segment was made of. Raises ValueError."""
        firsts = [at for at, known in enumerate(self.live) if known.base_index == compacted.base_index]
        lasts = [at for at, known in enumerate(self.live[:-1]) if known.header.sequence == compacted.sequence]
        if firsts and lasts and firsts[0] <= lasts[0]:
            first, after = firsts[0], lasts[0] + 1
            revision = max(known.header.revision for known in self.live[first:after])
            if (revision + 1, self.live[after].base_index - 1) == (compacted.revision, compacted.last_index):
                return first, after
        raise ValueError(f"what {compacted.path} was made of is not live")

    # Removing

    def _unlink(self, path: str) -> None:
        """Remove a file, and first the index of it."""
        if path.endswith(".log"):
            with contextlib.suppress(FileNotFoundError):
                self._disk.unlink(index_path(path))
        self._disk.unlink(path)
        self._disk.sync_directory(self.path)

    def unlink_dead(self) -> None:
        while self._dead:
            self._unlink(self._dead.pop().path)

    def drop_prefix(self, first_index: int) -> list[tuple[SegmentFile, int]]:
        """Retire sealed segments that hold nothing from `first_index` on."""
        dropped = []
        while len(self.live) > 1 and self.live[1].base_index <= first_index:
            dropped.append((self.live[0], self.live[1].base_index - 1))
            self.live = self.live[1:]
        self.retired = [*self.retired, *dropped]
        return dropped

    def unlink_retired(self, paths: Collection[str]) -> None:
        """Remove retired files, the oldest first. Raises ValueError if one is not, or would revive an older one."""
        going = sorted(
            (pair for pair in self.retired if pair[0].path in paths), key=lambda pair: _order(pair[0].header.name)
        )
        if len(going) != len(set(paths)):
            raise ValueError("not all of these files are retired")
        staying = [segment for segment, _ in self.retired if segment.path not in paths]
        others = [*self.live, *(segment for segment, _ in self.retired)]
        for known, _ in going:
            # Older files that nothing else stands for would be live again, or cut off from what is, at the next open.
            if not any(_replaces(other, known) for other in others) and any(
                _order(other.header.name) < _order(known.header.name) for other in staying
            ):
                raise ValueError(f"older files than {known.path} must be unlinked before it")
        for pair in going:
            try:
                self._unlink(pair[0].path)
            except FileNotFoundError:  # Somebody else removed it.
                self._disk.sync_directory(self.path)
            self.retired = [other for other in self.retired if other is not pair]


def _order(name: SegmentName) -> tuple[int, int, int]:
    return name.sequence, name.revision, name.base_index


def _replaces(one: SegmentFile, other: SegmentFile) -> bool:
    """Whether `one` is a compacted segment that stands for what `other` held."""
    return (
        one.header.revision > 0
        and _order(one.header.name)[:2] > _order(other.header.name)[:2]
        and one.base_index <= other.base_index <= one.header.last_index
    )


def _live_chain(files: list[SegmentFile]) -> list[SegmentFile]:
    """The live ones of all segments: they are found by `prev_sequence` from the last. Raises CorruptLog."""
    by_sequence: dict[int, SegmentFile] = {}
    for segment in files:
        known = by_sequence.get(segment.header.sequence)
        if known and (known.header.revision == segment.header.revision or segment.base_index > known.base_index):
            raise CorruptLog(segment.path, None, "another segment has the same sequence")
        by_sequence[segment.header.sequence] = segment
    live = [files[-1]]
    while (previous := by_sequence.get(live[-1].header.prev_sequence)) is not None:
        if previous.base_index >= live[-1].base_index:
            raise CorruptLog(live[-1].path, 0, "its base index is not above that of the segment before it")
        if previous.header.revision and previous.header.last_index + 1 != live[-1].base_index:
            raise CorruptLog(live[-1].path, 0, "it does not begin where the compacted segment before it ends")
        live.append(previous)
    live.reverse()
    return live


def _chain(
    files: list[SegmentFile],
) -> tuple[list[SegmentFile], list[tuple[SegmentFile, int]], list[SegmentFile]]:
    """(live, retired, dead) of all segments in their order; retired ones with the last entry that counted there.

    Raises CorruptLog for two of one sequence and revision, and for a segment that is neither live nor overridden.
    """
    live = _live_chain(files)
    counts = {segment.header.name for segment in live}
    compacted = [segment for segment in live if segment.header.revision]
    oldest, starts_here = live[0].header.sequence, live[0].header.prev_sequence == 0
    retired, dead, override, bounds = list[tuple[SegmentFile, int]](), [], INDEX_MAX, list[SegmentFile]()
    for segment in reversed(files):
        if segment.header.name in counts:
            override = segment.base_index
            bounds.append(segment)
            continue
        standing = [known for known in compacted if _replaces(known, segment)]
        if standing:
            later = [known.base_index - 1 for known in bounds if known.base_index > segment.base_index]
            retired.append((segment, min([standing[0].header.last_index, *later])))
            bounds.append(segment)
        elif (starts_here and segment.header.sequence < oldest) or segment.base_index >= override:
            dead.append(segment)
        else:
            raise CorruptLog(segment.path, None, "a segment is missing between this one and the next")
    retired.reverse()
    return live, retired, dead

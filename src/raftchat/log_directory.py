"""Segments of a reference log: which are live, made and unlinked in what order (docs/log-format.md, "The directory").

Knows files and how they follow each other. Does not know what is appended, nor how far the log reaches.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from raftchat.log_disk import Disk, File
from raftchat.log_records import INDEX_MAX
from raftchat.log_segment import CorruptLog, LogError, SegmentFile, SegmentHeader, parse_segment_name, segment_path


class Directory:
    """`live` segments in order, the last of which is active. `failure`: nothing may be written any more."""

    def __init__(self, path: str, disk: Disk, new_segment_id: Callable[[], int], segment_size_bytes: int) -> None:
        self.path = path
        self.segment_size_bytes = segment_size_bytes
        self.live: list[SegmentFile] = []
        self.failure: OSError | None = None
        self.syncing = threading.RLock()
        self._dead: list[SegmentFile] = []
        self._sequence = 0
        self._disk = disk
        self._new_segment_id = new_segment_id

    @property
    def active(self) -> SegmentFile:
        return self.live[-1]

    def open(self) -> bool:
        """Steps 1 and 2 of "Opening": whether there is a log. Raises OSError, CorruptLog, ForeignFile, NewerFormat."""
        self._disk.make_directory(self.path)
        names = self._disk.list_directory(self.path)
        for name in names:
            if name.endswith(".tmp"):
                self._unlink(f"{self.path}/{name}")
        found = sorted(parse_segment_name(self.path, name) for name in names if name.endswith(".log"))
        files = [SegmentFile.open(self._disk, self.path, *key, writable=key == found[-1]) for key in found]
        # A rename of a process that died may so far be in memory only.
        self._disk.sync_directory(self.path)
        if files:
            self.live, self._dead = _chain(files)
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

    # Making

    def _spare_path(self, number: int) -> str:
        return f"{self.path}/spare{f'-{number}' if number else ''}.tmp"

    def spares(self, count: int) -> list[File]:
        """All the files that are needed, or none: what a full disk may still refuse is refused here."""
        spares: list[File] = []
        try:
            for number in range(count):
                spares.append(self._disk.create(self._spare_path(number), self.segment_size_bytes))
        except OSError:
            self.discard(spares, 0)
            raise
        return spares

    def discard(self, spares: list[File], first: int) -> None:
        """Remove spares that are not needed, from that number on."""
        for number, spare in enumerate(spares[first:], first):
            spare.close()
            with contextlib.suppress(OSError):
                self._unlink(self._spare_path(number))

    def reserve_active(self) -> None:
        """Before something is written to a segment that was found, not made. Raises OSError."""
        if not self.active.reserved:
            self.active.file.reserve()
            self.active.reserved = True

    def continue_after(
        self, last_index: int, last_term: int, last_time_ms: int, spares: list[File], number: int = 0, keep: bool = True
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
            if not 0 < segment_id < 2**64:
                raise ValueError(f"segment id is {segment_id}, must be 1 to 2**64 - 1")
            spare.write(0, header.pack())
            spare.sync()
            if self.live:
                with self.no_return():
                    self.active.file.sync()
            self._disk.rename(self._spare_path(number), path)
        except (OSError, ValueError):
            self.discard(spares, number)
            raise
        with self.no_return():
            self._disk.sync_directory(self.path)
        self._dead += self.live[len(live) :]
        self._sequence = sequence
        self.live = [*live, SegmentFile(path, header, spare, reserved=True)]

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

    # Removing

    def _unlink(self, path: str) -> None:
        self._disk.unlink(path)
        self._disk.sync_directory(self.path)

    def unlink_dead(self) -> None:
        while self._dead:
            self._unlink(self._dead.pop().path)

    def drop_prefix(self, first_index: int) -> None:
        """Unlink sealed segments that hold nothing from `first_index` on, the oldest first."""
        while len(self.live) > 1 and self.live[1].base_index <= first_index:
            self._unlink(self.live[0].path)
            del self.live[0]


def _chain(files: list[SegmentFile]) -> tuple[list[SegmentFile], list[SegmentFile]]:
    """(live, dead) of all segments in order of sequence: the live ones are found by `prev_sequence` from the last.

    Raises CorruptLog for two of one sequence, and for a segment that is neither live nor overridden.
    """
    by_sequence: dict[int, SegmentFile] = {}
    for segment in files:
        if by_sequence.setdefault(segment.header.sequence, segment) is not segment:
            raise CorruptLog(segment.path, None, "another segment has the same sequence")
    live = [files[-1]]
    while (previous := by_sequence.get(live[-1].header.prev_sequence)) is not None:
        if previous.base_index >= live[-1].base_index:
            raise CorruptLog(live[-1].path, 0, "its base index is not above that of the segment before it")
        live.append(previous)
    live.reverse()
    oldest, starts_here = live[0].header.sequence, live[0].header.prev_sequence == 0
    dead, override = [], INDEX_MAX
    for segment in reversed(files):
        if segment in live:
            override = segment.base_index
        elif (starts_here and segment.header.sequence < oldest) or segment.base_index >= override:
            dead.append(segment)
        else:
            raise CorruptLog(segment.path, None, "a segment is missing between this one and the next")
    return live, dead

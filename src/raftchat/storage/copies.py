"""What a copy of a data directory holds, however it was made: the newest state that is borne out, and the log after it.

The files may have been copied one by one, in any order, from a running node (ARCHITECTURE.md, "Copies"): some were
replaced meanwhile, the last ones may end anywhere. Knows files and how segments follow each other; not what a state is.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace

from raftchat._log import LogError, Segment
from raftchat._log_check import Place
from raftchat.storage import hard_state, identity, incoming, lock, segment_files, snapshot
from raftchat.storage.errors import CorruptFile, StorageError
from raftchat.storage.identity import Identity
from raftchat.storage.segment_files import SegmentFile
from raftchat.storage.segment_records import Fault, Records
from raftchat.storage.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that was durable before, and that a story does not reach."""

    path: str
    """The file that shows it."""
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Story:
    """One way to read a copy: a state, the segments that it stands on, and those that go on from there."""

    snapshot: Snapshot | None
    """None: from the first entry of the log."""
    base: list[Segment]
    """What the snapshot covers, oldest first; each with the last entry that counts."""
    tail: list[Segment]
    """What follows, up to the first gap, every record of it checked. The first may begin within what is covered."""
    last_index: int
    """Where it ends; 0: there are no entries."""
    last_term: int
    last_time_ms: int
    ends_because: str
    """For the user: what was found where it ends."""
    lost: list[Loss]
    """What shows that the directory held more than this."""


@dataclass(slots=True)
class _End:
    """Where a story ends, as far as it was followed."""

    sequence: int
    place: Place
    file: SegmentFile | None = None
    """The last one that was read."""
    fault: Fault | None = None
    """What stopped that, if there are any bytes."""
    following: SegmentFile | None = None
    """Goes on behind it, but not where it ends."""


class Copy:
    """The files of a copy. Nothing is changed."""

    def __init__(self, directory: str) -> None:
        """Raises StorageError if it is no copy of a node's directory, CorruptFile, OSError."""
        self.directory = directory
        self._copied = lock.is_copy(directory)
        # What came from another node may just be being put in place; in a copy, any part of that may be missing.
        places = [name if self._copied else incoming.place(directory, name) for name in ("log", "snapshots")]
        self.log_directory, self._snapshots_directory = (os.path.join(directory, place) for place in places)
        found = identity.load(directory)
        if found is None:
            raise StorageError(
                f"{directory} has no identity file: it is not a copy of a node's data directory, or not a whole one"
            )
        self.identity: Identity = found
        self.faults: list[str] = []
        """Files that could not be used, and why."""
        self._bad_segments: list[tuple[int, Loss]] = []
        """With their sequence."""
        self._bad_snapshots: list[tuple[int, Loss]] = []
        """With their index."""
        self._hint = 0 if self._copied else self._commit_hint()
        self._snapshots = dict(self._loaded_snapshots())
        """By path, the newest first, without their states: there may be many of them."""
        self._files = list(self._segment_files())
        self._by_base: dict[int, list[SegmentFile]] = defaultdict(list)
        self._plain_by_prev: dict[int, list[SegmentFile]] = defaultdict(list)
        """Those that go on behind a sequence, in the order in which they were made."""
        self._next_base: dict[int, int] = {}
        """Sequence → the lowest entry at which another one goes on."""
        for file in sorted(self._files, key=lambda file: file.sequence):
            self._by_base[file.base_index].append(file)
            self._next_base[file.prev_sequence] = min(
                file.base_index, self._next_base.get(file.prev_sequence, file.base_index)
            )
            if not file.revision:
                self._plain_by_prev[file.prev_sequence].append(file)
        self._sealed_at: dict[tuple[int, int, int], list[int]] = defaultdict(list)
        """Where each snapshot saw the end of a file, the newest snapshot first. What one took for the end need not be
        it: a node that installed a snapshot may have gone on in the last segment of it."""
        for state in self._snapshots.values():
            for name in state.segments:
                self._sealed_at[name.sequence, name.revision, name.segment_id].append(name.last_index)

    def _commit_hint(self) -> int:
        path = os.path.join(self.directory, hard_state.FILE_NAME)
        try:
            with open(path, "rb") as file:
                slots = hard_state.slots(file.read(hard_state.FILE_SIZE_BYTES), path)
        except (StorageError, OSError) as error:
            self.faults.append(str(error))
            return 0
        return max((slot[3] for slot in slots if slot is not None), default=0)

    def _segment_files(self) -> Iterator[SegmentFile]:
        names = os.listdir(self.log_directory) if os.path.isdir(self.log_directory) else []
        for name in sorted(filter(segment_files.is_segment, names)):
            path = os.path.join(self.log_directory, name)
            try:
                yield segment_files.read_header(path)
            except (LogError, OSError) as error:
                self.faults.append(str(error))
                if (sequence := segment_files.sequence_of(name)) is not None:
                    self._bad_segments.append((sequence, Loss(path, str(error).removeprefix(f"{path}: "))))

    def _loaded_snapshots(self) -> Iterator[tuple[str, Snapshot]]:
        for path in snapshot.paths(self._snapshots_directory):
            try:
                yield path, replace(snapshot.load(path), state=b"")
            except (StorageError, OSError) as error:
                self.faults.append(str(error))
                reason = error.reason if isinstance(error, CorruptFile) else str(error).removeprefix(f"{path}: ")
                self._bad_snapshots.append((snapshot.index_of(path), Loss(path, reason)))

    def stories(self) -> Iterator[Story]:
        """Every way in which the copy can be read, the one that reaches furthest first. Raises OSError."""
        for path, state in self._snapshots.items():
            yield self._story(snapshot.load(path), self._cover(state))
        begin = self._plain_by_prev.get(0, [])
        if (begin and begin[-1].base_index == 1) or not (self._files or self._snapshots or self.faults):
            yield self._story(None, [])

    def _cover(self, state: Snapshot) -> list[tuple[SegmentFile, int]]:
        """Files that hold, without a gap, what a snapshot stands on, each with its last entry.

        Those that it names, if they are there. Else what they were made of, which holds more than is needed; else what
        was made of them since, which holds enough as long as the snapshot is one of the two newest. The oldest may have
        been dropped, as nothing lives in them; whoever reads the rest can count whether that is so.
        """
        named = {(name.sequence, name.revision, name.segment_id): name.last_index for name in state.segments}
        step: dict[int, tuple[SegmentFile, int]] = {}
        """Entry → the file to take from there on, for all from which there is a way to the end."""

        def rank(file: SegmentFile) -> tuple[bool, int]:
            return (file.sequence, file.revision, file.segment_id) not in named, file.revision

        for base_index in sorted((base for base in self._by_base if base <= state.index), reverse=True):
            for file in sorted(self._by_base[base_index], key=rank):
                end = next(
                    (
                        end
                        for end in self._ends(file, named)
                        if base_index <= end and (end == state.index or end + 1 in step)
                    ),
                    None,
                )
                if end is not None:
                    step[base_index] = file, end
                    break
        index = next((name.base_index for name in state.segments if name.base_index in step), state.index + 1)
        cover: list[tuple[SegmentFile, int]] = []
        while index <= state.index:
            cover.append(step[index])
            index = cover[-1][1] + 1
        return cover

    def _ends(self, file: SegmentFile, named: dict[tuple[int, int, int], int]) -> list[int]:
        """What may be the last entry that counts in a segment, the likeliest first."""
        if file.revision:
            return [file.last_index]
        key = (file.sequence, file.revision, file.segment_id)
        own = [named[key]] if key in named else []
        following = [self._next_base[file.sequence] - 1] if file.sequence in self._next_base else []
        return [*own, *self._sealed_at.get(key, []), *following]

    def _following(self, sequence: int, index: int) -> SegmentFile | None:
        """The segment that goes on behind that one, which ends before an entry."""
        if not sequence and index > 1:
            candidates = [file for file in self._by_base.get(index, []) if not file.revision]
        else:
            candidates = self._plain_by_prev.get(sequence, [])
        # Of several that go on from one segment the last was made when the tail that the others hold was cut off.
        return candidates[-1] if candidates else None

    def _story(self, state: Snapshot | None, cover: list[tuple[SegmentFile, int]]) -> Story:
        """Follow the log from a snapshot on, from segment to segment as they were written."""
        start = Place(0, 1, 0, 0, 0) if state is None else Place(0, state.index + 1, state.term, state.time_ms, 0)
        # Without a cover, all that the snapshot stood on was dropped; what goes on behind it is the same.
        names = state.segments if state is not None else ()
        end = _End(cover[-1][0].sequence if cover else max((name.sequence for name in names), default=0), start)
        base = [_segment(*part) for part in cover]
        tail: list[Segment] = []
        following = self._following(end.sequence, start.index)
        if cover and not cover[-1][0].revision and (following is None or following.base_index > start.index):
            # The last segment of a snapshot that was installed may have been gone on in.
            self._read(cover[-1][0], end)
            if end.place.index > start.index:
                base.pop()
                tail.append(_segment(cover[-1][0], end.place.index - 1))
            else:
                end.place = start._replace(offset=end.place.offset)
        while (file := self._following(end.sequence, end.place.index)) is not None:
            if tail and file.base_index < end.place.index:
                tail[-1] = tail[-1]._replace(last_index=file.base_index - 1)
            elif file.base_index != end.place.index:
                end.following = file
                break
            self._read(file, end)
            tail.append(_segment(file, end.place.index - 1))
        tail = [segment for segment in tail if segment.last_index >= segment.base_index]
        last_index = end.place.index - 1
        lost = list(self._lost(end))
        return Story(state, base, tail, last_index, end.place.term, end.place.time_ms, _because(end), lost)

    @staticmethod
    def _read(file: SegmentFile, end: _End) -> None:
        with Records(file) as records:
            fault = records.walk()
            assert fault is not None, "no segment reaches the last index there can be"
            end.sequence, end.file, end.place = file.sequence, file, records.place
            end.fault = fault if records.used_bytes() else None

    def _lost(self, end: _End) -> Iterator[Loss]:
        """Proofs that there was more; in a copy what is missing may have been written after it was begun."""
        last_index = end.place.index - 1
        if end.fault is not None and end.file is not None and self._was_durable(end, end.file):
            yield Loss(end.file.path, f"byte {end.fault.offset}: entry {end.fault.index}: {end.fault.reason}")
        yield from (loss for sequence, loss in self._bad_segments if sequence > end.sequence)
        yield from (loss for index, loss in self._bad_snapshots if index > last_index)
        if self._copied:
            return
        for file in self._files:
            if file.sequence > end.sequence:
                yield Loss(file.path, f"goes on at entry {file.base_index}: what comes before it is missing")
        for path, state in self._snapshots.items():
            if state.index > last_index:
                yield Loss(path, f"is of entry {state.index}, but the log can be read up to entry {last_index} only")
        if self._hint > last_index:
            path = os.path.join(self.directory, hard_state.FILE_NAME)
            yield Loss(path, f"entry {self._hint} was committed here, but the log can be read up to {last_index} only")

    def _was_durable(self, end: _End, file: SegmentFile) -> bool:
        """Whether what lies where a file cannot be read on had been whole once."""
        with Records(file) as records:
            records.place = end.place
            if self._copied and records.copied_too_early():
                return False
            sealed = end.following is not None and end.following.base_index > end.place.index
            if sealed or end.place.index <= self._hint:
                return True
            return any(synced >= end.place.index for _, synced in records.later())


def _because(end: _End) -> str:
    if end.fault is not None and end.file is not None:
        return f"{end.file.path}, byte {end.fault.offset}: {end.fault.reason}"
    if end.following is not None:
        return f"{end.following.path} goes on at entry {end.following.base_index}: what comes before it is missing"
    return "the log ends there"


def _segment(file: SegmentFile, last_index: int) -> Segment:
    return Segment(
        file.sequence, file.base_index, file.segment_id, file.path, file.revision, last_index, file.size_bytes
    )

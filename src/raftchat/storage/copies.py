"""What a copy of a data directory holds, however it was made: the newest state that is borne out, and the log after it.

The files may have been copied one by one, in any order, from a running node (ARCHITECTURE.md, "Copies"): some were
replaced meanwhile, the last ones may end anywhere. Knows files and how segments follow each other; not what a state is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

from raftchat._log import LogError, Segment
from raftchat.storage import identity, segment_files, snapshot
from raftchat.storage.errors import StorageError
from raftchat.storage.identity import Identity
from raftchat.storage.segment_files import SegmentFile
from raftchat.storage.segment_records import Records
from raftchat.storage.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Story:
    """One way to read a copy: a state, the segments that it stands on, and those that go on from there."""

    snapshot: Snapshot | None
    """None: from the first entry of the log."""
    base: list[Segment]
    """What the snapshot covers, oldest first; each with the last entry that counts."""
    tail: list[Segment]
    """What follows, up to the first gap, every record of it checked."""
    last_index: int
    """Where it ends; 0: there are no entries."""
    last_term: int
    last_time_ms: int
    ends_because: str
    """For the user: what was found where it ends."""


class Copy:
    """The files of a copy. Nothing is changed."""

    def __init__(self, directory: str) -> None:
        """Raises StorageError if it is no copy of a node's directory, CorruptFile, OSError."""
        self.directory = directory
        self.log_directory = os.path.join(directory, "log")
        found = identity.load(directory)
        if found is None:
            raise StorageError(
                f"{directory} has no identity file: it is not a copy of a node's data directory, or not a whole one"
            )
        self.identity: Identity = found
        self.faults: list[str] = []
        """Files that could not be used, and why."""
        self._files = list(self._segment_files())
        self._snapshots = dict(self._loaded_snapshots())
        """By path, the newest first, without their states: there may be many of them."""
        self._sealed_at = {
            (name.sequence, name.revision): name.last_index
            for state in self._snapshots.values()
            for name in state.segments
        }

    def _segment_files(self) -> Iterator[SegmentFile]:
        names = os.listdir(self.log_directory) if os.path.isdir(self.log_directory) else []
        for name in sorted(filter(segment_files.is_segment, names)):
            try:
                yield segment_files.read_header(os.path.join(self.log_directory, name))
            except (LogError, OSError) as error:
                self.faults.append(str(error))

    def _loaded_snapshots(self) -> Iterator[tuple[str, Snapshot]]:
        for path in snapshot.paths(os.path.join(self.directory, "snapshots")):
            try:
                yield path, replace(snapshot.load(path), state=b"")
            except (StorageError, OSError) as error:
                self.faults.append(str(error))

    def stories(self) -> Iterator[Story]:
        """Every way in which the copy can be read, the one that reaches furthest first. Raises OSError."""
        for path, state in self._snapshots.items():
            base = self._cover(state)
            if base is not None:
                yield self._story(snapshot.load(path), [_segment(file, end) for file, end in base])
        begin = self._following([])
        if (begin and begin[-1].base_index == 1) or not (self._files or self._snapshots or self.faults):
            yield self._story(None, [])

    def _cover(self, state: Snapshot) -> list[tuple[SegmentFile, int]] | None:
        """Files that hold, without a gap, what a snapshot stands on, each with its last entry.

        Those that it names, if they are there. Else what they were made of, which holds more than is needed; else what
        was made of them since, which holds enough as long as the snapshot is one of the two newest. The oldest may have
        been dropped, as nothing lives in them; whoever reads the rest can count whether that is so.
        """
        named = {(name.sequence, name.revision, name.segment_id) for name in state.segments}

        def rank(file: SegmentFile) -> tuple[bool, int]:
            return (file.sequence, file.revision, file.segment_id) not in named, file.revision

        def onwards(index: int) -> list[tuple[SegmentFile, int]] | None:
            if index == state.index + 1:
                return []
            for file in sorted((file for file in self._files if file.base_index == index), key=rank):
                end = self._sealed_index(file)
                if index <= end <= state.index and (rest := onwards(end + 1)) is not None:
                    return [(file, end), *rest]
            return None

        for index in [*(name.base_index for name in state.segments), state.index + 1]:
            if (cover := onwards(index)) is not None:
                return cover
        return None

    def _sealed_index(self, file: SegmentFile) -> int:
        """The last entry that counts in a segment, 0 if that cannot be told."""
        if file.revision:
            return file.last_index
        known = self._sealed_at.get((file.sequence, 0))
        if known is None:
            following = [other.base_index - 1 for other in self._files if other.prev_sequence == file.sequence]
            known = min(following, default=0)
        return known

    def _following(self, segments: list[Segment], index: int = 1) -> list[SegmentFile]:
        """Segments that go on behind these, which end before an entry; the last made is the last."""
        plain = sorted((file for file in self._files if not file.revision), key=lambda file: file.sequence)
        if not segments and index > 1:
            return [file for file in plain if file.base_index == index]
        sequence = segments[-1].sequence if segments else 0
        return [file for file in plain if file.prev_sequence == sequence]

    def _story(self, state: Snapshot | None, base: list[Segment]) -> Story:
        """Follow the log from a snapshot on, from segment to segment as they were written."""
        index, term, time_ms = (state.index + 1, state.term, state.time_ms) if state is not None else (1, 0, 0)
        tail: list[Segment] = []
        why = ""
        # Of several that go on from one segment the last was made when the tail that the others hold was cut off.
        while following := self._following(base + tail, index):
            file = following[-1]
            if tail and file.base_index < index:
                tail[-1] = tail[-1]._replace(last_index=file.base_index - 1)
            elif file.base_index != index:
                why = why or f"{file.path} goes on at entry {file.base_index}: what comes before it is missing"
                break
            with Records(file) as records:
                fault = records.walk()
                assert fault is not None, "no segment reaches the last index there can be"
                why = f"{file.path}, byte {fault.offset}: {fault.reason}" if records.used_bytes() else ""
                _, index, term, time_ms, _ = records.place
            tail.append(_segment(file, index - 1))
        tail = [segment for segment in tail if segment.last_index >= segment.base_index]
        return Story(state, base, tail, index - 1, term, time_ms, why or "the log ends there")


def _segment(file: SegmentFile, last_index: int) -> Segment:
    return Segment(
        file.sequence, file.base_index, file.segment_id, file.path, file.revision, last_index, file.size_bytes
    )

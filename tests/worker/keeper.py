"""What a Raft process does to its log besides appending: plans retention, snapshots, indexes, compacts. At once, when a
test says so, in the loop of the worker (`Worker.call`).

Knows the real log and chat. Does not know workers: those are told by `FakeRaft`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from raftchat import _log
from raftchat.chat import apply, retention
from raftchat.chat.policy import Policy
from raftchat.chat.state import ChatState
from raftchat.storage import snapshot
from raftchat.storage.snapshot import SegmentName, Snapshot
from tests.worker.support import FakeRaft


class Keeper:
    def __init__(self, raft: FakeRaft) -> None:
        self.state = ChatState()
        self._raft = raft
        self._reader = _log.LogReader(str(raft.directory))
        self._known: set[tuple[int, int]] = set()
        self._indexed: set[int] = set()
        self._segment_ids = itertools.count(8_000_000)

    def apply(self) -> None:
        """All that is committed."""
        for segment in self._raft.log.segments():
            if (segment.sequence, segment.revision) not in self._known:
                self._known.add((segment.sequence, segment.revision))
                self._reader.add_segment(segment.sequence, segment.base_index, segment.revision)
        if self._raft.committed > self.state.applied_index:
            apply.advance(self.state, self._reader, self.state.applied_index + 1, self._raft.committed)

    def retain(self, now_ms: int, cluster: Policy | None = None, rooms: Mapping[bytes, Policy] | None = None) -> int:
        """Propose what these policies remove now; how many commands."""
        self.apply()
        plan = retention.plan(
            self.state, self._reader, now_ms, cluster=cluster, rooms=rooms or {}, record_size_max_bytes=256 * 1024
        )
        for command in plan.commands:
            self._raft.append(_log.pack(*command), now_ms)
        self._raft.commit()
        return len(plan.commands)

    def retain_by_policies(self, now_ms: int) -> int:
        """By those that were set."""
        self.apply()
        return self.retain(now_ms, self.state.policies.cluster, self.state.policies.rooms)

    def seal(self) -> None:
        """Roll; the index of what was sealed; a snapshot at its end, from which the next worker begins."""
        raft = self._raft
        self.apply()
        assert self.state.applied_index == raft.log.last_index, "all of it must be committed"
        raft.log.roll()
        raft.announce()
        self.apply()
        self.index()
        taken = Snapshot(
            index=self.state.applied_index,
            term=raft.term,
            time_ms=self.state.applied_time_ms,
            cluster_id="test",
            epoch=1,
            membership=b"",
            segments=tuple(SegmentName(*self._named(segment)) for segment in raft.log.segments()[:-1]),
            state=self.state.encode(),
        )
        directory = raft.directory.parent / "snapshots"
        directory.mkdir(exist_ok=True)
        raft.snapshot = snapshot.write(str(directory), taken)

    @staticmethod
    def _named(segment: _log.Segment) -> tuple[int, int, int, int, int, int]:
        return (
            segment.sequence,
            segment.base_index,
            segment.revision,
            segment.last_index,
            segment.segment_id,
            segment.size_bytes,
        )

    def index(self) -> None:
        """Every sealed segment that has none."""
        for segment in self._raft.log.segments()[:-1]:
            if segment.sequence not in self._indexed:
                _log.write_index(segment)
                self._indexed.add(segment.sequence)
                self._reader.use_index(segment.sequence)
                self._raft.indexed(segment.sequence)

    def compact(self) -> None:
        """All sealed segments into one; the old files go at once."""
        raft = self._raft
        self.apply()
        sealed = raft.log.segments()[:-1]
        compacted = _log.compact(
            str(raft.directory), sealed, self.state.floors(), new_segment_id=self._segment_ids.__next__
        )
        raft.log.unlink(raft.log.install(compacted))
        self._indexed.discard(compacted.sequence)
        raft.announce()
        self.apply()
        self.index()

    def close(self) -> None:
        self._reader.close()

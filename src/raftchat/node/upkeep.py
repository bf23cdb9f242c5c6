"""Keeps the store in order, round by round: state, snapshots at seals, indexes of sealed segments, what goes when.

A round does what follows from what is committed by now (ARCHITECTURE.md, "The log is the store"). Nothing that it
writes is relied on before it is durable, so what fails is told once and tried again later. Does not know threads, the
loop or real files (`store_ports.py`), nor by what rules space is won (`reclaim.py`) or messages go (`retention.py`).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Any

from raftchat.chat.apply import advance
from raftchat.chat.commands import KIND_MEMBERSHIP, KIND_POST
from raftchat.config import Config
from raftchat.node.reclaim import Reclaim
from raftchat.node.retention import Retention
from raftchat.node.setbacks import Setbacks
from raftchat.node.store_ports import Clock, Counters, Files, Owner, Reader, Segment, Start, Taken, View
from raftchat.storage.snapshot import SegmentName, Snapshot

log = logging.getLogger(__name__)

SLICE_ENTRIES = 4096
PROGRESS_INTERVAL_MS = 5_000


class Upkeep:
    """`round()` may be called at any time, by one thread."""

    def __init__(
        self,
        config: Config,
        identity: tuple[str, int],
        start: Start,
        reader: Reader,
        files: Files,
        owner: Owner,
        clock: Clock,
    ) -> None:
        """`identity`: cluster id and epoch, for the snapshots. The reader is this object's own from now on."""
        self.state = start.state
        self.counters = Counters(applied_index=start.state.applied_index, live_bytes=start.state.bytes)
        self._identity = identity
        self._reader = reader
        self._source = _Noting(reader)
        self._files = files
        self._owner = owner
        self._clock = clock
        self._grace_ms = config.delete_grace_ms
        self._membership = start.membership
        self._snapshots = start.snapshots
        self._setbacks = Setbacks(config.store_retry_ms, clock.monotonic_ms, self.counters)
        self._reclaim = Reclaim(config, files, owner, clock, self._setbacks, self.counters)
        self._retention = Retention(config, start.log_time_ms, reader, files, owner, clock, self.counters)
        self._pending: tuple[Snapshot, dict[bytes, int]] | None = None
        """Taken, and not written yet."""
        self._first_index = 0
        self._segments: set[tuple[int, int]] = set()
        self._indexed: set[tuple[int, int]] = set()
        self._distrusted: set[int] = set()
        """Segments (sequences) whose index somebody found rotten."""
        self._unreadable: set[tuple[int, int]] = set()
        """Segments (sequence, revision) in which a record is bad: they stay as they are."""
        now_ms = clock.monotonic_ms()
        self._surplus: dict[str, float] = dict.fromkeys(start.surplus, now_ms + self._grace_ms)
        """Snapshots that are not needed any more, and when they go."""
        self._prepared_sequence = 0
        """Of the active segment for which the next one's file was made."""
        self._retired: dict[str, float] = {}
        self._unlink_ms = -math.inf
        """Not before this."""
        self._unlink_rate_max_bytes_per_s = config.unlink_rate_max_bytes_per_s
        self._interval_ms = config.store_interval_ms
        self._indexes_told_ms: float | None = None
        if self._snapshots:
            self.counters.snapshot_index = self._snapshots[-1].index

    def distrust(self, sequence: int) -> None:
        """The index of this segment is rotten, though it may not look so from here. In any thread."""
        self._distrusted.add(sequence)

    def round(self) -> None:
        """Raises what reading or applying a committed entry raises: then there is nothing more to keep."""
        began_ms = self._clock.monotonic_ms()
        view = self._owner.view()
        self._prepare(view)
        self._follow(view.segments)
        # First, so that to apply what is in them need not note each post in memory.
        self._index(view)
        self._apply(view)
        self._write_snapshot()
        self._remove(view)
        self._retention.round(view, self.state)
        self._reclaim.round(view, self.state, self._whole(), self._unreadable, self._indexed)
        self._setbacks.forget(began_ms)

    @property
    def due_ms(self) -> float:
        """When another round is due although nothing was committed; inf: never."""
        dues = [self._retention.due_ms, self._reclaim.due_ms, self._setbacks.due_ms]
        if self._setbacks.may_try("unlink"):
            dues += self._surplus.values()
            if self._retired:
                dues.append(max(min(self._retired.values()), self._unlink_ms))
        return min(dues)

    # What is there

    def _prepare(self, view: View) -> None:
        """Have the next segment's file there in time, so that the loop need not make it."""
        active = view.segments[-1]
        if (
            active.sequence != self._prepared_sequence
            and view.active_used_bytes * 2 > active.size_bytes
            and self._setbacks.may_try("prepare")
        ):
            with self._setbacks.put_off("prepare"):
                self._owner.prepare()
                self._prepared_sequence = active.sequence

    def _follow(self, segments: Sequence[Segment]) -> None:
        names = {(segment.sequence, segment.revision) for segment in segments}
        if names == self._segments:
            return
        for segment in segments:
            if (segment.sequence, segment.revision) not in self._segments:
                self._reader.add_segment(segment.sequence, segment.base_index, segment.revision)
        if segments[0].base_index > self._first_index:
            self._first_index = segments[0].base_index
            self._reader.drop_prefix(self._first_index)
        self._segments = names
        self._indexed &= names
        self._unreadable &= names

    # State and snapshots

    def _apply(self, view: View) -> None:
        """Up to the commit index, halting at the newest seal on the way: the state there is a snapshot."""
        seals = [segment for segment in view.segments[:-1] if segment.last_index <= view.commit_index]
        newest = self._snapshots[-1].index if self._snapshots else 0
        if seals and max(newest, self.state.applied_index - 1) < seals[-1].last_index:
            self._advance(seals[-1].last_index)
            self._take(seals)
        self._advance(view.commit_index)

    def _advance(self, last_index: int) -> None:
        state = self.state
        while state.applied_index < last_index:
            stop = min(last_index, state.applied_index + SLICE_ENTRIES)
            before = state.bytes
            self._source.begin()
            advance(state, self._source, state.applied_index + 1, stop)
            if self._source.memberships:
                (entry,) = self._reader.entries(self._source.memberships[-1], self._source.memberships[-1])
                self._membership = entry.value
            self._reclaim.applied(self._source.post_bytes, before + self._source.post_bytes - state.bytes)
            self.counters.applied_index, self.counters.live_bytes = state.applied_index, state.bytes
            self._clock.pause()

    def _take(self, seals: Sequence[Segment]) -> None:
        state, index = self.state, seals[-1].last_index
        assert state.applied_index == index
        pending = self._pending[0].index if self._pending else 0
        if pending == index:
            return
        (entry,) = self._reader.entries(index, index)
        segments = tuple(
            SegmentName(s.sequence, s.base_index, s.revision, s.last_index, s.segment_id, s.size_bytes) for s in seals
        )
        cluster_id, epoch = self._identity
        snapshot = Snapshot(
            index, entry.term, entry.time_ms, cluster_id, epoch, self._membership, segments, state.encode()
        )
        self._pending = snapshot, state.floors()
        self._reclaim.taken()

    def _write_snapshot(self) -> None:
        if self._pending is None or not self._setbacks.may_try("snapshot"):
            return
        snapshot, floors = self._pending
        with self._setbacks.put_off("snapshot"):
            path = self._files.write_snapshot(snapshot)
            self._pending = None
            self._reclaim.written()
            taken = Taken(snapshot.index, snapshot.term, snapshot.time_ms, snapshot.membership, path, floors)
            self._snapshots.append(taken)
            self._owner.snapshot_taken(taken)
            self.counters.snapshots += 1
            self.counters.snapshot_index = snapshot.index
            log.info(
                "Snapshot",
                extra={"index": snapshot.index, "path": path, "rooms": len(floors), "messages": self.state.messages},
            )

    def _whole(self) -> list[Taken]:
        """The two newest snapshots, ascending, with their floors; older ones are given up."""
        while len(self._snapshots) > 2:
            self._surplus[self._snapshots.pop(0).path] = self._clock.monotonic_ms() + self._grace_ms
        for taken in list(self._snapshots):
            if taken.floors is None:
                try:
                    taken.floors = self._files.floors(taken.path)
                except Exception as error:
                    # It was good enough to be kept for the case that the newest cannot be read; not for more.
                    log.warning("A snapshot cannot be read and is given up: %s", error, extra={"path": taken.path})
                    self._snapshots.remove(taken)
        return self._snapshots

    # Indexes

    def _index(self, view: View) -> None:
        missing = []
        self._distrusted.update(self._reader.bad_indexes())
        for segment in view.segments[:-1]:
            name = (segment.sequence, segment.revision)
            rotten = segment.sequence in self._distrusted
            if rotten and name in self._indexed:
                log.warning("The index of a segment is rotten: it is made again", extra={"path": segment.path})
                self._indexed.discard(name)
            if segment.last_index <= view.commit_index and name not in self._indexed and name not in self._unreadable:
                if not rotten and self._files.has_index(segment) and self._reader.use_index(segment.sequence):
                    self._indexed.add(name)
                    self._owner.indexed(segment.sequence)
                else:
                    missing.append(segment)
        if not missing or not self._setbacks.may_try("index"):
            return
        self._indexes_told_ms = self._clock.monotonic_ms()
        # The newest first: they are asked for most.
        for done, segment in enumerate(reversed(missing)):
            self._tell_progress(done, len(missing))
            if not self._write_index(segment):
                return
            self._clock.pause()

    def _write_index(self, segment: Any) -> bool:
        """False: the rest has to wait as well."""
        name = (segment.sequence, segment.revision)
        with self._setbacks.put_off("index", self._unreadable, [segment]) as tried:
            self._files.write_index(segment)
            self._distrusted.discard(segment.sequence)
            self.counters.indexes += 1
            if self._reader.use_index(segment.sequence):
                self._indexed.add(name)
                self._owner.indexed(segment.sequence)
            else:
                self._unreadable.add(name)
                log.error("The index of a segment that was just made cannot be used", extra={"path": segment.path})
        return tried.done or name in self._unreadable

    def _tell_progress(self, done: int, of: int) -> None:
        now_ms = self._clock.monotonic_ms()
        assert self._indexes_told_ms is not None
        if now_ms - self._indexes_told_ms >= PROGRESS_INTERVAL_MS:
            self._indexes_told_ms = now_ms
            log.info("Making indexes of sealed segments", extra={"done": done, "of": of})

    # What is not needed any more

    def _remove(self, view: View) -> None:
        now_ms = self._clock.monotonic_ms()
        in_order = sorted(view.retired, key=lambda segment: (segment.sequence, segment.revision))
        retired = {segment.path: segment for segment in in_order}
        self._retired = {path: self._retired.get(path, now_ms + self._grace_ms) for path in retired}
        due = [segment for path, segment in retired.items() if self._retired[path] <= now_ms]
        if due and self._setbacks.may_try("unlink"):
            with self._setbacks.put_off("unlink"):
                self._unlink(due, now_ms)
        self.counters.retired_bytes = sum(retired[path].size_bytes for path in self._retired)
        if any(due_ms <= now_ms for due_ms in self._surplus.values()) and self._setbacks.may_try("unlink"):
            surplus = {path: due_ms for path, due_ms in self._surplus.items() if due_ms > now_ms}
            with self._setbacks.put_off("unlink"):
                self._files.prune_snapshots({*surplus, *(taken.path for taken in self._snapshots)})
                self._surplus = surplus

    def _unlink(self, due: Sequence[Segment], now_ms: float) -> None:
        """As many as may be freed by now; the rest is due a little later."""
        for segment in due:
            if now_ms < self._unlink_ms:
                return
            try:
                self._owner.unlink([segment])
            except ValueError:
                # An older one that was retired later, and with which this would be taken for live, stays yet.
                self._retired[segment.path] = max(self._retired.values())
                continue
            del self._retired[segment.path]
            took_ms = segment.size_bytes * 1000 / self._unlink_rate_max_bytes_per_s
            self._unlink_ms = max(self._unlink_ms, now_ms - self._interval_ms) + took_ms


class _Noting:
    """A source that notes on the way what the state itself does not keep: memberships, and how much was posted."""

    def __init__(self, reader: Reader) -> None:
        self.entries = reader.entries
        self._reader = reader
        self.begin()

    def begin(self) -> None:
        self.memberships: list[int] = []
        self.post_bytes = 0
        self._noted = False

    def scan(self, first_index: int, last_index: int) -> Any:
        runs = self._reader.scan(first_index, last_index)
        if not self._noted:
            # All of it comes first; a range with commands in it then once more in parts.
            self._noted = True
            self.post_bytes = sum(run.bytes for run in runs if run.kind == KIND_POST)
            self.memberships = sorted(index for run in runs if run.kind == KIND_MEMBERSHIP for index in run.indexes)
        return runs

"""Wins back what removed messages occupy: drops and rewrites sealed segments, and seals what must be for that.

Only what the older of the two newest snapshots covers may be missing from a segment, so that either can be opened with
it; and only by that snapshot's floors. What was removed after it has to wait for two seals more: a quiet node would
wait for ever, so this has segments sealed before they are full. Which segments are worth it is for `compaction.py`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from raftchat.chat.commands import KIND_TRIM
from raftchat.chat.retention import Command
from raftchat.chat.state import ChatState
from raftchat.config import Config
from raftchat.node import compaction
from raftchat.node.compaction import Drop, Rewrite, Sealed
from raftchat.node.setbacks import Setbacks
from raftchat.node.store_ports import Clock, Counters, Files, Owner, Segment, Taken, View

log = logging.getLogger(__name__)

Name = tuple[int, int]

EMPTY_TRIM = Command(KIND_TRIM, b"", b"[]")
"""An entry that changes nothing, where there has to be one."""


@dataclass(slots=True)
class _Since:
    posted_bytes: int = 0
    removed_bytes: int = 0


class Reclaim:
    def __init__(
        self, config: Config, files: Files, owner: Owner, clock: Clock, setbacks: Setbacks, counters: Counters
    ) -> None:
        self._config = config
        self._files = files
        self._owner = owner
        self._clock = clock
        self._setbacks = setbacks
        self._counters = counters
        self._floors: dict[bytes, int] = {}
        """By which `_live` was counted."""
        self._live: dict[Name, int] = {}
        self._newest = _Since()
        """What came after the newest snapshot."""
        self._older = _Since()
        """What came between the two newest."""
        self._taken = _Since()
        """Of what came after the newest, what is in the snapshot that is not written yet."""
        self._compared = False
        """Whether what came between the two snapshots that were found at opening removed something."""
        self._more = False
        """There may be more to compact."""
        self._rolled_ms = clock.monotonic_ms()
        self._active_sequence = 0

    # What is told

    def applied(self, posted_bytes: int, removed_bytes: int) -> None:
        self._newest.posted_bytes += posted_bytes
        self._newest.removed_bytes += removed_bytes

    def taken(self) -> None:
        """What was applied so far is in a snapshot, once that is written. One that was taken before never will be."""
        self._taken = replace(self._newest)

    def written(self) -> None:
        """The snapshot that was taken last is durable."""
        self._older, self._newest = (
            self._taken,
            _Since(
                self._newest.posted_bytes - self._taken.posted_bytes,
                self._newest.removed_bytes - self._taken.removed_bytes,
            ),
        )
        self._taken = _Since()

    # One round

    def round(
        self, view: View, state: ChatState, snapshots: Sequence[Taken], unreadable: set[Name], indexed: set[Name]
    ) -> None:
        """`snapshots`: the two newest that are durable, ascending, with their floors."""
        if view.segments[-1].sequence != self._active_sequence:
            self._active_sequence, self._rolled_ms = view.segments[-1].sequence, self._clock.monotonic_ms()
        self._more = False
        if len(snapshots) >= 2:
            newest, older = snapshots[-1], snapshots[-2]
            assert newest.floors is not None
            assert older.floors is not None
            if not self._compared:
                self._compared = True
                if any(newest.floors.get(key) != floor for key, floor in older.floors.items()):
                    self._older.removed_bytes += 1
            self._compact(view, older.index, older.floors, unreadable, indexed)
        self._seal(view)

    def _compact(
        self, view: View, index: int, floors: Mapping[bytes, int], unreadable: set[Name], indexed: set[Name]
    ) -> None:
        if not self._setbacks.may_try("compaction"):
            return
        segments = [segment for segment in view.segments[:-1] if segment.last_index <= index]
        self._count(segments, floors, indexed, unreadable)
        sealed = [Sealed(segment, self._live.get((segment.sequence, segment.revision))) for segment in segments]
        match compaction.plan(sealed, self._config.segment_size_bytes, self._config.compaction_live_max_percent):
            case None:
                return
            case Drop(number):
                self._drop(segments[:number])
            case Rewrite(start, stop):
                self._rewrite(segments[start:stop], floors, unreadable)
        self._more = True

    def _count(
        self, segments: Sequence[Segment], floors: Mapping[bytes, int], indexed: set[Name], unreadable: set[Name]
    ) -> None:
        if any(floors.get(key) != floor for key, floor in self._floors.items()):
            # Rooms that came into being since do not matter to what was counted before.
            self._live.clear()
        self._floors = dict(floors)
        known = {(segment.sequence, segment.revision) for segment in segments} & indexed - unreadable
        self._live = {name: live for name, live in self._live.items() if name in known}
        for segment in segments:
            name = (segment.sequence, segment.revision)
            if name in known and name not in self._live:
                with self._setbacks.put_off("compaction", unreadable, [segment]):
                    self._live[name] = self._files.live_bytes(segment, floors)
                self._clock.pause()

    def _drop(self, segments: Sequence[Segment]) -> None:
        with self._setbacks.put_off("compaction"):
            self._owner.drop_prefix(segments[-1].last_index + 1)
            size_bytes = sum(segment.size_bytes for segment in segments)
            self._counters.reclaimed_bytes += size_bytes
            log.info(
                "Dropped the oldest segments: nothing in them lives",
                extra={"segments": len(segments), "last_index": segments[-1].last_index, "size_bytes": size_bytes},
            )

    def _rewrite(self, segments: Sequence[Segment], floors: Mapping[bytes, int], unreadable: set[Name]) -> None:
        began_ms = self._clock.monotonic_ms()
        with self._setbacks.put_off("compaction", unreadable, segments):
            compacted = self._files.compact(segments, floors)
            try:
                self._owner.install(compacted)
            except BaseException:
                self._files.discard(compacted)
                raise
            size_bytes = sum(segment.size_bytes for segment in segments)
            self._counters.compactions += 1
            self._counters.reclaimed_bytes += size_bytes - compacted.size_bytes
            log.info(
                "Compacted segments",
                extra={
                    "segments": len(segments),
                    "first_index": segments[0].base_index,
                    "last_index": segments[-1].last_index,
                    "size_bytes": size_bytes,
                    "new_size_bytes": compacted.size_bytes,
                    "took_ms": round(self._clock.monotonic_ms() - began_ms),
                },
            )

    # Sealing before it is due

    def _seal(self, view: View) -> None:
        if not self._is_time() or not self._setbacks.may_try("roll"):
            return
        self._rolled_ms = self._clock.monotonic_ms()
        with self._setbacks.put_off("roll"):
            if view.commit_index >= view.segments[-1].base_index:
                self._owner.roll()
            elif view.leads:
                # An empty segment cannot be sealed. The followers' own ones get the entry as well.
                self._owner.propose([EMPTY_TRIM])

    def _is_time(self) -> bool:
        """Whether enough of what the older snapshot does not know of is dead; in the end, whether any of it is."""
        return self._clock.monotonic_ms() >= self._seal_due_ms()

    def _seal_due_ms(self) -> float:
        removed = self._newest.removed_bytes + self._older.removed_bytes
        posted = self._newest.posted_bytes + self._older.posted_bytes
        if not removed:
            return float("inf")
        if removed * 100 >= posted * self._config.compaction_live_max_percent:
            return self._rolled_ms + self._config.roll_interval_ms
        return self._rolled_ms + max(self._config.roll_interval_ms, self._config.delete_grace_ms)

    @property
    def due_ms(self) -> float:
        """When another round is due although nothing was committed; inf: never."""
        return self._clock.monotonic_ms() if self._more else self._seal_due_ms()

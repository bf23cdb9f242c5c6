"""Which messages and rooms the policies remove now, as commands for the log. Planned by the leader, carried out by all.

A pure function of a state, what the log finds, and a time, which `retention_clock.py` tells. Does not know who
proposes the commands, nor how disk space comes back. To plan again before the commands of the last plan are applied
gives the same commands, which then apply once: each holds only for what it was made from.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from raftchat.chat.commands import Command, RoomTrim, remove_room, trim_json, trim_rooms
from raftchat.chat.policy import Policies, Policy
from raftchat.chat.room import Room
from raftchat.chat.state import ChatState, Entry

__all__ = ["Command", "Plan", "Policies", "Policy", "plan"]

_STILL_ACTIVE_MS = 60_000
_COMMAND_OVERHEAD_BYTES = 64
"""A record's header, the brackets of its value, padding."""


class Trim(Protocol):
    """What comes before a new floor of a room. `_log.Trim` is one."""

    @property
    def floor(self) -> int: ...
    @property
    def messages(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def first_id(self) -> int: ...


class Source(Protocol):
    """The part of `_log.LogReader` that is needed, which must have been shown all that the state has applied."""

    def entries(self, first_index: int, last_index: int) -> Sequence[Entry]: ...
    def trim(
        self, key: bytes, floor: int, last_index: int, *, messages: int, bytes: int, before_ms: int, below: int
    ) -> Trim: ...
    def nth_oldest(self, floors: Mapping[bytes, int], last_index: int, *, messages: int, bytes: int) -> int: ...


class RoomLoss(NamedTuple):
    """What a room loses."""

    key: bytes
    messages: int
    bytes: int
    removed: bool
    """The room goes as well."""


@dataclass(slots=True)
class Plan:
    commands: list[Command] = field(default_factory=list)
    """To be proposed in this order."""
    rooms: list[RoomLoss] = field(default_factory=list)
    """Which rooms lose something; each once."""
    unreadable: dict[bytes, Exception] = field(default_factory=dict)
    """Rooms that were left out as the log cannot be read where they need it, and why; no key: the cluster's limits."""
    more: bool = False
    """There is more to be removed than `rooms_max` rooms: plan again once this is applied."""

    @property
    def messages(self) -> int:
        return sum(room.messages for room in self.rooms)

    @property
    def bytes(self) -> int:
        return sum(room.bytes for room in self.rooms)

    def to_json(self) -> dict[str, Any]:
        """What a dry run answers."""
        return {
            "Messages": self.messages,
            "Bytes": self.bytes,
            "Rooms": [
                {"Name": room.key.decode(), "Messages": room.messages, "Bytes": room.bytes, "Removed": room.removed}
                for room in self.rooms
            ],
        }


def plan(
    state: ChatState,
    source: Source,
    now_ms: int,
    *,
    cluster: Policy | None,
    rooms: Mapping[bytes, Policy],
    record_size_max_bytes: int,
    rooms_max: int | None = None,
    faults: tuple[type[Exception], ...] = (),
) -> Plan:
    """What these policies remove at `now_ms` (`RetentionClock`) from the state. Raises what reading the log may raise,
    but for `faults`: what cannot be read for one of these is left out, and told of as `unreadable`.

    Whole rooms go first (empty ones, then the least recently active beyond `max_rooms`), then messages by the rooms'
    own limits and by age, then the oldest of all until the cluster's limits hold. `rooms_max`: at most so many rooms
    are looked at in detail and changed. Without a policy of the cluster its defaults hold. Every message beyond a limit
    is in the plan, so a busy room has something in each: how often there is one is for who asks to say.
    """
    return _Planner(state, source, now_ms, cluster or Policy(), rooms, record_size_max_bytes, rooms_max, faults).plan()


class _Cut(NamedTuple):
    """Where a room's floor comes to lie, and what that takes from it."""

    floor: int
    messages: int
    bytes: int
    first_id: int


class _Planner:
    def __init__(
        self,
        state: ChatState,
        source: Source,
        now_ms: int,
        cluster: Policy,
        policies: Mapping[bytes, Policy],
        record_size_max_bytes: int,
        rooms_max: int | None,
        faults: tuple[type[Exception], ...],
    ) -> None:
        self._state = state
        self._source = source
        self._now_ms = now_ms
        self._cluster = cluster
        self._policies = policies
        self._record_size_max_bytes = record_size_max_bytes
        self._left = len(state) if rooms_max is None else rooms_max
        """Rooms that may still be changed."""
        self._faults = faults
        self._removed: dict[bytes, Room] = {}
        self._cuts: dict[bytes, _Cut] = {}
        self._plan = Plan()

    def plan(self) -> Plan:
        self._remove_rooms(self._empty_rooms())
        self._remove_rooms(self._rooms_beyond_max())
        self._cut_by_own_limits()
        if not self._plan.more:
            self._cut_oldest()
        self._write()
        return self._plan

    def _take(self, found: list[bytes]) -> list[bytes]:
        """As many of these rooms as may still be changed."""
        taken = found[: self._left]
        self._left -= len(taken)
        self._plan.more |= len(taken) < len(found)
        return taken

    # Rooms that go whole

    def _empty_rooms(self) -> list[bytes]:
        age_ms = self._cluster.empty_room_age_ms
        if age_ms is None:
            return []
        rooms = self._state.rooms
        return sorted(
            key
            for key in self._state.empty_rooms
            if self._now_ms - max(rooms[key].last_time_ms, rooms[key].trimmed_time_ms) >= age_ms
        )

    def _rooms_beyond_max(self) -> list[bytes]:
        most = self._cluster.max_rooms
        if most is None:
            return []
        beyond = len(self._state) - len(self._removed) - most
        if beyond <= 0:
            return []
        # A last ID belongs to one message, hence to one room.
        staying = ((room.last_id, key) for key, room in self._state.rooms.items() if key not in self._removed)
        return [key for _, key in heapq.nsmallest(beyond, staying)]

    def _remove_rooms(self, keys: list[bytes]) -> None:
        for key in self._take(keys):
            self._removed[key] = self._state.rooms[key]

    # Messages that go

    def _staying(self, keys: Iterable[bytes]) -> Iterator[tuple[bytes, Room]]:
        """Of these rooms those that have messages, can be read, and do not go anyway."""
        for key in keys:
            room = self._state.room(key)
            if room is not None and room.count and key not in self._removed and key not in self._plan.unreadable:
                yield key, room

    def _cut_by_own_limits(self) -> None:
        due = {key: room.first_id for key, room in self._staying(self._policies) if self._exceeds(key, room)}
        if self._cluster.max_age_ms is not None:
            before_ms = self._now_ms - self._cluster.max_age_ms
            due |= {key: self._state.rooms[key].first_id for key in self._older_than(before_ms)}
        for key in self._take(sorted(due, key=due.__getitem__)):
            room, policy = self._state.rooms[key], self._policies.get(key, _NO_POLICY)
            max_age_ms = self._max_age_ms(policy)
            self._cut(
                key,
                messages=_beyond(room.count, policy.max_messages),
                bytes=_beyond(room.bytes, policy.max_bytes),
                before_ms=0 if max_age_ms is None else max(0, self._now_ms - max_age_ms),
            )

    def _max_age_ms(self, policy: Policy) -> int | None:
        return self._cluster.max_age_ms if policy.max_age_ms is None else policy.max_age_ms

    def _exceeds(self, key: bytes, room: Room) -> bool:
        policy = self._policies[key]
        if _beyond(room.count, policy.max_messages) or _beyond(room.bytes, policy.max_bytes):
            return True
        if policy.max_age_ms is None:
            return False
        try:
            return self._time_ms(room.first_id) < self._now_ms - policy.max_age_ms
        except self._faults as error:
            self._plan.unreadable[key] = error
            return False

    def _older_than(self, before_ms: int) -> list[bytes]:
        """Rooms that the cluster's age holds for and whose oldest message is older than that.

        Log time does not go back, so the room's first message with the lowest ID is the oldest: few are looked up.
        """
        oldest = sorted(
            (room.first_id, key)
            for key, room in self._staying(self._state.rooms)
            if self._policies.get(key, _NO_POLICY).max_age_ms is None
        )
        low, high = 0, len(oldest)
        while low < high:
            middle = (low + high) // 2
            first_id, key = oldest[middle]
            try:
                too_old = self._time_ms(first_id) < before_ms
            except self._faults as error:
                self._plan.unreadable[key] = error
                del oldest[middle]
                high -= 1
                continue
            low, high = (middle + 1, high) if too_old else (low, middle)
        return [key for _, key in oldest[:low]]

    def _time_ms(self, index: int) -> int:
        (entry,) = self._source.entries(index, index)
        return entry.time_ms

    def _cut_oldest(self) -> None:
        """The cluster's limits, for what the other rules have left."""
        messages, size_bytes = self._state.messages, self._state.bytes
        for room in self._removed.values():
            messages, size_bytes = messages - room.count, size_bytes - room.bytes
        for cut in self._cuts.values():
            messages, size_bytes = messages - cut.messages, size_bytes - cut.bytes
        beyond_messages = _beyond(messages, self._cluster.max_messages)
        beyond_bytes = _beyond(size_bytes, self._cluster.max_bytes)
        if not beyond_messages and not beyond_bytes:
            return
        floors, first_ids = {}, {}
        for key, room in self._staying(self._state.rooms):
            moved = self._cuts.get(key)
            floors[key] = moved.floor if moved else room.floor
            first_ids[key] = moved.first_id if moved else room.first_id
        try:
            below = self._source.nth_oldest(
                floors, self._state.applied_index, messages=beyond_messages, bytes=beyond_bytes
            )
        except self._faults as error:
            # How much of the others is old depends on what cannot be read.
            self._plan.unreadable[b""] = error
            return
        due = sorted((first_id, key) for key, first_id in first_ids.items() if 0 < first_id < below)
        again = [key for _, key in due if key in self._cuts]
        for key in [*again, *self._take([key for _, key in due if key not in self._cuts])]:
            self._cut(key, below=below)

    def _cut(self, key: bytes, *, messages: int = 0, bytes: int = 0, before_ms: int = 0, below: int = 0) -> None:
        """Find where the floor comes to lie, above where it was already put."""
        room, before = self._state.rooms[key], self._cuts.get(key)
        try:
            trim = self._source.trim(
                key,
                before.floor if before else room.floor,
                self._state.applied_index,
                messages=messages,
                bytes=bytes,
                before_ms=before_ms,
                below=below,
            )
        except self._faults as error:
            self._plan.unreadable[key] = error
            return
        if trim.messages:
            gone = before or _Cut(room.floor, 0, 0, room.first_id)
            self._cuts[key] = _Cut(trim.floor, gone.messages + trim.messages, gone.bytes + trim.bytes, trim.first_id)

    # As commands

    def _write(self) -> None:
        commands = self._plan.commands
        for key, room in self._removed.items():
            commands.append(remove_room(key, room.last_id))
            self._plan.rooms.append(RoomLoss(key, room.count, room.bytes, removed=True))
        commands += _split(map(trim_json, self._trims()), self._record_size_max_bytes)
        for key, cut in self._cuts.items():
            self._plan.rooms.append(RoomLoss(key, cut.messages, cut.bytes, removed=False))

    def _trims(self) -> Iterator[RoomTrim]:
        for key, cut in list(self._cuts.items()):
            room = self._state.rooms[key]
            trim = RoomTrim(key, room.floor, *cut)
            if not cut.first_id and room.count > 1 and self._now_ms - room.last_time_ms < _STILL_ACTIVE_MS:
                # That none stays is void if someone posts before it is applied, and in a busy room someone always
                # will. So all but the newest go first, which holds in any case.
                last_index, messages = self._state.applied_index, room.count - 1
                try:
                    but_one = self._source.trim(
                        key, room.floor, last_index, messages=messages, bytes=0, before_ms=0, below=0
                    )
                except self._faults as error:
                    self._plan.unreadable[key] = error
                    del self._cuts[key]
                    continue
                yield RoomTrim(key, room.floor, but_one.floor, but_one.messages, but_one.bytes, but_one.first_id)
                trim = RoomTrim(
                    key,
                    but_one.floor,
                    cut.floor,
                    cut.messages - but_one.messages,
                    cut.bytes - but_one.bytes,
                    0,
                )
            yield trim


_NO_POLICY = Policy()


def _beyond(has: int, most: int | None) -> int:
    """How much of what there is has to go."""
    return 0 if most is None else max(0, has - most)


def _split(trims: Iterable[bytes], record_size_max_bytes: int) -> Iterator[Command]:
    """As few commands as their size allows."""
    batch: list[bytes] = []
    size_bytes = _COMMAND_OVERHEAD_BYTES
    for trim in trims:
        if batch and size_bytes + len(trim) + 1 > record_size_max_bytes:
            yield trim_rooms(batch)
            batch, size_bytes = [], _COMMAND_OVERHEAD_BYTES
        batch.append(trim)
        size_bytes += len(trim) + 1
    if batch:
        yield trim_rooms(batch)

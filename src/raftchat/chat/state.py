"""The chat as a deterministic function of the committed entries: which rooms there are, what is left of each, policies.

Every process that applies the same entries, in whatever slices, holds the same state. It is given runs (entries
grouped by kind and key, `_log.KeyRun`), so Python runs per room and batch. Nothing is kept per message: a room's
messages are those from its floor on, and the log finds them. Does not know where entries come from, what a message
says, or who asks.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, Protocol

import orjson
import xxhash

from raftchat.chat.commands import (
    KIND_MEMBERSHIP,
    KIND_NOOP,
    KIND_POST,
    KIND_REMOVE_ROOM,
    KIND_RETENTION,
    KIND_TRIM,
    RoomTrim,
    parse_remove,
    parse_retention,
    parse_trims,
)
from raftchat.chat.errors import BadCommand, NewerState, UnknownKind
from raftchat.chat.policy import Policies, Policy
from raftchat.chat.room import Room

__all__ = ["ChatState", "Entry", "NewerState", "Room", "Run", "UnknownKind"]

VERSION = 1
"""Of the encoded state."""


class Run(Protocol):
    """Entries of one kind and key within a range; `indexes` ascend. `_log.KeyRun` is one."""

    @property
    def kind(self) -> int: ...
    @property
    def key(self) -> bytes: ...
    @property
    def indexes(self) -> Sequence[int]: ...
    @property
    def bytes(self) -> int: ...
    @property
    def last_time_ms(self) -> int: ...


class Entry(Protocol):
    """One entry. `_log.Entry` is one."""

    @property
    def index(self) -> int: ...
    @property
    def time_ms(self) -> int: ...
    @property
    def kind(self) -> int: ...
    @property
    def key(self) -> bytes: ...
    @property
    def value(self) -> bytes: ...


class ChatState:
    def __init__(self) -> None:
        self.applied_index = 0
        """The state is that after this entry."""
        self.applied_time_ms = 0
        """Its log time."""
        self.messages = 0
        self.bytes = 0
        """What all messages' records occupy in the log."""
        self.policies = Policies()
        self._rooms: dict[bytes, Room] = {}
        self._keys: list[bytes] = []
        """In order. By code point and by byte of UTF-8 are the same order."""
        self._empty: set[bytes] = set()

    def __len__(self) -> int:
        """Number of rooms."""
        return len(self._rooms)

    @property
    def rooms(self) -> Mapping[bytes, Room]:
        """By key, in no order that means anything."""
        return self._rooms

    @property
    def empty_rooms(self) -> Set[bytes]:
        """Keys of the rooms whose messages have all been removed."""
        return self._empty

    def room(self, key: bytes) -> Room | None:
        """The room of a key (its name in UTF-8), None if there is none."""
        return self._rooms.get(key)

    def floors(self) -> dict[bytes, int]:
        """For each room the lowest index that a message of it can have."""
        return {key: room.floor for key, room in self._rooms.items()}

    def apply(self, first_index: int, last_index: int, runs: Iterable[Run]) -> None:
        """Apply the entries `first_index` to `last_index`, which follow those applied so far; no commands among them.

        Raises UnknownKind before anything was changed.
        """
        assert first_index == self.applied_index + 1, (first_index, self.applied_index)
        assert last_index >= first_index - 1
        runs = list(runs)
        names: dict[bytes, str] = {}
        for run in runs:
            if run.kind not in (KIND_POST, KIND_NOOP, KIND_MEMBERSHIP):
                raise UnknownKind(run.kind, run.indexes[0])
            if run.kind == KIND_POST and run.key not in self._rooms:
                try:
                    names[run.key] = run.key.decode()
                except UnicodeDecodeError:
                    raise BadCommand(run.kind, run.indexes[0], "the room's name is not UTF-8") from None
        for run in runs:
            self.applied_time_ms = max(self.applied_time_ms, run.last_time_ms)
            if run.kind == KIND_POST:
                self._post(run, names)
        self._list(names)
        self.applied_index = last_index

    def _post(self, run: Run, names: Mapping[bytes, str]) -> None:
        room = self._rooms.get(run.key)
        if room is None:
            room = self._rooms[run.key] = Room(names[run.key], run.indexes[0])
        assert room.last_id < run.indexes[0]
        if not room.count:
            room.first_id = run.indexes[0]
            self._empty.discard(run.key)
        room.last_id = run.indexes[-1]
        room.count += len(run.indexes)
        room.bytes += run.bytes
        room.last_time_ms = run.last_time_ms
        self.messages += len(run.indexes)
        self.bytes += run.bytes

    def _list(self, keys: Iterable[bytes]) -> None:
        keys = list(keys)
        if len(keys) == 1:
            bisect.insort(self._keys, keys[0])
        elif keys:
            self._keys.extend(keys)
            self._keys.sort()

    def apply_command(self, entry: Entry) -> None:
        """Apply one command, the entry after those applied so far. Raises UnknownKind before anything was changed."""
        assert entry.index == self.applied_index + 1, (entry.index, self.applied_index)
        try:
            if entry.kind == KIND_TRIM:
                trims = parse_trims(entry.key, entry.value)
                if any(trim.floor > entry.index for trim in trims):
                    raise ValueError("a trim of what is not posted yet")
                for trim in trims:
                    self._trim(trim, entry.time_ms)
            elif entry.kind == KIND_REMOVE_ROOM:
                self._remove(entry.key, parse_remove(entry.key, entry.value))
            elif entry.kind == KIND_RETENTION:
                self._set_policy(entry)
            else:
                raise UnknownKind(entry.kind, entry.index)
        except ValueError as error:
            raise BadCommand(entry.kind, entry.index, str(error)) from error
        self.applied_index = entry.index
        self.applied_time_ms = max(self.applied_time_ms, entry.time_ms)

    def _trim(self, trim: RoomTrim, time_ms: int) -> None:
        """Nothing if the room is not any more as the leader saw it: it will look again.

        That none stays holds only if nothing was posted since: which message would be the first now, nobody here knows.
        """
        room = self._rooms.get(trim.key)
        if room is None or room.floor != trim.from_floor:
            return
        if trim.first_id:
            fits = trim.messages < room.count and trim.bytes < room.bytes and trim.first_id <= room.last_id
        else:
            fits = trim.messages == room.count and trim.bytes == room.bytes and trim.floor > room.last_id
        if not fits:
            return
        room.floor = trim.floor
        room.first_id = trim.first_id
        room.count -= trim.messages
        room.bytes -= trim.bytes
        room.trimmed_time_ms = time_ms
        if not room.count:
            self._empty.add(trim.key)
        self.messages -= trim.messages
        self.bytes -= trim.bytes

    def _remove(self, key: bytes, if_last_id: int | None) -> None:
        room = self._rooms.get(key)
        if if_last_id is None:
            self.policies.rooms.pop(key, None)
        if room is None or if_last_id not in (None, room.last_id):
            return
        del self._rooms[key]
        del self._keys[bisect.bisect_left(self._keys, key)]
        self._empty.discard(key)
        self.messages -= room.count
        self.bytes -= room.bytes

    def _set_policy(self, entry: Entry) -> None:
        policy, if_unset = parse_retention(entry.key, entry.value)
        policies = self.policies
        if if_unset and policies.cluster_was_set:
            return
        if not entry.key:
            policies.cluster, policies.cluster_was_set = policy, True
        elif policy is not None:
            policies.rooms[entry.key] = policy
        else:
            policies.rooms.pop(entry.key, None)

    def rooms_after(self, limit: int, after: str | None = None, prefix: str = "") -> tuple[list[Room], bool]:
        """At most `limit` rooms in order of name (by code point), and whether more follow.

        `after`: only names greater than this one, which need not exist. `prefix`: only names that start with it.
        """
        prefix_key = _key(prefix)
        start = bisect.bisect_left(self._keys, prefix_key)
        if after is not None:
            start = max(start, bisect.bisect_right(self._keys, _key(after)))
        keys = self._keys[start : start + limit + 1]
        if prefix_key and keys and not keys[-1].startswith(prefix_key):
            # Names that share a prefix lie next to each other: what follows the first that does not is of no interest.
            keys = keys[: bisect.bisect_left(keys, True, key=lambda key: not key.startswith(prefix_key))]
        more = len(keys) > limit
        return [self._rooms[key] for key in keys[:limit]], more

    def encode(self) -> bytes:
        """All of it as JSON: equal states give equal bytes."""
        policies = self.policies
        cluster = None if policies.cluster is None else policies.cluster.to_json(cluster=True)
        document = {
            "Version": VERSION,
            "AppliedIndex": self.applied_index,
            "AppliedTime": self.applied_time_ms,
            "ClusterPolicy": cluster,
            "ClusterPolicyWasSet": policies.cluster_was_set,
            "RoomPolicies": [
                [key.decode(), policies.rooms[key].to_json(cluster=False)] for key in sorted(policies.rooms)
            ],
            "Rooms": [
                (r.name, r.floor, r.first_id, r.last_id, r.count, r.bytes, r.last_time_ms, r.trimmed_time_ms)
                for r in map(self._rooms.__getitem__, self._keys)
            ],
        }
        return orjson.dumps(document)

    @classmethod
    def decode(cls, data: bytes) -> ChatState:
        """What `encode` wrote. Raises NewerState, and ValueError if it is something else."""
        document = orjson.loads(data)
        if type(document) is not dict or type(version := document.get("Version")) is not int:
            raise ValueError("not a chat state")
        if version > VERSION:
            raise NewerState(version)
        try:
            return cls._decoded(document)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a chat state: {error!r}") from error

    @classmethod
    def _decoded(cls, document: dict[str, Any]) -> ChatState:
        state = cls()
        state.applied_index, state.applied_time_ms = numbers = document["AppliedIndex"], document["AppliedTime"]
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError("not a chat state: an index or a time is no number")
        cluster = document["ClusterPolicy"]
        state.policies = Policies(
            None if cluster is None else Policy.from_json(cluster, cluster=True),
            _true_or_false(document["ClusterPolicyWasSet"]),
            {name.encode(): Policy.from_json(policy, cluster=False) for name, policy in document["RoomPolicies"]},
        )
        for name, floor, *numbers in document["Rooms"]:
            key = name.encode()
            room = state._rooms[key] = Room(name, floor)
            room.first_id, room.last_id, room.count, room.bytes, room.last_time_ms, room.trimmed_time_ms = numbers
            if room.count and floor <= room.first_id <= room.last_id <= state.applied_index and room.bytes > 0:
                state.messages += room.count
                state.bytes += room.bytes
            elif not room.count and not room.first_id and not room.bytes and 0 < room.last_id < floor:
                state._empty.add(key)
            else:
                raise ValueError(f"not a chat state: the numbers of room {name!r} do not fit")
            state._keys.append(key)
        if state._keys != sorted(state._rooms):
            raise ValueError("not a chat state: its rooms are not in order")
        return state

    def state_hash(self) -> str:
        """A digest that is equal on every node that applied the same entries. Costs a walk over all rooms."""
        return xxhash.xxh3_128_hexdigest(self.encode())


def _true_or_false(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("not a chat state: what is true or false is neither")
    return value


def _key(text: str) -> bytes:
    # What a client asks for need not be a name that could exist.
    return text.encode("utf-8", "surrogatepass")

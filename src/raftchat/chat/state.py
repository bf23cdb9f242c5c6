"""The chat as a deterministic function of the committed entries: which rooms there are and where their messages lie.

Every process that applies the same entries, in whatever slices, holds the same state. It is given runs (entries
grouped by kind and key, `_log.KeyRun`), so Python runs per room and batch. Does not know where entries come from, what
a message says, or who asks.
"""

from __future__ import annotations

import bisect
from array import array
from collections.abc import Iterable, Sequence
from typing import Protocol

import xxhash

from raftchat.chat.commands import KIND_MEMBERSHIP, KIND_NOOP, KIND_POST


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


class UnknownKind(Exception):
    """A committed entry that this version cannot interpret. To skip it would be to differ from newer nodes for ever."""

    def __init__(self, kind: int, index: int) -> None:
        super().__init__(
            f"entry {index} is of kind {kind}, which this version does not know: it was written by a newer one. "
            f"Install that version on this node."
        )
        self.kind = kind
        self.index = index


class Room:
    """One room that has messages."""

    __slots__ = ("bytes", "ids", "last_time_ms", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.ids: array[int] = array("Q")
        """IDs (log indexes) of its messages, ascending."""
        self.bytes = 0
        """What its records occupy in the log."""
        self.last_time_ms = 0
        """Log time of the last message."""

    @property
    def count(self) -> int:
        return len(self.ids)

    @property
    def first_id(self) -> int:
        return self.ids[0]

    @property
    def last_id(self) -> int:
        return self.ids[-1]


class ChatState:
    def __init__(self) -> None:
        self.applied_index = 0
        """The state is that after this entry."""
        self.messages = 0
        self._rooms: dict[bytes, Room] = {}
        self._names: list[str] = []

    def __len__(self) -> int:
        """Number of rooms."""
        return len(self._rooms)

    def room(self, key: bytes) -> Room | None:
        """The room of a key (its name in UTF-8), None if it has no message."""
        return self._rooms.get(key)

    def apply(self, first_index: int, last_index: int, runs: Iterable[Run]) -> None:
        """Apply the entries `first_index` to `last_index`, which follow those applied so far.

        Raises UnknownKind before anything was changed; then the process must halt, as the state would be wrong from
        there on.
        """
        assert first_index == self.applied_index + 1 or not self.applied_index, (first_index, self.applied_index)
        assert last_index >= first_index - 1
        runs = list(runs)
        for run in runs:
            if run.kind not in (KIND_POST, KIND_NOOP, KIND_MEMBERSHIP):
                raise UnknownKind(run.kind, run.indexes[0])
        added: list[str] = []
        for run in runs:
            if run.kind != KIND_POST:
                continue
            room = self._rooms.get(run.key)
            if room is None:
                room = self._rooms[run.key] = Room(run.key.decode())
                added.append(room.name)
            assert not room.ids or room.ids[-1] < run.indexes[0]
            room.ids.extend(run.indexes)
            room.bytes += run.bytes
            room.last_time_ms = run.last_time_ms
            self.messages += len(run.indexes)
        if len(added) == 1:
            bisect.insort(self._names, added[0])
        elif added:
            self._names.extend(added)
            self._names.sort()
        self.applied_index = last_index

    def rooms_after(self, limit: int, after: str | None = None, prefix: str = "") -> tuple[list[Room], bool]:
        """At most `limit` rooms in order of name (by code point), and whether more follow.

        `after`: only names greater than this one, which need not exist. `prefix`: only names that start with it.
        """
        start = bisect.bisect_left(self._names, prefix)
        if after is not None:
            start = max(start, bisect.bisect_right(self._names, after))
        names = self._names[start : start + limit + 1]
        if prefix and names and not names[-1].startswith(prefix):
            # Names that share a prefix lie next to each other: what follows the first that does not is of no interest.
            names = names[: bisect.bisect_left(names, True, key=lambda name: not name.startswith(prefix))]
        more = len(names) > limit
        return [self._rooms[name.encode()] for name in names[:limit]], more

    def state_hash(self) -> str:
        """A digest that is equal on every node that applied the same entries. Costs a walk over everything."""
        digest = xxhash.xxh3_128()
        digest.update(b"%d\n" % self.applied_index)
        for name in self._names:
            room = self._rooms[name.encode()]
            digest.update(b"%d %d %d %b\n" % (room.count, room.bytes, room.last_time_ms, name.encode()))
            digest.update(room.ids.tobytes())
        return digest.hexdigest()

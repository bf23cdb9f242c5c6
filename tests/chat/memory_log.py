"""A log in memory, with the look-ups of `_log.LogReader` done in the plainest way. Knows not what entries mean."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import NamedTuple

from raftchat.chat.commands import KIND_NOOP, KIND_POST, Command


class Entry(NamedTuple):
    index: int
    time_ms: int
    kind: int
    key: bytes
    value: bytes

    @property
    def size(self) -> int:
        size = 48 + len(self.key) + len(self.value)
        return size + -size % 8


@dataclass
class Run:
    kind: int
    key: bytes
    indexes: array = field(default_factory=lambda: array("Q"))
    bytes: int = 0
    last_time_ms: int = 0


class Trim(NamedTuple):
    floor: int
    messages: int
    bytes: int
    first_id: int


class MemoryLog:
    def __init__(self) -> None:
        self.all: list[Entry] = []

    @property
    def last_index(self) -> int:
        return len(self.all)

    def append(self, kind: int, key: bytes = b"", value: bytes = b"", time_ms: int | None = None) -> int:
        """Its index. Time goes on by a millisecond, or to `time_ms`, and never back."""
        last_ms = self.all[-1].time_ms if self.all else 0
        time_ms = last_ms + 1 if time_ms is None else max(last_ms, time_ms)
        self.all.append(Entry(self.last_index + 1, time_ms, kind, key, value))
        return self.last_index

    def post(self, key: bytes, text: str = "", time_ms: int | None = None) -> int:
        return self.append(KIND_POST, key, f'"User":"u","Message":"{text}"'.encode(), time_ms)

    def noop(self) -> int:
        return self.append(KIND_NOOP)

    def command(self, command: Command, time_ms: int | None = None) -> int:
        return self.append(*command, time_ms=time_ms)

    def posts(self, key: bytes, floor: int = 0, last_index: int = 2**63) -> list[Entry]:
        return [e for e in self.all if e.kind == KIND_POST and e.key == key and floor <= e.index <= last_index]

    # What the compiled reader does

    def entries(self, first_index: int, last_index: int) -> list[Entry]:
        assert 1 <= first_index <= last_index <= self.last_index
        return self.all[first_index - 1 : last_index]

    def scan(self, first_index: int, last_index: int) -> list[Run]:
        runs: dict[tuple[int, bytes], Run] = {}
        for entry in self.all[first_index - 1 : last_index]:
            run = runs.setdefault((entry.kind, entry.key), Run(entry.kind, entry.key))
            run.indexes.append(entry.index)
            run.bytes += entry.size
            run.last_time_ms = entry.time_ms
        return list(runs.values())

    def below(self, key: bytes, index: int, limit: int, floor: int) -> array:
        return array("Q", [e.index for e in self.posts(key, floor, index - 1)][-limit:])

    def above(self, key: bytes, index: int, limit: int, last_index: int) -> array:
        return array("Q", [e.index for e in self.posts(key, index + 1, last_index)][:limit])

    def trim(
        self, key: bytes, floor: int, last_index: int, *, messages: int, bytes: int, before_ms: int, below: int
    ) -> Trim:
        posts = self.posts(key, floor, last_index)
        for going in range(len(posts) + 1):
            gone, staying = posts[:going], posts[going:]
            if len(gone) >= messages and sum(e.size for e in gone) >= bytes:
                if not staying:
                    return Trim(last_index + 1, len(gone), sum(e.size for e in gone), 0)
                if staying[0].time_ms >= before_ms and staying[0].index >= below:
                    return Trim(staying[0].index, len(gone), sum(e.size for e in gone), staying[0].index)
        return Trim(last_index + 1, len(posts), sum(e.size for e in posts), 0)

    def nth_oldest(self, floors: dict[bytes, int], last_index: int, *, messages: int, bytes: int) -> int:
        found = size = 0
        below = 0
        for entry in self.all[:last_index]:
            if found >= messages and size >= bytes:
                break
            if entry.kind == KIND_POST and entry.key in floors and entry.index >= floors[entry.key]:
                found, size, below = found + 1, size + entry.size, entry.index + 1
        return below

"""The core's `Log` in memory, with records that can be read: a kind and a text, ended by a newline.

`sync` makes durable, `after_crash` is what is left of it. Knows nothing of Raft's rules.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

NOOP = b"noop\n"
Buffer = bytes | bytearray | memoryview


def post(text: str) -> bytes:
    return b"post " + text.encode() + b"\n"


def pack_membership(encoded: bytes) -> bytes:
    return b"members " + encoded + b"\n"


@dataclass(frozen=True, slots=True)
class MemoryBatch:
    first_index: int
    last_index: int
    term: int
    data: memoryview
    membership: bytes | None


class MemoryLog:
    def __init__(self, *, last_index: int = 0, last_term: int = 0) -> None:
        self.generation = 0
        self._begin(last_index, last_term)

    def _begin(self, last_index: int, last_term: int) -> None:
        self.first_index = last_index + 1
        self.synced_index = last_index
        self.records: list[bytes] = []
        self.ends = [0]  # ends[i]: bytes of the first i records
        self.runs = [(last_index, last_term)]  # (first index, term), ascending: where slices begin anew
        self.members: set[int] = set()

    @property
    def last_index(self) -> int:
        return self.first_index - 1 + len(self.records)

    @property
    def last_term(self) -> int:
        return self.runs[-1][1]

    def term_at(self, index: int) -> int:
        if not self.first_index - 1 <= index <= self.last_index:
            raise IndexError(index)
        return self.runs[self._run(index)][1]

    def slice(self, first_index: int, max_bytes: int) -> MemoryBatch | None:
        if first_index > self.last_index:
            return None
        begin = first_index - self.first_index
        run = self._run(first_index)
        end = len(self.records) if run + 1 == len(self.runs) else self.runs[run + 1][0] - self.first_index
        end = min(end, max(bisect_right(self.ends, self.ends[begin] + max_bytes) - 1, begin + 1))
        membership = self.records[begin][8:-1] if first_index in self.members else None
        data = memoryview(b"".join(self.records[begin:end]))
        return MemoryBatch(first_index, self.first_index + end - 1, self.runs[run][1], data, membership)

    def append(self, records: Buffer, term: int, time_ms: int) -> tuple[int, int]:
        assert term >= self.last_term, "terms never go back"
        split = bytes(records).splitlines(keepends=True)
        first = self.last_index + 1
        for record in split if b"members " in bytes(records) else split[:1]:
            index = self.last_index + 1
            membership = record.startswith(b"members ")
            if membership:
                self.members.add(index)
            if term != self.last_term or membership or index - 1 in self.members:
                self.runs.append((index, term))
            self._push([record])
        self._push(split[self.last_index + 1 - first :])
        return first, self.last_index

    def append_batch(self, batch: MemoryBatch, from_index: int) -> None:
        assert batch.first_index <= from_index == self.last_index + 1
        split = bytes(batch.data).splitlines(keepends=True)
        assert len(split) == batch.last_index - batch.first_index + 1
        self.append(b"".join(split[from_index - batch.first_index :]), batch.term, 0)

    def truncate_suffix(self, last_index: int) -> None:
        assert self.first_index - 1 <= last_index < self.last_index
        self.generation += 1
        keep = last_index + 1 - self.first_index
        del self.records[keep:], self.ends[keep + 1 :]
        while self.runs[-1][0] > last_index:
            self.runs.pop()
        self.members = {index for index in self.members if index <= last_index}
        self.synced_index = last_index

    def reset(self, last_index: int, last_term: int, last_time_ms: int) -> None:
        self.generation += 1
        self._begin(last_index, last_term)

    # For tests

    def drop_prefix(self, first_index: int) -> None:
        """Forget all entries before `first_index`."""
        term = self.term_at(first_index - 1)
        gone = first_index - self.first_index
        self.records = self.records[gone:]
        self.ends = [end - self.ends[gone] for end in self.ends[gone:]]
        self.runs = [(first_index - 1, term), *[run for run in self.runs if run[0] >= first_index]]
        self.first_index = first_index

    def sync(self, last_index: int, generation: int) -> None:
        if generation == self.generation:
            self.synced_index = max(self.synced_index, last_index)

    def after_crash(self) -> MemoryLog:
        """What a new process finds: all that was durable, and nothing else."""
        log = MemoryLog(last_index=self.first_index - 1, last_term=self.runs[0][1])
        for index in range(self.first_index, self.synced_index + 1):
            log.append(self.record(index), self.term_at(index), 0)
        log.synced_index = log.last_index
        return log

    def record(self, index: int) -> bytes:
        return self.records[index - self.first_index]

    def memberships(self) -> list[tuple[int, bytes]]:
        return [(index, self.record(index)[8:-1]) for index in sorted(self.members)]

    def entries(self) -> list[tuple[int, str]]:
        """(term, text) of each entry."""
        return [(self.term_at(i), self.record(i)[:-1].decode()) for i in range(self.first_index, self.last_index + 1)]

    def _run(self, index: int) -> int:
        return bisect_right(self.runs, index, key=lambda run: run[0]) - 1

    def _push(self, records: list[bytes]) -> None:
        end = self.ends[-1]
        for record in records:
            end += len(record)
            self.ends.append(end)
        self.records += records


def log_of(*terms: int, synced: bool = True) -> MemoryLog:
    """A log with one post per term given, named after its place."""
    log = MemoryLog()
    for index, term in enumerate(terms, 1):
        log.append(post(f"{index}.{term}"), term, 0)
    if synced:
        log.synced_index = log.last_index
    return log

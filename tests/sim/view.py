"""The reference log under observation, and what it holds as chained digests: one comparison tells of a whole history.

Knows nothing of Raft's rules. The digests are of what lies in the log, read back after each append, not of what was
asked to be written.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from xxhash import xxh3_64_intdigest

from raftchat.log_reference import RECORD_HEADER_BYTES, Batch, Log

from .disk import SimDisk

_SIZE_AT = 16
_HASHED_FROM = 16  # The checksum and `synced` before it differ between nodes.
_SIZE = struct.Struct("<I")
_PLACE = struct.Struct("<QQ")
_ANY = 1 << 40


class View:
    """`terms[i]` and `digests[i]` of entry i; a digest covers all entries up to its own. Entry 0 is none."""

    def __init__(self) -> None:
        self.terms = [0]
        self.digests = [0]

    @property
    def last_index(self) -> int:
        return len(self.terms) - 1

    def extend(self, batch: Batch) -> None:
        data, offset, previous = batch.data, 0, self.digests[-1]
        while offset < len(data):
            (size,) = _SIZE.unpack_from(data, offset + _SIZE_AT)
            end = offset + RECORD_HEADER_BYTES + size
            index, term = _PLACE.unpack_from(data, offset + 24)
            assert index == len(self.terms)
            previous = xxh3_64_intdigest(data[offset + _HASHED_FROM : end], previous)
            self.terms.append(term)
            self.digests.append(previous)
            offset = end + (-size & 7)

    def cut(self, last_index: int) -> None:
        del self.terms[last_index + 1 :]
        del self.digests[last_index + 1 :]


class ObservedLog(Log):
    """The log that the core gets."""

    def __init__(
        self, directory: str, *, new_segment_id: Callable[[], int], segment_size_bytes: int, hint: int, disk: SimDisk
    ) -> None:
        super().__init__(
            directory,
            new_segment_id=new_segment_id,
            segment_size_bytes=segment_size_bytes,
            durable_hint=hint,
            disk=disk,
        )
        self.view = View()
        self._read_back()
        self.on_append: Callable[[int, int], None] | None = None
        self.before_cut: Callable[[int], None] | None = None
        self.on_cut: Callable[[int], None] | None = None

    def _read_back(self) -> None:
        view = self.view
        while view.last_index < self.last_index:
            batch = self.slice(view.last_index + 1, _ANY)
            assert batch is not None
            view.extend(batch)
        assert super().term_at(self.last_index) == view.terms[-1]

    def term_at(self, index: int) -> int:
        """From memory, as the fast log does it: the reference reads and checks a record each time."""
        if self.first_index - 1 <= index <= self.last_index:
            return self.view.terms[index]
        return super().term_at(index)

    def append(self, records: bytes | bytearray | memoryview, term: int, time_ms: int) -> tuple[int, int]:
        first, last = super().append(records, term, time_ms)
        self._read_back()
        if self.on_append is not None:
            self.on_append(first, last)
        return first, last

    def append_batch(self, batch: Batch, from_index: int) -> None:
        super().append_batch(batch, from_index)
        self._read_back()
        if self.on_append is not None:
            self.on_append(from_index, self.last_index)

    def truncate_suffix(self, last_index: int) -> None:
        cuts = last_index < self.last_index
        if cuts and self.before_cut is not None:
            self.before_cut(last_index)
        super().truncate_suffix(last_index)
        self.view.cut(last_index)
        if cuts and self.on_cut is not None:
            self.on_cut(last_index)

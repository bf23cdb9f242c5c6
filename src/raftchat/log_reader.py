"""Committed entries for other processes, in plain Python: the reading half of the reference log.

Never looks beyond what its caller says is committed. Knows segments and the shape of a post, not rooms or sockets.
"""

from __future__ import annotations

import contextlib
import json
from array import array
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from raftchat.log_disk import Disk, OsDisk
from raftchat.log_records import KIND_POST, Entry, Header, entry_at, render_post
from raftchat.log_segment import SegmentFile, segment_path


class KeyRun(NamedTuple):
    """Entries of one kind and key within a scanned range."""

    kind: int
    key: bytes
    indexes: array[int]
    """Type 'Q', ascending."""
    bytes: int
    """Their size in the log, headers and padding included."""
    last_time_ms: int


class LogReader:
    """Committed entries for other processes. Every record read is checked."""

    def __init__(self, directory: str, *, disk: Disk | None = None) -> None:
        self._directory = directory
        self._disk = disk if disk is not None else OsDisk()
        self._segments: list[tuple[int, int, SegmentFile | None]] = []
        """(sequence, base index, file; None if it was unlinked before we came to it)."""
        self._closed = False

    def add_segment(self, sequence: int, base_index: int) -> None:
        """The owner made a segment. Must be told in order of sequence, else ValueError.

        One that is gone already is not an error until it is read: retention may be quicker than its reader.
        """
        self._require_open()
        if self._segments and sequence <= self._segments[-1][0]:
            raise ValueError(f"segment {sequence} comes after segment {self._segments[-1][0]}")
        segment: SegmentFile | None = None
        with contextlib.suppress(FileNotFoundError):
            segment = SegmentFile.open(self._disk, self._directory, sequence, base_index, writable=False)
        if segment is not None and segment.header.prev_sequence == 0:
            self._segments = []
        self._segments = [known for known in self._segments if known[1] < base_index]
        self._segments.append((sequence, base_index, segment))

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("the reader is closed")

    def _record(self, index: int) -> tuple[bytes, Header]:
        """The checked bytes of an entry. Raises IndexError, CorruptLog, FileNotFoundError."""
        for sequence, base_index, segment in reversed(self._segments):
            if base_index <= index:
                if segment is None:
                    raise FileNotFoundError(
                        2, "the segment is gone", segment_path(self._directory, sequence, base_index)
                    )
                return segment.record(index)
        raise IndexError(f"entry {index} is not in the log")

    def scan(self, first_index: int, last_index: int) -> list[KeyRun]:
        """Group a range by (kind, key), in order of first appearance."""
        self._require_open()
        runs: dict[tuple[int, bytes], list[int]] = {}
        totals: dict[tuple[int, bytes], tuple[int, int]] = {}
        for index in range(first_index, last_index + 1):
            data, header = self._record(index)
            name = (header.kind, entry_at(data, 0, header).key)
            runs.setdefault(name, []).append(index)
            totals[name] = (totals.get(name, (0, 0))[0] + header.size, header.time_ms)
        return [KeyRun(*name, array("Q", indexes), *totals[name]) for name, indexes in runs.items()]

    def entries(self, first_index: int, last_index: int, max_bytes: int = 2**62) -> list[Entry]:
        """The entries of a range, as many as fit into `max_bytes` of log, but at least one. Raises IndexError."""
        self._require_open()
        found: list[Entry] = []
        for index in range(first_index, last_index + 1):
            data, header = self._record(index)
            max_bytes -= header.size
            if found and max_bytes < 0:
                break
            found.append(entry_at(data, 0, header))
        return found

    def term_at(self, index: int) -> int:
        """Term of an entry. Raises IndexError."""
        self._require_open()
        return self._record(index)[1].term

    def page(self, indexes: Sequence[int]) -> bytes:
        """A JSON array of these posts. Raises ValueError if one is not a post."""
        self._require_open()
        return b"[%s]" % b",".join(render_post(self._entry(index)) for index in indexes)

    def _entry(self, index: int) -> Entry:
        data, header = self._record(index)
        return entry_at(data, 0, header)

    def frames(
        self, first_index: int, last_index: int, names: Mapping[bytes, bytes] | None
    ) -> list[tuple[bytes, bytes]]:
        """(key, `{"RoomName":…,"Post":{…}}`) for each post in the range, in order.

        `names` maps a key to its JSON string; posts of keys not in it are left out. None: all, names made on the way.
        """
        self._require_open()
        found = []
        for index in range(first_index, last_index + 1):
            entry = self._entry(index)
            if entry.kind != KIND_POST:
                continue
            if names is None:
                name: bytes | None = json.dumps(entry.key.decode(errors="replace"), ensure_ascii=False).encode()
            else:
                name = names.get(entry.key)
            if name is not None:
                found.append((entry.key, b'{"RoomName":%s,"Post":%s}' % (name, render_post(entry))))
        return found

    def close(self) -> None:
        self._closed = True
        self._segments = []

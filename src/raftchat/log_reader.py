"""Committed entries for other processes, in plain Python: the reading half of the reference log.

Never looks beyond what its caller says is committed. Knows segments and the shape of a post, not rooms or sockets.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from raftchat.log_disk import Disk, OsDisk
from raftchat.log_lookup import Trim, live_bytes, nth_oldest, trim
from raftchat.log_part import Parts
from raftchat.log_records import KIND_POST, Entry, entry_at, render_post


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
        self._parts = Parts()
        self._closed = False

    def _require_open(self) -> None:
        if self._closed:
            raise ValueError("the reader is closed")

    # Segments

    def add_segment(self, sequence: int, base_index: int, revision: int = 0) -> None:
        """The owner made a segment: every known one with a sequence up to this and a base index from this on is let go.

        Sequences do not fall but for compacted segments. One that is gone already is not an error until it is read:
        retention may be quicker than its reader. Raises ValueError, or as opening a log does.
        """
        self._require_open()
        self._parts.add(self._disk, self._directory, sequence, base_index, revision)

    def drop_prefix(self, first_index: int) -> None:
        """The owner let go of segments that hold nothing from that entry on: so does this, and their space is free."""
        self._require_open()
        self._parts.known = [part for part in self._parts.known if part.last_index >= first_index]

    def use_index(self, sequence: int) -> bool:
        """The owner made an index of this sealed segment: use it, and free what is in memory. False: it cannot be."""
        self._require_open()
        part = self._parts.sealed(sequence)
        return part is not None and part.use_index()

    def bad_indexes(self) -> list[int]:
        """Sequences of the segments whose index was to be used and cannot be: to be made again."""
        return [part.sequence for part in self._parts.known if part.bad_index]

    # What was committed

    def scan(self, first_index: int, last_index: int) -> list[KeyRun]:
        """Group a range by (kind, key), in order of first appearance. Where there is no index, notes where posts lie.

        Ranges follow each other, and may come again; the first may begin anywhere. Compacted segments cannot be
        scanned (IndexError).
        """
        self._require_open()
        runs: dict[tuple[int, bytes], list[int]] = {}
        totals: dict[tuple[int, bytes], tuple[int, int]] = {}
        for index in range(first_index, last_index + 1):
            part = self._parts.holder(index)
            if part.revision:
                raise IndexError(f"entry {index} may have been left out of a compacted segment")
            data, header = part.file().record(index)
            if part.index is None and (part.notes is not None or index == part.base_index):
                part.note(index)
            name = (header.kind, entry_at(data, 0, header).key)
            runs.setdefault(name, []).append(index)
            totals[name] = (totals.get(name, (0, 0))[0] + header.size, header.time_ms)
        return [KeyRun(*name, array("Q", indexes), *totals[name]) for name, indexes in runs.items()]

    def entries(self, first_index: int, last_index: int, max_bytes: int = 2**62) -> list[Entry]:
        """The entries of a range, as many as fit into `max_bytes` of log, but at least one. Raises IndexError.

        What a compacted segment left out is skipped.
        """
        self._require_open()
        found: list[Entry] = []
        while (record := self._parts.next(first_index, last_index)) is not None:
            data, header = record
            max_bytes -= header.size
            if found and max_bytes < 0:
                break
            found.append(entry_at(data, 0, header))
            first_index = header.index + 1
        return found

    def term_at(self, index: int) -> int:
        """Term of an entry. Raises IndexError, also if a compacted segment left it out."""
        self._require_open()
        return self._parts.record(index)[1].term

    def page(self, indexes: Sequence[int]) -> bytes:
        """A JSON array of these posts. Raises ValueError if one is not a post, or gone."""
        self._require_open()
        return b"[%s]" % b",".join(render_post(self._entry(index)) for index in indexes)

    def _entry(self, index: int) -> Entry:
        record = self._parts.next(index, index)
        if record is None:
            raise ValueError(f"entry {index} is gone")
        return entry_at(record[0], 0, record[1])

    def frames(
        self, first_index: int, last_index: int, names: Mapping[bytes, bytes] | None
    ) -> list[tuple[bytes, bytes]]:
        """(key, `{"RoomName":…,"Post":{…}}`) for each post in the range, in order.

        `names` maps a key to its JSON string; posts of keys not in it are left out. None: all, names made on the way.
        What a compacted segment left out is skipped.
        """
        self._require_open()
        found = []
        for entry in self.entries(first_index, last_index):
            if entry.kind != KIND_POST:
                continue
            if names is None:
                name: bytes | None = json.dumps(entry.key.decode(errors="replace"), ensure_ascii=False).encode()
            else:
                name = names.get(entry.key)
            if name is not None:
                found.append((entry.key, b'{"RoomName":%s,"Post":%s}' % (name, render_post(entry))))
        return found

    # Where posts lie

    def below(self, key: bytes, index: int, limit: int, floor: int) -> array[int]:
        """The last `limit` posts of a room with floor ≤ ID < index: IDs ('Q'), ascending.

        What lies below `index` must be committed.
        """
        self._require_open()
        found: list[int] = []
        for part in reversed(self._parts.known[: self._parts.at(index - 1) + 1]):
            last = min(part.last_index, index - 1)
            if last < floor or len(found) >= limit:
                break
            posts = part.look_up(key, last)
            if posts is not None:
                found = [at for at, _ in posts.postings if floor <= at <= last] + found
        return array("Q", found[-limit:] if limit > 0 else [])

    def above(self, key: bytes, index: int, limit: int, last_index: int) -> array[int]:
        """The first `limit` posts of a room with index < ID ≤ last_index: IDs ('Q'), ascending."""
        self._require_open()
        found: list[int] = []
        for part in self._parts.known[max(0, self._parts.at(index + 1)) :]:
            last = min(part.last_index, last_index)
            if part.base_index > last_index or len(found) >= limit:
                break
            posts = part.look_up(key, last) if last > index else None
            if posts is not None:
                found += [at for at, _ in posts.postings if index < at <= last]
        return array("Q", found[: max(0, limit)])

    def trim(
        self, key: bytes, floor: int, last_index: int, *, messages: int, bytes: int, before_ms: int, below: int
    ) -> Trim:
        """The floor that removes as little as it can so that, of the posts of a room from `floor` to `last_index`, at
        least `messages` and `bytes` go, and all that are older than `before_ms` or lie below index `below`.

        Whole segments are counted by their index; records are read only where the floor comes to lie.
        """
        self._require_open()
        return trim(self._parts, key, floor, last_index, messages, bytes, before_ms, below)

    def live_bytes(self, floors: Mapping[bytes, int], base_index: int, last_index: int) -> int:
        """What the live posts of the segment that begins with `base_index` occupy, up to `last_index`.

        Live: in a room that `floors` has, and not below its floor. Raises IndexError if there is none.
        """
        self._require_open()
        return live_bytes(self._parts, floors, base_index, last_index)

    def nth_oldest(self, floors: Mapping[bytes, int], last_index: int, *, messages: int, bytes: int) -> int:
        """The lowest index below which at least that many live posts, and bytes of them, of all rooms together lie.

        Live: in a room that `floors` has, not below its floor, up to `last_index`. `last_index` + 1 if there are fewer.
        """
        self._require_open()
        return nth_oldest(self._parts, floors, last_index, messages, bytes)

    def close(self) -> None:
        self._closed = True
        self._parts = Parts()

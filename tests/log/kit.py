"""What the tests of the log share: a log with predictable ids, posts to fill it, and hands on its files."""

from __future__ import annotations

import itertools
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

SEGMENT_SIZE_BYTES = 4096
HEADER_BYTES, SEGMENT_HEADER_BYTES = 48, 64


class Kit:
    """Logs of one implementation in one directory. Segment ids count up from 1."""

    def __init__(self, module: ModuleType, directory: Path) -> None:
        self.module = module
        self.directory = directory
        self.ids = itertools.count(1)

    def path(self, name: str = "log") -> str:
        return str(self.directory / name)

    def open(self, name: str = "log", **options: Any) -> Any:
        options = {"segment_size_bytes": SEGMENT_SIZE_BYTES, "new_segment_id": lambda: next(self.ids)} | options
        return self.module.Log(self.path(name), **options)

    def post(self, number: int = 0, room: str = "general", size: int = 0) -> bytes:
        value = f'"User":"u{number}","Message":"{"m" * size}"'
        return self.module.pack(16, room.encode(), value.encode(), b"k%d" % number)

    def posts(self, count: int, size: int = 0) -> bytes:
        return b"".join(self.post(number, size=size) for number in range(count))

    def filled(self, count: int, name: str = "log", **options: Any) -> Any:
        """A log of so many posts, one append and one term each ten, all synced."""
        log = self.open(name, **options)
        for number in range(count):
            log.append(self.post(number), 1 + number // 10, 1_000_000 + number)
        sync(log)
        return log

    def reader(self, log: Any, name: str = "log") -> Any:
        reader = self.module.LogReader(self.path(name))
        for segment in log.segments():
            reader.add_segment(segment.sequence, segment.base_index, segment.revision)
        return reader

    def files(self, name: str = "log") -> list[Path]:
        """Segments in order of sequence."""
        return sorted((self.directory / name).glob("*.log"))


def sync(log: Any) -> None:
    point = log.begin_sync()
    point.wait()
    log.end_sync(point)


def record_offsets(data: bytes) -> list[int]:
    """Where each record of a segment file lies, and after the last one where they end."""
    offsets = [SEGMENT_HEADER_BYTES]
    while offsets[-1] + HEADER_BYTES <= len(data) and data[offsets[-1] + 20]:
        (body_size,) = struct.unpack_from("<I", data, offsets[-1] + 16)
        offsets.append(offsets[-1] + HEADER_BYTES + (body_size + 7 & ~7))
    return offsets


def contents(log: Any) -> list[tuple[Any, ...]]:
    return [tuple(entry) for entry in log.entries(log.first_index, log.last_index)]


def describe(error: BaseException) -> tuple[Any, ...]:
    """An error without what differs between two directories."""
    if hasattr(error, "reason"):
        return type(error).__name__, Path(error.path).name, error.offset, error.reason
    return (type(error).__name__,)


def described(segment: Any) -> tuple[Any, ...]:
    """A segment without what differs between two directories."""
    return (*segment[:3], Path(segment.path).name, *segment[4:])

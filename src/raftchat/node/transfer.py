"""What is said on a connection that carries a snapshot: sans I/O, for both ends.

The receiver asks and the sender answers, one after the other, each question and head of an answer being

    u32 size of what follows | JSON object        (little-endian)

| question | answer |
|---|---|
| `{"Want":"manifest","Index":n}` | the manifest of a snapshot at or above that index, or `{"Error":…}` |
| `{"Want":"file","Name":…,"Offset":n}` | `{"Size":n}`, then so many bytes of it from the offset on, or an error |

A manifest names whole files, so what was received stays good when the connection breaks; the next one goes on there.
Knows neither sockets nor disks, nor what is in the files.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from struct import Struct
from typing import Any

import orjson

FRAME_MAX_BYTES = 16 * 1024 * 1024
"""A manifest has about 150 bytes for each segment."""
_SIZE = Struct("<I")
_SNAPSHOT_NAME = re.compile(r"[0-9]{20}-[0-9]{1,20}\.snapshot")
_SEGMENT_NAME = re.compile(r"[0-9]{8,10}-[0-9]{20}(-[0-9]{4,10})?\.log")
_U64_MAX = (1 << 64) - 1


class BadTransfer(ValueError):
    """The other side said what cannot be; the connection is of no more use."""


class Refused(Exception):
    """The sender cannot give what was asked for, in its own words."""


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """A sealed segment. `last_index`: the last of its entries that counts."""

    name: str
    sequence: int
    base_index: int
    revision: int
    last_index: int
    segment_id: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """A snapshot, and the segments that it stands on, the oldest first."""

    index: int
    term: int
    snapshot_name: str
    snapshot_size_bytes: int
    segments: tuple[SegmentFile, ...]

    @property
    def size_bytes(self) -> int:
        return self.snapshot_size_bytes + sum(segment.size_bytes for segment in self.segments)

    def encode(self) -> dict[str, Any]:
        return {
            "Index": self.index,
            "Term": self.term,
            "Snapshot": {"Name": self.snapshot_name, "Size": self.snapshot_size_bytes},
            "Segments": [
                {
                    "Name": segment.name,
                    "Sequence": segment.sequence,
                    "Base": segment.base_index,
                    "Revision": segment.revision,
                    "Last": segment.last_index,
                    "ID": segment.segment_id,
                    "Size": segment.size_bytes,
                }
                for segment in self.segments
            ],
        }

    @classmethod
    def decode(cls, fields: dict[str, Any]) -> Manifest:
        """Raises BadTransfer unless names are mere names and the segments follow each other up to the snapshot."""
        try:
            manifest = cls(
                _number(fields["Index"]),
                _number(fields["Term"]),
                _name(fields["Snapshot"]["Name"], _SNAPSHOT_NAME),
                _number(fields["Snapshot"]["Size"]),
                tuple(_segment(segment) for segment in fields["Segments"]),
            )
        except (KeyError, TypeError) as error:
            raise BadTransfer(f"a manifest without {error}") from None
        if not manifest.segments or manifest.segments[-1].last_index != manifest.index:
            raise BadTransfer("the segments do not end with the snapshot")
        for before, after in zip(manifest.segments, manifest.segments[1:], strict=False):
            if after.base_index != before.last_index + 1 or after.sequence <= before.sequence:
                raise BadTransfer(f"{after.name} does not follow {before.name}")
        if any(segment.last_index < segment.base_index - 1 for segment in manifest.segments):
            raise BadTransfer("a segment ends before it begins")
        return manifest


@dataclass(frozen=True, slots=True)
class WantManifest:
    index: int


@dataclass(frozen=True, slots=True)
class WantFile:
    name: str
    offset: int


def encode_want(want: WantManifest | WantFile) -> bytes:
    if isinstance(want, WantManifest):
        return frame({"Want": "manifest", "Index": want.index})
    return frame({"Want": "file", "Name": want.name, "Offset": want.offset})


def decode_want(fields: dict[str, Any]) -> WantManifest | WantFile:
    """Raises BadTransfer."""
    try:
        if fields["Want"] == "manifest":
            return WantManifest(_number(fields["Index"]))
        if fields["Want"] == "file":
            name = fields["Name"]
            pattern = _SNAPSHOT_NAME if isinstance(name, str) and name.endswith(".snapshot") else _SEGMENT_NAME
            return WantFile(_name(name, pattern), _number(fields["Offset"]))
    except (KeyError, TypeError) as error:
        raise BadTransfer(f"a question without {error}") from None
    raise BadTransfer("an unknown question")


def frame(fields: dict[str, Any]) -> bytes:
    body = orjson.dumps(fields)
    assert len(body) <= FRAME_MAX_BYTES
    return _SIZE.pack(len(body)) + body


class Frames:
    """Cuts a stream into frames; what follows a frame may be raw bytes, which the caller takes with `take`."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def next(self) -> dict[str, Any] | None:
        """The next frame; None: more is needed. Raises BadTransfer."""
        if len(self._buffer) < _SIZE.size:
            return None
        (size,) = _SIZE.unpack_from(self._buffer)
        if size > FRAME_MAX_BYTES:
            raise BadTransfer(f"a frame of {size} bytes")
        if len(self._buffer) < _SIZE.size + size:
            return None
        body = bytes(self._buffer[_SIZE.size : _SIZE.size + size])
        del self._buffer[: _SIZE.size + size]
        try:
            fields = orjson.loads(body)
        except orjson.JSONDecodeError as error:
            raise BadTransfer(f"a frame that is not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise BadTransfer("a frame that is not an object")
        return fields

    def take(self, max_bytes: int) -> bytes:
        """Raw bytes that came behind the last frame, at most so many."""
        data = bytes(self._buffer[:max_bytes])
        del self._buffer[:max_bytes]
        return data


def _segment(fields: dict[str, Any]) -> SegmentFile:
    return SegmentFile(
        _name(fields["Name"], _SEGMENT_NAME),
        _number(fields["Sequence"]),
        _number(fields["Base"]),
        _number(fields["Revision"]),
        _number(fields["Last"]),
        _number(fields["ID"]),
        _number(fields["Size"]),
    )


def _number(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _U64_MAX:
        raise BadTransfer(f"{value!r} is not a number that can be")
    return value


def _name(value: Any, pattern: re.Pattern[str]) -> str:
    """Names become paths: nothing but what a node itself would call its files."""
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise BadTransfer(f"{value!r} is not the name of such a file")
    return value

"""Fan-out: every message is rendered once, and sockets that want the same messages are given the same bytes.

Knows rooms as keys and sockets as sinks of bytes. Does not know the protocol of a socket beyond the head of a frame,
nor what a message says. A message costs those who want it: groups are found by room, and what one slice of the log
brings a group leaves as one write per socket.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from struct import Struct
from typing import Protocol

import orjson

_TEXT_FINAL = 0x81  # RFC 6455 section 5.2: FIN, opcode 1
_LENGTH_U16 = Struct(">BBH")
_LENGTH_U64 = Struct(">BBQ")
_SHORT_HEADS = [bytes((_TEXT_FINAL, size)) for size in range(126)]


class FrameSource(Protocol):
    """Where messages are rendered: `_log.LogReader`."""

    def frames(
        self, first_index: int, last_index: int, names: Mapping[bytes, bytes] | None
    ) -> list[tuple[bytes, bytes]]: ...


class Sink(Protocol):
    """One socket. Neither call waits or raises."""

    def write(self, data: bytes) -> None:
        """Send whole WebSocket frames, or if too much is waiting for this socket already, end it."""


Rooms = frozenset[bytes] | None
"""Keys of the rooms that a socket wants; None: all of them."""


def frame_head(size: int) -> bytes:
    """Head of an unmasked, final text frame with `size` bytes of payload (RFC 6455 section 5.2)."""
    if size < 126:
        return _SHORT_HEADS[size]
    if size < 65536:
        return _LENGTH_U16.pack(_TEXT_FINAL, 126, size)
    return _LENGTH_U64.pack(_TEXT_FINAL, 127, size)


def text_frame(payload: bytes) -> bytes:
    return frame_head(len(payload)) + payload


class _Group:
    """Sockets with the same filter."""

    __slots__ = ("parts", "sinks")

    def __init__(self) -> None:
        self.sinks: dict[Sink, None] = {}
        self.parts: list[bytes] = []


class Hub:
    def __init__(self) -> None:
        self.delivered = 0
        """Messages handed to sockets."""
        self._groups: dict[Rooms, _Group] = {}
        self._by_room: dict[bytes, list[_Group]] = {}
        self._names: dict[bytes, bytes] = {}
        """JSON strings of the rooms in `_by_room`."""

    def __len__(self) -> int:
        return sum(len(group.sinks) for group in self._groups.values())

    @property
    def watched(self) -> bool:
        """Whether there is any socket."""
        return bool(self._groups)

    def subscribe(self, sink: Sink, rooms: Rooms) -> None:
        group = self._groups.get(rooms)
        if group is None:
            group = self._groups[rooms] = _Group()
            for room in rooms or ():
                self._by_room.setdefault(room, []).append(group)
                self._names[room] = orjson.dumps(room.decode())
        group.sinks[sink] = None

    def unsubscribe(self, sink: Sink, rooms: Rooms) -> None:
        group = self._groups.get(rooms)
        if group is None or sink not in group.sinks:
            return
        del group.sinks[sink]
        if group.sinks:
            return
        del self._groups[rooms]
        for room in rooms or ():
            groups = self._by_room[room]
            groups.remove(group)
            if not groups:
                del self._by_room[room]
                del self._names[room]

    def publish(self, source: FrameSource, first_index: int, last_index: int) -> None:
        """Hand every message of a range of entries to the sockets that want it, in order."""
        if not self._groups:
            return
        everything = self._groups.get(None)
        messages = source.frames(first_index, last_index, self._names if everything is None else None)
        touched: dict[_Group, None] = {}
        for key, payload in messages:
            head = frame_head(len(payload))
            if everything is not None:
                everything.parts += (head, payload)
            for group in self._by_room.get(key, ()):
                group.parts += (head, payload)
                touched[group] = None
        if everything is not None and messages:
            touched[everything] = None
        for group in touched:
            self.delivered += len(group.parts) // 2 * len(group.sinks)
            data = b"".join(group.parts)
            group.parts.clear()
            self._write(group.sinks, data)

    def broadcast(self, payload: bytes) -> None:
        """One text frame to every socket."""
        data = text_frame(payload)
        for group in list(self._groups.values()):
            self._write(group.sinks, data)

    @staticmethod
    def _write(sinks: Iterable[Sink], data: bytes) -> None:
        # A sink that ends may unsubscribe at once.
        for sink in list(sinks):
            sink.write(data)

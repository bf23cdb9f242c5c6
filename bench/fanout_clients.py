"""WebSockets that only count: connect so many, read until each has had so many bytes, say how long that took.

    python -m bench.fanout_clients PORT PATH SOCKETS BYTES

Prints `ready` once all are connected, then the seconds from the first byte of any to the last byte of all. Parses no
frames: on two cores, what the clients do is taken from the server.
"""

from __future__ import annotations

import asyncio
import sys
import time

import uvloop

HANDSHAKE = (
    b"GET %b HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Counting:
    """What all sockets together have had."""

    def __init__(self, sockets: int, size_bytes: int) -> None:
        self.waiting = sockets
        self.size_bytes = size_bytes
        self.first_s = 0.0
        self.done = asyncio.get_running_loop().create_future()

    def one_has_everything(self) -> None:
        self.waiting -= 1
        if not self.waiting:
            self.done.set_result(time.perf_counter() - self.first_s)


class Client(asyncio.Protocol):
    def __init__(self, counting: Counting, path: bytes) -> None:
        self.counting = counting
        self.path = path
        self.open = asyncio.get_running_loop().create_future()
        self.head = b""
        self.received_bytes = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(HANDSHAKE % self.path)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        if self.received_bytes < 0:
            self.head += data
            if b"\r\n\r\n" not in self.head:
                return
            data = self.head.partition(b"\r\n\r\n")[2]
            self.received_bytes = 0
            self.open.set_result(None)
        if data and not self.counting.first_s:
            self.counting.first_s = time.perf_counter()
        before, self.received_bytes = self.received_bytes, self.received_bytes + len(data)
        if before < self.counting.size_bytes <= self.received_bytes:
            self.counting.one_has_everything()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.counting.done.done() and self.received_bytes < self.counting.size_bytes:
            self.counting.done.set_exception(exc or ConnectionError("closed by the server"))


async def main(port: int, path: bytes, sockets: int, size_bytes: int) -> None:
    loop = asyncio.get_running_loop()
    counting = Counting(sockets, size_bytes)
    for _ in range(sockets):
        _, client = await loop.create_connection(lambda: Client(counting, path), "127.0.0.1", port)
        await client.open
    print("ready", flush=True)
    print(await counting.done, flush=True)


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), sys.argv[2].encode(), int(sys.argv[3]), int(sys.argv[4])))

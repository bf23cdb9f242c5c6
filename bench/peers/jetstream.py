"""A JetStream publisher that costs as little as one can: publishes with acknowledgement, a fixed number in flight.

Written out because a client library's future per message would be what is measured. NATS's text protocol:
`PUB subject reply size`, answered by `MSG reply sid size` with a JSON acknowledgement.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import cast

STREAM, SUBJECT, INBOX = "bench", "bench.post", "_INBOX.bench"


class Publisher(asyncio.Protocol):
    """Counts acknowledgements and publishes as many again, in one write for each read."""

    def __init__(self, payload: bytes, in_flight: int) -> None:
        self.publish = b"PUB %s %s %d\r\n%s\r\n" % (SUBJECT.encode(), INBOX.encode(), len(payload), payload)
        self.in_flight = in_flight
        self.acknowledged = 0
        self.rest = b""
        self.running = False
        self.error: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(b'CONNECT {"verbose":false}\r\nSUB %s 1\r\n' % INBOX.encode())

    def begin(self) -> None:
        self.running = True
        self.transport.write(self.publish * self.in_flight)

    def data_received(self, data: bytes) -> None:
        data = self.rest + data
        cut = data.rfind(b"\r\n") + 2 if b"\r\n" in data else 0
        whole, self.rest = data[:cut], data[cut:]
        if b"PING\r\n" in whole:
            self.transport.write(b"PONG\r\n")
        if (b'"error"' in whole or b"-ERR" in whole) and not self.error.done():
            self.error.set_exception(RuntimeError(whole.decode(errors="replace")))
        count = whole.count(b'"seq":')
        self.acknowledged += count
        if count and self.running:
            self.transport.write(self.publish * count)


async def request(host: str, port: int, subject: str, body: dict[str, object]) -> dict[str, object]:
    """One request to the JetStream API."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        payload = json.dumps(body).encode()
        writer.write(b'CONNECT {"verbose":false}\r\nSUB _INBOX.api 1\r\n')
        writer.write(b"PUB %s _INBOX.api %d\r\n%s\r\n" % (subject.encode(), len(payload), payload))
        async with asyncio.timeout(5):
            while True:
                line = await reader.readline()
                if line.startswith(b"MSG "):
                    return dict(json.loads(await reader.readexactly(int(line.split()[-1]))))
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
                if not line:
                    raise ConnectionError("closed")
    finally:
        writer.close()


async def create_stream(host: str, port: int, deadline_s: float = 40) -> None:
    """Three replicas, on disk; waits until the cluster has a meta leader that makes it."""
    configuration = {"name": STREAM, "subjects": [SUBJECT], "num_replicas": 3, "storage": "file", "retention": "limits"}
    began = time.monotonic()
    while True:
        try:
            answer = await request(host, port, f"$JS.API.STREAM.CREATE.{STREAM}", configuration)
            if "error" not in answer:
                return
        except (TimeoutError, OSError):
            answer = {"error": "no answer"}
        if time.monotonic() - began > deadline_s:
            raise TimeoutError(f"no stream: {answer['error']}")
        await asyncio.sleep(0.25)


async def publish_rate(host: str, port: int, payload: bytes, in_flight: int, seconds: float) -> float:
    """Acknowledged publishes a second."""
    _, publisher = await asyncio.get_running_loop().create_connection(lambda: Publisher(payload, in_flight), host, port)
    try:
        publisher.begin()
        began = time.perf_counter()
        await asyncio.wait([publisher.error], timeout=seconds)
        if publisher.error.done():
            await publisher.error
        count, elapsed = publisher.acknowledged, time.perf_counter() - began
        return count / elapsed
    finally:
        publisher.transport.abort()

"""Fan-out to 500 sockets: messages delivered a second, beside one send for each message and socket."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
import uvloop
from starlette.types import Receive, Scope, Send

from raftchat.worker.hub import text_frame
from tests.worker.support import TIME_MS, record, running, wait_for

SOCKETS = 500
MESSAGES = 400
BATCH = 20
"""Messages committed in one turn of the loop, as under load."""
TEXT = "The quick brown fox jumps over the lazy dog, again and again."


def deliveries_per_s(port: int, sockets: Callable[[], int], size_bytes: int, publish: Callable[[], None]) -> float:
    command = [sys.executable, "-m", "bench.fanout_clients", str(port), "/ws", str(SOCKETS), str(size_bytes)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as clients:
        assert clients.stdout is not None
        assert clients.stdout.readline() == "ready\n"
        wait_for("all subscribed", lambda: sockets() == SOCKETS)
        publish()
        seconds = float(clients.stdout.readline())
    wait_for("all gone", lambda: sockets() == 0)
    return SOCKETS * MESSAGES / seconds


class OneSendEach:
    """The same server without a hub: what a plain ASGI application does with a message."""

    def __init__(self) -> None:
        self.sends: list[Send] = []
        listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = listening.getsockname()[1]
        config = uvicorn.Config(
            self, ws="websockets-sansio", lifespan="off", log_level="error", ws_per_message_deflate=False
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=lambda: uvloop.run(self._serve(listening)))
        self.thread.start()

    async def _serve(self, listening: socket.socket) -> None:
        self.loop = asyncio.get_running_loop()
        await self.server.serve(sockets=[listening])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        self.sends.append(send)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        self.sends.remove(send)

    def publish(self, texts: list[str]) -> None:
        async def run() -> None:
            for text in texts:
                for send in self.sends:
                    await send({"type": "websocket.send", "text": text})

        asyncio.run_coroutine_threadsafe(run(), self.loop).result(120)

    def close(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)


@pytest.fixture(scope="module")
def reference() -> Iterator[OneSendEach]:
    made = OneSendEach()
    yield made
    made.close()


def test_fanout_to_500_sockets(benchmark: Any, tmp_path: Path, reference: OneSendEach) -> None:
    message = {"ID": 1000, "PostedAt": "2023-11-14T22:13:20.123Z", "User": "u", "Message": TEXT}
    frame = json.dumps({"RoomName": "general", "Post": message}, separators=(",", ":"))
    # IDs of one length, so that it is known how many bytes there will be.
    size_bytes = MESSAGES * len(text_frame(frame.encode()))
    plain = max(
        deliveries_per_s(
            reference.port, lambda: len(reference.sends), size_bytes, lambda: reference.publish([frame] * MESSAGES)
        )
        for _ in range(2)
    )

    def before(raft: Any) -> None:
        raft.append(b"".join(record("old", "x") for _ in range(1000)))

    with running(tmp_path, prepare=before) as worker:

        def publish() -> None:
            for _ in range(MESSAGES // BATCH):
                worker.call(lambda: worker.raft.append(record("general", TEXT) * BATCH, TIME_MS))
                worker.call(worker.raft.commit)

        rates: list[float] = []

        def load() -> None:
            rates.append(
                deliveries_per_s(worker.port, lambda: worker.call(lambda: len(worker.server._hub)), size_bytes, publish)
            )

        benchmark.pedantic(load, rounds=3, iterations=1, warmup_rounds=1)
    benchmark.extra_info.update(
        name=f"fan-out to {SOCKETS} sockets",
        figure=round(max(rates)),
        unit="deliveries/s",
        reference=f"one send per message and socket ({plain:.0f}/s)",
        ratio=round(max(rates) / plain, 2),
        aim="3",
    )
    print(f"{max(rates):.0f} deliveries/s, one send each: {plain:.0f}/s")

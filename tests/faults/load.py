"""Clients: they post, read and watch while a test does its worst, and write down what they did and saw.

Knows HTTP and WebSocket as api clients do. Does not know what a fault is or what is right (`checker.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from random import Random

import httpx2
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from tests.faults.cluster import Node
from tests.faults.history import History, Message, Outcome, Post, Read, Stream

REQUEST_TIMEOUT_S = 15.0
NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
PAGE = 1000


async def until(what: str, probe: Callable[[], object], timeout_s: float) -> None:
    """Let the clients go on until `probe` is true. Fails the test with what did not happen."""
    deadline = time.monotonic() + timeout_s
    while not probe():
        assert time.monotonic() < deadline, f"{what}: not within {timeout_s:g} s"
        await asyncio.sleep(0.01)


class Load:
    """Clients of one set of nodes, writing one history. Everything runs in the caller's event loop."""

    def __init__(self, nodes: Sequence[Node], rooms: Sequence[str], seed: int) -> None:
        self.nodes = list(nodes)
        self.rooms = list(rooms)
        self.random = Random(seed)
        self.history = History()
        self.acknowledged = 0
        self.last_ack = 0.0
        self.stopping = asyncio.Event()
        self._numbers = itertools.count(1)

    @contextlib.asynccontextmanager
    async def running(self, *, posters: int, readers: int = 0, pause_s: float = 0.0) -> AsyncIterator[None]:
        """Clients that post and read until the block ends; then they finish what is under way."""
        async with asyncio.TaskGroup() as tasks, self.client() as client:
            for _ in range(posters):
                tasks.create_task(self.keep_posting(client, pause_s))
            for _ in range(readers):
                tasks.create_task(self.keep_reading(client, max(pause_s, 0.05)))
            try:
                yield
            finally:
                self.stopping.set()

    async def acknowledges(self, count: int, timeout_s: float = 20.0) -> None:
        """Go on until so many more posts are acknowledged."""
        goal = self.acknowledged + count
        await until(f"{count} more posts acknowledged", lambda: self.acknowledged >= goal, timeout_s)

    async def reaches(self, acks_per_s: int, timeout_s: float = 30.0) -> None:
        """Go on until so many posts were acknowledged within one second."""
        deadline = time.monotonic() + timeout_s
        while True:
            began = time.monotonic()
            await self.acknowledges(acks_per_s, timeout_s)
            if time.monotonic() - began <= 1:
                return
            assert time.monotonic() < deadline, f"never {acks_per_s} acknowledged posts a second"

    @staticmethod
    def client() -> httpx2.AsyncClient:
        return httpx2.AsyncClient(timeout=REQUEST_TIMEOUT_S, limits=httpx2.Limits(max_connections=None))

    async def keep_posting(self, client: httpx2.AsyncClient, pause_s: float = 0.0) -> None:
        """One client, one post at a time, each to any node; a node that is down is left alone for a moment."""
        while not self.stopping.is_set():
            post = await self.post(client, self.random.choice(self.nodes), self.random.choice(self.rooms))
            await asyncio.sleep(pause_s if post.outcome is Outcome.OK else 0.05)

    async def keep_reading(self, client: httpx2.AsyncClient, pause_s: float) -> None:
        while not self.stopping.is_set():
            await self.read(client, self.random.choice(self.nodes), self.random.choice(self.rooms))
            await asyncio.sleep(pause_s)

    async def post(self, client: httpx2.AsyncClient, node: Node, room: str) -> Post:
        text = f"{room} {next(self._numbers)}"
        began = time.monotonic()
        outcome, id, detail = Outcome.UNKNOWN, 0, ""
        try:
            response = await client.post(f"{node.url}/rooms/{room}", json={"Message": text, "User": "load"})
        except NOT_SENT as error:
            outcome, detail = Outcome.FAILED, repr(error)
        except httpx2.TransportError as error:
            detail = repr(error)
        else:
            if response.status_code == 201:
                outcome, id = Outcome.OK, int(response.json()["ID"])
            else:
                problem = response.json()
                detail = f"{response.status_code} {problem['code']}"
                assert response.status_code == 503, f"{detail}: {problem}"
                outcome = Outcome.UNKNOWN if problem["code"] == "outcome_unknown" else Outcome.FAILED
        post = Post(room, text, node.id, began, time.monotonic(), outcome, id, detail)
        self.history.posts.append(post)
        if outcome is Outcome.OK:
            self.acknowledged += 1
            self.last_ack = post.ended
        return post

    async def read(
        self, client: httpx2.AsyncClient, node: Node, room: str, *, linearizable: bool = True, limit: int = 50
    ) -> Read | None:
        """The newest page; None if the node did not answer, or said that it could not."""
        parameters = {"limit": str(limit)} | ({} if linearizable else {"consistency": "local"})
        began = time.monotonic()
        try:
            response = await client.get(f"{node.url}/rooms/{room}", params=parameters)
        except httpx2.TransportError:
            return None
        if response.status_code == 503:
            return None
        assert response.status_code == 200, response.text
        messages = [Message(item["ID"], item["Message"]) for item in response.json()]
        read = Read(room, node.id, began, time.monotonic(), linearizable, len(messages) < limit, messages)
        self.history.reads.append(read)
        return read

    async def watch(self, node: Node) -> None:
        """Follow a node's stream, connecting again whenever it breaks: each connection is a stream of its own.

        Once the load is stopping, the last one goes on until the marker that `finish` posts has come.
        """
        while True:
            stream: Stream | None = None
            with contextlib.suppress(OSError, WebSocketException):
                async with connect(node.url.replace("http", "ws", 1) + "/ws", open_timeout=5) as socket:
                    stream = Stream(node.id, opened=time.monotonic())
                    self.history.streams.append(stream)
                    async for frame in socket:
                        value = json.loads(frame)
                        if "Post" not in value:
                            continue  # a heartbeat
                        message = Message(value["Post"]["ID"], value["Post"]["Message"])
                        stream.messages.append((value["RoomName"], message))
                        if self.stopping.is_set() and message.text == self.marker:
                            stream.drained = True
                            break
            if stream is not None:
                stream.closed = time.monotonic()
                if stream.drained:
                    return
            await asyncio.sleep(0.1)

    marker = "the end"

    async def finish(self) -> None:
        """After the faults: one last post, through which streams know that they are drained, then each node's story."""
        async with self.client() as client:
            began = time.monotonic()
            response = await client.post(
                f"{self.nodes[0].url}/rooms/{self.rooms[0]}", json={"Message": self.marker, "User": "load"}
            )
            assert response.status_code == 201, response.text
            self.history.posts.append(
                Post(self.rooms[0], self.marker, 1, began, time.monotonic(), Outcome.OK, response.json()["ID"])
            )
            for node in self.nodes:
                self.history.final[node.id] = {room: await self._story(client, node, room) for room in self.rooms}

    @staticmethod
    async def _story(client: httpx2.AsyncClient, node: Node, room: str) -> list[Message]:
        story: list[Message] = []
        while True:
            after = story[-1].id if story else 0
            response = await client.get(f"{node.url}/rooms/{room}", params={"after": after, "limit": PAGE})
            assert response.status_code == 200, f"node {node.id}: {response.text}"
            page = [Message(item["ID"], item["Message"]) for item in response.json()]
            story += page
            if len(page) < PAGE:
                return story

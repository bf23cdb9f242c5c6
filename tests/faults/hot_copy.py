"""Copies of a running node's directory, file by file as an unlucky `cp` makes them, and what must be in one.

Does not know how a copy is read.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

CHUNK_BYTES = 64 * 1024


def copy_in_disorder(source: Path, target: Path, random: Random, pause_max_s: float) -> None:
    """List all files, then copy them in a random order, with pauses between and within. What is gone is left out."""
    names = [
        os.path.relpath(os.path.join(below, name), source) for below, _, files in os.walk(source) for name in files
    ]
    random.shuffle(names)
    target.mkdir()
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(source / name, "rb", buffering=0) as original, open(target / name, "xb", buffering=0) as copy:
                while data := original.read(CHUNK_BYTES):
                    if any(data):
                        copy.write(data)
                    else:
                        copy.seek(len(data), os.SEEK_CUR)
                    if random.random() < 0.1:
                        time.sleep(random.random() * pause_max_s)
                copy.truncate(copy.tell())
        except FileNotFoundError:
            continue
        time.sleep(random.random() * pause_max_s)


@dataclass(slots=True)
class Post:
    room: str
    text: str
    id: int = 0
    """0: not acknowledged."""
    acknowledged: float = 0.0
    """When, by the machine's monotonic clock."""


@dataclass(slots=True)
class Removal:
    """A room that was deleted."""

    gone: set[int]
    """IDs of the posts that had been acknowledged before it was asked for."""
    acknowledged: float


@dataclass(slots=True)
class Chatter:
    """Clients of one node: they post to rooms that stay and to rooms that are left, and delete some of these."""

    url: str
    seed: int
    posts: list[Post] = field(default_factory=list)
    removals: list[Removal] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)
    failures: list[BaseException] = field(default_factory=list)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    @contextmanager
    def running(self, posters: int, pause_s: float) -> Iterator[None]:
        threads = [threading.Thread(target=self._kept, args=(self._post, number, pause_s)) for number in range(posters)]
        threads.append(threading.Thread(target=self._kept, args=(self._delete, posters, 0.7)))
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self.stopping.set()
            for thread in threads:
                thread.join()
        self.check()

    def check(self) -> bool:
        """All clients still do their work. Raises what one of them has met."""
        if self.failures:
            raise self.failures[0]
        return True

    def _kept(self, work: Any, number: int, pause_s: float) -> None:
        random = Random(self.seed * 1000 + number)
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        try:
            while not self.stopping.is_set():
                work(connection, random)
                self.stopping.wait(random.random() * 2 * pause_s)
        except BaseException as error:
            self.failures.append(error)
        finally:
            connection.close()

    def _post(self, connection: http.client.HTTPConnection, random: Random) -> None:
        number = next(self._numbers)
        room = random.choice(["stays", "stays too", f"left {number // 60}"])
        post = Post(room, f"{number} ".ljust(random.choice((30, 3000, 12_000)), "m"))
        self.posts.append(post)
        status, body = self._ask(connection, "POST", room, {"Message": post.text, "User": "chatter"})
        assert status == 201, (status, body)
        post.id = json.loads(body)["ID"]
        post.acknowledged = time.monotonic()

    def _delete(self, connection: http.client.HTTPConnection, random: Random) -> None:
        rooms = {post.room for post in self.posts[-200:] if post.room.startswith("left")}
        if not rooms:
            return
        room = random.choice(sorted(rooms))
        gone = {post.id for post in self.posts if post.room == room and post.id}
        status, body = self._ask(connection, "DELETE", room, None)
        assert status == 204, (status, body)
        self.removals.append(Removal(gone, time.monotonic()))

    @staticmethod
    def _ask(connection: http.client.HTTPConnection, method: str, room: str, body: Any) -> tuple[int, bytes]:
        data = None if body is None else json.dumps(body)
        connection.request(method, f"/rooms/{room.replace(' ', '%20')}", data)
        response = connection.getresponse()
        return response.status, response.read()

    def first_ids(self) -> dict[str, int]:
        """Room → the oldest message that is left."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        connection.request("GET", "/rooms?details=true&limit=10000")
        rooms = json.load(connection.getresponse())
        connection.close()
        return {room["Name"]: room["FirstID"] for room in rooms if room["Messages"]}


@dataclass(slots=True)
class Expected:
    """What a copy must hold and must not: begun before it is made, ended after."""

    chatter: Chatter
    before: dict[str, int] = field(init=False)
    began: float = field(init=False)

    def __post_init__(self) -> None:
        self.before = self.chatter.first_ids()
        self.began = time.monotonic()

    def check(self, found: dict[str, dict[int, str]], after: dict[str, int]) -> int:
        """`found`: room → texts by ID; `after`: `first_ids` after the copy. How many messages had to be there."""
        posts = list(self.chatter.posts)
        due = [post for post in posts if post.id and post.acknowledged < self.began]
        must = [post for post in due if post.id >= after.get(post.room, 2**63)]
        for post in must:
            held = found.get(post.room, {}).get(post.id)
            assert held == post.text, f"message {post.id} of {post.room!r}: acknowledged, unexpired, and lost: {held!r}"
        gone = {id for removal in self.chatter.removals if removal.acknowledged < self.began for id in removal.gone}
        gone |= {post.id for post in due if post.id < self.before.get(post.room, 0)}
        known = {(post.room, post.text): post.id for post in posts}
        for room, messages in found.items():
            assert not gone & messages.keys(), f"removed from {room!r} before the copy, and back"
            for id, text in messages.items():
                assert known[room, text] in (0, id), f"message {id} of {room!r} is none that was posted"
            assert list(messages) == sorted(messages)
        return len(must)

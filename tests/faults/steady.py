"""Clients that post at a steady rate, whatever happens meanwhile, and note what was acknowledged and how long it took.

Cheap, so that what they measure is the nodes: one connection each, kept. Does not know what goes on meanwhile.
"""

from __future__ import annotations

import http.client
import itertools
import json
import os
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from tests.faults.cluster import Node

TIMEOUT_S = 15.0


class Sent(NamedTuple):
    room: str
    text: str
    id: int
    """0: not acknowledged."""
    began: float
    took_s: float


class Steady:
    """One thread for each node. `room(number)` says where a post goes; `size` is of its text."""

    def __init__(self, nodes: Sequence[Node], rate_per_s: float, room: Callable[[int], str], size: int) -> None:
        self.nodes = nodes
        self.sent: list[Sent] = []
        self.failures: list[BaseException] = []
        self._interval_s = len(nodes) / rate_per_s
        self._room = room
        self._size = size
        self._numbers = itertools.count(1)
        self._stopping = threading.Event()

    @contextmanager
    def running(self, *, may_fail: bool = False) -> Iterator[None]:
        """Post until the block ends. Unless they `may_fail`, a post that is not acknowledged fails the test."""
        threads = [threading.Thread(target=self._kept, args=(node, may_fail)) for node in self.nodes]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()
        if self.failures:
            raise self.failures[0]

    def since(self, began: float) -> list[Sent]:
        return [post for post in list(self.sent) if post.id and post.began >= began]

    def _kept(self, node: Node, may_fail: bool) -> None:
        connection = http.client.HTTPConnection(urlsplit(node.url).netloc, timeout=TIMEOUT_S)
        due = time.monotonic()
        try:
            while not self._stopping.is_set():
                number = next(self._numbers)
                post = self._post(connection, self._room(number), f"{number} ".ljust(self._size, "s"), may_fail)
                self.sent.append(post)
                due = max(due + self._interval_s, time.monotonic()) if post.id else time.monotonic() + 0.1
                self._stopping.wait(due - time.monotonic())
        except BaseException as error:
            self.failures.append(error)
        finally:
            connection.close()

    @staticmethod
    def _post(connection: http.client.HTTPConnection, room: str, text: str, may_fail: bool) -> Sent:
        body = json.dumps({"Message": text, "User": "steady"})
        began = time.monotonic()
        try:
            connection.request("POST", f"/rooms/{room}", body)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            connection.close()
            if not may_fail:
                raise
            return Sent(room, text, 0, began, time.monotonic() - began)
        took_s = time.monotonic() - began
        if response.status != 201:
            assert may_fail, (response.status, answer)
            assert response.status == 503, answer
            return Sent(room, text, 0, began, took_s)
        return Sent(room, text, json.loads(answer)["ID"], began, took_s)


def median_s(posts: Sequence[Sent]) -> float:
    return statistics.median(post.took_s for post in posts)


def share_s(posts: Sequence[Sent], share: float) -> float:
    """So many of them took no longer."""
    return sorted(post.took_s for post in posts)[int(share * (len(posts) - 1))]


class Machine:
    """How long the machine holds up somebody who has nothing to do with any node, but shares its disk and processors.

    Flushes a page of a file of its own and sleeps, again and again.
    """

    SLEEP_S = 0.01

    def __init__(self, directory: Path) -> None:
        self._path = directory / "nobody's"
        self._stopping = threading.Event()
        self._delays: list[tuple[float, float]] = []
        """Began, held up."""

    @contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            thread.join()

    def _watch(self) -> None:
        with self._path.open("wb", buffering=0) as file:
            while not self._stopping.is_set():
                file.seek(0)
                file.write(b"\1" * 4096)
                began = time.monotonic()
                os.fdatasync(file.fileno())
                flushed = time.monotonic()
                time.sleep(self.SLEEP_S)
                self._delays += [(began, flushed - began), (flushed, time.monotonic() - flushed - self.SLEEP_S)]

    def held_up_s(self, post: Sent) -> float:
        """While that post was under way."""
        ended = post.began + post.took_s
        return sum(delay for began, delay in list(self._delays) if began < ended and began + delay > post.began)

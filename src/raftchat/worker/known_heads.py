"""Heads of requests that came before, byte for byte, and what becomes of a request that begins so.

A client that keeps its connection sends the same head again and again; it is parsed the first time. Knows where a head
ends. Does not know what is in it.
"""

from __future__ import annotations

from typing import NamedTuple

from raftchat.config import Config
from raftchat.worker.short_cuts import MakeCycle

HEAD_END = b"\r\n\r\n"


class Known(NamedTuple):
    make: MakeCycle
    body_size_bytes: int


class KnownHeads:
    """Those of one worker; the oldest is forgotten for a new one. `find` is the one hot call."""

    def __init__(self, config: Config) -> None:
        self._heads: dict[bytes, Known] = {}
        self._count_max = config.known_heads_max
        self._size_max_bytes = config.known_head_max_bytes
        self.find = self._heads.get
        """Known of a head up to and with its empty line, or None."""

    def __len__(self) -> int:
        return len(self._heads)

    def learn(self, request: bytes, body_size_bytes: int, make: MakeCycle) -> None:
        """`request` was read at once, parsed as exactly one request, and its connection goes on after it.

        Not remembered if it is not certain where its head ends: a line that ends with something else than CR LF, or
        something behind the body that the parser skipped.
        """
        head = request[: request.find(HEAD_END) + len(HEAD_END)]
        line_ends = head.count(b"\r\n")
        if (
            not self._count_max
            or len(head) + body_size_bytes != len(request)
            or len(head) > self._size_max_bytes
            or head.count(b"\r") != line_ends
            or head.count(b"\n") != line_ends
        ):
            return
        if len(self._heads) >= self._count_max:
            del self._heads[next(iter(self._heads))]
        self._heads[head] = Known(make, body_size_bytes)

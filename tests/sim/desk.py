"""Where a node's clients are answered: what became of each post and read. It stands for all workers of the node.

A post is *ok* once its entry is committed at its index in its term, *failed* once another one is there or nobody took
it, *unknown* if the way to the leader broke. Knows nothing of how entries get committed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raftchat.ipc.frames import Accepted, Leader, Refusal

if TYPE_CHECKING:
    from .node import SimNode
    from .simulation import Simulation


@dataclass(slots=True)
class Post:
    number: int
    index: int = 0
    outcome: str = ""
    """ok, failed, unknown; empty while nobody knows."""


@dataclass(slots=True, eq=False)
class Request:
    """Posts that one client sends at once, in order."""

    number: int
    node_id: int
    records: bytes = field(repr=False)
    posts: list[Post]


@dataclass(slots=True, eq=False)
class Reading:
    number: int
    node_id: int
    at_least: int = 0
    """What it must see: set by whoever checks, when it begins."""
    read_index: int = 0
    """What the core answered."""
    seen_index: int = 0
    """How far the node had applied when it answered the client."""
    outcome: str = ""


class Desk:
    """One life of one node."""

    def __init__(self, node: SimNode, simulation: Simulation) -> None:
        self._node = node
        self._reached = simulation.trace.reached
        self._observers = simulation.observers
        self.applied_index = 0
        self.requests: dict[int, Request] = {}
        self.readings: dict[int, Reading] = {}
        self._awaited: dict[int, list[tuple[int, Post]]] = {}
        """Index → (term, post)."""
        self._waiting: list[Reading] = []

    # Answers to one client

    def accepted(self, accepted: Accepted) -> None:
        request = self.requests.pop(accepted.batch)
        for index, post in enumerate(request.posts, accepted.first_index):
            post.index = index
            if index <= self.applied_index:
                self._decide(index, accepted.term, post)
            else:
                self._awaited.setdefault(index, []).append((accepted.term, post))

    def refused(self, batch: int, reason: Refusal) -> None:
        self._reached[f"refused: {reason.name.lower().replace('_', ' ')}"] += 1
        for post in self.requests.pop(batch).posts:
            self._tell(post, "unknown" if reason is Refusal.LOST else "failed")

    def read_at(self, context: int, index: int) -> None:
        reading = self.readings.pop(context)
        if index == 0:
            self._reached["read index failed"] += 1
            reading.outcome = reading.outcome or "failed"
            return
        reading.read_index = index
        if index <= self.applied_index:
            self._serve(reading)
        else:
            self._reached["read waited to be applied"] += 1
            self._waiting.append(reading)

    def _decide(self, index: int, term: int, post: Post) -> None:
        if self._node.view.terms[index] == term:
            self._tell(post, "ok")
        else:
            self._reached["post overwritten"] += 1
            self._tell(post, "failed")

    def _tell(self, post: Post, outcome: str) -> None:
        if post.outcome:
            return  # The client has given up.
        post.outcome = outcome
        if outcome == "ok":
            for see in self._observers.acknowledged:
                see(post)

    def _serve(self, reading: Reading) -> None:
        if reading.outcome:
            return
        reading.outcome = "ok"
        reading.seen_index = self.applied_index
        for see in self._observers.read_ends:
            see(reading)

    # What all are told

    def commit(self, index: int) -> None:
        before, self.applied_index = self.applied_index, index
        if self._awaited:
            for at in range(before + 1, index + 1):
                for term, post in self._awaited.pop(at, ()):
                    self._decide(at, term, post)
        if self._waiting:
            ready = [reading for reading in self._waiting if reading.read_index <= index]
            self._waiting = [reading for reading in self._waiting if reading.read_index > index]
            for reading in ready:
                self._serve(reading)

    def segments_changed(self) -> None:
        """Readers would map the new segment."""

    def leader(self, leader: Leader) -> None:
        """Workers tell their clients."""

    def flush(self) -> None:
        """Answers have left."""

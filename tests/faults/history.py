"""What clients of a cluster did and saw: posts with three outcomes, reads, streams, and each node's final story.

Knows nothing of how the operations were made (`load.py`) nor what is wrong with them (`checker.py`). All times are
seconds of one monotonic clock, that of the test process.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple


class Outcome(enum.Enum):
    OK = "ok"
    FAILED = "failed"
    """Certainly not done, and never will be."""
    UNKNOWN = "unknown"
    """No answer, or one that says that nobody knows."""


class Message(NamedTuple):
    """One message as somebody saw it. The text is unique to the post that made it."""

    id: int
    text: str


@dataclass(slots=True)
class Post:
    room: str
    text: str
    node: int
    began: float
    ended: float
    outcome: Outcome
    id: int = 0
    """As acknowledged; 0 unless OK."""
    detail: str = ""


@dataclass(slots=True)
class Read:
    """One page, the newest messages of a room: `messages` ascending, `whole` if it was shorter than its limit."""

    room: str
    node: int
    began: float
    ended: float
    linearizable: bool
    whole: bool
    messages: list[Message]


@dataclass(slots=True)
class Stream:
    """What one WebSocket delivered, over all rooms, in the order in which it came.

    Open from `opened` (its handshake was answered) to `closed`. With `drained` the reader went on until nothing was
    under way any more, so that it must have seen everything since it was opened.
    """

    node: int
    opened: float
    closed: float = 0.0
    drained: bool = False
    messages: list[tuple[str, Message]] = field(default_factory=list)


Rooms = dict[str, list[Message]]


@dataclass(slots=True)
class History:
    posts: list[Post] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)
    final: dict[int, Rooms] = field(default_factory=dict)
    """What each node tells after everything has come to rest."""

    def count(self, outcome: Outcome) -> int:
        return sum(1 for post in self.posts if post.outcome is outcome)

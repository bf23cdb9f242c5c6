"""What happened in a run: a hash that tells two runs apart, the rare branches reached, and on demand a readable story.

Knows nothing of what the events mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

# Numbers of the events in the hash.
TURN, DELIVER, DROP, DISK, FAULT, CLIENT, BOOT = range(1, 8)


class Trace:
    """`hash` covers every event. Made of integers alone: Python's hash of those is the same in every process."""

    def __init__(self, tell: Callable[[str], None] | None = None) -> None:
        self.hash = 0
        self.reached: Counter[str] = Counter()
        self._tell = tell
        self.readable = tell is not None

    def event(self, now_us: int, kind: int, node: int, a: int = 0, b: int = 0, c: int = 0) -> None:
        self.hash = hash((self.hash, now_us, kind, node, a, b, c))

    def say(self, now_us: int, node: int, text: str) -> None:
        """A line of the story. Callers ask `readable` first, so that nothing is formatted in vain."""
        if self._tell is not None:
            who = f"node {node}" if node else "      "
            self._tell(f"{now_us / 1e6:10.6f}  {who}  {text}")

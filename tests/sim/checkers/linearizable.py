"""A linearizable read (dissertation 6.4) sees all that was acknowledged, or read by anybody, before it began."""

from __future__ import annotations

from ..desk import Post, Reading
from ..simulation import Simulation
from . import Checker


class Linearizable(Checker):
    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self._known_index = 0
        """Highest entry that some client was told of."""

    def acknowledged(self, post: Post) -> None:
        self._known_index = max(self._known_index, post.index)

    def read_begins(self, reading: Reading) -> None:
        reading.at_least = self._known_index

    def read_ends(self, reading: Reading) -> None:
        # Not `seen_index`: that the node had applied more by then would be luck.
        self.require(
            reading.read_index >= reading.at_least,
            f"a read on node {reading.node_id} is at {reading.read_index}; {reading.at_least} was known when it began",
        )
        self._known_index = max(self._known_index, reading.seen_index)

"""Log Matching (dissertation, figure 3.2): logs that agree in an entry's index and term agree in everything up to it.

Digests are chained, so that one comparison per appended entry covers its whole past.
"""

from __future__ import annotations

from ..node import SimNode
from ..simulation import Simulation
from . import Checker


class LogMatching(Checker):
    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self._digests: dict[tuple[int, int], int] = {}

    def appended(self, node: SimNode, first_index: int, last_index: int) -> None:
        view = node.view
        for index in range(first_index, last_index + 1):
            place = (index, view.terms[index])
            digest = self._digests.setdefault(place, view.digests[index])
            self.require(
                digest == view.digests[index],
                f"node {node.id} has another past than others at entry {index} of term {place[1]}",
            )

    def booted(self, node: SimNode) -> None:
        if node.view.last_index:
            self.appended(node, 1, node.view.last_index)

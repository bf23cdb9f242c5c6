"""State Machine Safety (dissertation, figure 3.2): no two nodes apply different entries at the same index.

Keeps the one committed history of the cluster as chained digests, which other checkers compare with.
"""

from __future__ import annotations

from ..node import SimNode
from ..simulation import Simulation
from . import Checker


class StateMachineSafety(Checker):
    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self._published: dict[int, int] = {}

    def booted(self, node: SimNode) -> None:
        self._published[node.id] = 0

    def turned(self, node: SimNode) -> None:
        commit = node.commit_index
        before = self._published.get(node.id, 0)
        if commit == before:
            return
        self.require(commit > before, f"commit index of node {node.id} went back from {before} to {commit}")
        view = node.view
        self.require(
            commit <= view.last_index, f"node {node.id} committed entry {commit}, its log ends at {view.last_index}"
        )
        committed = self.simulation.committed
        common = min(commit, len(committed) - 1)
        self.require(
            view.digests[common] == committed[common], f"node {node.id} applied another entry at or before {common}"
        )
        if commit > common:
            committed.extend(view.digests[common + 1 : commit + 1])
        self._published[node.id] = commit

"""Nothing is committed that is not durable on a majority, and what was durable once is there after any crash.

What is durable, the simulated disk says: a node's own belief is not asked.
"""

from __future__ import annotations

from ..node import SimNode
from ..simulation import Simulation
from . import Checker


class Durability(Checker):
    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self._committed = 0

    def turned(self, node: SimNode) -> None:
        commit = node.commit_index
        if commit <= self._committed:
            return
        # Whoever knows it first: a leader may have stepped down in the turn in which it committed.
        digest = node.view.digests[commit]
        voters = list(self.simulation.nodes.values())
        holders = [voter.id for voter in voters if voter.storage.has_durable(commit, digest)]
        self.require(
            2 * len(holders) > len(voters),
            f"node {node.id} knows entry {commit} to be committed; only {holders} hold it durably",
        )
        self._committed = commit

    def booted(self, node: SimNode) -> None:
        index, digest = node.storage.durable_before_crash
        view = node.view
        self.require(
            view.last_index >= index and view.digests[index] == digest,
            f"node {node.id} had entries durable up to {index}; after the restart its log ends at {view.last_index}"
            + (" with other entries" if view.last_index >= index else ""),
        )

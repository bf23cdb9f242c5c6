"""Leader Append-Only (dissertation, figure 3.2): a leader never overwrites or deletes entries in its log."""

from __future__ import annotations

from raftchat.raft.messages import Role

from ..node import SimNode
from ..simulation import Simulation
from . import Checker


class LeaderAppendOnly(Checker):
    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self._seen: dict[int, tuple[int, int, int]] = {}
        """Leader → its term, and last index with its digest, after its last turn."""

    def booted(self, node: SimNode) -> None:
        self._seen.pop(node.id, None)

    def turned(self, node: SimNode) -> None:
        if node.role is not Role.LEADER:
            self._seen.pop(node.id, None)
            return
        view = node.view
        before = self._seen.get(node.id)
        if before is not None and before[0] == node.term:
            _, last_index, digest = before
            self.require(
                view.last_index >= last_index and view.digests[last_index] == digest,
                f"leader {node.id} of term {node.term} changed its log at or before entry {last_index}",
            )
        self._seen[node.id] = node.term, view.last_index, view.digests[-1]

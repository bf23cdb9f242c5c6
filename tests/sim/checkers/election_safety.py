"""Election Safety (dissertation, figure 3.2): at most one leader can be elected in a given term."""

from __future__ import annotations

from raftchat.raft.messages import AppendEntries, PeerMessage, Role

from ..node import SimNode
from ..simulation import Simulation
from . import Checker


class ElectionSafety(Checker):
    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self._leaders: dict[int, int] = {}

    def turned(self, node: SimNode) -> None:
        if node.role is Role.LEADER:
            self._leads(node.id, node.term)

    def sending(self, node: SimNode, target: int, message: PeerMessage) -> None:
        # A leader that steps down within the turn in which it was elected may still have spoken.
        if type(message) is AppendEntries:
            self._leads(node.id, message.term)

    def _leads(self, node_id: int, term: int) -> None:
        leader = self._leaders.setdefault(term, node_id)
        self.require(leader == node_id, f"term {term} has two leaders, {leader} and {node_id}")

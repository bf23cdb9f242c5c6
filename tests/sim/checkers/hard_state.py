"""Term, vote and commit never go back on disk, and at most one vote is cast in a term (dissertation, figure 3.1)."""

from __future__ import annotations

from raftchat.raft.messages import HardState

from ..node import SimNode
from . import Checker


class HardStates(Checker):
    def hard_state_written(self, node: SimNode, hard_state: HardState) -> None:
        self._follows(node, node.storage.durable_hard_state, hard_state)
        self.require(
            hard_state.commit <= node.storage.durable_index,
            f"node {node.id} wrote commit {hard_state.commit}, durable up to {node.storage.durable_index}",
        )

    def booted(self, node: SimNode) -> None:
        self._follows(node, node.storage.durable_hard_state, node.storage.recovered_hard_state)

    def _follows(self, node: SimNode, old: HardState, new: HardState) -> None:
        self.require(new.term >= old.term, f"term of node {node.id} went back from {old.term} to {new.term}")
        self.require(
            new.term > old.term or old.vote in {0, new.vote},
            f"node {node.id} voted for {old.vote} and then for {new.vote} in term {new.term}",
        )
        self.require(
            new.commit >= old.commit, f"commit hint of node {node.id} went back from {old.commit} to {new.commit}"
        )

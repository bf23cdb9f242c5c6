"""Leader Completeness (dissertation, figure 3.2): an entry committed in a term is in the logs of all later leaders.

An entry counts as committed in the term of the leader whose commit index passed it first. That may be noticed after a
later leader was elected, so both are compared with what was known of the other: commits with the logs of later leaders
as they were when elected, and new leaders with what earlier terms committed.
"""

from __future__ import annotations

from raftchat.raft.messages import Role

from ..node import SimNode
from ..simulation import Simulation
from . import Checker


class LeaderCompleteness(Checker):
    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self._elected: dict[int, tuple[int, list[int]]] = {}
        """Term → leader and its digests when elected."""
        self._committed: dict[int, tuple[int, int]] = {}
        """Term → how far its leader was the first to commit: index and digest."""
        self._known_index = 0

    def turned(self, node: SimNode) -> None:
        commit, newly = node.commit_index, node.commit_index > self._known_index
        self._known_index = max(self._known_index, commit)
        if node.role is not Role.LEADER:
            return
        term, view = node.term, node.view
        if term not in self._elected:
            digests = list(view.digests)
            self._elected[term] = node.id, digests
            for earlier, (index, digest) in self._committed.items():
                if earlier < term:
                    self._has(node.id, term, digests, earlier, index, digest)
        if newly:
            self._committed[term] = commit, view.digests[commit]
            for later, (leader, digests) in self._elected.items():
                if later > term:
                    self._has(leader, later, digests, term, commit, view.digests[commit])

    def _has(self, leader: int, term: int, digests: list[int], earlier: int, index: int, digest: int) -> None:
        self.require(
            len(digests) > index and digests[index] == digest,
            f"leader {leader} of term {term} was elected without entry {index}, committed in term {earlier}",
        )

"""At the end every node tells one history, as clients were told it: ok exactly once, at its index, and failed never.

Reads each node's log back as a reader would, entry by entry: the one check that does not trust digests.
"""

from __future__ import annotations

import re

from raftchat.log_reference import KIND_POST, Entry

from ..node import SimNode
from . import Checker

_NUMBER = re.compile(rb'"Message":"(\d+) ')


class Histories(Checker):
    def ended(self) -> None:
        for node in self.simulation.nodes.values():
            if node.up:
                self._check(node, self.history(node))

    def history(self, node: SimNode) -> list[Entry]:
        return node.storage.log.entries(1, node.desk.applied_index)

    def _check(self, node: SimNode, history: list[Entry]) -> None:
        posts, place = self.simulation.clients.posts, dict[int, int]()
        time_ms = 0
        for entry in history:
            self.require(entry.time_ms >= time_ms, f"log time goes back at entry {entry.index} of node {node.id}")
            time_ms = entry.time_ms
            if entry.kind != KIND_POST:
                continue
            match = _NUMBER.search(entry.value)
            self.require(match is not None, f"node {node.id} holds what nobody posted: {entry}")
            assert match is not None
            number = int(match[1])
            self.require(number <= len(posts), f"node {node.id} holds what nobody posted: {entry}")
            self.require(number not in place, f"node {node.id} holds post {number} twice, at {entry.index}")
            place[number] = entry.index
        for post in posts:
            index = place.get(post.number)
            if post.outcome == "ok":
                self.require(
                    index == post.index,
                    f"post {post.number} was acknowledged at {post.index}; node {node.id} has it at {index}",
                )
            elif post.outcome == "failed":
                self.require(
                    index is None, f"post {post.number} was said to have failed; node {node.id} has it at {index}"
                )

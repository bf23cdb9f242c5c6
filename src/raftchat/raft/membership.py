"""Who takes part: voters and learners with their addresses, and which single-step changes are allowed (chapter 4).

Knows neither how far anybody's log is (`progress.py`) nor what an address means: URLs are opaque strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson


@dataclass(frozen=True, slots=True)
class Membership:
    """One configuration. Immutable; every change makes a new one. Never mutate the mappings."""

    voters: Mapping[int, str] = field(default_factory=dict)
    """Node id → URL. A majority of these elects and commits."""
    learners: Mapping[int, str] = field(default_factory=dict)
    """Node id → URL. They get every entry and count for nothing (4.2.1)."""

    def __post_init__(self) -> None:
        if any(node < 1 for node in self.members):
            raise ValueError("node ids start at 1")
        both = self.voters.keys() & self.learners.keys()
        if both:
            raise ValueError(f"node {min(both)} cannot be voter and learner")

    @property
    def members(self) -> dict[int, str]:
        """Voters, then learners: node id → URL."""
        return {**self.voters, **self.learners}

    def __contains__(self, node: object) -> bool:
        return node in self.voters or node in self.learners

    def add(self, node: int, url: str, *, learner: bool = False) -> Membership:
        """With one node more. Raises ValueError if it is a member already."""
        if node in self:
            raise ValueError(f"node {node} is a member already")
        if learner:
            return Membership(self.voters, {**self.learners, node: url})
        return Membership({**self.voters, node: url}, self.learners)

    def remove(self, node: int) -> Membership:
        """Without one node. Raises ValueError if it is no member, or the last voter."""
        if node not in self:
            raise ValueError(f"node {node} is not a member")
        return Membership(_without(self.voters, node), _without(self.learners, node))._with_a_voter()

    def promote(self, node: int) -> Membership:
        """A learner becomes a voter. Raises ValueError if it is not a learner."""
        if node not in self.learners:
            raise ValueError(f"node {node} is not a learner")
        return Membership({**self.voters, node: self.learners[node]}, _without(self.learners, node))

    def demote(self, node: int) -> Membership:
        """A voter becomes a learner. Raises ValueError if it is not a voter, or the last one."""
        if node not in self.voters:
            raise ValueError(f"node {node} is not a voter")
        return Membership(_without(self.voters, node), {**self.learners, node: self.voters[node]})._with_a_voter()

    def is_single_step(self, to: Membership) -> bool:
        """Whether any majority of this and any majority of `to` share a node: at most one voter differs (4.1)."""
        return len(self.voters.keys() ^ to.voters.keys()) <= 1

    def encode(self) -> bytes:
        """JSON; equal memberships give equal bytes, in whatever order they were built."""
        return orjson.dumps(
            {"Voters": _by_text(self.voters), "Learners": _by_text(self.learners)}, option=orjson.OPT_SORT_KEYS
        )

    @classmethod
    def decode(cls, data: bytes | bytearray | memoryview) -> Membership:
        """Inverse of `encode`. Raises ValueError for anything else."""
        fields = orjson.loads(data)
        if not isinstance(fields, dict) or fields.keys() != {"Voters", "Learners"}:
            raise ValueError("a membership has Voters and Learners")
        return cls(_by_number(fields["Voters"]), _by_number(fields["Learners"]))

    def _with_a_voter(self) -> Membership:
        if not self.voters:
            raise ValueError("the last voter cannot go")
        return self


def _without(nodes: Mapping[int, str], node: int) -> dict[int, str]:
    return {other: url for other, url in nodes.items() if other != node}


def _by_text(nodes: Mapping[int, str]) -> dict[str, str]:
    return {str(node): url for node, url in nodes.items()}


def _by_number(nodes: object) -> dict[int, str]:
    if not isinstance(nodes, dict) or not all(isinstance(url, str) for url in nodes.values()):
        raise ValueError("members are an object of node id to URL")
    return {int(node): url for node, url in nodes.items()}

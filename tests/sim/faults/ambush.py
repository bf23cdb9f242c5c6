"""Power is lost at the moments that matter: just after a vote, a promise or an election, or within a disk operation.

It looks on as a checker does, and now and then strikes.
"""

from __future__ import annotations

from random import Random

from raftchat.raft.messages import AppendReply, PeerMessage, RequestVote, Role, VoteReply

from ..checkers import Checker
from ..node import SimNode
from ..scheduler import MS
from ..simulation import Simulation
from . import Fault


class Ambush(Fault):
    share = 0.6

    def __init__(self, simulation: Simulation, random: Random) -> None:
        super().__init__(simulation, random)
        self.vote_share = random.choice((0.0, 0.05, 0.3))
        self.candidacy_share = random.choice((0.0, 0.05, 0.2))
        self.promise_share = random.choice((0.0, 0.002, 0.02))
        self.election_share = random.choice((0.0, 0.2, 0.6))
        self.cut_share = random.choice((0.0, 0.2))
        self.operation_share = random.choice((0.0, 0.1, 0.5))
        """Of the ambushes: strike within one of the next disk operations instead."""
        self.within_us = random.choice((0, 1 * MS, 20 * MS))
        self.restart_us = random.choice((1 * MS, 50 * MS, 0))
        """0: as any other restart."""

    def start(self) -> None:
        self.simulation.observers.add(_Lookout(self))

    def consider(self, node: SimNode, share: float) -> None:
        if share and self.simulation.faulty and self.random.random() < share:
            if self.random.random() < self.operation_share:
                node.storage.disk.operations_left = self.random.randint(0, 8)
            else:
                delay_us = int(self.random.random() * self.within_us)
                self.simulation.scheduler.after(delay_us, self._strike, node, node.life)

    def _strike(self, node: SimNode, life: int) -> None:
        if node.up and node.life == life and self.simulation.faulty:
            node.crash(power_lost=True)
            self.simulation.restart_later(node, self.restart_us or None)


class _Lookout(Checker):
    def __init__(self, ambush: Ambush) -> None:
        super().__init__(ambush.simulation)
        self._ambush = ambush
        self._roles: dict[int, Role] = {}

    def sending(self, node: SimNode, target: int, message: PeerMessage) -> None:
        ambush, kind = self._ambush, type(message)
        if kind is AppendReply:
            ambush.consider(node, ambush.promise_share)
        elif kind is VoteReply and message.granted and not message.pre:
            ambush.consider(node, ambush.vote_share)
        elif kind is RequestVote and not message.pre:
            ambush.consider(node, ambush.candidacy_share)

    def turned(self, node: SimNode) -> None:
        if node.role is not self._roles.get(node.id):
            self._roles[node.id] = node.role
            if node.role is Role.LEADER:
                self._ambush.consider(node, self._ambush.election_share)

    def truncated(self, node: SimNode, last_index: int) -> None:
        self._ambush.consider(node, self._ambush.cut_share)

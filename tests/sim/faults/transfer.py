"""Somebody keeps asking leaders to hand over, to anybody, also to nodes that are cut off or down."""

from __future__ import annotations

from random import Random

from raftchat.raft.messages import Role

from ..node import SimNode
from ..scheduler import MS, SECOND
from ..simulation import Simulation
from . import Fault


class Transfer(Fault):
    share = 0.3

    def __init__(self, simulation: Simulation, random: Random) -> None:
        super().__init__(simulation, random)
        self.every_us = random.choice((1, 3, 8)) * SECOND

    def start(self) -> None:
        if len(self.simulation.nodes) > 1:
            self.again(self.every_us)

    def strike(self) -> None:
        simulation = self.simulation
        for leader in simulation.leaders():
            to = self.random.choice([node for node in simulation.nodes if node != leader.id])
            if leader.hand_over(to):
                simulation.trace.reached["transfer begun"] += 1
                simulation.say(f"transfer: {leader.id} to {to}")
                after_us = 2 * simulation.plan.config.election_timeout_ms * MS
                simulation.scheduler.after(after_us, self._look_back, leader, leader.life, leader.term)
        self.again(self.every_us)

    def _look_back(self, leader: SimNode, life: int, term: int) -> None:
        """Who leads on has given the transfer up."""
        if leader.up and (leader.life, leader.role, leader.term) == (life, Role.LEADER, term):
            self.simulation.trace.reached["transfer aborted"] += 1

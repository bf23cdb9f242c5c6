"""Somebody keeps asking leaders to hand over, to anybody, also to nodes that are cut off or down."""

from __future__ import annotations

from random import Random

from ..scheduler import SECOND
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
        self.again(self.every_us)

"""Nodes are killed or lose power, alone or all at once, and start again later."""

from __future__ import annotations

from random import Random

from ..scheduler import SECOND
from ..simulation import Simulation
from . import Fault


class Crash(Fault):
    share = 0.6

    def __init__(self, simulation: Simulation, random: Random) -> None:
        super().__init__(simulation, random)
        self.every_us = random.choice((1, 3, 8)) * SECOND
        self.power_share = random.choice((0.3, 0.8, 1.0))
        self.all_share = random.choice((0.0, 0.1, 0.3))
        self.leader_share = random.choice((0.0, 0.4))

    def start(self) -> None:
        self.again(self.every_us)

    def strike(self) -> None:
        random, simulation = self.random, self.simulation
        victims, leaders = simulation.up(), simulation.leaders()
        power_lost = random.random() < self.power_share
        if leaders and random.random() < self.leader_share:
            victims = leaders[:1]
        elif victims and random.random() >= self.all_share:
            victims = [random.choice(victims)]
        for node in victims:
            node.crash(power_lost=power_lost)
            simulation.restart_later(node)
        self.again(self.every_us)

"""Disks that take up to seconds for a sync, one at a time or all."""

from __future__ import annotations

from random import Random

from ..scheduler import SECOND
from ..simulation import Simulation
from . import Fault


class SlowDisk(Fault):
    share = 0.4

    def __init__(self, simulation: Simulation, random: Random) -> None:
        super().__init__(simulation, random)
        self.every_us = random.choice((2, 6)) * SECOND
        self.sync_max_us = random.choice((50_000, 500_000, 3 * SECOND))
        self.slow_share = random.choice((0.2, 0.5, 1.0))

    def start(self) -> None:
        self.strike()

    def strike(self) -> None:
        random = self.random
        worst = self.sync_max_us / self.simulation.plan.sync_us
        for node in self.simulation.nodes.values():
            slow = random.random() < self.slow_share
            node.storage.slowdown = 1 + random.random() ** 2 * worst if slow else 1.0
        self.again(self.every_us)

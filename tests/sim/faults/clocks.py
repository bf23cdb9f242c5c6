"""Clocks that run too fast or too slow, and wall clocks that are set, forwards and back."""

from __future__ import annotations

from random import Random

from ..scheduler import SECOND
from ..simulation import Simulation
from . import Fault


class Clocks(Fault):
    share = 0.4

    def __init__(self, simulation: Simulation, random: Random) -> None:
        super().__init__(simulation, random)
        self.every_us = random.choice((3, 10)) * SECOND
        self.spread = random.choice((0.01, 0.2, 0.5))
        self.jump_max_ms = random.choice((0, 1000, 3_600_000))

    def start(self) -> None:
        self.strike()

    def strike(self) -> None:
        random = self.random
        for node in self.simulation.nodes.values():
            node.set_clock_rate(int(1_000_000 * (1 + random.uniform(-self.spread, self.spread))))
            node.clock.step_wall(random.randint(-self.jump_max_ms, self.jump_max_ms))
        self.again(self.every_us)

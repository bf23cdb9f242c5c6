"""Single links are cut, one way or both, for a while."""

from __future__ import annotations

from random import Random

from ..scheduler import MS, SECOND
from ..simulation import Simulation
from . import Fault


class Cut(Fault):
    share = 0.4

    def __init__(self, simulation: Simulation, random: Random) -> None:
        super().__init__(simulation, random)
        self.every_us = random.choice((1, 3, 8)) * SECOND
        self.for_us = random.choice((100 * MS, 1 * SECOND, 6 * SECOND))
        self.one_way = random.choice((0.0, 0.7, 1.0))
        self._cut: list[tuple[int, int]] = []

    def start(self) -> None:
        if self.simulation.network.links:
            self.again(self.every_us)

    def strike(self) -> None:
        random = self.random
        source, target = random.choice(list(self.simulation.network.links))
        ways = [(source, target)] if random.random() < self.one_way else [(source, target), (target, source)]
        self.simulation.say(f"cut: {ways}")
        for way in ways:
            self.simulation.network.cut(*way)
            self._cut.append(way)
            self.simulation.scheduler.after(int(random.expovariate(1.0) * self.for_us), self._join, way)
        self.again(self.every_us)

    def _join(self, way: tuple[int, int]) -> None:
        if way in self._cut:
            self._cut.remove(way)
            self.simulation.network.join(*way)

    def heal(self) -> None:
        while self._cut:
            self._join(self._cut[0])

"""Links that lose, double, delay and reorder, each on its own and differently from time to time."""

from __future__ import annotations

from random import Random

from ..scheduler import MS, SECOND
from ..simulation import Simulation
from . import Fault


class Noise(Fault):
    share = 0.7

    def __init__(self, simulation: Simulation, random: Random) -> None:
        super().__init__(simulation, random)
        self.loss_max = random.choice((0.0, 0.02, 0.1, 0.3))
        self.duplicate_max = random.choice((0.0, 0.05, 0.3))
        self.slow_max = random.choice((0.0, 0.05, 0.2))
        timeout_us = simulation.plan.config.election_timeout_ms * MS
        self.slow_us = int(timeout_us * random.choice((0.2, 1, 3)))
        self.replay_us = int(timeout_us * random.choice((0, 1, 4)))
        self.jitter_us = int(random.choice((0, 5 * MS, 0.1 * timeout_us, 0.5 * timeout_us)))
        self.favour_rare = random.choice((0.0, 0.4, 0.9))
        self.every_us = random.choice((2, 5, 20)) * SECOND

    def start(self) -> None:
        self.strike()

    def strike(self) -> None:
        random = self.random
        noisy = random.random()
        for link in self.simulation.network.links.values():
            link.calm()
            if random.random() < noisy:
                link.loss = random.random() * self.loss_max
                link.duplicate = random.random() * self.duplicate_max
                link.slow = random.random() * self.slow_max
                link.slow_us = self.slow_us
                link.replay_us = self.replay_us
                link.favour_rare = random.random() * self.favour_rare
                link.jitter_us = int(link.latency_us + random.random() * self.jitter_us)
        self.again(self.every_us)

"""Processes that stand still for a while (SIGSTOP, a slow machine): what arrives waits, the clock goes on."""

from __future__ import annotations

from random import Random

from ..node import SimNode
from ..scheduler import MS, SECOND
from ..simulation import Simulation
from . import Fault


class Pause(Fault):
    share = 0.4

    def __init__(self, simulation: Simulation, random: Random) -> None:
        super().__init__(simulation, random)
        self.every_us = random.choice((1, 4, 10)) * SECOND
        self.for_us = random.choice((50 * MS, 1 * SECOND, 4 * SECOND))
        self.leader_share = random.choice((0.0, 0.5, 1.0))

    def start(self) -> None:
        self.again(self.every_us)

    def strike(self) -> None:
        random, simulation = self.random, self.simulation
        leaders = simulation.leaders()
        candidates = leaders[:1] if leaders and random.random() < self.leader_share else simulation.up()
        candidates = [node for node in candidates if not node.paused]
        if candidates:
            node = random.choice(candidates)
            simulation.say(f"pause: {node.id}")
            node.pause()
            simulation.scheduler.after(int(random.expovariate(1.0) * self.for_us), self._resume, node, node.life)
        self.again(self.every_us)

    def _resume(self, node: SimNode, life: int) -> None:
        if node.paused and node.life == life:
            self.simulation.say(f"resume: {node.id}")
            node.resume()

"""Processes that stand still for a while (SIGSTOP, a slow machine) while the clock goes on.

What arrives meanwhile waits, or is lost: a peer's connection may be given up, a client's request is there when the
process goes on.
"""

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
        self.deaf_share = random.choice((0.0, 0.5, 1.0))

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
            node.pause(deaf=random.random() < self.deaf_share)
            simulation.scheduler.after(int(random.expovariate(1.0) * self.for_us), self._resume, node, node.life)
        self.again(self.every_us)

    def _resume(self, node: SimNode, life: int) -> None:
        if node.paused and node.life == life:
            self.simulation.say(f"resume: {node.id}")
            node.resume()

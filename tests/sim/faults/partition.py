"""The cluster falls into two: at random, the leader from the rest, or with one node that both sides still reach."""

from __future__ import annotations

from random import Random

from ..scheduler import MS, SECOND
from ..simulation import Simulation
from . import Fault


class Partition(Fault):
    share = 0.5

    def __init__(self, simulation: Simulation, random: Random) -> None:
        super().__init__(simulation, random)
        self.every_us = random.choice((2, 5, 10)) * SECOND
        self.for_us = random.choice((300 * MS, 2 * SECOND, 8 * SECOND))
        self.leader_share = random.choice((0.1, 0.5, 0.9))
        self.deaf_share = random.choice((0.0, 0.3))
        """Cut one way only: from here to there, or back."""
        self._cut: list[tuple[int, int]] = []

    def start(self) -> None:
        if len(self.simulation.nodes) > 1:
            self.again(self.every_us)

    def strike(self) -> None:
        random, nodes = self.random, list(self.simulation.nodes)
        leaders = self.simulation.leaders()
        if leaders and random.random() < self.leader_share:
            here = {leaders[0].id}
            others = [node for node in nodes if node not in here]
            here |= set(random.sample(others, random.randint(0, (len(nodes) - 1) // 2)))
        else:
            here = set(random.sample(nodes, random.randint(1, len(nodes) - 1)))
        there = set(nodes) - here
        bridge = {random.choice(nodes)} if len(nodes) > 2 and random.random() < 0.2 else set[int]()
        ways = [(a, b) for a in sorted(here - bridge) for b in sorted(there - bridge)]
        back = [(b, a) for a, b in ways]
        if random.random() < self.deaf_share:
            ways = random.choice((ways, back))
        else:
            ways += back
        self.simulation.say(
            f"partition: {sorted(here)} from {sorted(there)}, bridge {sorted(bridge)}, {len(ways)} ways"
        )
        for way in ways:
            self.simulation.network.cut(*way)
        self._cut = ways
        self.simulation.scheduler.after(int(random.expovariate(1.0) * self.for_us), self._over)

    def _over(self) -> None:
        if self._cut:
            self.heal()
            self.simulation.say("partition is over")
            self.again(self.every_us)

    def heal(self) -> None:
        for way in self._cut:
            self.simulation.network.join(*way)
        self._cut = []

"""Several nodes lose patience at the same moment and campaign against each other: split votes, term after term.

The leader is cut off or not, and the clocks of the others leap over their election timeouts, as after machines were
suspended.
"""

from __future__ import annotations

from random import Random

from ..scheduler import MS, SECOND
from ..simulation import Simulation
from . import Fault


class Rivals(Fault):
    share = 0.3

    def __init__(self, simulation: Simulation, random: Random) -> None:
        super().__init__(simulation, random)
        self.every_us = random.choice((2, 6)) * SECOND
        self.rounds = random.choice((1, 3, 8))
        """How often they lose patience before the leader may come back."""
        # Of three nodes, two are no rivals unless the third can choose.
        self.cut_share = random.choice((0.0, 0.5, 1.0)) if len(simulation.nodes) > 3 else 0.1
        self.rival_share = random.choice((0.5, 0.8, 1.0))
        self._round_us = simulation.plan.config.election_timeout_ms * MS // 3
        self._cut: list[tuple[int, int]] = []

    def start(self) -> None:
        if len(self.simulation.nodes) > 2:
            self.again(self.every_us)

    def strike(self) -> None:
        leaders = self.simulation.leaders()
        if leaders and self.random.random() < self.cut_share:
            leader = leaders[0].id
            self.simulation.say(f"rivals: leader {leader} is cut off")
            for other in self.simulation.nodes:
                for way in ((leader, other), (other, leader)):
                    if other != leader:
                        self.simulation.network.cut(*way)
                        self._cut.append(way)
        self._lose_patience(self.rounds)

    def _lose_patience(self, rounds: int) -> None:
        if not self.simulation.faulty:
            return
        if rounds == 0:
            self.heal()
            self.again(self.every_us)
            return
        for node in self.simulation.up():
            if self.random.random() < self.rival_share:
                node.leap(2 * self.simulation.plan.config.election_timeout_ms)
        self.simulation.scheduler.after(
            int(self._round_us * (0.5 + self.random.random())), self._lose_patience, rounds - 1
        )

    def heal(self) -> None:
        for way in self._cut:
            self.simulation.network.join(*way)
        self._cut = []

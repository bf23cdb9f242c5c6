"""Leaders that get their entries to few others before they are cut off or crash, one after the other (3.6.2, figure 8).

A leader is left with some of its followers, others are kept away from it; before long it goes, and who was kept away
comes back. Knows nothing of what the entries are.
"""

from __future__ import annotations

from random import Random

from ..node import SimNode
from ..scheduler import MS
from ..simulation import Simulation
from . import Fault


class Relay(Fault):
    share = 0.35

    def __init__(self, simulation: Simulation, random: Random) -> None:
        super().__init__(simulation, random)
        timeout_us = simulation.plan.config.election_timeout_ms * MS
        self.lead_us = int(timeout_us * random.choice((0.1, 0.3, 0.8)))
        """How long a leader is left with its few."""
        self.gone_us = int(timeout_us * random.choice((1.5, 3, 5)))
        """How long it is away then."""
        self.crash_share = random.choice((0.0, 0.5, 1.0))
        self.look_us = timeout_us // 20
        self._cut: list[tuple[int, int]] = []
        self._known = 0
        """Term of the leader that was looked after last."""

    def start(self) -> None:
        if len(self.simulation.nodes) > 2:
            self.simulation.scheduler.after(self.look_us, self._due)

    def strike(self) -> None:
        leaders = self.simulation.leaders()
        if leaders and leaders[0].term > self._known:
            leader = leaders[0]
            self._known = leader.term
            self._keep_away(leader)
            self.simulation.scheduler.after(int(self.lead_us * (0.5 + self.random.random())), self._remove, leader)
        else:
            self.simulation.scheduler.after(self.look_us, self._due)

    def _keep_away(self, leader: SimNode) -> None:
        self.heal()
        others = [node for node in self.simulation.nodes if node != leader.id]
        few = self.random.sample(others, self.random.randint(0, len(others) // 2))
        away = [node for node in others if node not in few]
        self.simulation.say(f"relay: leader {leader.id} is left with {sorted(few)}")
        self._separate(leader.id, away)
        self.simulation.clients.post_at(leader.id)

    def _remove(self, leader: SimNode) -> None:
        if not self.simulation.faulty:
            return
        self.heal()
        if self.random.random() < self.crash_share:
            leader.crash(power_lost=self.random.random() < 0.5)
            self.simulation.restart_later(leader, self.gone_us)
        else:
            self.simulation.say(f"relay: leader {leader.id} is cut off")
            self._separate(leader.id, [node for node in self.simulation.nodes if node != leader.id])
            self.simulation.scheduler.after(self.gone_us, self._back, self._known)
        self.simulation.scheduler.after(self.look_us, self._due)

    def _back(self, term: int) -> None:
        if self._known == term:
            self.heal()

    def _separate(self, node: int, others: list[int]) -> None:
        for other in others:
            for way in ((node, other), (other, node)):
                self.simulation.network.cut(*way)
                self._cut.append(way)

    def heal(self) -> None:
        for way in self._cut:
            self.simulation.network.join(*way)
        self._cut = []

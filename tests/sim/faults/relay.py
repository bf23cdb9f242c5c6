"""Leaders that get their entries to few others before they are cut off or crash, one after the other (3.6.2, figure 8).

A leader is left with some of its followers, the others are kept away from it. Before long, or just when it commits
something, it goes, and who was kept away comes back. Knows nothing of what the entries are.
"""

from __future__ import annotations

from random import Random

from raftchat.raft.messages import Role

from ..checkers import Checker
from ..node import SimNode
from ..scheduler import MS
from ..simulation import Simulation
from . import Fault


class Relay(Fault):
    share = 0.4

    def __init__(self, simulation: Simulation, random: Random) -> None:
        super().__init__(simulation, random)
        timeout_us = simulation.plan.config.election_timeout_ms * MS
        self.lead_us = int(timeout_us * random.choice((0.1, 0.3, 0.8)))
        """How long a leader is left with its few."""
        self.gone_us = int(timeout_us * random.choice((1.5, 3, 5)))
        """How long it is away then."""
        self.crash_share = random.choice((0.0, 0.5, 1.0))
        self.at_commit_share = random.choice((0.0, 0.5, 1.0))
        """Of the leaders that commit something: go at that moment."""
        self.look_us = timeout_us // 20
        self._cut: list[tuple[int, int]] = []
        self._term = 0
        """Of the leader that was looked after last."""
        self.watched: SimNode | None = None
        self.at_commit = False

    def start(self) -> None:
        if len(self.simulation.nodes) > 2:
            self.simulation.observers.add(_Lookout(self))
            self.simulation.scheduler.after(self.look_us, self._due)

    def strike(self) -> None:
        leaders = self.simulation.leaders()
        if leaders and leaders[0].term > self._term:
            leader = leaders[0]
            self._term = leader.term
            self._keep_away(leader)
            self.watched = leader
            self.at_commit = self.random.random() < self.at_commit_share
            self.simulation.scheduler.after(int(self.lead_us * (0.5 + self.random.random())), self.remove, self._term)
        else:
            self.simulation.scheduler.after(self.look_us, self._due)

    def _keep_away(self, leader: SimNode) -> None:
        self.heal()
        others = [node for node in self.simulation.nodes if node != leader.id]
        few = self.random.sample(others, self.random.randint(0, len(others) // 2))
        self.simulation.say(f"relay: leader {leader.id} is left with {sorted(few)}")
        self._separate(leader.id, [node for node in others if node not in few])
        self.simulation.clients.post_at(leader.id)

    def remove(self, term: int) -> None:
        """The time of the leader of that term is over."""
        leader = self.watched
        if leader is None or term != self._term or not self.simulation.faulty:
            return
        self.watched = None
        self.heal()
        if self.random.random() < self.crash_share:
            leader.crash(power_lost=self.random.random() < 0.5)
            self.simulation.restart_later(leader, self.gone_us)
        else:
            self.simulation.say(f"relay: leader {leader.id} is cut off")
            self._separate(leader.id, [node for node in self.simulation.nodes if node != leader.id])
            self.simulation.scheduler.after(self.gone_us, self._back, term)
        self.simulation.scheduler.after(self.look_us, self._due)

    def _back(self, term: int) -> None:
        if self._term == term:
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


class _Lookout(Checker):
    def __init__(self, relay: Relay) -> None:
        super().__init__(relay.simulation)
        self._relay = relay
        self._commit_index = 0

    def turned(self, node: SimNode) -> None:
        commits = node.commit_index > self._commit_index
        self._commit_index = max(self._commit_index, node.commit_index)
        if commits and node is self._relay.watched and self._relay.at_commit and node.role is Role.LEADER:
            # Not from within its turn.
            self.simulation.scheduler.after(0, self._relay.remove, node.term)

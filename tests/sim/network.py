"""Links between nodes, each way on its own: they lose, double, delay, reorder, and are cut.

Knows neither what a message is nor what a node does with it.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from . import trace as t
from .scheduler import SECOND, Scheduler
from .trace import Trace

BREAK_NOTICED_US = 3 * SECOND


class Link:
    """One direction between two nodes."""

    __slots__ = (
        "cuts",
        "duplicate",
        "favour_rare",
        "free_us",
        "jitter_us",
        "latency_us",
        "loss",
        "replay_us",
        "slow",
        "slow_us",
    )

    def __init__(self, latency_us: int) -> None:
        self.latency_us = latency_us
        self.cuts = 0
        """How many faults hold it cut at present."""
        self.free_us = 0
        """When the message sent last arrives: in-order links do not overtake it."""
        self.calm()

    def calm(self) -> None:
        self.loss = self.duplicate = self.slow = self.favour_rare = 0.0
        self.slow_us = 0
        """A message that is slow takes up to so much longer."""
        self.replay_us = 0
        """The second copy of a message comes up to so much later."""
        self.jitter_us = self.latency_us


class Network:
    def __init__(
        self, scheduler: Scheduler, random: Random, trace: Trace, nodes: int, latency_us: int, *, ordered: bool
    ) -> None:
        self._scheduler = scheduler
        self._random = random
        self._trace = trace
        self._ordered = ordered
        self._receive: dict[int, Callable[[int, object], None]] = {}
        self._broken: Callable[[int, int], None] = lambda source, target: None
        self.links = {(a, b): Link(latency_us) for a in range(1, nodes + 1) for b in range(1, nodes + 1) if a != b}
        self.duplicated = 0
        self.lost = 0

    def attach(self, node: int, receive: Callable[[int, object], None]) -> None:
        """`receive(source, message)` is called for what arrives at `node`."""
        self._receive[node] = receive

    def on_broken(self, broken: Callable[[int, int], None]) -> None:
        """`broken(source, target)` is called, some time later, when something sent `once` was lost."""
        self._broken = broken

    def send(self, source: int, target: int, message: object, *, once: bool = False, rare: bool = False) -> None:
        """`once`: a request on a connection. It is not doubled, and both ends notice if it is lost.

        `rare`: there are few of its kind, so that a fault has to be more likely to ever meet two in a row.
        """
        link = self.links[source, target]
        random = self._random.random
        if link.cuts or (link.loss and random() < link.loss):
            self.lost += 1
            self._trace.event(self._scheduler.now_us, t.DROP, source, target)
            if self._trace.readable:
                self._trace.say(self._scheduler.now_us, source, f"    lost on its way to {target}: {message}")
            if once:
                self._break(source, target)
            return
        favour = link.favour_rare if rare else 0.0
        self._carry(link, source, target, message, once, max(link.slow, favour / 2))
        if not once and random() < max(link.duplicate, favour):
            self.duplicated += 1
            self._scheduler.after(int(random() * link.replay_us), self._carry, link, source, target, message, once, 0.0)

    def _carry(self, link: Link, source: int, target: int, message: object, once: bool, slow: float) -> None:
        random = self._random.random
        delay_us = link.latency_us + int(random() * link.jitter_us)
        if slow and random() < slow:
            delay_us += int(random() * link.slow_us)
        now_us = self._scheduler.now_us
        if self._ordered:
            link.free_us = max(link.free_us, now_us + delay_us)
            delay_us = link.free_us - now_us
        self._scheduler.after(delay_us, self._arrive, link, source, target, message, once)

    def _arrive(self, link: Link, source: int, target: int, message: object, once: bool) -> None:
        if link.cuts:
            self.lost += 1
            if once:
                self._break(source, target)
            return
        self._trace.event(self._scheduler.now_us, t.DELIVER, target, source)
        self._receive[target](source, message)

    def _break(self, source: int, target: int) -> None:
        self._scheduler.after(int(self._random.random() * BREAK_NOTICED_US), self._broken, source, target)

    def cut(self, source: int, target: int) -> None:
        """One way, until `join`ed as often. What is on its way is lost too."""
        self.links[source, target].cuts += 1

    def join(self, source: int, target: int) -> None:
        link = self.links[source, target]
        assert link.cuts > 0
        link.cuts -= 1

    def heal(self) -> None:
        for link in self.links.values():
            assert link.cuts == 0, "a fault left a link cut"
            link.calm()

"""Clients: they post numbered messages and read, at random nodes, one request at a time, and give up after a while.

What they were told is kept for the checkers. Knows nothing of leaders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TYPE_CHECKING

from raftchat.log_reference import KIND_POST, pack

from . import trace as t
from .desk import Post, Reading, Request
from .scheduler import MS

if TYPE_CHECKING:
    from .simulation import Simulation

LOOK_US = 60 * MS
_FILLER = "lorem ipsum " * 20


class Clients:
    """All of one run. `posts[number - 1]` is the post with that number."""

    def __init__(self, simulation: Simulation, random: Random) -> None:
        self._simulation = simulation
        self._random = random
        self.posts: list[Post] = []
        self.readings: list[Reading] = []
        self.open = True

    def start(self) -> None:
        plan = self._simulation.plan
        for _ in range(plan.posters):
            self._simulation.scheduler.after(self._pause_us(), self._post)
        for _ in range(plan.readers):
            self._simulation.scheduler.after(self._pause_us(), self._read)

    def _pause_us(self) -> int:
        return int(self._random.expovariate(1.0) * self._simulation.plan.think_us) + MS

    def _post(self) -> None:
        if self.open:
            self._wait(self.post_at(self._somebody()).posts, self._post)

    def _read(self) -> None:
        if self.open:
            self._wait([self.read_at(self._somebody())], self._read)

    def _somebody(self) -> int:
        """Any node, or one that believes to lead: also a deposed one."""
        leaders = self._simulation.leaders()
        if leaders and self._random.random() < 0.4:
            return self._random.choice(leaders).id
        return self._random.choice(list(self._simulation.nodes))

    def _wait(self, asked: Sequence[Post | Reading], again: Callable[[], None]) -> None:
        """A client looks now and then whether it has its answer, then thinks, then asks again."""
        if all(one.outcome for one in asked):
            self._simulation.scheduler.after(self._pause_us(), again)
        else:
            self._simulation.scheduler.after(LOOK_US, self._wait, asked, again)

    def _be_patient(self, asked: Sequence[Post | Reading]) -> None:
        self._simulation.scheduler.after(self._simulation.plan.patience_us, _give_up, asked)

    def post_at(self, node_id: int, count: int = 0) -> Request:
        """`count` 0: as many as a client may happen to send at once."""
        plan, random, simulation = self._simulation.plan, self._random, self._simulation
        posts, records = [], []
        for _ in range(count or random.randint(1, plan.burst_max)):
            post = Post(len(self.posts) + 1)
            self.posts.append(post)
            posts.append(post)
            text = _FILLER[: random.randint(1, plan.text_max_bytes)]
            value = f'"User":"u","Message":"{post.number} {text}"'.encode()
            records.append(pack(KIND_POST, b"room", value))
        request = Request(posts[0].number, node_id, b"".join(records), posts)
        simulation.trace.event(simulation.scheduler.now_us, t.CLIENT, node_id, request.number, len(posts))
        if not simulation.nodes[node_id].submit(request):
            for post in posts:
                post.outcome = "failed"
        self._be_patient(posts)
        return request

    def read_at(self, node_id: int) -> Reading:
        simulation = self._simulation
        reading = Reading(len(self.readings) + 1, node_id)
        self.readings.append(reading)
        for see in simulation.observers.read_begins:
            see(reading)
        if not simulation.nodes[node_id].submit(reading):
            reading.outcome = "failed"
        self._be_patient([reading])
        return reading


def _give_up(asked: Sequence[Post | Reading]) -> None:
    for one in asked:
        one.outcome = one.outcome or "unknown"

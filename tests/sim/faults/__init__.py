"""What goes wrong: one nemesis per file. Each draws from its own stream whether and how it takes part in a seed.

A new kind of fault is a new file and a line in `run.py`. Knows when things go wrong, not what must hold nevertheless.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..simulation import Simulation


class Fault:
    """Base of all. `share`: the part of the seeds that has it."""

    share = 0.5

    def __init__(self, simulation: Simulation, random: Random) -> None:
        """Draws its strength. The random numbers are its own."""
        self.simulation = simulation
        self.random = random

    def start(self) -> None:
        """The cluster starts."""
        raise NotImplementedError

    def heal(self) -> None:
        """Undo what has not been undone. `simulation.faulty` is false by now; what is still scheduled does nothing."""

    def again(self, mean_us: int) -> None:
        """Call `strike` after a random while, as long as there are faults at all."""
        self.simulation.scheduler.after(int(self.random.expovariate(1.0) * mean_us), self._due)

    def _due(self) -> None:
        if self.simulation.faulty:
            self.strike()

    def strike(self) -> None:
        raise NotImplementedError

    @classmethod
    def name(cls) -> str:
        return cls.__module__.rpartition(".")[2]

    def __str__(self) -> str:
        drawn = {k: v for k, v in vars(self).items() if isinstance(v, (int, float)) and not k.startswith("_")}
        return f"{self.name()} {drawn}"

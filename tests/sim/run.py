"""Which checkers and which faults take part, and a run of one seed. New ones are added to these lists."""

from __future__ import annotations

from collections.abc import Callable

from .checkers import Checker
from .checkers.durability import Durability
from .checkers.election_safety import ElectionSafety
from .checkers.hard_state import HardStates
from .checkers.history import Histories
from .checkers.leader_append_only import LeaderAppendOnly
from .checkers.leader_completeness import LeaderCompleteness
from .checkers.linearizable import Linearizable
from .checkers.log_matching import LogMatching
from .checkers.promises import Promises
from .checkers.state_machine_safety import StateMachineSafety
from .coverage import Coverage
from .faults import Fault
from .faults.ambush import Ambush
from .faults.clocks import Clocks
from .faults.crash import Crash
from .faults.cut import Cut
from .faults.noise import Noise
from .faults.partition import Partition
from .faults.pause import Pause
from .faults.relay import Relay
from .faults.rivals import Rivals
from .faults.slow_disk import SlowDisk
from .faults.transfer import Transfer
from .simulation import Result, Simulation

OUTSIDE: tuple[type[Checker], ...] = (
    ElectionSafety,
    LeaderAppendOnly,
    LogMatching,
    StateMachineSafety,
    LeaderCompleteness,
    Linearizable,
    Histories,
)
"""What a user of the cluster could come to feel."""
CHECKERS: tuple[type[Checker], ...] = (*OUTSIDE, HardStates, Durability, Promises)
"""These also know what each node must have on its disk before it speaks."""
FAULTS: tuple[type[Fault], ...] = (
    Noise,
    Cut,
    Partition,
    Crash,
    Pause,
    SlowDisk,
    Clocks,
    Transfer,
    Ambush,
    Relay,
    Rivals,
)


def run_seed(
    seed: int,
    tell: Callable[[str], None] | None = None,
    checkers: tuple[type[Checker], ...] = CHECKERS,
    faults: tuple[type[Fault], ...] = FAULTS,
) -> Result:
    """`tell` gets the lines of the story. The same seed gives the same `Result`."""
    return Simulation(seed, tell).run((*checkers, Coverage), faults)


def replay_command(seed: int, mutant: str | None = None) -> str:
    """What to type to see a failing seed again, told as a story."""
    return f"python -m tests.sim --seed {seed} --trace" + (f" --mutant {mutant}" if mutant else "")

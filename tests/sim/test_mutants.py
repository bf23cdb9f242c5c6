"""Each planted bug is found.

Two of them take hundreds of seeds and are left to `SIM_MUTANTS=all`, and to `python -m tests.sim --mutant NAME`.
"""

from __future__ import annotations

import os

import pytest

from raftchat.raft import quorum

from .checkers import Checker
from .mutants import Edit, Mutant, SeamMoved
from .mutants.planted import MUTANTS
from .run import CHECKERS, OUTSIDE, run_seed
from .simulation import Result

SEEDS_MAX = 1000
RARE = frozenset({"old-term-votes-counted", "forwards-numbered-alike-in-each-life"})
CHECKED = [name for name in MUTANTS if name not in RARE or os.environ.get("SIM_MUTANTS") == "all"]


def first_found(name: str, checkers: tuple[type[Checker], ...]) -> Result:
    """What the first seed says that finds the bug. The seed is clean without it."""
    for seed in range(SEEDS_MAX):
        with MUTANTS[name].planted():
            result = run_seed(seed, checkers=checkers)
        if result.violation:
            assert not run_seed(seed, checkers=checkers).violation, "not the mutant's fault"
            return result
    pytest.fail(f"{name} is not found within {SEEDS_MAX} seeds")


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.timeout(900)
def test_a_planted_bug_is_found(name: str) -> None:
    first_found(name, CHECKERS)


@pytest.mark.parametrize(
    ("name", "found_by"),
    [
        ("vote-not-durable", {"election_safety", "leader_completeness", "state_machine_safety", "assertion"}),
        ("old-term-committed-by-count", {"leader_completeness", "state_machine_safety"}),
        ("ack-before-fsync", {"leader_completeness", "state_machine_safety", "history", "liveness", "assertion"}),
    ],
)
@pytest.mark.timeout(900)
def test_a_planted_bug_is_found_from_outside(name: str, found_by: set[str]) -> None:
    """The properties of figure 3.2 are enough: nobody looks at what is on disk."""
    found = first_found(name, OUTSIDE)
    assert found.checker in found_by, found.violation


@pytest.mark.parametrize("name", MUTANTS)
def test_every_mutant_still_has_its_place(name: str) -> None:
    with MUTANTS[name].planted():
        pass


def test_a_mutant_whose_place_has_changed_is_an_error() -> None:
    for edit in (
        Edit("raftchat.raft.quorum:majority", "voters // 3 + 1", "1"),
        Edit("raftchat.raft.quorum:minority", "voters // 2 + 1", "1"),
    ):
        with pytest.raises(SeamMoved), Mutant("moved", (edit,)).planted():
            pass


def test_a_mutant_changes_what_others_have_imported() -> None:
    imported = quorum.majority
    edit = Edit("raftchat.raft.quorum:majority", "voters // 2 + 1", "voters // 2")
    with Mutant("half is enough", (edit,)).planted():
        assert imported(4) == 2
    assert imported(4) == 3

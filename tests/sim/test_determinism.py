"""The same seed is the same run, in this process and in any other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .run import run_seed

SEEDS = (3, 11, 26)
_ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_gives_the_same_trace_twice(seed: int) -> None:
    assert run_seed(seed) == run_seed(seed)


def test_a_trace_does_not_depend_on_the_process() -> None:
    program = (
        "import sys; from tests.sim.run import run_seed; print(*(run_seed(int(seed)).hash for seed in sys.argv[1:]))"
    )
    outputs = set()
    for hash_seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, SEEDS)],
            cwd=_ROOT,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        outputs.add(done.stdout)
    assert outputs == {" ".join(str(run_seed(seed).hash) for seed in SEEDS) + "\n"}


def test_telling_the_story_changes_nothing() -> None:
    lines: list[str] = []
    assert run_seed(SEEDS[0], lines.append) == run_seed(SEEDS[0])
    assert len(lines) > 1000


def test_different_seeds_are_different_runs() -> None:
    assert len({run_seed(seed).hash for seed in SEEDS}) == len(SEEDS)

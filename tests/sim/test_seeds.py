"""The simulator's seeds as tests. `SIM_SEEDS` raises their number (default 1,000)."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from .coverage import EXPECTED
from .run import replay_command, run_seed

SEEDS = int(os.environ.get("SIM_SEEDS", "1000"))
CHUNK = 25
COVERAGE_FROM_SEEDS = 1000
"""Fewer may miss a rare branch by chance."""


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of this run of pytest, the same in each of its workers."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "sim-coverage"
    shared.mkdir(exist_ok=True)
    return shared


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
@pytest.mark.timeout(300)
def test_no_seed_violates_a_property(first: int, shared: Path) -> None:
    reached, failed = Counter[str](), list[str]()
    for seed in range(first, min(first + CHUNK, SEEDS)):
        result = run_seed(seed)
        reached.update(result.reached)
        if result.violation:
            failed.append(f"{result.violation}\n    {replay_command(seed)}")
    assert not failed, "\n".join(failed)
    _whoever_is_last_checks_coverage(shared, first, reached)


def _whoever_is_last_checks_coverage(shared: Path, first: int, reached: Counter[str]) -> None:
    """A branch that no seed reaches is not tested by any: then the mix of faults has lost something."""
    counts = shared / f"{first}.json"
    part = counts.with_suffix(".part")
    part.write_text(json.dumps(reached))
    part.rename(counts)
    chunks = list(shared.glob("*.json"))
    if len(chunks) < len(range(0, SEEDS, CHUNK)) or SEEDS < COVERAGE_FROM_SEEDS:
        return
    total = sum((Counter(json.loads(chunk.read_text())) for chunk in chunks), Counter[str]())
    assert not [branch for branch in EXPECTED if not total[branch]], "branches that no seed reached"

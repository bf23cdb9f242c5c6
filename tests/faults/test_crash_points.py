"""Each system call of each durable operation as a crash point: the compiled log and the real files, killed by strace.

Killed before a call, the page cache stays. So from the same calls, and from what the files held before each, it is also
worked out what a disk may hold that lost power there. And each call is refused: a full disk, a disk that fails.

What else is proved of crashes: between the stores into a mapping, and on a simulated disk, the reference log
(tests/log/test_recovery.py, test_disk.py); the order of the keeper's own steps (tests/node/test_keeper_crashes.py);
each bit of a snapshot and of the hard state (tests/storage); elections on disks that lose power (tests/sim).
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from raftchat.storage.verify import BY_ITSELF, verify
from tests.faults.crash_found import Found, find
from tests.faults.crash_kit import Operation
from tests.faults.crash_operations import ALL
from tests.faults.crash_program import DONE, REFUSED
from tests.faults.crash_trace import KILL, REFUSE, Call, Run, Traced, changing
from tests.faults.power_loss import Image, PowerLoss, image_of, put

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed"),
]

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
POINTS_MIN = {"append": 40, "compact": 15, "receive": 40, "restore": 30, "vote": 8}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """Not a disk: each of thousands of flushes would take its time."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as path:
        yield Path(path)


def traced(place: Path, name: str, inject: list[str]) -> Iterator[Traced]:
    (place / name).mkdir()
    program = Traced(place / name, inject)
    yield program
    program.close()


@pytest.fixture(scope="module")
def killer(place: Path) -> Iterator[Traced]:
    yield from traced(place, "killer", KILL)


@pytest.fixture(scope="module")
def refuser(place: Path) -> Iterator[Traced]:
    yield from traced(place, "refuser", REFUSE)


@dataclass(slots=True)
class Whole:
    """An operation that nothing happened to."""

    template: Path
    calls: list[Call]
    said: list[str]
    before: Found | None
    after: Found
    final: Image
    """What it left."""


class Trial:
    """One operation, done many times on copies of one directory."""

    def __init__(self, operation: Operation, place: Path) -> None:
        self.operation = operation
        self._place = Path(tempfile.mkdtemp(dir=place))
        self._numbers = itertools.count(1)
        self._seen: set[int] = set()
        self.checked = 0
        """Different directories that were looked at."""
        self.whole: Whole

    def new_path(self) -> Path:
        return self._place / str(next(self._numbers))

    def copy(self) -> Path:
        path = self.new_path()
        shutil.copytree(self.whole.template, path)
        return path

    def record(self, program: Traced) -> None:
        """Do it once, undisturbed."""
        template = self.new_path()
        template.mkdir()
        self.operation.prepare(template)
        root = Path(shutil.copytree(template, self.new_path()))
        before = find(self.operation.result(root))
        root = Path(shutil.copytree(template, self.new_path()))
        program.begin(self.operation.name, root)
        run = program.end()
        assert run.code == DONE, run.error
        assert len(run.said) == self.operation.says
        final = image_of(root)
        after = find(self.operation.result(root))
        assert after is not None
        assert self.operation.permitted(after, before, after, run.said)
        self.whole = Whole(template, changing(run.calls), run.said, before, after, final)

    def runs(self, program: Traced) -> Iterator[tuple[int, Call, Run, Image]]:
        """Each call killed or refused: its place, itself, what came of it, and what it left."""
        calls = self.whole.calls
        root = self.copy()
        program.begin(self.operation.name, root, calls[0])
        for number, call in enumerate(calls):
            run, left = program.end(), root
            if number + 1 < len(calls):
                root = self.copy()
                program.begin(self.operation.name, root, calls[number + 1])
            yield number, call, run, image_of(left)
            shutil.rmtree(left)

    def check(self, what: str, image: Image, said: Sequence[str], *, torn: bool = False, done: bool = False) -> None:
        """Open it, and do it again. `torn`: power was lost; `done`: it said that it did it."""
        key = hash((tuple(sorted(image.items(), key=lambda item: item[0])), tuple(said), torn, done))
        if key in self._seen:
            return
        self._seen.add(key)
        self.checked += 1
        root = put(self.new_path(), image)
        try:
            self._check(root, image, said, torn, done)
        except Exception as error:
            raise AssertionError(f"{self.operation.name}, {what}, after {list(said)}: {error}") from error
        finally:
            shutil.rmtree(root, ignore_errors=True)

    def _check(self, root: Path, image: Image, said: Sequence[str], torn: bool, done: bool) -> None:
        operation, whole = self.operation, self.whole
        path = operation.result(root)
        if (path / "identity").exists():
            report = verify(str(path))
            faults = report.corrupt + report.unreadable
            # What was not flushed, as it need not be, looks as if it had rotted.
            assert not [fault for fault in faults if not (torn and fault.remedy == BY_ITSELF)], faults
        found = find(path)
        assert operation.permitted(found, whole.before, whole.after, said), f"found {found}"
        if done:
            assert found is not None
            assert operation.permitted(found, whole.after, whole.after, said), f"it said that it was done: {found}"
        if found is not None:
            surplus = [name for name in found.surplus if not name.startswith("incoming/")]
            assert not surplus, f"nobody removes {surplus}"
        shutil.rmtree(root)
        put(root, image)
        operation.again(root, itertools.count(1 << 41))
        final = find(path)
        assert final is not None
        assert operation.complete(final, found, whole.after), f"done again: {final}"
        assert not final.surplus, f"done again, nobody removes {final.surplus}"


@pytest.mark.parametrize("name", ALL)
def test_killed_and_without_power_at_each_call(
    place: Path, killer: Traced, name: str, figure: Callable[[str], None]
) -> None:
    trial = Trial(ALL[name], place)
    trial.record(killer)
    calls, random = trial.whole.calls, Random(name)
    disk = PowerLoss(image_of(trial.whole.template))
    for number, call, run, image in trial.runs(killer):
        what = f"call {number}, {call.name} {' '.join(call.paths)}"
        assert run.code == -9, f"{what}: was not killed"
        made = changing(run.calls)
        assert [(c.name, c.paths) for c in made] == [(c.name, c.paths) for c in calls[: number + 1]], what
        trial.check(f"killed before {what}", image, run.said)
        disk.look(image)
        for lost in disk.lost(random):
            trial.check(f"power lost before {what}", lost, run.said, torn=True)
        disk.apply(call)
    disk.look(trial.whole.final)
    for lost in disk.lost(random):
        trial.check("power lost when all was done", lost, trial.whole.said, torn=True)
    assert len(calls) >= POINTS_MIN.get(name, 5)
    figure(f"{name}: {len(calls)} crash points, {trial.checked} different directories opened")
    shutil.rmtree(trial.whole.template)


@pytest.mark.parametrize("name", ALL)
def test_refused_at_each_call(place: Path, refuser: Traced, name: str) -> None:
    trial = Trial(ALL[name], place)
    trial.record(refuser)
    refused = 0
    for number, call, run, image in trial.runs(refuser):
        what = f"call {number}, {call.name} {' '.join(call.paths)}"
        if run.code == REFUSED:
            refused += 1
        else:
            assert "sync" not in call.name, f"{what}: it failed, and nobody was told"
        trial.check(f"refused {what}", image, run.said, done=run.code == DONE)
    assert refused > 0

"""Run the simulator: `python -m tests.sim`.

--seeds 1000 --jobs 2        seeds 0 to 999
(neither seeds nor seed)     fresh seeds for a minute
--seed 17 --trace            one seed, told as a story
--mutant ack-before-fsync    with a planted bug; stops at the first seed that finds it
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from .coverage import EXPECTED
from .mutants.planted import MUTANTS
from .run import CHECKERS, OUTSIDE, replay_command, run_seed
from .simulation import Result

COVERAGE_FROM_SEEDS = 300
"""A run of so many seeds must have reached every branch that is counted."""

FAILURES_MAX = 20
"""Then the run ends: more would say nothing new."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, metavar="N", help="run N seeds")
    parser.add_argument("--first", type=int, metavar="SEED", help="the first of them; default 0")
    parser.add_argument("--seconds", type=float, default=60, help="without --seeds: how long to run fresh ones")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--seed", type=int, help="run this one alone")
    parser.add_argument("--trace", action="store_true", help="tell it as a story")
    parser.add_argument("--mutant", choices=MUTANTS, help="plant this bug")
    parser.add_argument("--outside", action="store_true", help="only the checkers that know nothing of disks")
    options = parser.parse_args()
    if options.seed is not None:
        return _one(options)
    return _many(options)


def _one(options: argparse.Namespace) -> int:
    result = _run((options.seed, options.mutant, options.outside, options.trace))
    digest = f"{result.hash & (2**64 - 1):016x}"
    print(f"seed {result.seed}: hash {digest}, {result.events} events, {result.committed} committed")
    print(result.violation or "no violation")
    return 1 if result.violation else 0


def _many(options: argparse.Namespace) -> int:
    first = options.first
    if first is None:
        first = 0 if options.seeds is not None else secrets.randbelow(10**9)
    began = time.monotonic()
    reached, seeds, failed = Counter[str](), 0, list[Result]()
    for result in _results(options, first):
        seeds += 1
        reached.update(result.reached)
        if result.violation:
            failed.append(result)
            print(
                f"seed {result.seed}: {result.violation}\n    {replay_command(result.seed, options.mutant)}", flush=True
            )
            if options.mutant or len(failed) == FAILURES_MAX:
                break
        if options.seeds is None and time.monotonic() - began > options.seconds:
            break
    seconds = time.monotonic() - began
    if options.mutant:
        print(f"{options.mutant}: {'found' if failed else 'not found'} after {seeds} seeds")
        return 0 if failed else 1
    missed = [name for name in EXPECTED if not reached[name]]
    for name in sorted({*reached, *EXPECTED}):
        print(f"{reached[name]:10,}  {name}")
    print(f"{seeds} seeds from {first} in {seconds:.0f} s, {60 * seeds / seconds:.0f} a minute; {len(failed)} failed")
    if missed and seeds >= COVERAGE_FROM_SEEDS:
        print(f"never reached: {', '.join(missed)}")
        return 1
    return 1 if failed else 0


def _results(options: argparse.Namespace, first: int) -> Iterator[Result]:
    seeds: Iterable[int] = range(first, first + (options.seeds if options.seeds is not None else 10**9))
    work = ((seed, options.mutant, options.outside, False) for seed in seeds)
    if options.jobs <= 1:
        yield from map(_run, work)
        return
    with multiprocessing.Pool(options.jobs) as pool:
        pending = []
        for job in work:  # A generator of our own, since Pool.imap would draw all of an endless one.
            pending.append(pool.apply_async(_run, (job,)))
            if len(pending) >= 4 * options.jobs:
                yield pending.pop(0).get()
        for one in pending:
            yield one.get()


def _run(job: tuple[int, str | None, bool, bool]) -> Result:
    seed, mutant, outside, trace = job
    checkers = OUTSIDE if outside else CHECKERS
    tell = print if trace else None
    if mutant is None:
        return run_seed(seed, tell, checkers)
    with MUTANTS[mutant].planted():
        return run_seed(seed, tell, checkers)


if __name__ == "__main__":
    sys.exit(main())

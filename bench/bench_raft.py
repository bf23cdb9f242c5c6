"""Entries through three cores in one process, in batches of 64: what Raft itself costs, without network and disk.

Messages are handed over as objects and every write counts as done at once, so what is measured is the rules and the
log's memory accesses. The reference is the same log accesses alone: append, slice, and append the slice twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from raftchat._log import KIND_MEMBERSHIP, KIND_NOOP, KIND_POST, Log, pack
from raftchat.config import Config
from raftchat.raft import HardState, Membership, Persisted, Raft, Role

BATCH = 64
BATCHES = 500
RECORDS = BATCH * pack(KIND_POST, b"general", b'"User":"username","Message":"' + b"x" * 60 + b'"')
CONFIG = Config()
VOTERS = Membership({1: "", 2: "", 3: ""})


@pytest.fixture
def new_log(tmp_path: Path) -> Iterator[Callable[[], Log]]:
    logs: list[Log] = []
    random = Random(1)

    def make() -> Log:
        directory = tmp_path / str(len(logs))
        directory.mkdir()
        logs.append(
            Log(
                str(directory),
                new_segment_id=lambda: random.randrange(1, 1 << 64),
                segment_size_bytes=CONFIG.segment_size_bytes,
            )
        )
        return logs[-1]

    yield make
    for log in logs:
        log.close()


class Three:
    """A cluster without wires: each turn hands the messages of the turn before to whom they are for."""

    def __init__(self, new_log: Callable[[], Log]) -> None:
        self.logs = {node: new_log() for node in VOTERS.voters}
        self.rafts = {
            node: Raft(
                CONFIG,
                node,
                log,
                HardState(),
                [(0, VOTERS)],
                Random(node),
                noop=pack(KIND_NOOP, b"", b""),
                pack_membership=lambda data: pack(KIND_MEMBERSHIP, b"", data),
            )
            for node, log in self.logs.items()
        }
        self.messages = 0
        self.rafts[1].tick(2 * CONFIG.election_timeout_ms)
        self.settle()
        assert self.rafts[1].role is Role.LEADER

    def settle(self) -> None:
        while any(raft.has_ready for raft in self.rafts.values()):
            self.turn()

    def turn(self) -> None:
        """One `ready()` of each node that has something to say."""
        rafts = self.rafts
        for raft in rafts.values():
            if raft.has_ready:
                ready = raft.ready()
                self.messages += len(ready.messages)
                for to, message in ready.messages:
                    rafts[to].step(message)
                persist = ready.persist
                if persist is not None:
                    raft.step(Persisted(persist.hard_state, persist.last_index, persist.generation))

    def run(self, batches: int) -> None:
        leader = self.rafts[1]
        for _ in range(batches):
            leader.propose(RECORDS, 1)
            self.turn()
        self.settle()


def log_accesses(logs: list[Log], batches: int) -> None:
    leader, *followers = logs
    for _ in range(batches):
        first, _ = leader.append(RECORDS, 1, 1)
        batch = leader.slice(first, CONFIG.append_size_max_bytes)
        assert batch is not None
        for follower in followers:
            follower.append_batch(batch, first)


def test_entries_through_three_cores(benchmark: BenchmarkFixture, new_log: Callable[[], Log]) -> None:
    three = Three(new_log)
    before, sent = three.rafts[1].commit_index, three.messages
    rounds = 5
    benchmark.pedantic(three.run, args=(BATCHES,), rounds=rounds, warmup_rounds=1)
    entries = BATCH * BATCHES
    for raft in three.rafts.values():
        assert raft.commit_index == before + entries * (rounds + 1), "all of it is committed, everywhere"

    logs = [new_log() for _ in range(3)]
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        log_accesses(logs, BATCHES)
        seconds.append(time.perf_counter() - begun)
    best = benchmark.stats.stats.min
    benchmark.extra_info.update(
        name="Raft core: 3 nodes, batches of 64",
        figure=entries / best,
        unit="entries/s",
        reference="the log accesses alone",
        ratio=min(seconds) / best,
        aim="200,000",
        messages_per_batch=(three.messages - sent) / (BATCHES * (rounds + 1)),
    )

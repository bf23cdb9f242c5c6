"""The two implementations, operation by operation: the same answers, the same errors, the same bytes on disk."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from raftchat import _log, log_reference
from tests.log.kit import SEGMENT_SIZE_BYTES, Kit, contents, describe, described, sync

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
SIZES = st.one_of(st.integers(0, 40), st.integers(0, 1500), st.just(SEGMENT_SIZE_BYTES - 112))
KINDS = st.sampled_from([1, 2, 16, 16, 16, 255])
POSITIONS = st.floats(0, 1)


class Twins(RuleBasedStateMachine):
    """One log of each implementation, and a follower's log for batches."""

    @initialize()
    def make(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="raft-chat-twins-", dir=MEMORY))
        self.kits = [Kit(_log, self.directory / "compiled"), Kit(log_reference, self.directory / "plain")]
        for kit in self.kits:
            kit.directory.mkdir()
        self.logs = [kit.open() for kit in self.kits]
        self.followers = [kit.open("follower") for kit in self.kits]
        self.points: list[Any] = [None, None]
        self.term = 1

    def teardown(self) -> None:
        if hasattr(self, "directory"):
            shutil.rmtree(self.directory)

    def both(self, call: Any) -> Any:
        """Call it on each; the results, or errors, must be the same."""
        outcomes = []
        for at in (0, 1):
            try:
                outcomes.append(call(at))
            except (ValueError, IndexError, OSError, self.kits[at].module.LogError) as error:
                outcomes.append(describe(error))
        assert outcomes[0] == outcomes[1]
        return outcomes[0]

    def index(self, position: float, beyond: int = 0) -> int:
        log = self.logs[0]
        first, last = log.first_index - beyond, log.last_index + beyond
        return max(0, first + round(position * (last - first)))

    @rule(
        parts=st.lists(st.tuples(KINDS, st.integers(0, 3), SIZES), min_size=1, max_size=8),
        newer=st.booleans(),
        time_ms=st.integers(0, 10_000),
    )
    def append(self, parts: list[tuple[int, int, int]], newer: bool, time_ms: int) -> None:
        self.term += newer
        records = b"".join(
            _log.pack(kind, b"room%d" % room, b"v" * max(0, size - 5), b"") for kind, room, size in parts
        )
        self.both(lambda at: self.logs[at].append(records, self.term, time_ms))

    @rule(count=st.integers(100, 200))
    def append_much(self, count: int) -> None:
        self.both(lambda at: self.logs[at].append(self.kits[0].posts(count), self.term, 1))

    @rule(position=POSITIONS, max_bytes=st.integers(0, 3000))
    def replicate(self, position: float, max_bytes: int) -> None:
        """To the follower: what comes next, or from a little before."""

        def one(at: int) -> Any:
            log, follower = self.logs[at], self.followers[at]
            first = min(self.index(position), follower.last_index + 1)
            batch = log.slice(first, max_bytes)
            if batch is None:
                return None
            parse = self.kits[at].module.parse_batch
            parsed = parse(bytes(batch.data), batch.segment_id, batch.first_index)
            follower.append_batch(parsed, follower.last_index + 1)
            return (
                batch.first_index,
                batch.last_index,
                batch.term,
                bytes(batch.data),
                batch.membership,
                batch.segment_id,
            )

        self.both(one)

    @rule(position=POSITIONS)
    def truncate(self, position: float) -> None:
        index = self.index(position, beyond=2)
        self.both(lambda at: self.logs[at].truncate_suffix(index))

    @rule(position=POSITIONS)
    def truncate_follower(self, position: float) -> None:
        def one(at: int) -> None:
            follower = self.followers[at]
            follower.truncate_suffix(round(position * follower.last_index))

        self.both(one)

    @rule(position=POSITIONS)
    def drop_prefix(self, position: float) -> None:
        index = self.index(position, beyond=2)
        self.both(lambda at: [described(s) for s in self.logs[at].drop_prefix(index)])

    @rule(choice=POSITIONS, count=st.integers(1, 4), rooms=st.sets(st.integers(0, 3)), floor=POSITIONS)
    def compact(self, choice: float, count: int, rooms: set[int], floor: float) -> None:
        """Some adjacent sealed segments, of posts alone as they live above one floor."""
        floors = dict.fromkeys([b"room%d" % room for room in rooms], self.index(floor))

        def one(at: int) -> Any:
            log, kit = self.logs[at], self.kits[at]
            sealed = log.segments()[:-1]
            first = round(choice * len(sealed))
            done: list[Any] = []
            made = kit.module.compact(
                kit.path(), sealed[first : first + count], floors, new_segment_id=lambda: next(kit.ids),
                on_progress=lambda *progress: done.append(progress),
            )  # fmt: skip
            assert done[-1][0] == done[-1][1]
            replaced = [described(segment) for segment in log.install(made)]
            assert log.verify()[1] == []
            return tuple(made)[1:], replaced

        self.both(one)

    @rule(position=POSITIONS)
    def unlink(self, position: float) -> None:
        """The older part of what is retired, or just one of it."""

        def one(at: int) -> None:
            log = self.logs[at]
            retired = log.retired()
            log.unlink(retired[: round(position * len(retired))])

        self.both(one)

    @rule()
    def roll(self) -> None:
        self.both(lambda at: self.logs[at].roll())

    @rule(last_index=st.integers(0, 500), time_ms=st.integers(0, 10**6))
    def reset(self, last_index: int, time_ms: int) -> None:
        self.both(lambda at: self.logs[at].reset(last_index, self.term, time_ms))

    @rule()
    def begin_sync(self) -> None:
        self.points = [log.begin_sync() for log in self.logs]
        assert self.points[0].last_index == self.points[1].last_index

    @rule()
    def end_sync(self) -> None:
        if self.points[0] is not None:
            for log, point in zip(self.logs, self.points, strict=True):
                point.wait()
                log.end_sync(point)
            self.points = [None, None]

    @rule(swap=st.booleans(), hint=POSITIONS)
    def reopen(self, swap: bool, hint: float) -> None:
        """Also with the implementations exchanged: each opens what the other wrote."""
        for log in self.logs:
            log.close()
        ids = [kit.ids for kit in self.kits]
        if swap:
            first, second = (kit.directory for kit in self.kits)
            self.kits = [Kit(_log, second), Kit(log_reference, first)]
            self.kits[0].ids, self.kits[1].ids = ids[1], ids[0]
            self.followers = [kit.open("follower") for kit in self.kits]
        durable_hint = round(hint * self.logs[0].synced_index)
        self.logs = [kit.open(durable_hint=durable_hint) for kit in self.kits]
        self.points = [None, None]
        assert tuple(self.logs[0].recovery)[2:] == tuple(self.logs[1].recovery)[2:]

    @rule(position=POSITIONS, max_bytes=st.integers(0, 4000))
    def read(self, position: float, max_bytes: int) -> None:
        first = self.index(position, beyond=2)
        self.both(lambda at: [tuple(e) for e in self.logs[at].entries(first, first + 20, max_bytes)])
        self.both(lambda at: self.logs[at].term_at(first))
        self.both(lambda at: [tuple(e) for e in self.logs[at].find_kind(2)])

    @rule()
    def read_elsewhere(self) -> None:
        def one(at: int) -> Any:
            log, reader = self.logs[at], self.kits[at].reader(self.logs[at])
            runs = [tuple(run) for run in reader.scan(log.first_index, log.last_index)]
            return runs, reader.frames(log.first_index, log.last_index, None)

        self.both(one)

    @rule()
    def verify(self) -> None:
        good, faults = self.both(lambda at: self.logs[at].verify())
        first_index = self.logs[0].first_index
        assert good >= self.logs[0].last_index - first_index + 1
        assert faults == []

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "logs"):
            return
        for pair in (self.logs, self.followers):
            states = [
                (log.first_index, log.last_index, log.last_term, log.last_time_ms, log.synced_index, log.generation)
                for log in pair
            ]
            assert states[0] == states[1]
            segments = [[described(s) for s in (*log.segments(), *log.retired())] for log in pair]
            assert segments[0] == segments[1]
        for name in ("log", "follower"):
            files = [{path.name: path.read_bytes() for path in kit.files(name)} for kit in self.kits]
            assert files[0] == files[1]


TestTwins = Twins.TestCase
TestTwins.settings = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@pytest.mark.parametrize(("writer", "opener"), list(itertools.permutations([_log, log_reference])))
def test_each_opens_what_the_other_wrote(writer: Any, opener: Any, fast_directory: Path) -> None:
    log = Kit(writer, fast_directory).filled(200)
    log.truncate_suffix(120)
    log.append(Kit(writer, fast_directory).posts(60), 50, 1)
    sync(log)
    expected = contents(log), log.segments()
    log.close()
    other = Kit(opener, fast_directory).open(durable_hint=180)
    assert (contents(other), [tuple(s) for s in other.segments()]) == expected
    assert other.verify() == (180, [])
    batch = other.slice(100, 1000)
    assert writer.parse_batch(bytes(batch.data), batch.segment_id, 100).last_index == batch.last_index

"""Look-ups beside a plain list of all posts, while segments are sealed, indexed and compacted, and indexes rot."""

from __future__ import annotations

import itertools
import random
from array import array
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

from raftchat import _log, log_reference
from tests.log.kit import Kit

ROOMS = [b"", b"a", b"aa", b"ab", b"b", *(b"room-%d" % number for number in range(8)), b"x" * 255]
MODULES = (_log, log_reference)


class Post(NamedTuple):
    id: int
    key: bytes
    time_ms: int
    bytes: int


class World:
    """A log, the readers of both implementations on it, and what they must say."""

    def __init__(self, module: ModuleType, directory: Path, seed: int) -> None:
        self.kit = Kit(module, directory)
        self.random = random.Random(seed)
        self.log = self.kit.open()
        self.posts: list[Post] = []
        self.floors: dict[bytes, int] = {}
        self.readers: list[Any] = [self.new_reader(module) for module in MODULES]
        self.told = 0
        """Sequence up to which the readers know the segments."""
        self.scanned = 0
        self.time_ms = 1000

    def new_reader(self, module: ModuleType) -> Any:
        return module.LogReader(self.kit.path())

    def restart_reader(self) -> None:
        """A process that comes later: it is told of all segments, and begins to scan somewhere behind the compacted."""
        at = self.random.randrange(len(self.readers))
        reader = self.new_reader(MODULES[at])
        for segment in self.log.segments():
            reader.add_segment(segment.sequence, segment.base_index, segment.revision)
        for segment in self.log.segments()[:-1]:
            reader.use_index(segment.sequence)
        if self.log.last_index >= self.log.first_index:
            reader.scan(self.random.randint(self.log.first_index, self.log.last_index), self.log.last_index)
        self.readers[at] = reader

    def append(self) -> None:
        for _ in range(self.random.randrange(30)):
            key, size = self.random.choice(ROOMS), self.random.choice((0, 1, 5, 40, 200))
            kind = self.random.choice((16, 16, 16, 16, 18))
            self.time_ms += self.random.randrange(3)
            record = self.kit.module.pack(kind, key, b"v" * size)
            self.log.append(record, 1, self.time_ms)
            if kind == 16:
                self.posts.append(Post(self.log.last_index, key, self.time_ms, len(record)))
                self.floors.setdefault(key, self.log.last_index)
        for segment in self.log.segments():
            if segment.sequence > self.told:
                for reader in self.readers:
                    reader.add_segment(segment.sequence, segment.base_index, segment.revision)
                self.told = segment.sequence
        for reader in self.readers:
            runs = reader.scan(self.scanned + 1, self.log.last_index)
            assert sum(len(run.indexes) for run in runs) == self.log.last_index - self.scanned
        self.scanned = self.log.last_index

    def some_sealed(self) -> Any:
        sealed = self.log.segments()[:-1]
        return self.random.choice(sealed) if sealed else None

    def index(self) -> None:
        segment = self.some_sealed()
        if segment is None:
            return
        writer = self.random.choice(MODULES)
        assert writer.write_index(segment) == index_of(segment).stat().st_size
        assert all(module.has_index(segment) for module in MODULES)
        assert [reader.use_index(segment.sequence) for reader in self.readers] == [True, True]

    def lose_index(self) -> None:
        segment = self.some_sealed()
        if segment is not None and index_of(segment).exists():
            index_of(segment).unlink()
            assert not any(module.has_index(segment) for module in MODULES)

    def rot(self) -> None:
        """Some byte of an index changes before readers come to it; they may or may not find out."""
        segment = self.some_sealed()
        if segment is not None and index_of(segment).exists():
            data = bytearray(index_of(segment).read_bytes())
            data[self.random.randrange(len(data))] ^= 1 << self.random.randrange(8)
            replace(index_of(segment), bytes(data))
            for reader in self.readers:
                reader.use_index(segment.sequence)

    def trim(self) -> None:
        key = self.random.choice(ROOMS)
        if key in self.floors:
            self.floors[key] = self.random.randint(self.floors[key], self.log.last_index + 1)

    def compact(self) -> None:
        sealed = self.log.segments()[:-1]
        if not sealed:
            return
        oldest_dense = sum(segment.revision > 0 for segment in sealed)
        # Compaction goes by the oldest: the log without gaps begins behind the last compacted segment.
        first = self.random.randint(0, max(0, oldest_dense - 1))
        last = self.random.randint(first + 1, max(first + 1, min(len(sealed), oldest_dense + 2)))
        compacted = self.kit.module.compact(
            self.kit.path(), sealed[first:last], self.floors, new_segment_id=lambda: next(self.kit.ids)
        )
        retired = self.log.install(compacted)
        for reader in self.readers:
            reader.add_segment(compacted.sequence, compacted.base_index, compacted.revision)
        self.log.unlink(retired)
        whole = [segment for segment in self.log.segments() if segment.sequence == compacted.sequence]
        low, high = whole[0].base_index, whole[0].last_index
        self.posts = [
            post
            for post in self.posts
            if not low <= post.id <= high or post.id >= self.floors.get(post.key, self.log.last_index + 1)
        ]

    def ids(self, key: bytes, first: int, last: int) -> list[int]:
        return [post.id for post in self.posts if post.key == key and first <= post.id <= last]

    def check(self) -> None:
        key, last = self.random.choice(ROOMS), self.log.last_index
        floor = self.random.choice((self.floors.get(key, 0), self.random.randint(self.floors.get(key, 0), last + 1)))
        limit = self.random.choice((0, 1, 3, 10, 1000))
        index = self.random.randint(1, last + 1)
        after = self.random.randint(max(0, floor - 1), last + 1)
        until = self.random.randint(1, last + 1) if last else 0
        until = min(until, last)
        expected_below = self.ids(key, floor, index - 1)[-limit:] if limit else []
        expected_above = self.ids(key, after + 1, until)[:limit]
        for reader in self.readers:
            assert reader.below(key, index, limit, floor) == array("Q", expected_below)
            assert reader.above(key, after, limit, until) == array("Q", expected_above)
            self.check_page(reader, expected_below)
        self.check_trim(key, floor, until)
        self.check_nth(until)
        self.check_range()

    def check_page(self, reader: Any, ids: list[int]) -> None:
        reader.page(ids)
        for at in ids[:2]:
            entry = reader.entries(at, at)[0]
            assert (entry.index, entry.kind) == (at, 16)

    def check_trim(self, key: bytes, floor: int, last: int) -> None:
        want = {
            "messages": self.random.choice((0, 1, 5, 10**6)) if self.random.random() < 0.5 else 0,
            "bytes": self.random.choice((0, 1, 500, 5000)) if self.random.random() < 0.5 else 0,
            "before_ms": self.random.randint(0, self.time_ms + 1) if self.random.random() < 0.3 else 0,
            "below": self.random.randint(0, last + 1) if self.random.random() < 0.3 else 0,
        }
        gone = gone_bytes = 0
        expected = None
        for post in [post for post in self.posts if post.key == key and floor <= post.id <= last]:
            if not (
                gone < want["messages"]
                or gone_bytes < want["bytes"]
                or post.time_ms < want["before_ms"]
                or post.id < want["below"]
            ):
                expected = (post.id, gone, gone_bytes, post.id)
                break
            gone, gone_bytes = gone + 1, gone_bytes + post.bytes
        expected = expected or (last + 1, gone, gone_bytes, 0)
        for reader in self.readers:
            assert tuple(reader.trim(key, floor, last, **want)) == expected

    def check_nth(self, last: int) -> None:
        messages, size_bytes = self.random.choice(((0, 0), (1, 0), (7, 300), (0, 2000), (50, 0), (10**9, 0)))
        live = live_bytes = expected = 0
        if messages or size_bytes:
            expected = last + 1
            for post in self.posts:
                if post.id <= last and post.id >= self.floors.get(post.key, last + 1):
                    live, live_bytes = live + 1, live_bytes + post.bytes
                    if live >= messages and live_bytes >= size_bytes:
                        expected = post.id + 1
                        break
        for reader in self.readers:
            assert reader.nth_oldest(self.floors, last, messages=messages, bytes=size_bytes) == expected

    def check_range(self) -> None:
        """Ranges skip what compaction left out, and nothing else."""
        if self.log.last_index:
            first = self.random.randint(1, self.log.last_index)
            last = min(self.log.last_index, first + 60)
            expected = [post.id for post in self.posts if first <= post.id <= last]
            for reader in self.readers:
                assert [entry.index for entry in reader.entries(first, last) if entry.kind == 16] == expected
                assert len(reader.frames(first, last, None)) == len(expected)

    def run(self, steps: int) -> None:
        actions = [self.append] * 8 + [self.check] * 6 + [self.index] * 3 + [self.lose_index, self.rot]
        actions += [self.trim] * 2 + [self.compact, self.restart_reader]
        self.append()
        for _ in range(steps):
            self.random.choice(actions)()
        for _ in range(20):
            self.check()


def index_of(segment: Any) -> Path:
    return Path(segment.path).with_suffix(".idx")


def replace(path: Path, data: bytes) -> None:
    """As the owner would: what somebody has mapped is not written to."""
    path.with_suffix(".tmp").write_bytes(data)
    path.with_suffix(".tmp").rename(path)


@pytest.mark.parametrize("seed", range(8))
def test_look_ups_are_right_whatever_happens(log_module: ModuleType, fast_directory: Path, seed: int) -> None:
    World(log_module, fast_directory, seed).run(120)


def test_indexes_are_the_same_bytes_whoever_writes_them(kit: Kit) -> None:
    log = kit.open()
    numbers = random.Random(5)
    for _ in range(300):
        log.append(kit.module.pack(numbers.choice((1, 16, 16)), numbers.choice(ROOMS), b"v"), 1, 1)
    for segment in log.segments()[:-1]:
        written = []
        for module in MODULES:
            module.write_index(segment)
            written.append(index_of(segment).read_bytes())
        assert written[0] == written[1]


def test_a_segment_without_posts_has_an_index(kit: Kit) -> None:
    log = kit.open()
    log.append(kit.module.pack(1, b"", b""), 1, 1)
    log.roll()
    segment = log.segments()[0]
    for writer, reader in itertools.product(MODULES, MODULES):
        writer.write_index(segment)
        assert reader.has_index(segment)
        looker = Kit(reader, kit.directory).reader(log)
        assert looker.use_index(segment.sequence)
        assert list(looker.below(b"r", 2, 10, 0)) == []
        assert looker.term_at(1) == 1
        assert looker.bad_indexes() == []


def test_an_active_segment_has_no_index(kit: Kit) -> None:
    log = kit.filled(10)
    reader = kit.reader(log)
    assert not reader.use_index(log.segments()[-1].sequence)
    assert not reader.use_index(99)
    assert reader.bad_indexes() == []


def test_an_index_of_a_bad_segment_is_not_made(kit: Kit) -> None:
    log = kit.filled(200)
    segment = log.segments()[0]
    data = bytearray(Path(segment.path).read_bytes())
    data[1000] ^= 1
    replace(Path(segment.path), bytes(data))
    with pytest.raises(kit.module.CorruptLog):
        kit.module.write_index(segment)
    assert not kit.module.has_index(segment)
    assert not list(kit.directory.glob("log/*.tmp"))


def test_an_index_that_cannot_be_written_leaves_nothing(kit: Kit) -> None:
    log = kit.filled(200)
    segment = log.segments()[0]
    index_of(segment).mkdir()
    with pytest.raises(OSError, match=r"."):
        kit.module.write_index(segment)
    assert not list(kit.directory.glob("log/*.tmp"))
    assert not kit.module.has_index(segment)
    reader = kit.reader(log)
    assert not reader.use_index(segment.sequence)
    assert reader.bad_indexes() == [segment.sequence]


def test_what_was_let_go_does_not_come_back(kit: Kit) -> None:
    log = kit.filled(200)
    segments = log.segments()
    floors = {b"general": segments[2].base_index}
    compacted = kit.module.compact(kit.path(), segments[:2], floors, new_segment_id=lambda: next(kit.ids))
    retired = log.install(compacted)
    reader = kit.reader(log)
    for segment in retired:
        with pytest.raises(ValueError, match="comes after"):
            reader.add_segment(segment.sequence, segment.base_index, segment.revision)
    with pytest.raises(ValueError, match="comes after"):
        reader.add_segment(compacted.sequence, compacted.base_index, compacted.revision)
    assert list(reader.below(b"general", 201, 1000, 0)) == [*range(segments[2].base_index, 201)]
    with pytest.raises(ValueError, match="gone"):
        reader.page([1])
    with pytest.raises(IndexError):
        reader.scan(1, 1)
    with pytest.raises(IndexError):
        reader.term_at(1)

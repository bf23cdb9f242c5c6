"""What the indexes of sealed segments cost and bring: made beside a verify, pages by them beside notes in memory."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from bench.ratio import ratio
from raftchat._log import KIND_POST, Log, LogReader, Segment, pack, write_index
from raftchat.config import Config

MESSAGES, ROOMS, PAGES = 1_000_000, 1_000, 200
SEGMENT_SIZE_BYTES = Config().segment_size_bytes // 8
PAGE = Config().page_limit_default


def room(number: int) -> bytes:
    return b"room-%d" % number


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Log]:
    """A million messages of 130 bytes in a thousand rooms, all sealed but the last."""
    ids, random_ = itertools.count(1), random.Random(1)
    log = Log(
        str(tmp_path_factory.mktemp("history") / "log"),
        new_segment_id=lambda: next(ids),
        segment_size_bytes=SEGMENT_SIZE_BYTES,
    )
    posts = [pack(KIND_POST, room(number), b'"User":"u","Message":"%s"' % (b"m" * 50)) for number in range(ROOMS)]
    for number in range(MESSAGES // 1000):
        log.append(b"".join(random_.choices(posts, k=1000)), 1, number)
    log.roll()
    yield log
    log.close()


def new_reader(log: Log, indexed: bool) -> LogReader:
    reader = LogReader(str(Path(log.segments()[0].path).parent))
    for segment in log.segments():
        reader.add_segment(segment.sequence, segment.base_index, segment.revision)
    if indexed:
        for segment in log.segments()[:-1]:
            if not reader.use_index(segment.sequence):
                write_index(segment)
                assert reader.use_index(segment.sequence)
    return reader


def index_all(segments: list[Segment]) -> None:
    for segment in segments:
        write_index(segment)


def test_an_index_is_made(benchmark: BenchmarkFixture, history: Log) -> None:
    ratio(
        benchmark,
        index_all,
        lambda _: history.verify(),
        prepare=lambda: (history.segments()[:-1], None),
        rounds=5,
        name="log: index of sealed segments",
        reference_name="verify, which reads the same",
        amount=MESSAGES,
        unit="messages",
    )


def pages(reader: LogReader) -> Callable[[], None]:
    """Full pages from anywhere in the older half of random rooms."""
    random_ = random.Random(2)

    def read() -> None:
        for _ in range(PAGES):
            index = random_.randrange(MESSAGES // 4, MESSAGES // 2)
            reader.page(reader.below(room(random_.randrange(ROOMS)), index, PAGE, 0))

    return read


def test_a_page_from_the_middle(benchmark: BenchmarkFixture, history: Log) -> None:
    indexed, noted = pages(new_reader(history, True)), pages(new_reader(history, False))
    noted()
    ratio(
        benchmark,
        indexed,
        noted,
        rounds=10,
        name="log: page from the middle, by index",
        reference_name="by notes in memory",
        amount=PAGES,
        unit="pages of 100",
        aim="≥ 0.5",
    )


def test_the_first_page_of_a_process(benchmark: BenchmarkFixture, history: Log) -> None:
    """From nothing to a page: what a restart costs its first reader."""
    new_reader(history, True).close()

    def first(indexed: bool) -> None:
        reader = new_reader(history, indexed)
        reader.page(reader.below(room(1), MESSAGES // 2, PAGE, 0))

    ratio(
        benchmark,
        lambda: first(True),
        lambda: first(False),
        rounds=10,
        name="log: first page of a process, by index",
        reference_name="by notes made for it",
        amount=1,
        unit="first pages",
    )


def test_where_retention_cuts(benchmark: BenchmarkFixture, history: Log) -> None:
    """`nth_oldest` over all rooms and segments, beside reading all that it did not have to read."""
    reader = new_reader(history, True)
    floors = {room(number): 1 for number in range(ROOMS)}
    ratio(
        benchmark,
        lambda: reader.nth_oldest(floors, MESSAGES, messages=MESSAGES // 2, bytes=0),
        lambda: reader.scan(1, MESSAGES // 2),
        rounds=10,
        name="log: floor for all rooms",
        reference_name="scan of what lies below",
        amount=1,
        unit="floors",
    )

"""What the log costs beside what it is made of: memory copies, hashing, fdatasync."""

from __future__ import annotations

import itertools
import mmap
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import xxhash
from pytest_benchmark.fixture import BenchmarkFixture

from bench.ratio import ratio
from raftchat._log import KIND_POST, Log, LogReader, pack
from raftchat.config import Config

SEGMENT_SIZE_BYTES = Config().segment_size_bytes
RECORD = pack(KIND_POST, b"general", b'"User":"username","Message":"' + b"x" * 65 + b'"')
BATCH = RECORD * (128 * 1024 // len(RECORD))
BATCHES = (SEGMENT_SIZE_BYTES - 64) // len(BATCH)
RECORDS = BATCHES * len(BATCH) // len(RECORD)


@pytest.fixture
def new_log(tmp_path: Path) -> Iterator[Callable[[], Log]]:
    """Logs, each in a directory of its own; the one before is removed."""
    ids, logs = itertools.count(1), list[Log]()

    def forget() -> None:
        while logs:
            logs.pop().close()
        for directory in tmp_path.glob("log*"):
            shutil.rmtree(directory)

    def make() -> Log:
        forget()
        directory = str(tmp_path / f"log{next(ids)}")
        logs.append(
            Log(directory, new_segment_id=lambda: next(ids), segment_size_bytes=SEGMENT_SIZE_BYTES, durable_hint=0)
        )
        return logs[-1]

    yield make
    forget()


def new_mapping(path: Path) -> mmap.mmap:
    """The same kind of file as a segment: preallocated, its header written and durable, mapped."""
    path.unlink(missing_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, SEGMENT_SIZE_BYTES)
    os.pwrite(fd, b"h" * 64, 0)
    os.fdatasync(fd)
    mapping = mmap.mmap(fd, SEGMENT_SIZE_BYTES)
    os.close(fd)
    return mapping


def append_all(log: Log) -> None:
    for _ in range(BATCHES):
        log.append(BATCH, 1, 1)


def copy_all(mapping: mmap.mmap) -> None:
    for offset in range(64, 64 + BATCHES * len(BATCH), len(BATCH)):
        mapping[offset : offset + len(BATCH)] = BATCH


def filled(log: Log) -> Log:
    append_all(log)
    return log


def test_append(benchmark: BenchmarkFixture, new_log: Callable[[], Log], tmp_path: Path) -> None:
    """One segment, from its first record to its last, in batches of 128 KiB; beside memcpy into a fresh mapping."""
    ratio(
        benchmark,
        append_all,
        copy_all,
        prepare=lambda: (new_log(), new_mapping(tmp_path / "mapping")),
        rounds=12,
        name="log: append, checksummed",
        reference_name="memcpy into the same kind of mapping",
        amount=RECORDS,
        unit="records of 150 bytes",
        floor="ratio >= 0.7",
    )


def test_append_beside_a_warm_mapping(benchmark: BenchmarkFixture, new_log: Callable[[], Log], tmp_path: Path) -> None:
    """The same beside memcpy into memory that needs no page fault: what is left of a machine's bandwidth."""
    mapping = new_mapping(tmp_path / "mapping")
    copy_all(mapping)
    ratio(
        benchmark,
        append_all,
        copy_all,
        prepare=lambda: (new_log(), mapping),
        rounds=8,
        name="log: append, checksummed",
        reference_name="memcpy into a warm mapping",
        amount=RECORDS,
        unit="records of 150 bytes",
    )


def test_append_batch(benchmark: BenchmarkFixture, new_log: Callable[[], Log], tmp_path: Path) -> None:
    """What a follower does with the leader's bytes, once they were checked."""
    follower_directory = tmp_path / "follower"
    ids = itertools.count(10**6)
    leader = filled(new_log())
    batches = list(slices(leader))

    def new_follower() -> Log:
        shutil.rmtree(follower_directory, ignore_errors=True)
        return Log(str(follower_directory), new_segment_id=lambda: next(ids), segment_size_bytes=SEGMENT_SIZE_BYTES)

    def append_batches(follower: Log) -> None:
        for batch in batches:
            follower.append_batch(batch, batch.first_index)

    ratio(
        benchmark,
        append_batches,
        copy_all,
        prepare=lambda: (new_follower(), new_mapping(tmp_path / "mapping")),
        rounds=8,
        name="log: append a leader's batches",
        reference_name="memcpy into the same kind of mapping",
        amount=RECORDS,
        unit="records of 150 bytes",
    )


def slices(log: Log) -> Iterator[Any]:
    index = log.first_index
    while (batch := log.slice(index, len(BATCH))) is not None:
        yield batch
        index = batch.last_index + 1


def hash_all(log: Log) -> None:
    for batch in slices(log):
        xxhash.xxh3_64_intdigest(batch.data)


def test_verify(benchmark: BenchmarkFixture, new_log: Callable[[], Log]) -> None:
    log = filled(new_log())
    whole = memoryview(b"".join(bytes(batch.data) for batch in slices(log)))

    def verify() -> None:
        assert log.verify() == (RECORDS, [])

    ratio(
        benchmark,
        verify,
        lambda: xxhash.xxh3_64_intdigest(whole),
        rounds=20,
        name="log: verify",
        reference_name="XXH3-64 over the same bytes at once",
        amount=RECORDS,
        unit="records of 150 bytes",
        floor="figure >= 20000000",
    )


def test_scan(benchmark: BenchmarkFixture, new_log: Callable[[], Log]) -> None:
    """A thousand rooms, in commits of a thousand entries, as a worker follows the log."""
    log = new_log()
    rooms = [pack(KIND_POST, b"room-%d" % n, b'"User":"username","Message":"' + b"x" * 64 + b'"') for n in range(1000)]
    while log.last_index < RECORDS - 1000:
        log.append(b"".join(rooms), 1, 1)
    reader = LogReader(str(Path(log.segments()[0].path).parent))
    for segment in log.segments():
        reader.add_segment(segment.sequence, segment.base_index)

    def scan() -> None:
        for index in range(1, log.last_index, 10_000):
            reader.scan(index, min(index + 9_999, log.last_index))

    ratio(
        benchmark,
        scan,
        log.verify,
        rounds=10,
        name="log: scan 10,000 at a time, 1,000 rooms",
        reference_name="verify",
        amount=log.last_index,
        unit="records of 150 bytes",
    )


def test_page(benchmark: BenchmarkFixture, new_log: Callable[[], Log]) -> None:
    log = filled(new_log())
    reader = LogReader(str(Path(log.segments()[0].path).parent))
    for segment in log.segments():
        reader.add_segment(segment.sequence, segment.base_index)
    newest = range(log.last_index - 49, log.last_index + 1)
    page = reader.page(newest)

    def pages() -> None:
        for _ in range(1000):
            reader.page(newest)

    def copies() -> None:
        for _ in range(1000):
            bytearray(page)

    ratio(
        benchmark,
        pages,
        copies,
        rounds=10,
        name="log: page of 50",
        reference_name="memcpy of the finished page",
        amount=1000,
        unit="pages",
    )


def test_cut_a_conflicting_tail(benchmark: BenchmarkFixture, new_log: Callable[[], Log], tmp_path: Path) -> None:
    """Durably, with a megabyte behind the cut; beside the syncs of files and directory that it takes."""
    log = new_log()
    log.append(RECORD, 1, 1)
    conflicting = RECORD * (1024 * 1024 // len(RECORD))
    scratch = os.open(tmp_path / "scratch", os.O_RDWR | os.O_CREAT)
    directory = os.open(tmp_path, os.O_RDONLY)

    def prepare() -> tuple[None, None]:
        log.append(conflicting, 1, 1)
        return None, None

    def cut(_: None) -> None:
        log.truncate_suffix(log.last_index - len(conflicting) // len(RECORD))

    def syncs(_: None) -> None:
        os.pwrite(scratch, conflicting, 0)
        os.fdatasync(scratch)
        other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
        os.posix_fallocate(other, 0, SEGMENT_SIZE_BYTES)
        os.pwrite(other, b"h" * 64, 0)
        os.fdatasync(other)
        os.close(other)
        os.rename(tmp_path / "other", tmp_path / "renamed")
        os.fsync(directory)
        os.unlink(tmp_path / "renamed")
        os.fsync(directory)

    ratio(
        benchmark,
        cut,
        syncs,
        prepare=prepare,
        rounds=20,
        name="log: cut 1 MiB off the tail",
        reference_name="the same system calls alone",
        amount=1,
        unit="cuts",
    )
    os.close(scratch)
    os.close(directory)


@pytest.mark.parametrize("records", [1, 64, 1024])
def test_group_commit(benchmark: BenchmarkFixture, new_log: Callable[[], Log], tmp_path: Path, records: int) -> None:
    """Append and make durable; beside a write of as many bytes to a preallocated file and its fdatasync."""
    log, batch, syncs = new_log(), RECORD * records, 20
    fd = os.open(tmp_path / "plain", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, SEGMENT_SIZE_BYTES)
    os.fdatasync(fd)
    position = itertools.count()

    def commits() -> None:
        for _ in range(syncs):
            log.append(batch, 1, 1)
            point = log.begin_sync()
            point.wait()
            log.end_sync(point)

    def writes() -> None:
        for _ in range(syncs):
            os.pwrite(fd, batch, next(position) * len(batch) % (SEGMENT_SIZE_BYTES // 2))
            os.fdatasync(fd)

    ratio(
        benchmark,
        commits,
        writes,
        rounds=15,
        name=f"log: group commit of {records}",
        reference_name="pwrite and fdatasync",
        amount=records * syncs,
        unit="records",
        aim="≥ 0.5",
    )
    os.close(fd)

"""A snapshot is there whole or not at all, and nothing that happened to its bytes goes unnoticed."""

import errno
import os
from dataclasses import replace

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from raftchat.storage import snapshot as snapshots
from raftchat.storage.errors import CorruptFile, ForeignFile, NewerFormat, StorageError
from raftchat.storage.snapshot import SegmentName, Snapshot

U64 = st.integers(0, 2**64 - 1)
SNAPSHOT = Snapshot(
    index=1234,
    term=7,
    time_ms=1_700_000_000_000,
    cluster_id="0123456789abcdef",
    epoch=2,
    membership=b'{"Voters":[1]}',
    segments=(SegmentName(4, 1, 2, 600, 0xABCDEF, 4096), SegmentName(5, 601, 0, 1234, 2**64 - 1, 8192)),
    state=b'{"Version":1}',
)
PATH = snapshots.name(1234, 7)


def at(index, term=7):
    return replace(SNAPSHOT, index=index, term=term, segments=())


@pytest.fixture
def directory(tmp_path):
    return str(tmp_path)


def test_what_was_written_is_loaded(directory):
    path = snapshots.write(directory, SNAPSHOT)
    assert path == os.path.join(directory, "00000000000000001234-7.snapshot")
    assert snapshots.load(path) == SNAPSHOT
    assert os.listdir(directory) == [os.path.basename(path)]
    assert os.stat(path).st_mode & 0o777 == 0o600


@given(
    st.builds(
        Snapshot,
        index=U64,
        term=U64,
        time_ms=U64,
        cluster_id=st.text("0123456789abcdef", max_size=16),
        epoch=U64,
        membership=st.binary(max_size=50),
        segments=st.lists(st.builds(SegmentName, U64, U64, U64, U64, U64, U64), max_size=4).map(tuple),
        state=st.binary(max_size=200),
    )
)
def test_every_snapshot_survives_its_encoding(snapshot):
    assert snapshots.decode(snapshots.encode(snapshot), snapshots.name(snapshot.index, snapshot.term)) == snapshot


def test_every_flipped_bit_is_detected():
    data = bytearray(snapshots.encode(SNAPSHOT))
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises((CorruptFile, ForeignFile)) as caught:
            snapshots.decode(bytes(data), PATH)
        # What is left of the magic no longer says that it was one.
        assert (caught.type is ForeignFile) == (8 <= bit < 64)
        assert PATH in str(caught.value)
        data[bit // 8] ^= 1 << bit % 8
    assert snapshots.decode(bytes(data), PATH) == SNAPSHOT


def test_every_cut_and_everything_added_is_detected():
    data = snapshots.encode(SNAPSHOT)
    for size in range(len(data)):
        with pytest.raises(CorruptFile):
            snapshots.decode(data[:size], PATH)
        with pytest.raises((CorruptFile, ForeignFile)):
            snapshots.decode(bytes(size + 1) + data[size + 1 :], PATH)
        with pytest.raises((CorruptFile, ForeignFile)):
            snapshots.decode(data[:size] + bytes(len(data) - size) + b"\0", PATH)
    for more in (b"\0", b"x", data):
        with pytest.raises(CorruptFile):
            snapshots.decode(data + more, PATH)


def with_header(data, offset, changed):
    """Bytes changed, and the checksum made right for them."""
    data = bytearray(data)
    data[offset : offset + len(changed)] = changed
    digest = xxhash.xxh3_128(data[:16])
    digest.update(bytes(data[32:]))
    data[16:32] = digest.digest()
    return bytes(data)


def test_newer_foreign_and_corrupt_are_told_apart():
    data = snapshots.encode(SNAPSHOT)
    with pytest.raises(NewerFormat, match="written by a newer version of raft-chat \\(format 2\\)"):
        snapshots.decode(with_header(data, 0, b"\2"), PATH)
    with pytest.raises(NewerFormat):
        snapshots.decode(with_header(data + b"of another shape", 0, b"\7"), "renamed")
    with pytest.raises(CorruptFile):
        snapshots.decode(with_header(data, 0, b"\0"), PATH)
    with pytest.raises(ForeignFile, match="not a snapshot"):
        snapshots.decode(b"\1rc-log\n" + data[8:], PATH)
    for wrong in ("other.snapshot", snapshots.name(1234, 8), snapshots.name(1233, 7)):
        with pytest.raises(ForeignFile, match=f"holds the snapshot {PATH}"):
            snapshots.decode(data, wrong)


def test_sizes_that_do_not_fit_are_corrupt_also_under_a_right_checksum():
    data = snapshots.encode(SNAPSHOT)
    for offset, size in ((8, 8), (64, 8), (72, 4), (76, 4), (80, 4), (84, 4)):
        for wrong in (b"\xff" * size, (9).to_bytes(size, "little")):
            with pytest.raises(CorruptFile, match="sizes do not fit"):
                snapshots.decode(with_header(data, offset, wrong), PATH)


def test_a_file_larger_than_any_snapshot_is_not_read(directory):
    path = os.path.join(directory, PATH)
    with open(path, "wb") as file:
        file.truncate(snapshots.SIZE_MAX_BYTES + 1)
    with pytest.raises(CorruptFile, match="more than any snapshot"):
        snapshots.load(path)


def test_paths_are_the_newest_first_and_nothing_else(directory):
    assert snapshots.paths(os.path.join(directory, "missing")) == []
    for index, term in ((10, 2), (9, 3), (10, 11), (100, 1)):
        snapshots.write(directory, at(index, term))
    for other in (PATH + ".tmp", "x.snapshot", "1-1.snapshot", "notes.txt"):
        with open(os.path.join(directory, other), "wb"):
            pass
    found = [snapshots.load(path) for path in snapshots.paths(directory)]
    assert [(s.index, s.term) for s in found] == [(100, 1), (10, 11), (10, 2), (9, 3)]


def test_pruning_keeps_two_and_what_is_spared_and_clears_what_writes_left(directory):
    paths = [snapshots.write(directory, at(index)) for index in range(1, 6)]
    left = os.path.join(directory, PATH + ".tmp")
    mine = os.path.join(directory, "notes.tmp")
    for path in (left, mine):
        with open(path, "wb"):
            pass
    assert snapshots.prune(directory, spare=[paths[1]]) == [left, paths[0], paths[2]]
    assert snapshots.paths(directory) == [paths[4], paths[3], paths[1]]
    assert os.path.exists(mine)
    assert snapshots.prune(directory) == [paths[1]]
    assert snapshots.prune(directory) == []


class Crash(BaseException):
    """The process ends here."""


CALLS = ("open", "write", "fsync", "close", "posix_fadvise", "read", "rename", "unlink", "listdir")


def crash_at(monkeypatch, number):
    """The so manieth of the calls that change or read a disk is the last one, and is not made."""
    count = 0

    def counted(real):
        def call(*arguments, **keywords):
            nonlocal count
            count += 1
            if count == number:
                raise Crash
            return real(*arguments, **keywords)

        return call

    for name in CALLS:
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    return lambda: count


def crash_points(directory, monkeypatch, operation):
    """What is there after a crash at each call, one after the other; the last time it does not crash."""
    number, crashed = 0, True
    while crashed:
        number += 1
        for name in os.listdir(directory):
            os.unlink(os.path.join(directory, name))
        for index in (1, 2):
            snapshots.write(directory, at(index))
        with monkeypatch.context() as patch:
            made = crash_at(patch, number)
            try:
                operation()
                crashed = False
            except Crash:
                pass
        assert made() >= number - 1
        yield [snapshots.load(path).index for path in snapshots.paths(directory)]
    assert number > 5


def test_a_crash_at_any_call_of_a_write_leaves_what_was_there_and_all_or_nothing_of_the_new(directory, monkeypatch):
    found = list(crash_points(directory, monkeypatch, lambda: snapshots.write(directory, at(3))))
    assert all(indexes in ([2, 1], [3, 2, 1]) for indexes in found)
    assert found == sorted(found, key=len)
    assert found[-1] == [3, 2, 1]
    # The next one clears up, whatever was left.
    for indexes in crash_points(directory, monkeypatch, lambda: snapshots.write(directory, at(3))):
        snapshots.prune(directory)
        assert len(os.listdir(directory)) == 2
        assert indexes[:2] == [snapshots.load(path).index for path in snapshots.paths(directory)]


def test_a_crash_at_any_call_of_pruning_leaves_the_newest(directory, monkeypatch):
    def prune():
        snapshots.prune(directory, keep=1)

    found = list(crash_points(directory, monkeypatch, prune))
    assert all(indexes in ([2, 1], [2]) for indexes in found)
    assert found[-1] == [2]


def test_what_the_disk_did_not_take_gets_no_name(directory, monkeypatch):
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: bytes(reversed(real(fd, size))))
    with pytest.raises(OSError, match="not what was written") as caught:
        snapshots.write(directory, SNAPSHOT)
    assert caught.value.errno == errno.EIO
    monkeypatch.setattr(os, "read", lambda fd, size: b"")
    with pytest.raises(OSError, match="not what was written"):
        snapshots.write(directory, SNAPSHOT)
    assert os.listdir(directory) == []


def test_a_full_disk_is_told_and_left_as_it_was(directory, monkeypatch):
    real = os.write

    def full(fd, data):
        if len(data) <= 100:
            raise OSError(errno.ENOSPC, "no space left on device")
        return real(fd, data[:100])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="no space"):
            snapshots.write(directory, SNAPSHOT)
    assert os.listdir(directory) == []
    assert snapshots.load(snapshots.write(directory, SNAPSHOT)) == SNAPSHOT


def test_all_that_can_be_wrong_with_a_file_is_an_error_of_storage():
    assert all(issubclass(error, StorageError) for error in (CorruptFile, ForeignFile, NewerFormat))

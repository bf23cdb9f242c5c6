"""Hard state survives torn writes and damage to one slot, and says so when both are gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from raftchat.storage import hard_state
from raftchat.storage.errors import CorruptFile, StorageError
from raftchat.storage.hard_state import SLOT_SIZE_BYTES, SLOT_STRIDE_BYTES, HardStateFile, OsFile


class MemoryDisk:
    """A file whose unsynced bytes may be lost: `durable` is what a power loss leaves."""

    path = "memory/hard-state"

    def __init__(self, data: bytes | None = None) -> None:
        self.now = bytearray(hard_state.initial() if data is None else data)
        self.durable = bytes(self.now)
        self.writes: list[tuple[bytes, int]] = []

    def read(self, size_bytes: int, offset: int) -> bytes:
        return bytes(self.now[offset : offset + size_bytes])

    def write(self, data: bytes, offset: int) -> None:
        self.writes.append((data, offset))
        self.now[offset : offset + len(data)] = data

    def sync(self) -> None:
        self.durable = bytes(self.now)


def values(file: HardStateFile) -> tuple[int, int, int]:
    return file.term, file.vote, file.commit


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = str(tmp_path / "hard-state")
    hard_state.create(path)
    file = HardStateFile(OsFile(path))
    assert values(file) == (0, 0, 0)
    for term in range(1, 8):
        file.write(term, term % 3, 10 * term)
        assert values(HardStateFile(OsFile(path))) == (term, term % 3, 10 * term)


def test_the_page_cache_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a flush that failed, what was not written lies there as if it had been."""
    path = str(tmp_path / "hard-state")
    hard_state.create(path)
    calls: list[str] = []
    advise, read = os.posix_fadvise, os.pread
    monkeypatch.setattr(
        os, "posix_fadvise", lambda fd, start, size, how: (calls.append(f"advise {how}"), advise(fd, start, size, how))
    )
    monkeypatch.setattr(os, "pread", lambda *arguments: (calls.append("read"), read(*arguments))[1])
    HardStateFile(OsFile(path))
    assert calls == [f"advise {os.POSIX_FADV_DONTNEED}", "read", "read"]


@pytest.mark.parametrize("writes_before", [0, 1, 2, 3])
def test_a_write_torn_at_any_byte_leaves_the_old_state_or_the_new(writes_before: int) -> None:
    disk = MemoryDisk()
    file = HardStateFile(disk)
    for term in range(1, writes_before + 1):
        file.write(term, 1, term)
    old, before, done = values(file), disk.now[:], len(disk.writes)
    file.write(9, 3, 99)
    for number, (data, offset) in enumerate(disk.writes[done:]):
        for size in range(len(data) + 1):
            for garbage in (b"", b"\xff" * (len(data) - size), b"\0" * (len(data) - size)):
                torn = before[:]
                written = data[:size] + garbage
                torn[offset : offset + len(written)] = written
                expected = (9, 3, 99) if number or written == data else old
                disk_after = MemoryDisk(bytes(torn))
                assert values(HardStateFile(disk_after)) == expected
                assert values(HardStateFile(disk_after)) == expected, "opening it once more tells otherwise"
        before[offset : offset + len(data)] = data


def test_the_second_slot_is_written_once_the_first_is_durable() -> None:
    calls: list[str] = []

    class Disk(MemoryDisk):
        def write(self, data: bytes, offset: int) -> None:
            calls.append(f"write {offset}")
            super().write(data, offset)

        def sync(self) -> None:
            calls.append("sync")
            super().sync()

    file = HardStateFile(Disk())
    calls.clear()
    file.write(1, 2, 0)
    assert calls == ["write 0", "sync", "write 4096", "sync"]
    calls.clear()
    file.write(1, 2, 7)
    assert calls == ["write 0", "sync"], "a hint alone costs one write"


def flips(data: bytes) -> Iterator[MemoryDisk]:
    """Of the slots each bit, of the padding between them one in each byte."""
    for byte in range(len(data)):
        for bit in range(8 if byte % SLOT_STRIDE_BYTES < SLOT_SIZE_BYTES else 1):
            flipped = bytearray(data)
            flipped[byte] ^= 1 << bit
            yield MemoryDisk(bytes(flipped))


@pytest.mark.parametrize("last", ["created", "voted", "new term", "hint", "hint without sync", "opened after a crash"])
def test_no_flipped_bit_anywhere_changes_term_and_vote(last: str) -> None:
    disk = MemoryDisk()
    file = HardStateFile(disk)
    if last != "created":
        file.write(1, 1, 5)
        file.write(2, 3, 7)
    if last == "new term":
        file.write(5, 0, 7)
    elif last == "hint":
        file.write(2, 3, 9)
    elif last == "hint without sync":
        file.write(2, 3, 9, sync=False)
    elif last == "opened after a crash":
        before = disk.now[:]
        file.write(6, 2, 7)
        data, offset = disk.writes[-2]
        before[offset : offset + len(data)] = data
        disk = MemoryDisk(bytes(before))
        file = HardStateFile(disk)
        assert values(file) == (6, 2, 7)
    for flipped in flips(bytes(disk.now)):
        read = HardStateFile(flipped)
        assert (read.term, read.vote) == (file.term, file.vote)
        assert read.commit <= file.commit


def test_a_rotten_slot_is_mended_when_it_is_found() -> None:
    disk = MemoryDisk()
    HardStateFile(disk).write(4, 2, 8)
    for byte in (8, SLOT_STRIDE_BYTES + 8):
        disk.now[byte] ^= 1
        assert HardStateFile(disk).mended
    assert not HardStateFile(disk).mended
    assert values(HardStateFile(disk)) == (4, 2, 8)


def test_two_slots_of_one_sequence_that_differ_are_corrupt() -> None:
    disk = MemoryDisk()
    disk.write(hard_state.encode(5, 2, 1, 0), 0)
    disk.write(hard_state.encode(5, 2, 3, 0), SLOT_STRIDE_BYTES)
    with pytest.raises(CorruptFile, match="contradict"):
        HardStateFile(disk)


def test_hints_without_sync_never_endanger_the_durable_slot() -> None:
    disk = MemoryDisk()
    file = HardStateFile(disk)
    file.write(4, 2, 10)
    for commit in range(11, 20):
        file.write(4, 2, commit, sync=False)
        # Power loss: any mixture of the old and the new bytes of what was not synced.
        offset = disk.writes[-1][1]
        mixed = bytearray(disk.durable)
        mixed[offset + 20 : offset + SLOT_SIZE_BYTES] = b"\xa5" * (SLOT_SIZE_BYTES - 20)
        assert values(HardStateFile(MemoryDisk(bytes(mixed)))) == (4, 2, 10)
    assert values(HardStateFile(MemoryDisk(bytes(disk.now)))) == (4, 2, 19)
    file.write(5, 0, 12)
    assert values(file) == (5, 0, 19), "the hint went back"
    assert values(HardStateFile(MemoryDisk(disk.durable))) == (5, 0, 19)


@pytest.mark.parametrize("data", [b"", b"\0" * hard_state.FILE_SIZE_BYTES, b"x" * hard_state.FILE_SIZE_BYTES])
def test_both_slots_bad_is_corrupt_and_names_the_file(data: bytes) -> None:
    with pytest.raises(CorruptFile, match="memory/hard-state") as caught:
        HardStateFile(MemoryDisk(data))
    assert "empty data directory" in str(caught.value)


def test_a_newer_format_is_refused_even_beside_a_readable_slot(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryDisk()
    HardStateFile(disk).write(1, 1, 1)
    monkeypatch.setattr(hard_state, "VERSION", 2)
    newer = hard_state.encode(9, 1, 1, 1)
    monkeypatch.undo()
    disk.write(newer, SLOT_STRIDE_BYTES)
    with pytest.raises(StorageError, match="newer version"):
        HardStateFile(disk)


def test_term_and_vote_never_go_back() -> None:
    file = HardStateFile(MemoryDisk())
    file.write(3, 0, 0)
    file.write(3, 2, 0)
    for term, vote in ((2, 2), (3, 1), (3, 0)):
        with pytest.raises(AssertionError):
            file.write(term, vote, 0)
    with pytest.raises(AssertionError):
        file.write(4, 0, 0, sync=False)
    assert values(file) == (3, 2, 0)

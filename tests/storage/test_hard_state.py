"""Hard state survives torn writes and damage to one slot, and says so when both are gone."""

from __future__ import annotations

import os
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
    old, before = values(file), bytes(disk.now)
    file.write(9, 3, 99)
    data, offset = disk.writes[-1]
    for size in range(len(data) + 1):
        for garbage in (b"", b"\xff" * (len(data) - size), b"\0" * (len(data) - size)):
            torn = bytearray(before)
            written = data[:size] + garbage
            torn[offset : offset + len(written)] = written
            assert values(HardStateFile(MemoryDisk(bytes(torn)))) == ((9, 3, 99) if written == data else old)


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


def test_every_flipped_bit_of_the_newest_slot_falls_back_to_the_older() -> None:
    disk = MemoryDisk()
    file = HardStateFile(disk)
    file.write(1, 1, 5)
    file.write(2, 3, 7)
    offset = disk.writes[-1][1]
    for bit in range(8 * SLOT_SIZE_BYTES):
        flipped = bytearray(disk.now)
        flipped[offset + bit // 8] ^= 1 << bit % 8
        assert values(HardStateFile(MemoryDisk(bytes(flipped)))) == (1, 1, 5)


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

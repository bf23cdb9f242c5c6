"""The simulated disk does what docs/log-format.md relies on, and everything that it leaves open."""

from __future__ import annotations

from random import Random

import pytest

from .disk import PowerLoss, SimDisk, SimFile

OLD, NEW = b"o" * 64, b"n" * 64
LIVES = range(300)


def disk_with_file(seed: int) -> tuple[SimDisk, SimFile]:
    disk = SimDisk(Random(seed))
    file = disk.create("d/f", 64)
    file.write(0, OLD)
    file.sync()
    disk.sync_directory("d")
    return disk, file


def test_what_was_synced_survives() -> None:
    for seed in LIVES:
        disk, file = disk_with_file(seed)
        file.write(0, NEW)
        file.sync()
        disk.lose_power()
        assert disk.open("d/f").read(0, 64) == NEW


def test_what_was_not_synced_may_be_lost_kept_or_torn() -> None:
    found = set()
    for seed in LIVES:
        disk, file = disk_with_file(seed)
        file.write(0, NEW)
        disk.lose_power()
        found.add(disk.open("d/f").read(0, 64))
    assert {OLD, NEW} < found
    assert any(data.startswith(b"n") and data.endswith(b"o") for data in found), "a prefix"
    assert any(data.startswith(b"o") and data.endswith(b"n") for data in found), "a suffix without what is before it"


def test_a_process_that_is_killed_leaves_the_page_cache() -> None:
    disk, file = disk_with_file(0)
    file.write(0, NEW)
    disk.kill()
    assert disk.open("d/f").read(0, 64) == NEW


def test_what_was_in_the_page_cache_may_still_be_lost_later() -> None:
    found = set()
    for seed in LIVES:
        disk, file = disk_with_file(seed)
        file.write(0, NEW)
        disk.kill()
        disk.lose_power()
        found.add(disk.open("d/f").read(0, 64))
    assert {OLD, NEW} < found


def test_a_flush_vouches_for_what_was_written_before_it_began() -> None:
    later = set()
    for seed in LIVES:
        disk, file = disk_with_file(seed)
        file.write(0, NEW[:32])
        disk.begin_flush()
        file.write(32, NEW[32:])
        with disk.flushing():
            file.sync()
        disk.lose_power()
        data = disk.open("d/f").read(0, 64)
        assert data[:32] == NEW[:32]
        later.add(data[32:])
    assert {OLD[32:], NEW[32:]} < later


def test_a_name_is_certain_once_the_directory_was_synced() -> None:
    found = set()
    for seed in LIVES:
        disk, _ = disk_with_file(seed)
        disk.rename("d/f", "d/g")
        disk.lose_power()
        found.add(tuple(disk.list_directory("d")))
        disk, _ = disk_with_file(seed)
        disk.rename("d/f", "d/g")
        disk.sync_directory("d")
        disk.lose_power()
        assert disk.list_directory("d") == ["g"]
    assert found == {("f",), ("g",)}


def test_power_is_lost_before_the_planned_operation_does_anything() -> None:
    disk, file = disk_with_file(0)
    disk.operations_left = 1
    file.write(0, NEW)
    with pytest.raises(PowerLoss):
        file.sync()
    assert file.durable == OLD

"""Indexes that are not what was written: noticed or harmless, never believed, never a crash."""

from __future__ import annotations

import contextlib
import random
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import xxhash

from raftchat import _log, log_reference
from tests.log.kit import Kit
from tests.log.test_lookups import index_of, replace

ROOMS = [b"general", b"genera", b"x" * 40, b""]
LAST = 120


@pytest.fixture
def sealed(kit: Kit) -> Any:
    """A log of one sealed segment with an index, and what it holds."""
    log = kit.open(segment_size_bytes=1 << 16)
    numbers = random.Random(9)
    where: dict[bytes, list[int]] = {room: [] for room in ROOMS}
    for index in range(1, LAST + 1):
        room = numbers.choice(ROOMS)
        log.append(kit.module.pack(16, room, b"v" * numbers.randrange(40)), 1, index)
        where[room].append(index)
    log.roll()
    segment = log.segments()[0]
    kit.module.write_index(segment)
    return log, segment, where


def looked_up(kit: Kit, log: Any, segment: Any) -> tuple[Any, dict[bytes, list[int]]]:
    reader = kit.reader(log)
    reader.use_index(segment.sequence)
    found = {room: list(reader.below(room, LAST + 1, 1000, 0)) for room in ROOMS}
    assert reader.page([LAST // 2]).startswith(b'[{"ID":%d,' % (LAST // 2))
    return reader, found


def test_each_flipped_bit_is_noticed_or_harmless(kit: Kit, sealed: Any) -> None:
    log, segment, where = sealed
    data = index_of(segment).read_bytes()
    unnoticed = set()
    for at in range(len(data)):
        bits = range(8) if at < 64 and kit.module is _log else (at % 8,)
        for bit in bits:
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            replace(index_of(segment), bytes(changed))
            reader, found = looked_up(kit, log, segment)
            assert found == where, at
            if not reader.bad_indexes():
                unnoticed.add(at)
            replace(index_of(segment), data)
            assert reader.use_index(segment.sequence)
            assert reader.bad_indexes() == []
            assert list(reader.below(ROOMS[0], LAST + 1, 1000, 0)) == where[ROOMS[0]]
    # Only padding is neither covered nor used.
    assert len(unnoticed) < 8, unnoticed
    assert all(data[at] == 0 for at in unnoticed)


def test_a_cut_index_is_not_used(kit: Kit, sealed: Any) -> None:
    log, segment, where = sealed
    data = index_of(segment).read_bytes()
    for size in [*range(0, 80), *range(80, len(data), 37), len(data) - 1]:
        for tail in (b"", bytes(len(data) - size)):
            if data[:size] + tail == data:
                continue
            replace(index_of(segment), data[:size] + tail)
            reader, found = looked_up(kit, log, segment)
            assert found == where
            assert reader.bad_indexes() == [segment.sequence]
    replace(index_of(segment), data + b"\0")
    assert not kit.module.has_index(segment)


def test_rot_that_is_met_late_is_remembered(kit: Kit, sealed: Any) -> None:
    """Postings are checked when a room is first asked for: the tables may be right."""
    log, segment, where = sealed
    data = bytearray(index_of(segment).read_bytes())
    data[-1] ^= 0x80
    replace(index_of(segment), bytes(data))
    assert kit.module.has_index(segment)
    reader = kit.reader(log)
    assert reader.use_index(segment.sequence)
    assert reader.bad_indexes() == []
    assert reader.nth_oldest(dict.fromkeys(ROOMS, 60), LAST, messages=1, bytes=1) == 61
    assert reader.bad_indexes() == [segment.sequence]
    for room in ROOMS:
        assert list(reader.above(room, 0, 1000, LAST)) == where[room]
        assert reader.trim(room, 0, LAST, messages=1, bytes=0, before_ms=0, below=0).messages == 1


def test_the_index_of_another_segment_is_not_used(kit: Kit, sealed: Any) -> None:
    log, segment, where = sealed
    other = kit.open("other", segment_size_bytes=1 << 16)
    for index in range(1, LAST + 1):
        other.append(kit.module.pack(16, ROOMS[0], b""), 1, index)
    other.roll()
    kit.module.write_index(other.segments()[0])
    replace(index_of(segment), index_of(other.segments()[0]).read_bytes())
    assert not kit.module.has_index(segment)
    reader, found = looked_up(kit, log, segment)
    assert found == where
    assert reader.bad_indexes() == [segment.sequence]


def test_an_index_that_comes_while_notes_are_there_is_judged_first(kit: Kit, sealed: Any) -> None:
    log, segment, where = sealed
    data = index_of(segment).read_bytes()
    reader = kit.reader(log)
    reader.scan(1, LAST)
    replace(index_of(segment), data[:70] + b"\xff" + data[71:])
    assert not reader.use_index(segment.sequence)
    assert reader.bad_indexes() == [segment.sequence]
    assert list(reader.below(ROOMS[1], LAST + 1, 1000, 0)) == where[ROOMS[1]]


def signed(data: bytearray) -> bytes:
    """With checksums that are right, as far as there is something that they can cover."""
    rooms, steps = struct.unpack_from("<II", data, 40)
    struct.pack_into("<Q", data, 32, len(data))
    end = 64 + 56 * rooms
    for at in range(64, end, 56):
        offset = struct.unpack_from("<Q", data, at)[0]
        count = struct.unpack_from("<I", data, at + 40)[0]
        if offset <= len(data) and offset + count * 8 <= len(data):
            struct.pack_into("<Q", data, at + 8, xxhash.xxh3_64_intdigest(data[offset : offset + count * 8]))
    if rooms:
        offset, size = struct.unpack_from("<I", data, end - 12)[0], struct.unpack_from("<H", data, end - 8)[0]
        end = offset + size
    end = (end + 7 & ~7) + 4 * steps
    struct.pack_into("<Q", data, 56, xxhash.xxh3_64_intdigest(bytes(data[:56] + data[64:end])))
    return bytes(data)


def questions(reader: Any) -> list[Callable[[], Any]]:
    return [
        *[partial(reader.below, room, LAST + 1, 1000, 0) for room in ROOMS],
        partial(reader.above, ROOMS[0], 3, 10, LAST),
        partial(reader.trim, ROOMS[0], 5, LAST, messages=10, bytes=10, before_ms=40, below=30),
        partial(reader.trim, ROOMS[2], 0, LAST, messages=10**9, bytes=0, before_ms=0, below=0),
        partial(reader.nth_oldest, dict.fromkeys(ROOMS, 17), LAST, messages=20, bytes=100),
        partial(reader.nth_oldest, dict.fromkeys(ROOMS, 0), LAST, messages=20, bytes=100),
        *[partial(reader.entries, index, index) for index in (1, 33, 70, LAST)],
        partial(reader.page, range(1, LAST + 1)),
        partial(reader.frames, 50, LAST, None),
    ]


def ask_everything(kit: Kit, log: Any, segment: Any) -> None:
    """Anything may be answered; a fault may be raised; nothing may crash."""
    for module in (_log, log_reference):
        reader = Kit(module, kit.directory).reader(log)
        reader.use_index(segment.sequence)
        for ask in questions(reader):
            with contextlib.suppress(module.LogError, ValueError, IndexError):
                ask()


def test_hostile_indexes_with_right_checksums_do_not_crash(kit: Kit, sealed: Any) -> None:
    log, segment, _ = sealed
    data = index_of(segment).read_bytes()
    numbers = random.Random(4)
    tables = 64 + 56 * len(ROOMS) + 200
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(numbers.randrange(1, 4)):
            at = numbers.randrange(24, tables if numbers.random() < 0.8 else len(data))
            if numbers.random() < 0.5:
                changed[at] ^= 1 << numbers.randrange(8)
            else:
                size = numbers.choice((1, 2, 4, 8))
                value = numbers.choice((0, 1, 0x7F, 0xFF)) if size == 1 else numbers.choice((0, 2 ** (8 * size) - 1))
                changed[at : at + size] = value.to_bytes(size, "little")
        # The header's own bounds stay what they are half of the time: what is behind them is of interest, too.
        if numbers.random() < 0.5:
            changed[:40] = data[:40]
        with contextlib.suppress(struct.error, OverflowError, IndexError):
            replace(index_of(segment), signed(changed[: len(data)]))
            ask_everything(kit, log, segment)


def test_garbage_behind_a_right_header_does_not_crash(kit: Kit, sealed: Any) -> None:
    log, segment, where = sealed
    data = index_of(segment).read_bytes()
    numbers = random.Random(6)
    for _ in range(60):
        garbage = bytearray(data[:64] + numbers.randbytes(len(data) - 64))
        replace(index_of(segment), bytes(garbage))
        _, found = looked_up(kit, log, segment)
        assert found == where
        with contextlib.suppress(struct.error):
            replace(index_of(segment), signed(garbage))
            ask_everything(kit, log, segment)


def test_a_rotten_post_is_told_not_served(kit: Kit, sealed: Any) -> None:
    log, segment, where = sealed
    data = bytearray(Path(segment.path).read_bytes())
    at = data.index(b"general", 2000)
    data[at] ^= 1
    replace(Path(segment.path), bytes(data))
    reader = kit.reader(log)
    assert reader.use_index(segment.sequence)
    assert list(reader.below(b"general", LAST + 1, 1000, 0)) == where[b"general"]
    with pytest.raises(kit.module.CorruptLog):
        reader.page(where[b"general"])
    # As a whole it is counted by the index; in part it is read.
    assert reader.trim(b"general", 1, LAST, messages=10**6, bytes=0, before_ms=0, below=0).messages
    with pytest.raises(kit.module.CorruptLog):
        reader.trim(b"general", where[b"general"][1], LAST, messages=10**6, bytes=0, before_ms=0, below=0)

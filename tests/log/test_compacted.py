"""Compacted segments: what they hold, whose place they take, what is refused, what is left when power is lost."""

from __future__ import annotations

import errno
import os
import random
import shutil
import struct
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import xxhash

from raftchat import _log, log_reference
from tests.log.kit import Kit, contents, describe, described, sync
from tests.log.test_disk import SpyDisk, parse_trace, traced

HEADER_BYTES = 104
ROOMS = [b"r0", b"r1", b"r2"]


def rooms(kit: Kit, count: int = 300, **options: Any) -> Any:
    """Posts in three rooms in turn, all synced; ten terms."""
    log = kit.open(**options)
    for number in range(count):
        log.append(kit.post(number, room=f"r{number % 3}"), 1 + number // 30, 1_000 + number)
    sync(log)
    return log


def compacted(kit: Kit, log: Any, first: int, after: int, floors: Mapping[bytes, int], **options: Any) -> Any:
    segments = log.segments()[first:after]
    return kit.module.compact(kit.path(), segments, floors, new_segment_id=lambda: next(kit.ids), **options)


def held(path: Path) -> list[tuple[int, bytes]]:
    """(index, key) of each record of a compacted segment's file, as its bytes say."""
    data, offset, found = path.read_bytes(), HEADER_BYTES, []
    while offset < len(data):
        body_size, key_size, index = struct.unpack_from("<I2xHQ", data, offset + 16)
        found.append((index, data[offset + 48 : offset + 48 + key_size]))
        offset += 48 + (body_size + 7 & ~7)
    return found


def one_compacted(kit: Kit) -> tuple[Any, Path]:
    """A log whose second to fourth segment are one, with posts of one room and some of another."""
    log = rooms(kit)
    log.install(compacted(kit, log, 1, 4, {b"r1": 0, b"r2": 150}))
    return log, Path(log.segments()[1].path)


def names(kit: Kit) -> list[str]:
    return sorted(path.name for path in (kit.directory / "log").iterdir())


# What it holds


def test_what_lives_is_kept_and_the_rest_is_not(kit: Kit) -> None:
    log = rooms(kit)
    before, terms = log.segments(), [log.term_at(index) for index in range(1, 301)]
    made = compacted(kit, log, 1, 4, {b"r1": 0, b"r2": 150, b"r9": 0})
    first, last = before[1].base_index, before[3].last_index
    replaced = log.install(made)
    assert replaced == before[1:4] == log.retired()
    (segment,) = [segment for segment in log.segments() if segment.revision]
    assert described(segment) == (
        4, first, made.segment_id, f"00000004-{first:020}-0001.log", 1, last, Path(segment.path).stat().st_size
    )  # fmt: skip
    expected = [
        (index, room)
        for index in range(first, last + 1)
        for room in (b"r%d" % ((index - 1) % 3),)
        if room == b"r1" or (room == b"r2" and index >= 150)
    ]
    assert held(Path(segment.path)) == expected
    assert made.records == len(expected)
    assert log.verify() == (300 - (last - first + 1) + len(expected), [])
    # The log without gaps begins behind it.
    assert (log.first_index, log.last_index) == (last + 1, 300)
    assert log.term_at(last) == terms[last - 1]
    for refused in (lambda: log.entries(first, first), lambda: log.term_at(last - 1), lambda: log.slice(last, 100)):
        with pytest.raises(IndexError):
            refused()
    log.close()
    log = kit.open(durable_hint=300)
    assert log.retired() == replaced
    assert (log.first_index, log.verify()[1]) == (last + 1, [])


def test_records_are_the_same_but_for_their_salt(kit: Kit) -> None:
    log = rooms(kit)
    expected = {entry.index: entry for entry in log.entries(1, 300)}
    log.install(compacted(kit, log, 0, 3, dict.fromkeys(ROOMS, 0)))
    last = log.first_index - 1
    reader = kit.reader(log)
    assert reader.entries(1, 300) == list(expected.values())
    assert [reader.page([index]) for index in (1, last, 300)] == [
        b'[{"ID":%d,"PostedAt":"1970-01-01T00:00:01.%03dZ","User":"u%d","Message":""}]' % (i, i - 1, i - 1)
        for i in (1, last, 300)
    ]


@pytest.mark.parametrize(("last_index", "fits"), [(2**32, True), (2**32 + 1, False)])
def test_it_never_stands_for_more_entries_than_its_postings_can_count(kit: Kit, last_index: int, fits: bool) -> None:
    """Beyond 2**32 it could neither be indexed nor searched."""
    log = rooms(kit, 10)
    log.roll()
    made = compacted(kit, log, 0, 1, dict.fromkeys(ROOMS, 0))
    data = bytearray(Path(made.path).read_bytes())
    struct.pack_into("<Q", data, 56, last_index)
    struct.pack_into("<Q", data, 96, xxhash.xxh3_64_intdigest(bytes(data[:96])))
    path = Path(made.path).with_name(f"00000001-{1:020}-0001.log")
    path.write_bytes(data)
    Path(made.path).unlink()
    wide = kit.module.Segment(1, 1, made.segment_id, str(path), 1, last_index, len(data))
    if not fits:
        with pytest.raises(ValueError, match="cannot stand for"):
            kit.module.compact(kit.path(), [wide], dict.fromkeys(ROOMS, 0), new_segment_id=lambda: next(kit.ids))
        assert not [name for name in names(kit) if name.endswith(".tmp")]
        return
    again = kit.module.compact(kit.path(), [wide], dict.fromkeys(ROOMS, 0), new_segment_id=lambda: next(kit.ids))
    assert (again.last_index, again.records) == (last_index, 10)


def test_only_posts_are_kept(kit: Kit) -> None:
    log = kit.open()
    for kind in (1, 2, 16, 17, 18, 19, 255):
        log.append(kit.module.pack(kind, b"r1", b"v"), 1, 1)
    log.roll()
    assert compacted(kit, log, 0, 1, {b"r1": 0}).records == 1


def test_what_was_compacted_is_compacted_again_with_its_neighbours(kit: Kit) -> None:
    log, path = one_compacted(kit)
    before = log.segments()
    made = compacted(kit, log, 0, 3, {b"r1": 100})
    assert (made.sequence, made.base_index, made.revision, made.last_index) == (5, 1, 2, before[2].last_index)
    assert log.install(made) == before[:3]
    assert {room for _, room in held(Path(log.segments()[0].path))} == {b"r1"}
    assert [segment.revision for segment in log.retired()] == [0, 0, 0, 0, 1, 0]
    log.unlink(log.retired())
    assert not path.exists()
    assert len(kit.files()) == 2
    assert kit.open(durable_hint=300).verify()[1] == []


def test_nothing_may_be_left(kit: Kit) -> None:
    log = rooms(kit)
    made = compacted(kit, log, 0, 3, {})
    assert (made.records, made.size_bytes) == (0, HEADER_BYTES)
    log.install(made)
    log.close()
    log = kit.open(durable_hint=300)
    assert log.verify() == (300 - made.last_index, [])
    assert kit.reader(log).below(b"r1", made.last_index + 1, 10, 0) == kit.reader(log).below(b"r1", 1, 10, 0)
    again = compacted(kit, log, 0, 2, {b"r0": 0})
    assert (again.revision, again.base_index) == (2, 1)


def test_dead_entries_behind_a_cut_are_not_revived(kit: Kit) -> None:
    """The sealed segment holds more than counts there: a later one overrides it."""
    log = rooms(kit, 40)
    log.truncate_suffix(20)
    log.append(kit.posts(5), 9, 9_000)
    log.roll()
    made = compacted(kit, log, 0, 1, dict.fromkeys(ROOMS, 0))
    assert (made.last_index, made.records) == (20, 20)
    log.install(made)
    assert (log.first_index, log.term_at(20)) == (21, 1)


def test_a_cut_may_reach_the_compacted_segment_but_not_into_it(kit: Kit) -> None:
    log, _ = one_compacted(kit)
    last = log.first_index - 1
    term = log.term_at(last)
    with pytest.raises(IndexError):
        log.truncate_suffix(last - 1)
    log.truncate_suffix(last)
    assert (log.first_index, log.last_index, log.last_term) == (last + 1, last, term)
    log.append(kit.posts(3), 50, 10**6)
    log.close()
    log = kit.open()
    assert (log.first_index, log.last_index, log.verify()[1]) == (last + 1, last + 3, [])


def test_a_compacted_segment_may_be_the_last(kit: Kit) -> None:
    """A copy that lacks what came after: the log goes on there, unless more is known to have been committed."""
    log, path = one_compacted(kit)
    last = log.first_index - 1
    for segment in log.segments()[2:]:
        Path(segment.path).unlink()
    log.close()
    with pytest.raises(kit.module.CorruptLog, match=f"entry {last + 1} was committed") as caught:
        kit.open(durable_hint=last + 1)
    assert caught.value.path == str(path)
    log = kit.open(durable_hint=last)
    assert (log.first_index, log.last_index, log.synced_index) == (last + 1, last, last)
    assert log.append(kit.post(), 99, 10**6) == (last + 1, last + 1)
    log.close()
    assert kit.open().last_index == last + 1


def test_find_kind_begins_where_it_is_told(kit: Kit) -> None:
    log = kit.open()
    for number in range(200):
        log.append(kit.module.pack(2 if number % 20 == 0 else 16, b"", b"v%d" % number), 1, 1)
    assert [entry.index for entry in log.find_kind(2)] == list(range(1, 201, 20))
    assert [entry.index for entry in log.find_kind(2, 41)] == list(range(41, 201, 20))
    assert [entry.index for entry in log.find_kind(2, 42)] == list(range(61, 201, 20))
    assert log.find_kind(2, 201) == log.find_kind(2, 10**6) == []
    log.install(compacted(kit, log, 0, 1, {}))
    assert [entry.index for entry in log.find_kind(2)] == [i for i in range(1, 201, 20) if i >= log.first_index]


# Refused


@pytest.mark.parametrize("where", ["middle", "retired"])
def test_each_bit_of_the_header_counts(kit: Kit, where: str) -> None:
    log, path = one_compacted(kit)
    if where == "retired":
        log.install(compacted(kit, log, 0, 3, {b"r1": 0}))
    log.close()
    data = path.read_bytes()
    for bit in range(HEADER_BYTES * 8):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(kit.module.LogError) as caught:
            kit.open(durable_hint=300)
        assert caught.value.path == str(path)
    path.write_bytes(data)
    assert kit.open(durable_hint=300).verify()[1] == []


def test_cut_at_any_byte_it_is_refused_by_name(kit: Kit) -> None:
    log = rooms(kit)
    log.install(compacted(kit, log, 1, 4, {b"r1": 130, b"r2": 180}))
    path = Path(log.segments()[1].path)
    log.close()
    data = path.read_bytes()
    for size in [*range(len(data)), len(data) + 8]:
        path.write_bytes((data + bytes(8))[:size])
        with pytest.raises(kit.module.CorruptLog) as caught:
            kit.open(durable_hint=300)
        assert caught.value.path == str(path)


def test_each_byte_of_a_record_is_covered(kit: Kit) -> None:
    """Found by verify and when it is read; named by the offset at which the record begins."""
    log, path = one_compacted(kit)
    log.close()
    data = path.read_bytes()
    second = HEADER_BYTES + 48 + (struct.unpack_from("<I", data, HEADER_BYTES + 16)[0] + 7 & ~7)
    first_index, second_index = (index for index, _ in held(path)[:2])
    good = kit.open().verify()[0]
    for at in range(HEADER_BYTES, second):
        changed = bytearray(data)
        changed[at] ^= 0x10
        path.write_bytes(changed)
        log = kit.open(durable_hint=300)
        found, faults = log.verify()
        assert [(fault.path, fault.offset) for fault in faults] == [(str(path), HEADER_BYTES)]
        assert found == good - 1
        with pytest.raises((kit.module.CorruptLog, IndexError)):
            kit.reader(log).page([first_index])
        with pytest.raises(kit.module.CorruptLog) as caught:
            compacted(kit, log, 0, 2, {b"r1": 0})
        assert (caught.value.path, caught.value.offset) == (str(path), HEADER_BYTES)
        assert not [name for name in names(kit) if name.endswith(".tmp")]
        log.close()
    assert second_index > first_index


def resealed(data: bytes, **fields: int) -> bytes:
    """A compacted segment with other fields in its header and a right checksum: what only a bug or malice makes."""
    places = {"sequence": (16, "<I"), "prev_sequence": (20, "<I"), "base_index": (24, "<Q"), "last_index": (56, "<Q"),
              "last_term": (64, "<Q"), "last_time_ms": (72, "<Q"), "revision": (80, "<I"), "zero": (84, "<I"),
              "records": (88, "<Q"), "segment_id": (8, "<Q")}  # fmt: skip
    changed = bytearray(data)
    for name, value in fields.items():
        struct.pack_into(places[name][1], changed, places[name][0], value)
    struct.pack_into("<Q", changed, 96, xxhash.xxh3_64_intdigest(bytes(changed[:96])))
    return bytes(changed)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"segment_id": 0}, "no sense"),
        ({"prev_sequence": 4}, "no sense"),
        ({"last_index": 1}, "no sense"),
        ({"last_term": 0}, "no sense"),
        ({"last_time_ms": 2**63}, "no sense"),
        ({"zero": 1}, "no sense"),
        ({"records": 10**6}, "no sense"),
        ({"revision": 0}, "no sense"),
        ({"revision": 2}, "file name disagrees"),
        ({"sequence": 5}, "file name disagrees"),
        ({"base_index": 52}, "file name disagrees"),
        ({"last_index": 250}, "where the compacted segment before it ends"),
    ],
)
def test_a_header_that_cannot_be_is_refused(kit: Kit, fields: dict[str, int], reason: str) -> None:
    log, path = one_compacted(kit)
    log.close()
    path.write_bytes(resealed(path.read_bytes(), **fields))
    with pytest.raises(kit.module.CorruptLog, match=reason):
        kit.open()


def test_records_that_are_not_as_many_as_told_are_a_fault(kit: Kit) -> None:
    log, path = one_compacted(kit)
    count = len(held(path))
    log.close()
    path.write_bytes(resealed(path.read_bytes(), records=count - 1))
    log = kit.open()
    assert [describe(fault)[1:] for fault in log.verify()[1]] == [
        (path.name, None, f"it holds {count} records, its header says {count - 1}")
    ]
    with pytest.raises(kit.module.CorruptLog, match="records"):
        kit.reader(log).page([held(path)[0][0]])


def test_two_files_of_one_sequence_and_revision_are_corrupt(kit: Kit) -> None:
    log, path = one_compacted(kit)
    log.close()
    base = log_base(path) + 1
    other = path.with_name(f"00000004-{base:020}-0001.log")
    other.write_bytes(resealed(path.read_bytes(), base_index=base))
    with pytest.raises(kit.module.CorruptLog, match="same sequence"):
        kit.open()


def log_base(path: Path) -> int:
    return int(path.stem.split("-")[1])


def test_what_cannot_be_compacted_is_refused(kit: Kit) -> None:
    log = rooms(kit)
    segments = log.segments()

    def attempt(*chosen: Any, **options: Any) -> None:
        options = {"new_segment_id": lambda: next(kit.ids)} | options
        kit.module.compact(kit.path(), chosen, {b"r1": 0}, **options)

    def stop(done: int, total: int) -> None:
        raise RuntimeError("that is enough")

    with pytest.raises(ValueError, match="no segments"):
        attempt()
    with pytest.raises(ValueError, match="does not follow"):
        attempt(segments[0], segments[2])
    with pytest.raises(ValueError, match="segment id"):
        attempt(segments[0], new_segment_id=lambda: 0)
    with pytest.raises(kit.module.CorruptLog, match="another segment"):
        attempt(segments[0]._replace(segment_id=99))
    with pytest.raises(kit.module.CorruptLog):
        attempt(segments[-1]._replace(last_index=301))
    with pytest.raises(RuntimeError, match="enough"):
        attempt(segments[0], on_progress=stop)
    with pytest.raises(FileNotFoundError):
        attempt(segments[0]._replace(path=kit.path() + "/gone.log"))
    assert names(kit) == [Path(segment.path).name for segment in segments]


def test_only_what_it_was_made_of_is_replaced(kit: Kit) -> None:
    log = rooms(kit)
    late = compacted(kit, log, 1, 4, {b"r1": 0})
    other = compacted(kit, log, 2, 3, {b"r1": 0})
    log.install(other)
    before = log.segments()
    with pytest.raises(ValueError, match="not live"):
        log.install(late)
    with pytest.raises(ValueError, match="not live"):
        log.install(other)
    active = log.segments()[-1]
    with pytest.raises(ValueError, match="not live"):
        log.install(other._replace(sequence=active.sequence, base_index=active.base_index, last_index=300))
    assert log.segments() == before
    assert not [name for name in names(kit) if name.endswith(".tmp")]


# Retired files


def test_what_would_be_revived_is_not_unlinked_first(kit: Kit) -> None:
    log = rooms(kit)
    replaced = log.install(compacted(kit, log, 0, 2, {b"r1": 0}))
    dropped = log.drop_prefix(log.segments()[2].base_index)
    assert [described(segment)[:2] for segment in dropped] == [(2, 1), (3, replaced[1].last_index + 1)]
    for refused in ([dropped[0]], [dropped[1]], dropped, [log.segments()[0]]):
        with pytest.raises(ValueError, match=r"older files|not all of these"):
            log.unlink(refused)
    assert log.retired() == [*replaced, *dropped]
    log.unlink([replaced[1]])
    log.unlink([dropped[0], replaced[0]])
    log.unlink(dropped[1:])
    assert log.retired() == []
    assert kit.open().first_index == log.first_index


def test_an_index_goes_with_its_segment(kit: Kit) -> None:
    log = rooms(kit)
    directory = kit.directory / "log"
    replaced = log.install(compacted(kit, log, 0, 2, {b"r1": 0}))
    for segment in [*replaced, log.segments()[0]]:
        Path(segment.path).with_suffix(".idx").write_bytes(b"index")
    log.unlink(replaced)
    kept = Path(log.segments()[0].path).with_suffix(".idx")
    assert list(directory.glob("*.idx")) == [kept]
    log.close()
    (directory / "00000001-00000000000000000001.idx").write_bytes(b"of a segment that is gone")
    log = kit.open()
    assert list(directory.glob("*.idx")) == [kept]
    log.reset(1000, 20, 10**6)
    assert list(directory.glob("*.idx")) == []


def test_a_reset_leaves_nothing_retired(kit: Kit) -> None:
    log, _ = one_compacted(kit)
    log.reset(1000, 20, 10**6)
    assert (log.retired(), log.first_index) == ([], 1001)
    assert len(names(kit)) == 1


def test_readers_keep_what_they_have_mapped(kit: Kit) -> None:
    log = rooms(kit)
    reader, before = kit.reader(log), log.segments()
    pages = [reader.page([index]) for index in range(1, 301)]
    log.install(compacted(kit, log, 0, 4, {b"r1": 0}))
    log.unlink(log.retired())
    assert [reader.page([index]) for index in range(1, 301)] == pages
    (made,) = [segment for segment in log.segments() if segment.revision]
    reader.add_segment(made.sequence, made.base_index, made.revision)
    for index in range(1, 301):
        if index > before[3].last_index or index % 3 == 2:
            assert reader.page([index]) == pages[index - 1]
        else:
            with pytest.raises(ValueError, match="is gone"):
                reader.page([index])


def test_a_thread_compacts_while_the_owner_goes_on(kit: Kit) -> None:
    log = rooms(kit)
    for turn in range(6):
        sealed = log.segments()[:-1]
        made: list[Any] = []
        thread = threading.Thread(
            target=lambda sealed=sealed, made=made: made.append(
                kit.module.compact(kit.path(), sealed, dict.fromkeys(ROOMS, 0), new_segment_id=lambda: next(kit.ids))
            )
        )
        thread.start()
        for _ in range(20):
            log.append(kit.posts(5), 50 + turn, 10**6)
        log.truncate_suffix(log.last_index - 30)
        thread.join()
        log.install(made[0])
        assert log.verify()[1] == []
        log.unlink(log.retired())
    assert log.segments()[0].revision == 6


def test_a_retired_file_that_is_gone_already_is_done_with(kit: Kit) -> None:
    """It kept all that came after it from being unlinked."""
    log = rooms(kit)
    log.install(compacted(kit, log, 0, 3, dict.fromkeys(ROOMS, 0)))
    retired = log.retired()
    Path(retired[0].path).unlink()
    log.unlink(retired)
    assert log.retired() == []
    assert not [segment for segment in retired if Path(segment.path).exists()]


# Rolls


def test_it_is_told_how_far_the_active_segment_is_filled(kit: Kit) -> None:
    log = kit.open()
    assert log.active_used_bytes == 64
    log.append(kit.post(1), 1, 1)
    once = log.active_used_bytes
    log.append(kit.post(1), 1, 1)
    assert once > 64
    assert log.active_used_bytes - once == once - 64
    log.roll()
    assert log.active_used_bytes == 64


def test_a_roll_takes_the_file_that_was_prepared(kit: Kit) -> None:
    log = rooms(kit, 10)
    log.prepare()
    log.prepare()
    (prepared,) = (kit.directory / "log").glob("*.tmp")
    inode = prepared.stat().st_ino
    log.roll()
    log.roll()
    assert [segment.base_index for segment in log.segments()] == [1, 11]
    assert Path(log.segments()[1].path).stat().st_ino == inode
    assert not prepared.exists()
    log.append(kit.posts(100), 1, 1)
    log.prepare()
    log.close()
    log = kit.open()
    assert (log.last_index, log.verify()[1]) == (110, [])
    assert not [name for name in names(kit) if name.endswith(".tmp")]


def test_a_file_that_cannot_be_prepared_leaves_nothing(kit: Kit, monkeypatch: pytest.MonkeyPatch) -> None:
    log = rooms(kit, 10)

    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for broken in ("posix_fallocate", "fdatasync"):
        with monkeypatch.context() as patched:
            patched.setattr(os, broken, full)
            with pytest.raises(OSError, match="No space"):
                log.prepare()
        assert not [name for name in names(kit) if name.endswith(".tmp")]
    log.roll()
    assert log.append(kit.post(), 1, 1) == (11, 11)


# Power


def life(kit: Kit, wait: Callable[[Any], None] = lambda log: None, **options: Any) -> None:
    """Compaction, growth, and the end of what was replaced."""
    log = rooms(kit, 120, **options)
    wait(log)
    disk = {"disk": options["disk"]} if "disk" in options else {}
    log.install(compacted(kit, log, 0, 2, {b"r1": 0}, **disk))
    log.unlink(log.retired()[:1])
    log.roll()
    log.install(compacted(kit, log, 0, 2, {b"r1": 60}, **disk))
    log.unlink(log.retired())
    log.drop_prefix(log.first_index)
    log.unlink(log.retired())
    log.close()


class CopyingDisk(SpyDisk):
    """Before each step that changes what is on disk, the directory is copied, as if power were lost there."""

    def __init__(self, source: Path, target: Path) -> None:
        super().__init__()
        self.source, self.target = source, target
        self.copying = False

    def note(self, what: str, name: str) -> None:
        super().note(what, name)
        if self.copying:
            shutil.copytree(self.source, self.target / f"{len(self.steps):03}" / "log")


def test_wherever_power_is_lost_nothing_that_lives_is_missing(fast_directory: Path) -> None:
    """And nothing that was let go of durably comes back. Both implementations open each of the states."""
    disk = CopyingDisk(fast_directory / "log", fast_directory / "copies")
    kit = Kit(log_reference, fast_directory)

    def start(log: Any) -> None:
        disk.copying = True

    life(kit, start, disk=disk)
    copies = sorted((fast_directory / "copies").iterdir())
    assert len(copies) > 20
    seen = set()
    for copy in copies:
        for module in (_log, log_reference):
            mine = Kit(module, fast_directory / "opened")
            shutil.rmtree(mine.directory, ignore_errors=True)
            shutil.copytree(copy, mine.directory)
            log = mine.open(durable_hint=120)
            assert (log.last_index, log.verify()[1]) == (120, [])
            assert [entry.index for entry in log.entries(log.first_index, 120)] == list(range(log.first_index, 121))
            assert not [name for name in names(mine) if name.endswith(".tmp")]
            reader = mine.reader(log)
            first = log.segments()[0].base_index
            alive = set(reader.below(b"r1", 121, 1000, 0))
            assert alive >= {index for index in range(max(first, 60), 121) if index % 3 == 2}
            seen.add((first, tuple(segment.revision for segment in log.segments())))
            log.unlink(log.retired())
            log.close()
            assert mine.open(durable_hint=120).retired() == []
    assert len(seen) >= 4


def test_the_compiled_one_makes_the_same_system_calls(fast_directory: Path) -> None:
    disk = SpyDisk()
    (fast_directory / "log").mkdir()
    life(Kit(log_reference, fast_directory), disk=disk)
    shutil.rmtree(fast_directory / "log")
    (fast_directory / "log").mkdir()
    trace = fast_directory / "trace"
    calls = "trace=openat,fsync,fdatasync,rename,renameat,renameat2,unlink,unlinkat,fallocate"
    traced(
        fast_directory,
        ["-y", "-e", calls, "-o", str(trace)],
        "from tests.log.test_compacted import life\nlife(kit)",
    )
    # The compiled one does not know the size of the new file beforehand, so it is not reserved.
    expected = [(what, name) for what, name in disk.steps if (what, name[:7]) != ("create", "compact")]
    assert parse_trace(trace.read_text(), fast_directory / "log") == expected


@pytest.mark.parametrize("what", ["sync", "rename"])
def test_a_disk_that_refuses_leaves_what_was_there(fast_directory: Path, what: str) -> None:
    disk = SpyDisk()
    kit = Kit(log_reference, fast_directory)
    log = rooms(kit, disk=disk)
    before = log.segments()
    temporary = f"compact-{len(before) + 1:016x}.tmp"
    target = f"{temporary} 00000002-00000000000000000001-0001.log"
    disk.failing[what, temporary if what == "sync" else target] = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output"):
        log.install(compacted(kit, log, 0, 2, {b"r1": 0}, disk=disk))
    assert (log.segments(), log.retired()) == (before, [])
    assert temporary not in names(kit)
    disk.failing = {}
    log.install(compacted(kit, log, 0, 2, {b"r1": 0}, disk=disk))


# All together


@pytest.mark.parametrize("seed", range(6))
def test_a_log_is_what_a_dictionary_says(kit: Kit, seed: int) -> None:
    """Appends, cuts of what is not committed, rising floors, compactions, drops of files, and starting over."""
    random_ = random.Random(seed)
    log, entries, committed, term = kit.open(), dict[int, Any](), 0, 1
    floors = dict.fromkeys(ROOMS, 0)
    for _ in range(60):
        match random_.choice(["append", "append", "cut", "commit", "trim", "compact", "compact", "unlink", "reopen"]):
            case "append":
                records = b"".join(
                    kit.post(random_.randrange(1000), room=f"r{random_.randrange(3)}", size=random_.randrange(60))
                    for _ in range(random_.randrange(1, 60))
                )
                first, last = log.append(records, term, 1_000)
                entries |= {entry.index: entry for entry in log.entries(first, last)}
            case "cut":
                last = random_.randrange(max(committed, log.first_index - 1), log.last_index + 1)
                log.truncate_suffix(last)
                entries = {index: entry for index, entry in entries.items() if index <= last}
                term += 1
            case "commit":
                sync(log)
                committed = log.last_index
            case "trim":
                room = random_.choice(ROOMS)
                floors[room] = max(floors[room], random_.randrange(committed + 1))
            case "compact":
                sealed = [segment for segment in log.segments()[:-1] if segment.last_index <= committed]
                if sealed:
                    first = random_.randrange(len(sealed))
                    after = random_.randrange(first, len(sealed)) + 1
                    log.install(compacted(kit, log, first, after, floors))
            case "unlink":
                retired = log.retired()
                log.unlink(retired[: random_.randrange(len(retired) + 1)])
            case "reopen":
                log.close()
                log = kit.open(durable_hint=committed)
        assert log.last_index == max(entries, default=0)
        assert log.verify()[1] == []
        assert log.entries(log.first_index, log.last_index) == [
            entry for index, entry in sorted(entries.items()) if index >= log.first_index
        ]
        reader = kit.reader(log)
        for room, floor in floors.items():
            living = [index for index, entry in sorted(entries.items()) if entry.key == room and index >= floor]
            living = [index for index in living if index <= committed]
            assert list(reader.below(room, committed + 1, 10**6, floor)) == living
    assert contents(log) == [tuple(entry) for index, entry in sorted(entries.items()) if index >= log.first_index]

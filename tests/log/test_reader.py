"""Committed entries as other processes read them: grouped, rendered, never beyond what they were told."""

from __future__ import annotations

import json
import random
from array import array
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from raftchat import _log, log_reference
from tests.log.kit import Kit, contents


def rooms(kit: Kit, count: int = 200) -> Any:
    """Posts in three rooms, and every tenth entry something else."""
    log = kit.open()
    for number in range(count):
        record = (
            kit.module.pack(17, b"r1", b"delete") if number % 10 == 9 else kit.post(number, room=f"r{number * 7 % 3}")
        )
        log.append(record, 1, 1000 + number)
    return log


def test_scan_groups_by_kind_and_key(kit: Kit) -> None:
    log = rooms(kit)
    reader = kit.reader(log)
    runs = reader.scan(1, 200)
    expected: dict[tuple[int, bytes], list[Any]] = {}
    for entry in log.entries(1, 200):
        expected.setdefault((entry.kind, entry.key), []).append(entry)
    assert [(run.kind, run.key) for run in runs] == list(expected)
    for run in runs:
        entries = expected[run.kind, run.key]
        assert run.indexes == array("Q", [entry.index for entry in entries])
        assert run.last_time_ms == entries[-1].time_ms
        assert run.bytes == sum(
            48 + (len(entry.key) + len(entry.meta) + len(entry.value) + 7 & ~7) for entry in entries
        )


def test_scan_of_parts_is_scan_of_the_whole(kit: Kit) -> None:
    reader = kit.reader(rooms(kit))
    for first, last in ((1, 1), (5, 4), (37, 120), (200, 200)):
        assert sorted(index for run in reader.scan(first, last) for index in run.indexes) == [*range(first, last + 1)]


def test_many_rooms_with_look_alike_names(kit: Kit) -> None:
    log = kit.open(segment_size_bytes=1 << 20)
    names = [b"", b"\0", b"\0\0", *(b"room-%d" % number for number in range(300)), b"x" * 255]
    random_ = random.Random(2)
    expected: dict[bytes, list[int]] = {}
    for index in range(1, 2001):
        name = random_.choice(names)
        log.append(kit.module.pack(16, name, b"v"), 1, 1)
        expected.setdefault(name, []).append(index)
    assert {run.key: list(run.indexes) for run in kit.reader(log).scan(1, 2000)} == expected


def test_entries_and_terms_are_the_owner_s(kit: Kit) -> None:
    log = kit.filled(200)
    reader = kit.reader(log)
    assert [tuple(entry) for entry in reader.entries(1, 200)] == contents(log)
    assert [entry.index for entry in reader.entries(7, 100, 400)] == [entry.index for entry in log.entries(7, 100, 400)]
    assert [reader.term_at(index) for index in (1, 11, 200)] == [1, 2, 20]
    with pytest.raises(IndexError):
        reader.entries(0, 1)
    with pytest.raises(IndexError):
        reader.term_at(0)


def test_a_page_is_json(kit: Kit) -> None:
    log = kit.filled(50)
    reader = kit.reader(log)
    assert reader.page([]) == b"[]"
    assert reader.page([3]) == b'[{"ID":3,"PostedAt":"1970-01-01T00:16:40.002Z","User":"u2","Message":""}]'
    page = json.loads(reader.page(array("Q", [50, 1, 7])))
    assert [post["ID"] for post in page] == [50, 1, 7]
    assert page[2] == {"ID": 7, "PostedAt": "1970-01-01T00:16:40.006Z", "User": "u6", "Message": ""}


def test_a_page_holds_posts_only(kit: Kit) -> None:
    reader = kit.reader(rooms(kit))
    with pytest.raises(ValueError, match="not a post"):
        reader.page([9, 10])


def test_a_post_without_members_is_still_json(kit: Kit) -> None:
    log = kit.open()
    log.append(kit.module.pack(16, b"r", b""), 1, 0)
    assert json.loads(kit.reader(log).page([1])) == [{"ID": 1, "PostedAt": "1970-01-01T00:00:00.000Z"}]


def test_frames_for_the_rooms_that_somebody_listens_to(kit: Kit) -> None:
    log = rooms(kit)
    reader = kit.reader(log)
    frames = reader.frames(1, 200, {b"r1": b'"r1"', b"nobody": b'"nobody"'})
    expected = [e for e in log.entries(1, 200) if e.kind == 16 and e.key == b"r1"]
    assert [json.loads(frame)["Post"]["ID"] for _, frame in frames] == [entry.index for entry in expected]
    assert {key for key, _ in frames} == {b"r1"}
    first = expected[0]
    assert frames[0][1] == b'{"RoomName":"r1","Post":%s}' % reader.page([first.index])[1:-1]
    assert reader.frames(1, 200, {}) == []


def test_frames_for_everybody_have_their_names_made(kit: Kit) -> None:
    log = kit.open()
    names = ["plain", 'quo"te', "back\\slash", "line\nfeed", "nul\0", "grün 😀 \u2028", ""]
    for name in names:
        log.append(kit.post(room=name), 1, 1)
    log.append(kit.module.pack(16, b"\xff\xfe", b""), 1, 1)
    frames = kit.reader(log).frames(1, 8, None)
    assert [json.loads(frame)["RoomName"] for _, frame in frames] == [*names, "\ufffd\ufffd"]
    assert [key for key, _ in frames][:7] == [name.encode() for name in names]


def test_times_are_rendered_as_the_calendar_has_them(kit: Kit) -> None:
    """Leap days, turns of centuries, the first and the last moment."""
    random_ = random.Random(3)
    moments = [datetime(year, month, day, 23, 59, 59, 999000, UTC) for year, month, day in
               [(1970, 1, 1), (2000, 2, 28), (2000, 2, 29), (2000, 3, 1), (2024, 2, 29), (2024, 12, 31), (2100, 2, 28),
                (2100, 3, 1), (2400, 2, 29), (9999, 12, 31)]]  # fmt: skip
    times = sorted(
        [int(moment.timestamp()) * 1000 + 999 for moment in moments]
        + [0, 1, 253_402_300_799_999]
        + [random_.randrange(253_402_300_800_000) for _ in range(500)]
    )
    log = kit.open(segment_size_bytes=1 << 20)
    for time_ms in times:
        log.append(kit.module.pack(16, b"r", b""), 1, time_ms)
    page = json.loads(kit.reader(log).page(range(1, len(times) + 1)))
    for time_ms, post in zip(times, page, strict=True):
        moment = datetime.fromtimestamp(time_ms // 1000, UTC).replace(microsecond=time_ms % 1000 * 1000)
        assert post["PostedAt"] == moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_a_reader_follows_cuts(kit: Kit) -> None:
    log = kit.filled(100)
    reader = kit.reader(log)
    log.truncate_suffix(60)
    log.append(kit.posts(30), 20, 1)
    known = log.segments()[-1]
    reader.add_segment(known.sequence, known.base_index)
    assert [tuple(entry) for entry in reader.entries(1, 90)] == contents(log)
    with pytest.raises(ValueError, match="comes after"):
        reader.add_segment(known.sequence, known.base_index)


def test_a_reader_follows_resets(kit: Kit) -> None:
    log = kit.filled(100)
    reader = kit.reader(log)
    log.reset(500, 20, 1)
    log.append(kit.posts(5), 20, 1)
    known = log.segments()[-1]
    reader.add_segment(known.sequence, known.base_index)
    assert reader.entries(501, 505)
    with pytest.raises(IndexError):
        reader.entries(50, 50)


def test_a_segment_may_be_gone_before_its_reader_comes(kit: Kit) -> None:
    log = kit.filled(200)
    segments = log.segments()
    log.unlink(log.drop_prefix(segments[2].base_index))
    reader = kit.module.LogReader(kit.path())
    for known in segments:
        reader.add_segment(known.sequence, known.base_index)
    assert reader.entries(segments[2].base_index, 200)
    with pytest.raises(FileNotFoundError, match="gone"):
        reader.entries(segments[1].base_index, segments[1].base_index)


def test_a_reader_lets_go_of_what_its_owner_dropped(kit: Kit) -> None:
    """Or the system could not give the space to anybody else: a mapped file is there although its name is gone."""
    log = kit.filled(200)
    reader = kit.reader(log)
    _, second, third, *_ = log.segments()
    assert reader.entries(1, 200)
    log.unlink(log.drop_prefix(third.base_index))
    reader.drop_prefix(third.base_index)
    maps = Path("/proc/self/maps").read_text()
    assert second.path not in maps
    with pytest.raises(IndexError):
        reader.entries(second.base_index, 200)
    assert len(reader.entries(third.base_index, 200)) == 201 - third.base_index
    assert len(reader.below(b"general", 201, 1000, 1)) == 201 - third.base_index
    reader.drop_prefix(10**9)
    assert reader.entries(200, 200), "the last one is never dropped"


def test_a_look_up_that_failed_does_not_mislead_the_next(kit: Kit) -> None:
    """One that remembered where it gave up looked for entries in a segment that ends before them."""
    log = kit.filled(200)
    missing = log.segments()[1].base_index
    kit.files()[1].unlink()
    reader = kit.module.LogReader(kit.path())
    for known in log.segments():
        reader.add_segment(known.sequence, known.base_index)
    assert reader.term_at(1) == 1
    with pytest.raises(FileNotFoundError):
        reader.term_at(missing)
    assert [entry.index for entry in reader.entries(missing - 1, missing - 1)] == [missing - 1]
    with pytest.raises(FileNotFoundError):
        reader.term_at(missing)
    with pytest.raises(IndexError):
        reader.term_at(0)
    assert reader.term_at(200) == 20


def test_a_reader_keeps_what_it_has_mapped(kit: Kit) -> None:
    """Retention on the owner's side takes nothing from under a reader."""
    log = kit.filled(200)
    expected = contents(log)
    reader = kit.reader(log)
    log.unlink(log.drop_prefix(200))
    log.reset(10**6, 100, 1)
    log.close()
    assert [tuple(entry) for entry in reader.entries(1, 200)] == expected


def test_a_reader_checks_the_header(kit: Kit) -> None:
    log = kit.filled(5)
    path = kit.files()[0]
    data = bytearray(path.read_bytes())
    reader = kit.module.LogReader(kit.path())
    data[0] = 9
    path.write_bytes(data)
    with pytest.raises(kit.module.NewerFormat):
        reader.add_segment(1, 1)
    del log


def test_reading_past_what_was_written_is_no_crash(kit: Kit) -> None:
    reader = kit.reader(kit.filled(5))
    for read in (
        lambda: reader.entries(1, 6),
        lambda: reader.scan(1, 6),
        lambda: reader.scan(1, 2**40),
        lambda: reader.page([2**63]),
        lambda: reader.frames(6, 6, None),
    ):
        with pytest.raises(kit.module.CorruptLog):
            read()


def test_both_readers_say_the_same(fast_directory: Any) -> None:
    kit = Kit(_log, fast_directory)
    log = rooms(kit)
    log.truncate_suffix(150)
    log.append(kit.posts(30), 2, 10**12)
    compiled, plain = kit.reader(log), Kit(log_reference, fast_directory).reader(log)
    assert compiled.scan(3, 170) == [tuple(run) for run in plain.scan(3, 170)]
    assert compiled.frames(1, 180, None) == plain.frames(1, 180, None)
    posts = [entry.index for entry in log.entries(1, 180) if entry.kind == 16]
    assert compiled.page(posts) == plain.page(posts)

"""What the owner of a log does with it: append, read back, roll, cut, drop, sync (docs/log-format.md)."""

from __future__ import annotations

import errno
import os
from typing import Any

import pytest

from tests.log.kit import SEGMENT_SIZE_BYTES, Kit, contents, sync


def state(log: Any) -> tuple[int, ...]:
    return log.first_index, log.last_index, log.last_term, log.last_time_ms, log.synced_index, log.generation


def test_a_new_log_is_empty_and_durable(kit: Kit) -> None:
    log = kit.open()
    assert state(log) == (1, 0, 0, 0, 0, 0)
    assert log.recovery is None
    assert log.term_at(0) == 0
    assert log.slice(1, 100) is None
    assert log.entries(1, 0) == []
    assert [(s.sequence, s.base_index) for s in log.segments()] == [(1, 1)]
    assert kit.files()[0].stat().st_size == SEGMENT_SIZE_BYTES
    assert kit.files()[0].stat().st_blocks * 512 >= SEGMENT_SIZE_BYTES


def test_segments_are_the_owners_alone(kit: Kit) -> None:
    log = kit.filled(200)
    log.truncate_suffix(100)
    assert len(kit.files()) > 2
    assert {oct(path.stat().st_mode & 0o777) for path in kit.files()} == {"0o600"}


def test_the_size_of_a_log_is_that_of_its_files(kit: Kit) -> None:
    log = kit.filled(200)
    log.truncate_suffix(100)
    assert len(kit.files()) > 2
    size_bytes = sum(path.stat().st_size for path in kit.files())
    assert log.size_bytes == size_bytes
    log.close()
    assert kit.open(segment_size_bytes=2 * SEGMENT_SIZE_BYTES).size_bytes == size_bytes


def test_append_stamps_a_batch(kit: Kit) -> None:
    log = kit.open()
    assert log.append(kit.posts(3), 7, 1234) == (1, 3)
    assert log.append(memoryview(bytearray(kit.post(3))), 7, 1235) == (4, 4)
    assert [(e.index, e.term, e.time_ms, e.kind) for e in log.entries(1, 4)] == [
        (1, 7, 1234, 16),
        (2, 7, 1234, 16),
        (3, 7, 1234, 16),
        (4, 7, 1235, 16),
    ]
    entry = log.entries(2, 2)[0]
    assert (entry.key, entry.meta, entry.value) == (b"general", b"k1", b'"User":"u1","Message":""')
    assert (log.last_index, log.last_term, log.last_time_ms, log.synced_index) == (4, 7, 1235, 0)


def test_log_time_never_goes_back(kit: Kit) -> None:
    log = kit.open()
    log.append(kit.post(), 1, 5000)
    log.append(kit.post(), 1, 4000)
    assert [entry.time_ms for entry in log.entries(1, 2)] == [5000, 5000]


@pytest.mark.parametrize(("term", "time_ms"), [(0, 1), (1, 1), (2**63, 1), (5, 253_402_300_800_000)])
def test_terms_never_go_back_and_stay_in_range(kit: Kit, term: int, time_ms: int) -> None:
    log = kit.open()
    log.append(kit.post(), 2, 1)
    with pytest.raises(ValueError, match=r"term|time"):
        log.append(kit.post(), term, time_ms)
    assert log.last_index == 1


def test_nothing_is_appended_of_what_is_not_whole(kit: Kit) -> None:
    log = kit.open()
    for bad in (b"", kit.post()[:-1], kit.post() + b"x", kit.post() + bytes(48)):
        with pytest.raises(kit.module.BadBatch):
            log.append(bad, 1, 1)
    assert state(log) == (1, 0, 0, 0, 0, 0)


def test_a_record_larger_than_a_segment_is_refused(kit: Kit) -> None:
    log = kit.open()
    largest = kit.module.pack(16, b"", b"v" * (SEGMENT_SIZE_BYTES - 64 - 48))
    assert log.append(largest, 1, 1) == (1, 1)
    assert log.append(largest, 1, 1) == (2, 2)
    with pytest.raises(kit.module.BadBatch, match="does not fit"):
        log.append(kit.post() + kit.module.pack(16, b"", b"v" * (SEGMENT_SIZE_BYTES - 64 - 47)), 1, 1)
    assert log.last_index == 2
    assert log.verify() == (2, [])


def test_the_log_rolls_and_reads_across_segments(kit: Kit) -> None:
    log = kit.filled(200)
    assert len(kit.files()) == len(log.segments()) > 3
    assert [e.index for e in log.entries(1, 200)] == list(range(1, 201))
    assert [e.value for e in log.entries(1, 200)] == [b'"User":"u%d","Message":""' % n for n in range(200)]
    assert [log.term_at(index) for index in range(1, 201)] == [1 + n // 10 for n in range(200)]
    assert log.active_sequence == log.segments()[-1].sequence
    assert log.verify() == (200, [])


def test_a_roll_makes_the_sealed_segment_durable(kit: Kit) -> None:
    log = kit.open()
    while len(log.segments()) == 1:
        before = log.last_index
        log.append(kit.post(), 1, 1)
    assert log.synced_index == before == log.last_index - 1


@pytest.mark.parametrize(("renames", "failed"), [(1, False), (2, True)])
def test_a_batch_of_which_a_part_is_in_the_log_when_the_disk_is_full_ends_it(
    kit: Kit, monkeypatch: pytest.MonkeyPatch, renames: int, failed: bool
) -> None:
    """The first roll comes before anything is written: that may be tried again. The second does not."""
    log = kit.open()
    log.append(kit.post(), 1, 1)
    rename, left = os.rename, renames

    def full_at_last(*arguments: Any) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        rename(*arguments)

    monkeypatch.setattr(os, "rename", full_at_last)
    with pytest.raises(OSError, match="No space left") as caught:
        log.append(kit.posts(40, size=200), 1, 2)
    assert caught.value.errno == errno.ENOSPC
    assert (log.last_index > 1, log.failed) == (failed, failed)
    if failed:
        with pytest.raises(OSError, match="cannot go on"):
            log.append(kit.post(), 1, 3)
    else:
        assert log.append(kit.posts(40, size=200), 1, 2) == (2, 41)


def test_records_that_fit_into_one_segment_are_not_divided(kit: Kit) -> None:
    log = kit.open()
    log.append(kit.posts(30), 1, 1)
    log.append(kit.posts(30), 1, 1)
    assert [s.base_index for s in log.segments()] == [1, 31]


def test_more_than_a_segment_is_divided_over_several(kit: Kit) -> None:
    log = kit.open()
    log.append(kit.post(), 1, 1)
    assert log.append(kit.posts(200), 1, 2) == (2, 201)
    assert [s.base_index for s in log.segments()][:2] == [1, 2]
    assert len(log.segments()) > 4
    assert log.verify() == (201, [])
    assert not list((kit.directory / "log").glob("*.tmp"))


def test_an_empty_segment_is_used_before_another_is_made(kit: Kit) -> None:
    log = kit.open()
    log.append(kit.posts(200), 1, 2)
    assert log.segments()[0].base_index == 1
    assert log.segments()[1].base_index > 30


def test_an_empty_segment_that_is_too_small_is_replaced(kit: Kit) -> None:
    kit.open().close()
    log = kit.open(segment_size_bytes=2 * SEGMENT_SIZE_BYTES)
    log.append(kit.post(size=SEGMENT_SIZE_BYTES), 1, 1)
    assert [(s.sequence, s.base_index) for s in log.segments()] == [(2, 1)]
    assert len(kit.files()) == 1
    assert kit.open(segment_size_bytes=2 * SEGMENT_SIZE_BYTES).last_index == 1


def test_term_at_knows_the_edges(kit: Kit) -> None:
    log = kit.filled(50)
    log.drop_prefix(50)
    assert log.first_index > 1
    assert log.term_at(log.first_index - 1) == 1 + (log.first_index - 2) // 10
    assert log.term_at(0) == 0
    for index in (-1, log.first_index - 2, 51, 2**70):
        with pytest.raises(IndexError):
            log.term_at(index)


def test_entries_stop_at_a_size_but_give_one_at_least(kit: Kit) -> None:
    log = kit.filled(10)
    size = len(log.slice(1, 1).data)
    assert [e.index for e in log.entries(3, 9, 2 * size)] == [3, 4]
    assert [e.index for e in log.entries(3, 9, 2 * size - 1)] == [3]
    assert [e.index for e in log.entries(3, 9, 0)] == [3]
    for first, last in ((0, 1), (10, 11)):
        with pytest.raises(IndexError):
            log.entries(first, last)


def test_slices_end_at_size_term_segment_and_log(kit: Kit) -> None:
    log = kit.filled(200)
    size = len(log.slice(1, 1).data)
    assert log.slice(1, 3 * size).last_index == 3
    assert log.slice(1, 3 * size + 7).last_index == 3
    assert log.slice(1, 1_000_000).last_index == 10
    assert log.slice(1, 1_000_000).term == 1
    assert log.slice(201, 100) is None
    assert log.slice(195, 10**9).last_index == 200
    second = log.segments()[1].base_index
    assert log.slice(second - 2, 10**9).last_index == second - 1
    assert log.slice(second - 2, 10**9).segment_id != log.slice(second, 10**9).segment_id
    with pytest.raises(IndexError):
        log.slice(0, 100)


def test_a_follower_s_log_becomes_the_same(kit: Kit) -> None:
    leader = kit.filled(200)
    follower = kit.open("follower")
    while (batch := leader.slice(follower.last_index + 1, 700)) is not None:
        parsed = kit.module.parse_batch(bytes(batch.data), batch.segment_id, batch.first_index)
        follower.append_batch(parsed, parsed.first_index)
    assert contents(follower) == contents(leader)
    assert follower.verify() == (200, [])
    assert follower.last_term == 20


def test_a_batch_may_be_known_in_part(kit: Kit) -> None:
    leader, follower = kit.filled(10), kit.open("follower")
    follower.append_batch(leader.slice(1, 300), 1)
    assert follower.last_index == 3
    follower.append_batch(leader.slice(1, 10_000), 4)
    assert contents(follower) == contents(leader)


def test_a_batch_that_does_not_follow_is_refused(kit: Kit) -> None:
    leader, follower = kit.filled(30), kit.open("follower")
    for batch, from_index in [(leader.slice(2, 300), 2), (leader.slice(1, 300), 2), (leader.slice(1, 300), 0)]:
        with pytest.raises(ValueError, match="cannot append"):
            follower.append_batch(batch, from_index)
    follower.append(kit.post(), 9, 1)
    with pytest.raises(kit.module.BadBatch, match="term"):
        follower.append_batch(leader.slice(2, 300), 2)
    follower.reset(20, 2, 10**9)
    with pytest.raises(kit.module.BadBatch, match="time"):
        follower.append_batch(leader.slice(21, 300), 21)
    assert (follower.first_index, follower.last_index) == (21, 20)


def test_what_is_durable_is_what_was_waited_for(kit: Kit) -> None:
    log = kit.open()
    log.append(kit.post(), 1, 1)
    point = log.begin_sync()
    log.append(kit.post(), 1, 1)
    assert (point.last_index, point.generation, log.synced_index) == (1, 0, 0)
    with pytest.raises(ValueError, match="waited"):
        log.end_sync(point)
    point.wait()
    log.end_sync(point)
    assert log.synced_index == 1
    sync(log)
    assert log.synced_index == 2


def test_a_roll_during_a_sync_is_fine(kit: Kit) -> None:
    log = kit.open()
    log.append(kit.post(), 1, 1)
    point = log.begin_sync()
    log.append(kit.posts(200), 1, 1)
    point.wait()
    log.end_sync(point)
    assert log.synced_index >= 1
    assert log.verify() == (201, [])


def test_a_cut_during_a_sync_makes_it_worthless(kit: Kit) -> None:
    """The entries that it covers are not those that are there now."""
    log = kit.open()
    log.append(kit.posts(5), 1, 1)
    point = log.begin_sync()
    log.truncate_suffix(2)
    assert (log.synced_index, log.generation) == (2, 1)
    log.append(kit.posts(5), 2, 1)
    point.wait()
    log.end_sync(point)
    assert log.synced_index == 2
    sync(log)
    assert log.synced_index == 7


def test_a_dropped_segment_can_still_be_synced(kit: Kit) -> None:
    log = kit.open()
    log.append(kit.posts(5), 1, 1)
    point = log.begin_sync()
    log.reset(100, 3, 5)
    log.close()
    point.wait()


@pytest.mark.parametrize("last_index", [0, 1, 37, 60, 199])
def test_the_tail_is_cut_by_a_new_segment(kit: Kit, last_index: int) -> None:
    log = kit.filled(200)
    before = contents(log)
    sequence = log.active_sequence
    log.truncate_suffix(last_index)
    assert state(log)[1] == state(log)[4] == last_index
    assert log.generation == 1
    assert log.active_sequence == sequence + 1
    assert log.last_term == (1 + (last_index - 1) // 10 if last_index else 0)
    assert contents(log) == before[:last_index]
    log.append(kit.post(999), 50, 0)
    assert log.last_time_ms == (1_000_000 + last_index - 1 if last_index else 0)
    assert kit.open().verify() == (last_index + 1, [])
    assert [path.name for path in kit.files()] == [s.path.rpartition("/")[2] for s in log.segments()]


def test_cutting_nothing_changes_nothing(kit: Kit) -> None:
    log = kit.filled(20)
    before = state(log), log.segments()
    log.truncate_suffix(20)
    assert (state(log), log.segments()) == before
    for index in (21, 2**62):
        with pytest.raises(IndexError):
            log.truncate_suffix(index)


def test_cuts_upon_cuts(kit: Kit) -> None:
    log = kit.filled(100)
    expected = contents(log)
    for last_index in (90, 89, 60, 60, 30, 29, 3):
        log.truncate_suffix(last_index)
        log.append(kit.post(last_index) + kit.post(1), 20 + log.generation, 0)
        expected = [*expected[:last_index], *contents(log)[-2:]]
        assert contents(log) == expected
        assert contents(kit.open()) == expected


def test_old_history_is_dropped_by_whole_segments(kit: Kit) -> None:
    log = kit.filled(200)
    bases = [s.base_index for s in log.segments()]
    log.drop_prefix(bases[2] - 1)
    assert log.first_index == bases[1]
    log.drop_prefix(bases[2])
    assert log.first_index == bases[2]
    log.drop_prefix(10**6)
    assert log.first_index == bases[-1]
    assert len(kit.files()) == len(bases)
    log.unlink(log.retired())
    assert len(kit.files()) == 1
    log = kit.open()
    assert (log.first_index, log.last_index) == (bases[-1], 200)
    with pytest.raises(IndexError):
        log.truncate_suffix(bases[-1] - 2)
    log.truncate_suffix(bases[-1] - 1)
    assert (log.first_index, log.last_index) == (bases[-1], bases[-1] - 1)
    assert kit.open().last_index == bases[-1] - 1


def test_reset_goes_on_after_a_snapshot(kit: Kit) -> None:
    log = kit.filled(100)
    log.reset(5000, 40, 10**9)
    assert state(log) == (5001, 5000, 40, 10**9, 5000, 1)
    assert log.term_at(5000) == 40
    assert len(kit.files()) == 1
    log.append(kit.post(), 41, 1)
    sync(log)
    log = kit.open()
    assert [(e.index, e.time_ms) for e in log.entries(5001, 5001)] == [(5001, 10**9)]
    log.reset(3, 50, 5)
    assert (kit.open().first_index, kit.open().last_index) == (4, 3)


def test_kinds_are_found(kit: Kit) -> None:
    log = kit.filled(100)
    log.append(kit.module.pack(2, b"", b"first"), 20, 1)
    log.append(kit.posts(100), 20, 1)
    log.append(kit.module.pack(2, b"", b"second"), 20, 1)
    for opened in (log, kit.open()):
        assert [(e.index, e.value) for e in opened.find_kind(2)] == [(101, b"first"), (202, b"second")]
        assert opened.find_kind(3) == []
        assert len(opened.find_kind(16)) == 200


def test_verify_tells_its_progress(kit: Kit) -> None:
    log = kit.filled(200)
    seen: list[tuple[int, int]] = []
    assert log.verify(lambda done, total: seen.append((done, total))) == (200, [])
    total = SEGMENT_SIZE_BYTES * len(log.segments())
    assert seen[-1] == (total, total)
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_sequences_and_segment_ids_are_never_used_twice(kit: Kit) -> None:
    log = kit.filled(50)
    seen = {(s.sequence, s.segment_id) for s in log.segments()}
    for last_index in (40, 20, 20, 10):
        log.append(kit.post(), 10, 1)
        log.truncate_suffix(last_index)
        log = kit.open()
        new = (log.segments()[-1].sequence, log.segments()[-1].segment_id)
        assert new not in seen
        assert new[0] > max(sequence for sequence, _ in seen)
        seen.add(new)


@pytest.mark.parametrize("bad", [0, -1, 2**64])
def test_a_segment_id_out_of_range_changes_nothing(kit: Kit, bad: int) -> None:
    ids = iter([1, bad, 3])
    log = kit.open(new_segment_id=lambda: next(ids))
    log.append(kit.posts(10), 1, 1)
    with pytest.raises(ValueError, match="segment id"):
        log.truncate_suffix(5)
    assert (log.last_index, log.generation, len(kit.files())) == (10, 0, 1)
    log.truncate_suffix(5)
    assert log.verify() == (5, [])


@pytest.mark.parametrize("size", [0, 64, 112, 4097])
def test_segments_have_a_sensible_size(kit: Kit, size: int) -> None:
    with pytest.raises(ValueError, match="segment size"):
        kit.open(segment_size_bytes=size)


def test_after_close_nothing_works_and_nothing_breaks(kit: Kit) -> None:
    log = kit.filled(100)
    batch = log.slice(1, 1000)
    data = bytes(batch.data)
    reader = kit.reader(log)
    log.close()
    reader.close()
    for call in (
        lambda: log.append(kit.post(), 99, 1),
        lambda: log.entries(1, 1),
        lambda: log.slice(1, 1),
        lambda: log.term_at(1),
        log.begin_sync,
        log.segments,
        log.verify,
        lambda: log.truncate_suffix(1),
        lambda: log.drop_prefix(1),
        log.roll,
        log.prepare,
        log.retired,
        lambda: log.install(None),
        lambda: log.unlink([]),
        lambda: log.reset(1, 1, 1),
        lambda: log.find_kind(1),
        lambda: reader.entries(1, 1),
        lambda: reader.scan(1, 1),
        lambda: reader.page([1]),
        lambda: reader.frames(1, 1, None),
        lambda: reader.add_segment(99, 1),
    ):
        with pytest.raises(ValueError, match="closed"):
            call()
    assert bytes(batch.data) == data
    log.close()

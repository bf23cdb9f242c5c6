"""The keeper of the store, round by round on real files: snapshots, indexes, retention, compaction, opening again."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from pathlib import Path

import pytest

from raftchat import _log
from raftchat.chat.commands import remove_room, set_retention
from raftchat.chat.policy import Policy
from raftchat.chat.state import ChatState
from raftchat.node import retention
from raftchat.node.exits import CORRUPT, NodeFailed
from raftchat.raft import Membership
from raftchat.storage import snapshot as snapshots
from tests.node.store_kit import DAY_MS, Store, open_store, small_config


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path)


def again(store: Store) -> Store:
    """Opened anew, all of the old one applied and nothing proposed any more."""
    store.owner.leads = False
    store.rounds(1)
    store.close()
    opened = open_store(store.path, store.config, store.clock)
    opened.owner.commit_index = opened.opened.log.last_index
    return opened


def set_policy(store: Store, policy: Policy | None, room: bytes = b"") -> None:
    command = set_retention(room, policy)
    store.owner.append(_log.pack(*command))


def test_a_snapshot_is_taken_of_the_state_after_exactly_the_last_entry_of_a_sealed_segment(store: Store) -> None:
    store.post("a", 3)
    store.rounds()
    assert store.snapshots() == []
    store.fill()
    store.post("b")
    store.rounds()
    sealed = store.opened.log.segments()[0]
    assert len(store.snapshots()) == 1
    (taken,) = store.owner.taken
    assert taken.index == sealed.last_index
    snapshot = snapshots.load(taken.path)
    assert (snapshot.index, snapshot.term, snapshot.membership) == (
        sealed.last_index,
        1,
        Membership({1: "http://127.0.0.1:1"}).encode(),
    )
    assert [(s.sequence, s.revision, s.last_index) for s in snapshot.segments] == [(1, 0, sealed.last_index)]
    state = ChatState.decode(snapshot.state)
    assert state.applied_index == sealed.last_index
    assert state.room(b"b") is None
    assert store.state.applied_index == store.owner.commit_index


def test_what_is_not_committed_is_not_in_a_snapshot(store: Store) -> None:
    store.fill()
    store.owner.commit_index = store.opened.log.segments()[0].last_index - 1
    store.rounds()
    assert store.snapshots() == []
    assert store.names(".idx") == []
    store.owner.commit_index += 1
    store.rounds()
    assert len(store.snapshots()) == 1
    assert len(store.names(".idx")) == 1


def test_memberships_on_the_way_are_in_the_snapshot(store: Store) -> None:
    later = Membership({1: "http://127.0.0.1:1"}, {2: "http://127.0.0.1:2"})
    store.owner.append(_log.pack(_log.KIND_MEMBERSHIP, b"", later.encode()))
    store.fill()
    store.rounds()
    assert snapshots.load(store.owner.taken[-1].path).membership == later.encode()
    opened = again(store)
    assert opened.opened.history == [(store.owner.taken[-1].index, later)]


def test_a_keeper_that_lags_takes_one_snapshot_of_the_newest_seal(store: Store) -> None:
    for _ in range(4):
        store.fill()
    store.rounds(1)
    assert [taken.index for taken in store.owner.taken] == [store.opened.log.segments()[-2].last_index]


def test_indexes_are_made_once_announced_and_made_again_when_they_are_bad(store: Store) -> None:
    for _ in range(3):
        store.fill()
    store.rounds()
    assert sorted(store.owner.indexed_segments) == [1, 2, 3]
    assert store.upkeep.counters.indexes == 3
    one, two, three = (store.path / "log" / name for name in store.names(".idx"))
    one.unlink()
    two.write_bytes(two.read_bytes()[:-1] + b"\x55")
    three.write_bytes(b"")
    (store.path / "log" / "00000009-00000000000000000900.idx").write_bytes(b"of a segment that is gone")
    opened = again(store)
    assert len(opened.names(".idx")) <= 3
    opened.rounds()
    assert sorted(opened.owner.indexed_segments) == [1, 2, 3]
    assert len(opened.names(".idx")) == 3
    assert opened.page("filler") == store_ids(opened, "filler")


def store_ids(store: Store, room: str) -> list[int]:
    """What the log itself holds of a room."""
    found = []
    for index in range(1, store.owner.commit_index + 1):
        (entry,) = store.opened.log.entries(index, index)
        if entry.kind == _log.KIND_POST and entry.key == room.encode():
            found.append(index)
    return found


def test_opening_again_goes_on_from_the_snapshot_to_the_same_state(store: Store) -> None:
    for _ in range(3):
        store.post("a", 5)
        store.fill()
        store.rounds()
    store.post("b", 2)
    store.rounds()
    expected = store.state.state_hash()
    opened = again(store)
    assert opened.state.applied_index == store.owner.taken[-1].index
    opened.rounds()
    assert opened.state.state_hash() == expected
    assert opened.owner.taken == [], "there is one of that seal already"


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_bad_snapshot_falls_back_to_the_older_one_with_a_warning(
    store: Store, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        store.fill()
        store.rounds()
    expected = store.state.state_hash()
    store.close()
    path = Path(store.owner.taken[-1].path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes({"flip": bytes(data), "cut": bytes(data[:-1]), "empty": b""}[damage])
    opened = open_store(store.path)
    assert any("A snapshot cannot be used" in r.message and path.name in str(r.__dict__) for r in caplog.records)
    assert opened.state.applied_index == store.owner.taken[-2].index
    opened.owner.commit_index = opened.opened.log.last_index
    opened.rounds()
    assert opened.state.state_hash() == expected
    assert path.exists(), "taken again"
    assert snapshots.load(str(path)).index == store.owner.taken[-1].index


def test_without_any_snapshot_all_of_the_log_is_replayed(store: Store) -> None:
    for _ in range(2):
        store.fill()
        store.rounds()
    expected = store.state.state_hash()
    shutil.rmtree(store.path / "snapshots")
    opened = again(store)
    assert opened.state.applied_index == 0
    opened.rounds()
    assert opened.state.state_hash() == expected


def removed_and_compacted(store: Store) -> Store:
    """Two rooms over some segments, one of which was removed, and its space won back."""
    for _ in range(4):
        store.post("gone", 40)
        store.post("stays", 5)
    store.owner.append(_log.pack(*remove_room(b"gone")))
    store.fill("stays")
    store.fill("stays")
    store.rounds(12, ms=2000)
    return store


def test_what_was_removed_gives_its_space_back_after_the_grace_and_nothing_else_goes(store: Store) -> None:
    ids = []
    for _ in range(4):
        store.post("gone", 40)
        ids += store.post("stays", 5)
    store.owner.append(_log.pack(*remove_room(b"gone")))
    store.rounds()
    before, used = len(store.opened.log.segments()), store.used_bytes()
    store.fill()
    store.rounds(1)
    store.fill()
    store.rounds(6)
    assert store.upkeep.counters.compactions > 0
    assert store.opened.log.retired(), "what was replaced stays for the grace"
    assert store.page("stays") == ids
    store.rounds(4, ms=1000)
    assert store.opened.log.retired() == []
    assert store.used_bytes() < used
    assert len(store.opened.log.segments()) < before + 2, "though two came to it"
    assert store.page("stays") == ids
    assert store.page("gone") == []
    expected = store.state.state_hash()
    opened = again(store)
    opened.rounds()
    assert opened.state.state_hash() == expected
    assert opened.page("stays") == ids


def test_the_oldest_segments_are_dropped_when_retention_took_all_in_them(store: Store) -> None:
    set_policy(store, Policy(max_messages=50))
    for _ in range(6):
        store.post("a", 60)
        store.rounds(2, ms=1500)
    store.rounds(8, ms=1500)
    assert store.state.messages == 50
    first = store.opened.log.segments()[0]
    assert first.base_index > 1 or first.revision > 0
    assert store.page("a") == store_ids_above(store, "a")[-50:]
    opened = again(store)
    opened.owner.leads = False
    opened.rounds()
    assert opened.state.state_hash() == store.state.state_hash()


def store_ids_above(store: Store, room: str) -> list[int]:
    log = store.opened.log
    return [
        entry.index
        for entry in log.entries(log.first_index, log.last_index)
        if entry.kind == _log.KIND_POST and entry.key == room.encode()
    ]


def test_a_log_that_was_compacted_cannot_be_opened_without_its_snapshots(store: Store) -> None:
    removed_and_compacted(store)
    assert store.upkeep.counters.compactions
    store.close()
    shutil.rmtree(store.path / "snapshots")
    with pytest.raises(NodeFailed) as failed:
        open_store(store.path)
    assert failed.value.code == CORRUPT
    assert "raft-chat restore" in str(failed.value)
    assert "snapshot" in str(failed.value)


def test_age_removes_by_log_time_and_empty_rooms_go_later(store: Store) -> None:
    set_policy(store, Policy(max_age_ms=DAY_MS, empty_room_age_ms=DAY_MS))
    old = store.post("a", 3)
    store.rounds()
    store.clock.now_ms += DAY_MS / 2
    new = store.post("a", 2)
    store.rounds(3, ms=1000)
    assert store.page("a") == old + new
    store.clock.now_ms += DAY_MS / 2
    store.rounds(3, ms=1000)
    assert store.page("a") == new
    store.clock.now_ms += DAY_MS
    store.rounds(3, ms=1000)
    assert store.page("a") == []
    assert store.state.room(b"a") is not None
    store.clock.now_ms += DAY_MS
    store.rounds(3, ms=1000)
    assert store.state.room(b"a") is None


def test_only_a_leader_proposes_and_one_plan_at_a_time(store: Store) -> None:
    set_policy(store, Policy(max_messages=5))
    store.post("a", 9)
    store.owner.leads = False
    store.rounds(3, ms=1000)
    assert store.owner.proposed == []
    store.owner.leads = True
    store.owner.takes_proposals = False
    store.rounds(2, ms=1000)
    assert store.state.messages == 9
    store.owner.takes_proposals = True
    store.rounds(1, ms=1000)
    assert len(store.owner.proposed) == 1
    # Not applied yet: nothing more, however late it is.
    store.owner.commit_index -= 1
    store.rounds(3, ms=10_000)
    assert len(store.owner.proposed) == 1
    # Of another term: it may never be applied.
    store.owner.term += 1
    store.rounds(1, ms=1000)
    assert len(store.owner.proposed) == 2
    store.owner.commit()
    store.rounds(2)
    assert store.state.messages == 5


def test_the_first_policy_is_proposed_once_in_the_life_of_a_cluster(tmp_path: Path) -> None:
    store = open_store(tmp_path, small_config(initial_max_messages=7))
    store.rounds(4, ms=1000)
    assert len(store.owner.proposed) == 1
    assert store.state.policies.cluster == Policy(max_messages=7)
    set_policy(store, None)
    store.rounds(4, ms=1000)
    opened = again(store)
    opened.rounds(4, ms=1000)
    assert opened.owner.proposed == []
    assert opened.state.policies.cluster is None


@pytest.mark.parametrize("how", ["old", "large"])
def test_a_first_policy_is_none_for_a_cluster_that_has_a_history(
    tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To restart one node of an old cluster with the option deleted what all had kept."""
    store = open_store(tmp_path)
    ids = store.post("a", 20)
    if how == "large":
        monkeypatch.setattr(retention, "NEW_ENTRIES_MAX", 19)
    store.rounds(2)
    store.clock.now_ms += 40 * DAY_MS if how == "old" else 1000
    store.close()
    opened = open_store(tmp_path, small_config(initial_max_messages=7, initial_max_age_ms=30 * DAY_MS), store.clock)
    opened.owner.commit_index = opened.opened.log.last_index
    opened.rounds(4, ms=1000)
    opened.rounds(4, ms=opened.config.clock_settle_ms)
    assert opened.owner.proposed == []
    assert opened.page("a") == ids
    assert len([record for record in caplog.records if "is not new" in record.message]) == 1


def test_what_was_posted_before_the_first_policy_was_proposed_is_no_history(tmp_path: Path) -> None:
    store = open_store(tmp_path, small_config(initial_max_messages=7))
    ids = store.post("a", 9)
    store.rounds(4, ms=1000)
    assert store.state.policies.cluster == Policy(max_messages=7)
    assert store.page("a") == ids[-7:]


def test_a_quiet_store_seals_what_was_removed_and_wins_it_back(store: Store) -> None:
    store.post("secret", 5)
    store.post("stays", 2)
    store.owner.append(_log.pack(*remove_room(b"secret")))
    store.rounds(60, ms=1000)
    assert all(b"0000000" not in data for data in contents(store, but=store.page("stays")))
    assert store.owner.rolls < 5, "it comes to rest"
    assert len(store.page("stays")) == 2
    rolls = store.owner.rolls
    store.rounds(60, ms=10_000)
    assert store.owner.rolls == rolls


def contents(store: Store, but: list[int]) -> list[bytes]:
    """Of all entries that can be read anywhere in the directory's files, but some."""
    texts = []
    for name in store.names():
        data = (store.path / "log" / name).read_bytes()
        texts.append(data.replace(b"stays", b""))
    kept = {number: f"{number:060}".encode() for number in range(len(but))}
    return [b"" if data.count(kept[0]) <= 1 else data for data in texts]


def test_snapshots_and_retired_files_stay_for_the_grace_and_then_go(store: Store) -> None:
    for _ in range(5):
        store.fill()
        store.rounds(1)
    assert len(store.snapshots()) == 5
    store.rounds(2, ms=600)
    store.rounds(2, ms=600)
    assert store.snapshots() == sorted(Path(taken.path).name for taken in store.owner.taken[-2:])


def test_due_is_in_the_future_or_never_once_all_is_done(store: Store) -> None:
    store.owner.leads = False
    store.rounds(3)
    assert store.upkeep.due_ms == float("inf")
    store.owner.leads = True
    store.rounds(1)
    assert store.clock.now_ms < store.upkeep.due_ms < float("inf")


def test_retired_files_go_each_in_its_time_although_older_ones_were_retired_later(store: Store) -> None:
    """What compaction replaced is due first; that older files are there does not end the keeper, nor keep it busy."""
    for _ in range(4):
        store.fill()
    store.rounds(1)
    log, grace_ms = store.opened.log, store.config.delete_grace_ms
    second = log.segments()[1:2]
    log.install(store.files.compact(second, store.state.floors()))
    store.rounds(1)
    log.drop_prefix(log.segments()[2].base_index)
    store.rounds(1, ms=grace_ms / 2)
    assert len(log.retired()) == 3
    store.rounds(1, ms=grace_ms * 2 / 3)
    assert [(segment.sequence, segment.revision) for segment in log.retired()] == [(1, 0), (2, 1)]
    assert store.upkeep.due_ms > store.clock.now_ms
    store.rounds(1, ms=grace_ms / 2)
    assert log.retired() == []


def test_a_wall_clock_that_leaps_removes_nothing_too_early_and_that_is_said(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """KAFKA-6482."""
    set_policy(store, Policy(max_age_ms=DAY_MS))
    ids = store.post("a", 3)
    store.rounds(3, ms=1000)
    store.clock.wall_offset_ms += 30 * DAY_MS
    store.rounds(5, ms=1000)
    assert store.page("a") == ids
    assert len([record for record in caplog.records if "leapt forward" in record.message]) == 1
    # A month later by the machine's own count they are due, whatever the wall clock says.
    store.clock.wall_offset_ms -= 60 * DAY_MS
    store.clock.now_ms += 2 * DAY_MS
    store.rounds(3, ms=1000)
    assert store.page("a") == ids, "the clock was set back: what is too old stays until it has caught up"
    assert any("leapt back" in record.message for record in caplog.records)
    store.clock.wall_offset_ms += 30 * DAY_MS
    store.rounds(3, ms=1000)
    assert store.page("a") == []


def test_a_room_that_cannot_be_read_is_left_out_of_retention_and_another_node_is_to_lead(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    """One rotten record on the leader stopped retention for the whole cluster."""
    ids = store.post("a", 5)
    store.fill()
    store.rounds()
    path = store.path / "log" / store.names()[0]
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    set_policy(store, Policy(max_age_ms=1000))
    store.rounds(9, ms=1500)
    assert len([record for record in caplog.records if "Retention leaves out" in record.message]) == 1
    room, filler = store.state.room(b"a"), store.state.room(b"filler")
    assert room is not None
    assert filler is not None
    assert (room.count, filler.count) == (len(ids), 0)
    # Nobody else is up to date so far.
    assert store.owner.handed_over == 0
    store.owner.heir = 2
    store.rounds(9, ms=1500)
    assert store.owner.handed_over == 1, "once, though it still leads"
    assert len([record for record in caplog.records if "never led with" in record.message]) == 1
    assert store.state.applied_index == store.owner.commit_index


def test_a_retired_file_that_something_live_replaces_waits_for_nobody(store: Store) -> None:
    """Else what compaction replaced would stay for as long as retention goes on dropping what is older."""
    for _ in range(5):
        store.fill()
    store.rounds()
    fourth = store.opened.log.segments()[3]
    store.owner.install(store.files.compact([fourth], {b"filler": 1}))
    store.rounds(1)
    store.clock.now_ms += 600
    store.owner.drop_prefix(store.opened.log.segments()[2].base_index)
    store.rounds(1)
    assert sorted(segment.sequence for segment in store.opened.log.retired()) == [1, 2, 4]
    store.clock.now_ms += 600
    store.rounds(1)
    assert sorted(segment.sequence for segment in store.opened.log.retired()) == [1, 2]


def test_an_index_that_a_worker_found_rotten_is_made_again(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """What rotted are postings that nobody looks at here; its header and tables are sound."""
    store.fill()
    store.fill()
    store.rounds()
    (path, _) = (store.path / "log" / name for name in store.names(".idx"))
    good = path.read_bytes()
    path.write_bytes(good[:-9] + bytes([good[-9] ^ 1]) + good[-8:])
    store.rounds()
    assert path.read_bytes() != good
    store.upkeep.distrust(1)
    store.rounds()
    assert path.read_bytes() == good
    assert store.owner.indexed_segments == [2, 1, 1]
    (warning,) = [record for record in caplog.records if "rotten" in record.message]
    assert path.stem in warning.__dict__["path"]
    store.rounds()
    assert store.owner.indexed_segments == [2, 1, 1], "once is enough"


def test_large_files_are_unlinked_one_after_the_other(tmp_path: Path) -> None:
    """To free a gigabyte at once held up posts for a quarter of a second."""
    store = open_store(tmp_path, small_config(unlink_rate_max_bytes_per_s=8 * 1024))
    for _ in range(4):
        store.fill()
    store.rounds(1)
    store.opened.log.drop_prefix(store.opened.log.segments()[3].base_index)
    store.rounds(1)
    store.clock.now_ms += store.config.delete_grace_ms
    for left in (2, 1, 0):
        store.rounds(1)
        assert len(store.opened.log.retired()) == left
        assert left == 0 or 0 < store.upkeep.due_ms - store.clock.now_ms <= 1000
        store.rounds(1)
        assert len(store.opened.log.retired()) == left, "too early"
        store.clock.now_ms += 1000


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_what_was_removed_is_won_back_although_snapshots_of_it_could_not_be_written(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two that were taken and never written counted as two that cover the removal: a quiet node forgot about it."""
    secret = store.post("secret", 40)
    store.owner.append(_log.pack(*remove_room(b"secret")))
    store.rounds()
    with monkeypatch.context() as patched:
        patched.setattr(store.files, "write_snapshot", full)
        for _ in range(2):
            store.fill()
            store.rounds(1)
    assert store.snapshots() == []
    store.rounds(60, ms=10_000)
    segments = store.opened.log.segments()
    assert segments[0].base_index > secret[-1] or segments[0].revision > 0
    assert store.upkeep.due_ms - store.clock.now_ms > 200


def test_a_snapshot_covers_what_was_applied_when_it_was_taken_and_no_more(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes after it, while it cannot be written, still has two seals to wait for."""
    secret = store.post("secret", 40)
    with monkeypatch.context() as patched:
        patched.setattr(store.files, "write_snapshot", full)
        store.fill()
        store.rounds(1)
        store.owner.append(_log.pack(*remove_room(b"secret")))
        store.rounds(1)
    store.rounds(60, ms=10_000)
    segments = store.opened.log.segments()
    assert segments[0].base_index > secret[-1] or segments[0].revision > 0


def test_a_retired_file_that_somebody_else_removed_keeps_no_other(store: Store) -> None:
    for _ in range(4):
        store.fill()
    store.rounds(1)
    store.owner.drop_prefix(store.opened.log.segments()[3].base_index)
    (store.path / "log" / store.names()[0]).unlink()
    store.rounds(3, ms=600)
    assert store.opened.log.retired() == []
    assert len(store.names()) == 2
    assert store.upkeep.counters.failures == 0


def test_surplus_snapshots_that_could_not_be_removed_go_later_and_nothing_is_due_at_once_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.owner.leads = False
    for _ in range(4):
        store.fill()
        store.rounds(1)
    with monkeypatch.context() as patched:
        patched.setattr(store.files, "prune_snapshots", full)
        store.rounds(3, ms=600)
        assert len(store.snapshots()) == 4
        assert store.upkeep.due_ms - store.clock.now_ms > 1000
    store.rounds(2, ms=store.config.store_retry_ms)
    assert len(store.snapshots()) == 2


def test_the_next_segments_file_is_made_once_the_active_one_is_half_full(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spares() -> list[str]:
        return [name for name in store.names(".tmp") if name.startswith("prepared")]

    store.post("a", 10)
    store.rounds()
    assert (store.owner.prepared, spares()) == (0, [])
    store.post("a", 30)
    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        store.rounds(3)
        assert (store.owner.prepared, spares()) == (1, []), "put off"
    store.rounds(3, ms=store.config.store_retry_ms)
    (spare,) = spares()
    inode = (store.path / "log" / spare).stat().st_ino
    assert store.owner.prepared == 2
    store.fill()
    assert Path(store.opened.log.segments()[-1].path).stat().st_ino == inode
    assert spares() == []


def test_what_lives_of_a_segment_is_counted_in_one_pass(store: Store) -> None:
    """A look-up for each room held the interpreter for a second with many rooms."""
    for number in range(5):
        store.post("a", 3 + number)
        store.post("b", 2)
        store.post("c", 1)
        store.fill()
    store.rounds(1)
    segments = store.opened.log.segments()[:-1]
    entries = store.reader.entries(1, segments[-1].last_index)
    floors = {b"a": 4, b"b": entries[-1].index, b"filler": segments[2].base_index + 3}
    for segment in segments:
        expected = sum(
            (48 + len(entry.key) + len(entry.value) + 7) // 8 * 8
            for entry in entries
            if segment.base_index <= entry.index <= segment.last_index
            and entry.kind == _log.KIND_POST
            and entry.index >= floors.get(entry.key, 2**63)
        )
        assert store.files.live_bytes(segment, floors) == expected


def test_a_node_that_starts_with_its_clock_far_ahead_removes_nothing_by_age_until_there_was_time_to_see_it(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    set_policy(store, Policy(max_age_ms=DAY_MS))
    ids = store.post("a", 3)
    store.rounds(3, ms=1000)
    store.clock.wall_offset_ms += 30 * DAY_MS
    opened = again(store)
    opened.owner.append(_log.pack(_log.KIND_TRIM, b"", b"[]"))  # as a new leader's first entry: its time is the clock's
    opened.rounds(5, ms=1000)
    assert opened.page("a") == ids
    (warning,) = [record for record in caplog.records if "far ahead" in record.message]
    assert warning.levelname == "WARNING"
    opened.rounds(3, ms=opened.config.clock_settle_ms / 2)
    assert opened.page("a") == []
    assert any("believed again" in record.message for record in caplog.records)

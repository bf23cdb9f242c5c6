"""Opening: what a crash may leave is repaired, what it cannot have left is refused (docs/log-format.md, "Opening")."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
import xxhash

from tests.log.kit import HEADER_BYTES, SEGMENT_SIZE_BYTES, Kit, contents, describe, record_offsets, sync


def rewrite(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def unsynced(kit: Kit, count: int = 8) -> Any:
    """A log of which nothing was ever said to be durable."""
    log = kit.open()
    for number in range(count):
        log.append(kit.post(number), 1, 1000 + number)
    return log


def restored(kit: Kit, files: dict[str, bytes]) -> None:
    """Put the directory back as it was."""
    shutil.rmtree(kit.path())
    (kit.directory / "log").mkdir()
    for name, data in files.items():
        (kit.directory / "log" / name).write_bytes(data)


def snapshot(kit: Kit) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in kit.files()}


def test_a_log_comes_back(kit: Kit) -> None:
    log = kit.filled(200)
    expected = contents(log), log.first_index, log.last_index, log.last_term, log.last_time_ms, log.segments()
    log.close()
    for _ in range(2):
        log = kit.open(durable_hint=200)
        assert (
            contents(log),
            log.first_index,
            log.last_index,
            log.last_term,
            log.last_time_ms,
            log.segments(),
        ) == expected
        assert log.synced_index == 200
        assert log.recovery.torn is False
        assert log.recovery.dropped_bytes == 0
        log.close()


def test_a_reopened_log_goes_on(kit: Kit) -> None:
    kit.filled(5).close()
    log = kit.open()
    assert log.append(kit.post(5), 3, 2_000_000) == (6, 6)
    sync(log)
    log.close()
    log = kit.open()
    assert [entry.term for entry in log.entries(1, 6)] == [1, 1, 1, 1, 1, 3]
    assert len(log.segments()) == 1


@pytest.mark.parametrize("shortened", [False, True], ids=["zeros", "short file"])
def test_the_last_segment_cut_at_every_byte(kit: Kit, shortened: bool) -> None:
    """Exactly the whole records before the cut, and the log can be written to."""
    log = unsynced(kit)
    log.append(kit.module.pack(16, b"r", b"v" * 16), 1, 1)  # ends without padding
    expected = contents(log)
    log.close()
    files = snapshot(kit)
    ((name, data),) = files.items()
    offsets = record_offsets(data)
    for cut in range(64, offsets[-1] + 1):
        left = data[:cut] if shortened else data[:cut] + bytes(len(data) - cut)
        restored(kit, {name: left})
        log = kit.open()
        # A record whose last bytes are zeros anyway loses nothing by losing them.
        whole = max(
            at for at, offset in enumerate(offsets) if offset <= (cut if shortened else len(left.rstrip(b"\0")) + 7)
        )
        assert whole in (sum(offset <= cut for offset in offsets[1:]), sum(offset <= cut + 7 for offset in offsets[1:]))
        assert contents(log) == expected[:whole], cut
        assert log.synced_index == log.last_index == whole
        assert log.append(kit.post(), 2, 5000) == (whole + 1, whole + 1)
        log.close()
        log = kit.open()
        assert contents(log)[:-1] == expected[:whole]
        log.close()


def test_what_was_cut_off_is_told(kit: Kit) -> None:
    unsynced(kit).close()
    path = kit.files()[0]
    offsets = record_offsets(path.read_bytes())
    rewrite(path, offsets[7] + 20, bytes(offsets[8] - offsets[7] - 20))
    log = kit.open()
    recovery = log.recovery
    assert (recovery.torn, recovery.path, recovery.offset) == (True, str(path), offsets[7])
    assert 0 < recovery.dropped_bytes <= 20
    assert [s.sequence for s in log.segments()] == [1, 2]
    log.close()
    assert kit.open().recovery.torn is False


def flip_each_bit(kit: Kit, record: int, durable_hint: int) -> tuple[set[tuple[Any, ...]], set[int]]:
    """Flip every bit of one record and open: which errors, or how many entries are there."""
    path = kit.files()[0]
    files = snapshot(kit)
    data = path.read_bytes()
    offsets = record_offsets(data)
    errors, lengths = set(), set()
    for byte in range(offsets[record], offsets[record + 1]):
        for bit in range(8):
            rewrite(path, byte, bytes([data[byte] ^ 1 << bit]))
            try:
                log = kit.open(durable_hint=durable_hint)
            except kit.module.CorruptLog as error:
                errors.add(describe(error)[:3])
                rewrite(path, byte, data[byte : byte + 1])
            else:
                assert log.verify() == (log.last_index, [])
                lengths.add(log.last_index)
                log.close()
                restored(kit, files)
    return errors, lengths


def test_each_bit_of_a_durable_record_is_rot(kit: Kit) -> None:
    """The next record says that it was durable: refused by file and offset, nothing is cut."""
    log = unsynced(kit, 3)
    sync(log)
    log.append(kit.post(3), 1, 2000)
    log.close()
    path = kit.files()[0]
    offset = record_offsets(path.read_bytes())[2]
    before = snapshot(kit)
    assert flip_each_bit(kit, record=2, durable_hint=0) == ({("CorruptLog", path.name, offset)}, set())
    assert snapshot(kit) == before


def test_each_bit_of_a_committed_record_is_rot(kit: Kit) -> None:
    """The hard state says so, though no record does."""
    unsynced(kit, 3).close()
    path = kit.files()[0]
    offset = record_offsets(path.read_bytes())[1]
    assert flip_each_bit(kit, record=1, durable_hint=2) == ({("CorruptLog", path.name, offset)}, set())


def test_each_bit_of_a_record_that_may_be_torn_is_cut(kit: Kit) -> None:
    """Valid records after it prove nothing: pages reach the disk in any order."""
    unsynced(kit, 4).close()
    assert flip_each_bit(kit, record=1, durable_hint=1) == (set(), {1})


def test_writeback_out_of_order_is_a_torn_tail(kit: Kit) -> None:
    """Synced up to 4, then 5 to 8 in flight: 6 never arrived, 7 and 8 did."""
    log = unsynced(kit, 4)
    sync(log)
    for number in range(4, 8):
        log.append(kit.post(number), 1, 2000)
    log.close()
    path = kit.files()[0]
    offsets = record_offsets(path.read_bytes())
    rewrite(path, offsets[5], bytes(offsets[6] - offsets[5]))
    log = kit.open(durable_hint=4)
    assert log.last_index == 5
    assert log.recovery.torn
    assert log.recovery.dropped_bytes > 100


def test_a_zeroed_durable_record_is_rot(kit: Kit) -> None:
    log = unsynced(kit, 4)
    sync(log)
    log.append(kit.post(4), 1, 2000)
    log.close()
    path = kit.files()[0]
    offsets = record_offsets(path.read_bytes())
    rewrite(path, offsets[2], bytes(offsets[3] - offsets[2]))
    with pytest.raises(kit.module.CorruptLog, match="kind is 0") as caught:
        kit.open()
    assert caught.value.offset == offsets[2]


def test_a_log_that_ends_before_the_hint_is_rot(kit: Kit) -> None:
    """All zeros from some record on looks like a clean end, but more than that had been committed."""
    unsynced(kit, 8).close()
    path = kit.files()[0]
    data = path.read_bytes()
    offset = record_offsets(data)[3]
    rewrite(path, offset, bytes(len(data) - offset))
    with pytest.raises(kit.module.CorruptLog, match="entry 4 was committed") as caught:
        kit.open(durable_hint=4)
    assert caught.value.offset == offset
    assert kit.open(durable_hint=3).last_index == 3


def test_a_missing_log_is_no_empty_log(kit: Kit) -> None:
    with pytest.raises(kit.module.CorruptLog, match="there is no log"):
        kit.open(durable_hint=1)


def test_a_record_of_another_segment_does_not_count(kit: Kit) -> None:
    """A misdirected block, and a stale one of a tail that was cut: right index, right checksum, wrong segment."""
    log = unsynced(kit, 8)
    log.truncate_suffix(4)
    log.append(kit.posts(4), 1, 3000)
    log.close()
    old, new = kit.files()
    old_offsets, new_offsets = record_offsets(old.read_bytes()), record_offsets(new.read_bytes())
    stale = old.read_bytes()[old_offsets[4] : old_offsets[6]]
    assert len(stale) == new_offsets[2] - new_offsets[0]
    rewrite(new, new_offsets[0], stale)
    log = kit.open()
    assert log.last_index == 4
    assert log.recovery.torn


def test_swapped_records_of_one_segment_do_not_count(kit: Kit) -> None:
    unsynced(kit, 8).close()
    path = kit.files()[0]
    data = path.read_bytes()
    at = record_offsets(data)
    assert at[3] - at[2] == at[4] - at[3]
    rewrite(path, at[2], data[at[3] : at[4]] + data[at[2] : at[3]])
    assert kit.open().last_index == 2


def resealed(data: bytes, offset: int, layout: str, value: int, segment_id: int = 1) -> bytes:
    """A record with another field and a right checksum: what only a bug or malice makes."""
    changed = bytearray(data)
    struct.pack_into(layout, changed, offset, value)
    synced, body_size = struct.unpack_from("<QI", changed, 8)
    salt = xxhash.xxh3_64_intdigest(struct.pack("<QQ", segment_id, synced))
    hashed = xxhash.xxh3_64_intdigest(bytes(changed[16 : HEADER_BYTES + body_size]))
    struct.pack_into("<Q", changed, 0, hashed ^ salt)
    return bytes(changed)


@pytest.mark.parametrize(
    ("offset", "layout", "value"), [(24, "<Q", 7), (32, "<Q", 0), (40, "<Q", 5), (8, "<Q", 4), (8, "<Q", 99)]
)
def test_what_does_not_follow_is_not_taken(kit: Kit, offset: int, layout: str, value: int) -> None:
    unsynced(kit, 8).close()
    path = kit.files()[0]
    data = path.read_bytes()
    at = record_offsets(data)
    rewrite(path, at[3], resealed(data[at[3] : at[4]], offset, layout, value))
    log = kit.open()
    assert log.last_index == 3


def test_rot_in_a_sealed_segment_is_found_when_it_is_read(kit: Kit) -> None:
    log = kit.filled(200)
    log.close()
    path = kit.files()[1]
    data = path.read_bytes()
    offsets = record_offsets(data)
    base = int(path.stem.partition("-")[2])
    rewrite(path, offsets[5] + HEADER_BYTES, b"X")
    log = kit.open(durable_hint=200)
    bad = base + 5
    assert log.entries(bad - 1, bad - 1)
    assert log.entries(bad + 1, bad + 1)
    reader = kit.reader(log)
    for read in (
        lambda: log.entries(bad, bad),
        lambda: log.term_at(bad),
        lambda: log.slice(bad, 100),
        lambda: log.truncate_suffix(bad),
        lambda: log.find_kind(16),
        lambda: reader.entries(base, 200),
        lambda: reader.scan(1, 200),
        lambda: reader.term_at(bad),
        lambda: reader.page([bad]),
        lambda: reader.frames(bad, bad, None),
    ):
        with pytest.raises(kit.module.CorruptLog, match="checksum") as caught:
            read()
        assert (caught.value.path, caught.value.offset) == (str(path), offsets[5])
    good, faults = log.verify()
    assert good == 199
    assert [describe(fault) for fault in faults] == [
        ("CorruptLog", path.name, offsets[5], "the checksum does not match")
    ]


@pytest.mark.parametrize("value", [0, 1, 8, 200, 5000, 2**32 - 1])
def test_a_lying_size_in_a_sealed_segment_is_named_where_it_lies(kit: Kit, value: int) -> None:
    kit.filled(200).close()
    path = kit.files()[1]
    offsets = record_offsets(path.read_bytes())
    base = int(path.stem.partition("-")[2])
    rewrite(path, offsets[5] + 16, struct.pack("<I", value))
    log = kit.open()
    assert [e.index for e in log.entries(base, base + 4)] == list(range(base, base + 5))
    with pytest.raises(kit.module.CorruptLog) as caught:
        log.entries(base + 6, base + 6)
    assert (caught.value.path, caught.value.offset) == (str(path), offsets[5])
    good, faults = log.verify()
    assert good == 199
    assert [fault.offset for fault in faults] == [offsets[5]]


def test_verify_names_every_fault_and_goes_on(kit: Kit) -> None:
    kit.filled(200).close()
    first, second = kit.files()[:2]
    at = record_offsets(first.read_bytes())
    rewrite(first, at[2] + 20, b"\0")
    rewrite(first, at[7], b"flipped!")
    rewrite(first, at[8], b"flipped!")
    last = record_offsets(second.read_bytes())[-2]
    rewrite(second, last + 30, b"?")
    log = kit.open()
    good, faults = log.verify()
    assert good == 196
    assert [(Path(f.path).name, f.offset) for f in faults] == [
        (first.name, at[2]),
        (first.name, at[7]),
        (second.name, last),
    ]
    assert all(isinstance(fault, kit.module.CorruptLog) for fault in faults)


def test_zeroed_and_swapped_blocks_between_segments_are_found(kit: Kit) -> None:
    kit.filled(200).close()
    first, second = kit.files()[:2]
    a, b = first.read_bytes(), second.read_bytes()
    rewrite(first, 1024, b[1024:2048])
    rewrite(second, 1024, a[1024:2048])
    rewrite(second, 3072, bytes(512))
    log = kit.open(durable_hint=200)
    good, faults = log.verify()
    assert good < 200
    assert {Path(fault.path).name for fault in faults} == {first.name, second.name}
    served = 0
    for index in range(1, 201):
        try:
            (entry,) = log.entries(index, index)
        except kit.module.CorruptLog:
            continue
        assert entry.value == b'"User":"u%d","Message":""' % (index - 1)
        served += 1
    assert 0 < served <= good


@pytest.mark.parametrize(
    ("offset", "data", "error", "reason"),
    [
        (0, b"\x03", "NewerFormat", "version 3"),
        (0, b"\x00", "CorruptLog", "checksum"),
        (1, b"RC-LOG\n", "ForeignFile", "not a segment"),
        (0, bytes(64), "CorruptLog", "zero"),
        (9, b"\xff", "CorruptLog", "checksum"),
        (25, b"\x01", "CorruptLog", "checksum"),
        (63, b"\xff", "CorruptLog", "checksum"),
    ],
)
@pytest.mark.parametrize("number", [0, -1])
def test_headers_tell_foreign_newer_and_corrupt_apart(
    kit: Kit, offset: int, data: bytes, error: str, reason: str, number: int
) -> None:
    kit.filled(200).close()
    path = kit.files()[number]
    rewrite(path, offset, data)
    before = snapshot(kit)
    with pytest.raises(getattr(kit.module, error), match=reason) as caught:
        kit.open()
    assert caught.value.path == str(path)
    assert snapshot(kit) == before


def test_each_bit_of_a_segment_header_counts(kit: Kit) -> None:
    kit.filled(5).close()
    path = kit.files()[0]
    data = path.read_bytes()
    for bit in range(64 * 8):
        rewrite(path, bit // 8, bytes([data[bit // 8] ^ 1 << bit % 8]))
        with pytest.raises(kit.module.LogError):
            kit.open()
        rewrite(path, bit // 8, data[bit // 8 : bit // 8 + 1])
    assert kit.open().last_index == 5


def test_a_short_header_and_a_long_file_are_corrupt(kit: Kit) -> None:
    kit.filled(5).close()
    path = kit.files()[0]
    data = path.read_bytes()
    for size in (0, 1, 8, 63):
        path.write_bytes(data[:size])
        with pytest.raises(kit.module.CorruptLog, match="shorter than"):
            kit.open()
    path.write_bytes(data + bytes(8))
    with pytest.raises(kit.module.CorruptLog, match="its header says"):
        kit.open()


def test_a_short_sealed_file_is_found_when_it_is_read(kit: Kit) -> None:
    kit.filled(200).close()
    path = kit.files()[1]
    offsets = record_offsets(path.read_bytes())
    base = int(path.stem.partition("-")[2])
    path.write_bytes(path.read_bytes()[: offsets[3] + 50])
    log = kit.open()
    assert log.entries(base, base + 2)
    with pytest.raises(kit.module.CorruptLog, match="cut off") as caught:
        log.entries(base, base + 3)
    assert caught.value.offset == offsets[3]
    assert log.verify()[1]


def test_a_name_that_disagrees_with_the_header_is_corrupt(kit: Kit) -> None:
    kit.filled(5).close()
    path = kit.files()[0]
    for name in ("00000001-00000000000000000002.log", "00000002-00000000000000000001.log"):
        moved = path.rename(path.with_name(name))
        with pytest.raises(kit.module.CorruptLog, match="file name disagrees"):
            kit.open()
        moved.rename(path)
    stray = path.with_name("copy.log")
    shutil.copy(path, stray)
    with pytest.raises(kit.module.ForeignFile, match="name of a segment"):
        kit.open()


def sealed_header(sequence: int, prev_sequence: int, base_index: int) -> bytes:
    packed = struct.pack(
        "<B7sQIIQQQQ", 1, b"rc-log\n", 99, sequence, prev_sequence, base_index, 1, 1, SEGMENT_SIZE_BYTES
    )
    return packed + struct.pack("<Q", xxhash.xxh3_64_intdigest(packed)) + bytes(SEGMENT_SIZE_BYTES - 64)


def test_two_segments_of_one_sequence_are_corrupt(kit: Kit) -> None:
    kit.filled(5).close()
    (kit.directory / "log" / "00000001-00000000000000000003.log").write_bytes(sealed_header(1, 0, 3))
    with pytest.raises(kit.module.CorruptLog, match="same sequence"):
        kit.open()


@pytest.mark.parametrize(
    ("sequence", "prev_sequence", "base_index", "reason"),
    [(2, 1, 1, "not above"), (3, 2, 4, "missing"), (2, 2, 4, "no sense"), (2, 1, 2**63, "no sense")],
)
def test_a_chain_that_cannot_be_is_corrupt(
    kit: Kit, sequence: int, prev_sequence: int, base_index: int, reason: str
) -> None:
    kit.filled(5).close()
    name = f"{sequence:08}-{base_index:020}.log"
    (kit.directory / "log" / name).write_bytes(sealed_header(sequence, prev_sequence, base_index))
    with pytest.raises(kit.module.CorruptLog, match=reason):
        kit.open()


def test_a_missing_segment_between_two_others_is_noticed(kit: Kit) -> None:
    kit.filled(200).close()
    files = kit.files()
    files[1].unlink()
    with pytest.raises(kit.module.CorruptLog, match="a segment is missing") as caught:
        kit.open()
    assert caught.value.path == str(files[0])


def test_dead_segments_that_a_crash_left_are_removed(kit: Kit) -> None:
    """The new segment was there, the overridden ones not yet unlinked: every subset of them may be."""
    log = kit.filled(200)
    before = snapshot(kit)
    log.truncate_suffix(70)
    log.close()
    after = snapshot(kit)
    dead = sorted(before.keys() - after.keys())
    assert len(dead) >= 2
    for subset in range(1 << len(dead)):
        left = {name: before[name] for at, name in enumerate(dead) if subset >> at & 1}
        restored(kit, after | left)
        log = kit.open()
        assert log.last_index == 70
        assert log.verify() == (70, [])
        assert sorted(path.name for path in kit.files()) == sorted(after)
        log.close()


@pytest.mark.parametrize("last_index", [3, 5000])
def test_a_crash_in_a_reset_is_the_reset_or_nothing(kit: Kit, last_index: int) -> None:
    log = kit.filled(200)
    before = snapshot(kit)
    log.reset(last_index, 50, 10**9)
    log.close()
    restored(kit, before | snapshot(kit))
    log = kit.open()
    assert (log.first_index, log.last_index, log.last_term) == (last_index + 1, last_index, 50)
    assert len(kit.files()) == 1


def test_a_crash_while_old_history_is_dropped_loses_only_that(kit: Kit) -> None:
    log = kit.filled(200)
    files = kit.files()
    log.close()
    for dropped in (1, 2):
        files[dropped - 1].unlink()
        log = kit.open()
        assert log.first_index == log.segments()[0].base_index
        assert log.verify() == (200 - log.first_index + 1, [])
        log.close()


def test_leftovers_are_removed_and_strangers_let_be(kit: Kit) -> None:
    kit.filled(5).close()
    directory = kit.directory / "log"
    (directory / "spare.tmp").write_bytes(b"x" * 100)
    (directory / "other.tmp").write_bytes(b"")
    (directory / "LOCK").write_bytes(b"")
    (directory / "notes.txt").write_bytes(b"mine")
    assert kit.open().last_index == 5
    assert sorted(path.name for path in directory.iterdir() if path.suffix != ".log") == ["LOCK", "notes.txt"]


def test_torn_before_the_first_record_of_a_new_segment(kit: Kit) -> None:
    log = kit.filled(200)
    base = log.segments()[-1].base_index
    log.close()
    path = kit.files()[-1]
    rewrite(path, 64, b"torn" + bytes(SEGMENT_SIZE_BYTES - 68))
    log = kit.open()
    assert log.last_index == base - 1
    assert path not in kit.files()
    log.append(kit.post(), 99, 1)
    log.close()
    assert kit.open().verify() == (base, [])

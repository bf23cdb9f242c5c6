"""Records from outside: what is packed, what is let in, and what is not (docs/log-format.md, "Record")."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from typing import Any

import pytest
import xxhash

from raftchat import _log, log_reference
from tests.log.kit import HEADER_BYTES, Kit


def batch_of(kit: Kit, count: int = 3) -> Any:
    return kit.filled(count).slice(1, 10_000)


def patched(data: bytes, offset: int, layout: str, value: int, segment_id: int | None = None) -> bytes:
    """The same with one field changed; with a segment id, the first record's checksum is made to match."""
    changed = bytearray(data)
    struct.pack_into(layout, changed, offset, value)
    if segment_id is not None:
        synced, body_size = struct.unpack_from("<QI", changed, 8)
        salt = xxhash.xxh3_64_intdigest(struct.pack("<QQ", segment_id, synced))
        hashed = xxhash.xxh3_64_intdigest(bytes(changed[16 : HEADER_BYTES + body_size]))
        struct.pack_into("<Q", changed, 0, hashed ^ salt)
    return bytes(changed)


def test_a_record_is_what_the_format_page_says(kit: Kit) -> None:
    packed = kit.module.pack(16, b"room", b"value", b"me")
    assert packed == struct.pack("<QQIBBHQQQ", 0, 0, 11, 16, 2, 4, 0, 0, 0) + b"roommevalue" + bytes(5)


def test_both_pack_the_same_bytes() -> None:
    for key, value, meta in [(b"", b"", b""), (b"k" * 65535, b"v", b"m" * 255), (b"k", b"v" * 8, b"")]:
        assert _log.pack(255, key, value, meta) == log_reference.pack(255, key, value, meta)


def test_what_does_not_fit_is_not_packed(kit: Kit) -> None:
    for bad in [(0, b"", b""), (256, b"", b""), (16, b"k" * 65536, b""), (16, b"", b"", b"m" * 256)]:
        with pytest.raises(ValueError, match=r"kind|key|meta"):
            kit.module.pack(*bad)


def test_unstamped_records_are_counted(kit: Kit) -> None:
    assert kit.module.check_unstamped(b"", 100) == 0
    for kind in (bytes, bytearray, memoryview):
        assert kit.module.check_unstamped(kind(kit.posts(7)), 1000) == 7
    assert kit.module.check_unstamped(memoryview(b"x" + kit.posts(7))[1:], 1000) == 7


@pytest.mark.parametrize("field", [(0, "<Q"), (8, "<Q"), (24, "<Q"), (32, "<Q"), (40, "<Q")])
def test_a_stamped_record_is_not_let_in_as_a_command(kit: Kit, field: tuple[int, str]) -> None:
    with pytest.raises(kit.module.BadBatch, match="stamped"):
        kit.module.check_unstamped(patched(kit.post(), *field, 1), 1000)


def test_commands_have_a_command_s_kind_and_size(kit: Kit) -> None:
    check = kit.module.check_unstamped
    for kind in (1, 2, 15):
        with pytest.raises(kit.module.BadBatch, match="not a command"):
            check(kit.module.pack(kind, b"", b""), 1000)
    assert check(kit.module.pack(16, b"", b"v" * 52), 100) == 1
    with pytest.raises(kit.module.BadBatch, match="larger"):
        check(kit.module.pack(16, b"", b"v" * 53), 100)


@pytest.mark.parametrize(
    ("offset", "layout", "value"),
    [(16, "<I", 2**32 - 1), (16, "<I", 200), (16, "<I", 1), (20, "<B", 0), (21, "<B", 255), (22, "<H", 65535)],
)
def test_lying_sizes_are_found_out(kit: Kit, offset: int, layout: str, value: int) -> None:
    lie = patched(kit.post(), offset, layout, value)
    with pytest.raises(kit.module.BadBatch):
        kit.module.check_unstamped(lie, 1000)
    with pytest.raises(kit.module.BadBatch):
        kit.module.parse_batch(lie, 1, 1)
    with pytest.raises(kit.module.BadBatch):
        kit.open().append(lie, 1, 1)


def test_padding_must_be_zero(kit: Kit) -> None:
    record = kit.module.pack(16, b"", b"value")
    with pytest.raises(kit.module.BadBatch, match="padding"):
        kit.module.check_unstamped(record[:-1] + b"x", 1000)


def test_a_batch_survives_the_network(kit: Kit) -> None:
    batch = batch_of(kit)
    parsed = kit.module.parse_batch(bytearray(batch.data), batch.segment_id, 1)
    assert (parsed.first_index, parsed.last_index, parsed.term, parsed.segment_id) == (1, 3, 1, batch.segment_id)
    assert parsed.data == batch.data
    assert parsed.data.readonly
    assert parsed.membership is None


def test_a_batch_of_another_segment_or_place_is_refused(kit: Kit) -> None:
    batch = batch_of(kit)
    with pytest.raises(kit.module.BadBatch, match="checksum"):
        kit.module.parse_batch(batch.data, batch.segment_id + 1, 1)
    for first_index in (2, 2**63, 2**64 - 1):
        with pytest.raises(kit.module.BadBatch, match="index"):
            kit.module.parse_batch(batch.data, batch.segment_id, first_index)
    with pytest.raises(kit.module.BadBatch):
        kit.module.parse_batch(batch.data, batch.segment_id, 0)


def test_every_bit_of_a_batch_is_covered(kit: Kit) -> None:
    batch = batch_of(kit, 1)
    data = bytes(batch.data)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(kit.module.BadBatch):
            kit.module.parse_batch(flipped, batch.segment_id, 1)


def test_a_batch_cut_anywhere_but_between_records_is_refused(kit: Kit) -> None:
    batch = batch_of(kit)
    size = len(batch.data) // 3
    for cut in range(len(batch.data)):
        if cut in (size, 2 * size):
            assert kit.module.parse_batch(batch.data[:cut], batch.segment_id, 1).last_index == cut // size
        else:
            with pytest.raises(kit.module.BadBatch):
                kit.module.parse_batch(batch.data[:cut], batch.segment_id, 1)


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (8, 1, "durable before it was written"),
        (32, 0, "term"),
        (32, 2**63, "term"),
        (40, 253_402_300_800_000, "time"),
    ],
)
def test_valid_checksums_do_not_excuse_nonsense(kit: Kit, offset: int, value: int, reason: str) -> None:
    batch = batch_of(kit, 1)
    with pytest.raises(kit.module.BadBatch, match=reason):
        kit.module.parse_batch(patched(batch.data, offset, "<Q", value, batch.segment_id), batch.segment_id, 1)


def test_a_batch_has_one_term_and_its_time_does_not_go_back(kit: Kit) -> None:
    log = kit.open()
    log.append(kit.post(), 1, 1000)
    log.append(kit.post(), 2, 1000)
    both = bytes(log.slice(1, 1).data) + bytes(log.slice(2, 1).data)
    with pytest.raises(kit.module.BadBatch, match="term changes"):
        kit.module.parse_batch(both, log.slice(1, 1).segment_id, 1)
    backwards = patched(log.slice(2, 1).data, 32, "<Q", 1)
    backwards = patched(backwards, 40, "<Q", 999, log.slice(1, 1).segment_id)
    with pytest.raises(kit.module.BadBatch, match="time"):
        kit.module.parse_batch(bytes(log.slice(1, 1).data) + backwards, log.slice(1, 1).segment_id, 1)


def test_a_membership_entry_travels_alone(kit: Kit) -> None:
    log = kit.open()
    log.append(kit.post() + kit.module.pack(2, b"", b"members") + kit.post(), 1, 1)
    batches = [log.slice(index, 10_000) for index in (1, 2, 3)]
    assert [(b.first_index, b.last_index, b.membership) for b in batches] == [
        (1, 1, None),
        (2, 2, b"members"),
        (3, 3, None),
    ]
    assert kit.module.parse_batch(batches[1].data, batches[1].segment_id, 2).membership == b"members"
    joined = b"".join(bytes(batch.data) for batch in batches)
    with pytest.raises(kit.module.BadBatch, match="not alone"):
        kit.module.parse_batch(joined, batches[0].segment_id, 1)


def test_a_forged_batch_object_does_no_harm(fast_directory: Path) -> None:
    with pytest.raises(TypeError):
        _log.Batch()
    with pytest.raises((TypeError, ValueError)):
        Kit(_log, fast_directory).open().append_batch(_log.Batch.__new__(_log.Batch), 1)


def test_random_bytes_are_refused_alike_by_both() -> None:
    """Never a crash, and never a difference: mutations of good batches, and noise."""
    random_ = random.Random(1)
    good = [_log.pack(16, b"room", b"v" * size, b"me") for size in (0, 5, 40)]

    def outcome(function: Any, *arguments: Any) -> Any:
        try:
            result = function(*arguments)
        except ValueError as error:
            return type(error).__name__, str(error)
        return result if isinstance(result, int) else bytes(result.data)

    for _ in range(3000):
        data = bytearray(b"".join(random_.choices(good, k=random_.randrange(1, 4))))
        if random_.random() < 0.2:
            data = bytearray(random_.randbytes(random_.randrange(200)))
        for _ in range(random_.randrange(4)):
            if data:
                data[random_.randrange(len(data))] = random_.choice([0, 1, 127, 255, random_.randrange(256)])
        data = data[: random_.randrange(len(data) + 1)] if random_.random() < 0.3 else data
        assert outcome(_log.check_unstamped, data, 80) == outcome(log_reference.check_unstamped, data, 80)
        assert outcome(_log.parse_batch, data, 1, 1) == outcome(log_reference.parse_batch, data, 1, 1)

"""Records checked without their log: the same answers as the log's own reading, whatever is wrong with the bytes."""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random

import pytest

from raftchat import log_reference
from raftchat._log_check import Place, find, walk
from raftchat.log_records import BadRecord, check_record
from tests.log.kit import SEGMENT_SIZE_BYTES, Kit, record_offsets, sync

LAST = 2**63 - 1


@pytest.fixture
def segment(tmp_path: Path) -> tuple[bytes, int]:
    """A segment's bytes and id."""
    kit = Kit(log_reference, tmp_path)
    log = kit.open()
    for number in range(30):
        log.append(kit.post(number, size=number % 40), 1 + number // 10, 1000 + number)
        sync(log)
    (only, *_) = log.segments()
    log.close()
    return Path(only.path).read_bytes(), only.segment_id


def begin(offset: int = 64, index: int = 1) -> Place:
    return Place(offset, index, 0, 0, 0)


def test_to_the_end_and_to_an_entry(segment: tuple[bytes, int]) -> None:
    data, segment_id = segment
    offsets = record_offsets(data)
    count = len(offsets) - 1
    place, reason = walk(data, begin(), segment_id, LAST)
    assert (place.offset, place.index, place.records, reason) == (offsets[-1], count + 1, count, "kind is 0")
    place, reason = walk(data, begin(), segment_id, 7)
    assert (place.offset, place.index, place.records, reason) == (offsets[7], 8, 7, None)
    # On from there, in a piece of the file.
    rest = data[place.offset :]
    again, reason = walk(rest, place._replace(offset=0), segment_id, count)
    assert (again.offset, again.records, reason) == (offsets[-1] - place.offset, count, None)


def test_a_piece_that_ends_anywhere(segment: tuple[bytes, int]) -> None:
    data, segment_id = segment
    offsets = record_offsets(data)
    for end in range(64, offsets[4] + 1):
        place, reason = walk(data[:end], begin(), segment_id, LAST)
        assert place.offset == max(offset for offset in offsets if offset <= end)
        assert reason in ("the header is cut off", "the body is cut off")


def test_another_segment_and_another_index(segment: tuple[bytes, int]) -> None:
    data, segment_id = segment
    assert walk(data, begin(), segment_id + 1, LAST)[1] == "the checksum does not match"
    assert walk(data, begin(index=2), segment_id, LAST)[1] == "the index is not the expected one"
    assert walk(data, Place(64, 1, 9, 0, 0), segment_id, LAST)[1] == "the term goes back"
    assert walk(data, Place(64, 1, 0, 10**9, 0), segment_id, LAST)[1] == "the time goes back or is out of range"


def by_the_reference(data: bytes, segment_id: int) -> tuple[int, int, str]:
    """Offset, index and reason of where the records end."""
    offset, index, term, time_ms = 64, 1, 0, 0
    while True:
        try:
            header = check_record(data, offset, segment_id, index, term, time_ms)
        except BadRecord as error:
            return offset, index, str(error)
        offset, index, term, time_ms = offset + header.size, index + 1, header.term, header.time_ms


def test_every_flip_ends_it_where_the_reference_ends(segment: tuple[bytes, int]) -> None:
    data, segment_id = segment
    random = Random(3)
    end = record_offsets(data)[-1]
    for _ in range(400):
        flipped = bytearray(data)
        flipped[random.randrange(64, end)] ^= 1 << random.randrange(8)
        place, reason = walk(flipped, begin(), segment_id, LAST)
        assert (place.offset, place.index, reason) == by_the_reference(bytes(flipped), segment_id)
        following = find(flipped, place.offset, segment_id, place.index, LAST)
        assert following is None or following[1] > place.index
        assert (following is None) == (place.offset >= record_offsets(data)[-2])


def test_with_gaps(tmp_path: Path) -> None:
    kit = Kit(log_reference, tmp_path)
    log = kit.filled(20)
    (only, *_) = log.segments()
    log.close()
    data = Path(only.path).read_bytes()
    offsets = record_offsets(data)
    records = [data[a:b] for a, b in itertools.pairwise(offsets)]
    some = b"".join(records[1::3])
    place, reason = walk(some, begin(offset=0), only.segment_id, 20, gaps=True)
    assert (place.offset, place.records, reason) == (len(some), len(records[1::3]), None)
    place, reason = walk(records[3] + records[1], begin(offset=0), only.segment_id, 20, gaps=True)
    assert (place.offset, reason) == (len(records[3]), "the time goes back or is out of range")
    assert walk(records[3], begin(offset=0), only.segment_id, 3, gaps=True)[1] == "the index is not the expected one"
    assert len(data) == SEGMENT_SIZE_BYTES

"""What history costs a reader that has indexes: no memory for each message, no descriptors, no time for other rooms."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from raftchat import _log
from raftchat.log_header import SegmentHeader, segment_path

MESSAGES, ROOMS, SEGMENT_SIZE_BYTES = 200_000, 100, 1 << 20

READ = """
import sys
from pathlib import Path
from raftchat import _log

def anonymous():
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssAnon:")[1].split()[0]) * 1024

directory, indexed = sys.argv[1], sys.argv[2] == "indexed"
before = anonymous()
reader = _log.LogReader(directory)
names = [path.stem.split("-") for path in sorted(Path(directory).glob("*.log"))]
for sequence, base_index in names:
    reader.add_segment(int(sequence), int(base_index))
last = int(names[-1][1]) - 1
if indexed:
    assert all(reader.use_index(int(sequence)) for sequence, _ in names[:-1])
for room in range(100):
    ids = reader.below(b"room-%d" % room, last + 1, 100, 0)
    assert len(ids) == 100
    middle = reader.above(b"room-%d" % room, last // 2, 100, last)
    reader.page(ids), reader.page(middle)
    reader.trim(b"room-%d" % room, 1, last, messages=500, bytes=0, before_ms=0, below=0)
reader.nth_oldest({b"room-%d" % room: 1 for room in range(100)}, last, messages=last // 2, bytes=0)
print(anonymous() - before)
"""


@pytest.fixture
def history(fast_directory: Path) -> Path:
    """200,000 messages in 100 rooms, all but the last segment indexed."""
    ids = itertools.count(1)
    directory = fast_directory / "log"
    log = _log.Log(str(directory), new_segment_id=lambda: next(ids), segment_size_bytes=SEGMENT_SIZE_BYTES)
    batch = b"".join(_log.pack(16, b"room-%d" % (number * 7 % ROOMS), b'"Message":"hello"') for number in range(1000))
    for number in range(MESSAGES // 1000):
        log.append(batch, 1, number)
    for segment in log.segments()[:-1]:
        _log.write_index(segment)
    log.close()
    return directory


def tell(reader: Any, directory: Path) -> list[tuple[int, int]]:
    """Of all segments and indexes: (sequence, base index) of each segment."""
    names = []
    for path in sorted(directory.glob("*.log")):
        sequence, base_index = path.stem.split("-")
        names.append((int(sequence), int(base_index)))
        reader.add_segment(*names[-1])
    assert all(reader.use_index(sequence) for sequence, _ in names[:-1])
    return names


def grown(directory: Path, how: str) -> int:
    """Bytes of its own memory that a process comes to by reading."""
    done = subprocess.run(
        [sys.executable, "-c", READ, str(directory), how], capture_output=True, text=True, timeout=60, check=True
    )
    return int(done.stdout)


def test_nothing_stays_in_memory_for_each_message(history: Path) -> None:
    assert grown(history, "indexed") < 1 << 20
    # What the notes of so many messages cost, if there is no index: else nothing was measured above.
    assert grown(history, "unindexed") > 8 * MESSAGES * 0.8


def test_segments_and_indexes_hold_no_descriptor(history: Path) -> None:
    before = os.listdir("/proc/self/fd")
    reader = _log.LogReader(str(history))
    tell(reader, history)
    assert len(reader.below(b"room-1", MESSAGES // 2, 100, 0)) == 100
    assert os.listdir("/proc/self/fd") == before
    maps = Path("/proc/self/maps").read_text()
    assert maps.count(str(history)) > 20
    reader.close()
    assert Path("/proc/self/maps").read_text().count(str(history)) == 0


def test_what_was_let_go_is_unmapped(history: Path) -> None:
    """Files that were unlinked keep their space as long as somebody has them mapped."""
    reader = _log.LogReader(str(history))
    names = tell(reader, history)
    segments = []
    for (sequence, base_index), after in itertools.pairwise(names):
        path = history / f"{sequence:08}-{base_index:020}.log"
        segment_id = int.from_bytes(path.read_bytes()[8:16], "little")
        segments.append(_log.Segment(sequence, base_index, segment_id, str(path), 0, after[1] - 1, SEGMENT_SIZE_BYTES))
    compacted = _log.compact(str(history), segments, {b"room-1": MESSAGES - 5000}, new_segment_id=lambda: 1 << 40)
    path = Path(f"{history}/{compacted.sequence:08}-{compacted.base_index:020}-{compacted.revision:04}.log")
    Path(compacted.path).rename(path)
    reader.add_segment(compacted.sequence, compacted.base_index, compacted.revision)
    maps = Path("/proc/self/maps").read_text()
    assert maps.count(str(history)) == 2
    assert len(reader.below(b"room-1", names[-1][1], 10_000, 0)) == compacted.records


def test_a_page_is_found_without_walking(history: Path) -> None:
    """The first page of a reader that has just come touches a few segments, not all of them."""
    reader = _log.LogReader(str(history))
    tell(reader, history)
    begun = time.process_time()
    for _ in range(1000):
        reader.page(reader.below(b"room-7", MESSAGES // 2, 20, 0))
    assert time.process_time() - begun < 1.0


def test_opening_costs_as_much_for_each_segment_however_many_there_are(tmp_path: Path) -> None:
    """A reader opens the same files and maps them as well; opening took four times as long as that."""
    count = 10_000
    for number in range(1, count + 1):
        base_index = number * 10 - 9
        header = SegmentHeader(number, number, number - 1, base_index, int(number > 1), 0, 4096)
        with open(segment_path(str(tmp_path), number, base_index), "wb") as file:
            file.write(header.pack())
            file.truncate(4096)

    def opened() -> _log.Log:
        return _log.Log(str(tmp_path), new_segment_id=lambda: 2**40, segment_size_bytes=4096)

    def read() -> _log.LogReader:
        reader = _log.LogReader(str(tmp_path))
        for number in range(1, count + 1):
            reader.add_segment(number, number * 10 - 9)
        return reader

    def seconds(what: Any) -> float:
        began_s = time.perf_counter()
        done = what()
        took_s = time.perf_counter() - began_s
        done.close()
        return took_s

    assert len(opened().segments()) == count
    assert min(seconds(opened) for _ in range(3)) < 2 * min(seconds(read) for _ in range(3))

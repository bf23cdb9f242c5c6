"""What retention asks of the posts of a log, in plain Python: how many, how large, and where enough of them lie below.

Knows floors as bounds of a room's posts. Does not know policies, nor who asks. Every record that is read is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from raftchat.log_header import CorruptLog
from raftchat.log_index import records_of
from raftchat.log_part import Part, Parts
from raftchat.log_records import KIND_POST, Header, entry_at


class Trim(NamedTuple):
    """What comes before a new floor of a room."""

    floor: int
    """First message that stays, or the bound if none does."""
    messages: int
    bytes: int
    first_id: int
    """0: no message stays."""


def trim(
    parts: Parts, key: bytes, floor: int, last_index: int, messages: int, size_bytes: int, before_ms: int, below: int
) -> Trim:
    """`LogReader.trim`."""
    gone = gone_bytes = 0
    for part in parts.known[max(0, parts.at(floor)) :]:
        last = min(part.last_index, last_index)
        posts = part.look_up(key, last) if max(part.base_index, floor) <= last else None
        if posts is None:
            continue
        first_index, newest_index = posts.postings[0][0], posts.postings[-1][0]
        count = len(posts.postings)
        if floor <= first_index and newest_index <= last:
            enough = gone + count <= messages or gone_bytes + posts.bytes <= size_bytes
            if enough or posts.last_time_ms < before_ms or newest_index < below:
                gone, gone_bytes = gone + count, gone_bytes + posts.bytes
                continue
        for index, offset in posts.postings:
            if not floor <= index <= last:
                continue
            header = _post(part, index, offset)
            stays = gone >= messages and gone_bytes >= size_bytes and header.time_ms >= before_ms and index >= below
            if stays:
                return Trim(index, gone, gone_bytes, index)
            gone, gone_bytes = gone + 1, gone_bytes + header.size
    return Trim(last_index + 1, gone, gone_bytes, 0)


def live_bytes(parts: Parts, floors: Mapping[bytes, int], base_index: int, last_index: int) -> int:
    """`LogReader.live_bytes`."""
    at = parts.at(base_index)
    if at < 0 or parts.known[at].base_index != base_index:
        raise IndexError(f"no segment begins with entry {base_index}")
    part = parts.known[at]
    return _count_live(part, floors, min(part.last_index, last_index))[1]


def nth_oldest(parts: Parts, floors: Mapping[bytes, int], last_index: int, messages: int, size_bytes: int) -> int:
    """`LogReader.nth_oldest`."""
    if not messages and not size_bytes:
        return 0
    live = live_bytes = 0
    for part in parts.known:
        last = min(part.last_index, last_index)
        if part.base_index > last:
            break
        count, count_bytes = _count_live(part, floors, last)
        if live + count >= messages and live_bytes + count_bytes >= size_bytes:
            segment = part.file()
            for _, data, header in records_of(segment, segment.start, part.base_index, last):
                if header.kind != KIND_POST or header.index < floors.get(entry_at(data, 0, header).key, last + 1):
                    continue
                live, live_bytes = live + 1, live_bytes + header.size
                if live >= messages and live_bytes >= size_bytes:
                    return header.index + 1
        else:
            live, live_bytes = live + count, live_bytes + count_bytes
    return last_index + 1


def _count_live(part: Part, floors: Mapping[bytes, int], last_index: int) -> tuple[int, int]:
    """Posts of one segment that live up to that entry, and their bytes."""
    keys = part.postings(last_index).keys()
    found = [(floors[key], part.look_up(key, last_index)) for key in keys if key in floors]
    count = count_bytes = 0
    for floor, posts in found:
        assert posts is not None
        if floor <= posts.postings[0][0] and posts.postings[-1][0] <= last_index:
            count, count_bytes = count + len(posts.postings), count_bytes + posts.bytes
            continue
        some = [_post(part, *posting).size for posting in posts.postings if floor <= posting[0] <= last_index]
        count, count_bytes = count + len(some), count_bytes + sum(some)
    return count, count_bytes


def _post(part: Part, index: int, offset: int) -> Header:
    """The header of a post, whose record is checked. Raises CorruptLog."""
    segment = part.file()
    for _, _, header in records_of(segment, offset, index, index):
        if header.kind == KIND_POST:
            return header
    raise CorruptLog(segment.path, offset, "the index is not the expected one")

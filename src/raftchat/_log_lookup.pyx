"""What retention asks of the posts of a log: how many, how large, and where enough of them lie below.

Knows floors as bounds of a room's posts. Does not know policies, nor who asks. Every record that is read is checked.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp

from raftchat._log_part cimport Part, Parts
from raftchat._log_postings cimport Posting, Postings, Posts, lower_bound
from raftchat._log_record cimport (
    FINE, HEADER_BYTES, INDEX, KIND_POST_, Fault, HashFunction, Record, Salt, hash_function, reason_of, record_fault,
    record_size
)
from raftchat._log_segment cimport Segment

from collections import namedtuple

from raftchat._log_header import CorruptLog

Trim = namedtuple("Trim", "floor messages bytes first_id", module="raftchat._log")

cdef uint64_t NO_FLOOR = <uint64_t>-1
cdef HashFunction hash_of = hash_function()


@cython.final
cdef class Floors:

    def __dealloc__(self):
        free(self.table)

    cdef uint64_t of(self, const char *key, size_t key_size) noexcept nogil:
        """Floor of a room, NO_FLOOR if there is no such room: nothing of it lives."""
        cdef size_t slot = hash_of(key, key_size) & (self.size - 1)
        cdef Floor *floor
        while self.table[slot].key != NULL:
            floor = &self.table[slot]
            if floor.key_size == key_size and memcmp(floor.key, key, key_size) == 0:
                return floor.index
            slot = (slot + 1) & (self.size - 1)
        return NO_FLOOR


cdef Floors floors_of(object mapping):
    cdef Floors floors = Floors.__new__(Floors)
    cdef bytes key
    cdef size_t slot
    items = list(mapping.items())
    floors.held = [key for key, _ in items]
    floors.size = 16
    while floors.size < 2 * <size_t>len(items):
        floors.size *= 2
    floors.table = <Floor *>calloc(floors.size, sizeof(Floor))
    if floors.table == NULL:
        raise MemoryError
    for key, index in items:
        slot = hash_of(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key)) & (floors.size - 1)
        while floors.table[slot].key != NULL:
            slot = (slot + 1) & (floors.size - 1)
        floors.table[slot] = Floor(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), index)
    return floors


cdef inline const Record *post_at(
    const char *data, size_t size, Salt *salt, uint64_t base_index, const Posting *posting, Fault *fault
) noexcept nogil:
    """A post, checked; NULL and a fault if it is bad."""
    cdef size_t offset = <size_t>posting.offset << 3
    cdef const Record *record = <const Record *>(data + offset)
    fault[0] = record_fault(record, size - offset, salt, base_index + posting.index, 0, 0)
    if fault[0] == FINE and record.kind != KIND_POST_:
        fault[0] = INDEX
    return record if fault[0] == FINE else NULL


cdef uint64_t first_that_stays(
    Part part, Posts *posts, uint64_t floor, uint64_t last_index, Amount *most, uint64_t before_ms, uint64_t below,
    Amount *gone
) except? 0:
    """Of a room's posts from `floor` to `last_index` in one segment, the first that need not go; 0: all go.

    `gone`: what went before; what goes here is added. `most`: so much must go in all.
    """
    cdef Segment segment = part.segment
    cdef Salt salt = segment.salt
    cdef const Record *record = NULL
    cdef Fault fault = FINE
    cdef uint64_t base_index = part.base_index
    cdef size_t at = lower_bound(posts.at, posts.count, part.above_base(floor))
    cdef size_t end = lower_bound(posts.at, posts.count, part.above_base(last_index) + 1)
    if at == 0 and end == posts.count and (
        gone.messages + posts.count <= most.messages
        or gone.bytes + posts.bytes <= most.bytes
        or posts.last_time_ms < before_ms
        or base_index + posts.at[end - 1].index < below
    ):
        gone.messages += posts.count
        gone.bytes += posts.bytes
        return 0
    with nogil:
        while at < end:
            record = post_at(segment.data, segment.size, &salt, base_index, &posts.at[at], &fault)
            if record == NULL or not (
                gone.messages < most.messages
                or gone.bytes < most.bytes
                or record.time_ms < before_ms
                or record.index < below
            ):
                break
            gone.messages += 1
            gone.bytes += record_size(record)
            at += 1
    if fault != FINE:
        raise CorruptLog(segment.path, <size_t>posts.at[at].offset << 3, reason_of(fault))
    return record.index if at < end else 0


cdef int count_live(Part part, Floors floors, uint64_t last_index, bint with_bytes, Amount *live) except -1:
    """Add what lives in one segment up to that entry."""
    cdef Postings postings
    cdef Amount found
    cdef size_t offset = 0
    cdef Fault fault = FINE
    cdef bint believed
    while True:
        found.messages = found.bytes = 0
        postings = part.postings(last_index)
        with nogil:
            believed = count_rooms(
                postings, part.segment, floors, last_index, part.last_index, with_bytes, &found, &offset, &fault
            )
        if believed:
            break
        part.distrust()
    if fault != FINE:
        raise CorruptLog(part.segment.path, offset, reason_of(fault))
    live.messages += found.messages
    live.bytes += found.bytes
    return 0


cdef bint count_rooms(
    Postings postings, Segment segment, Floors floors, uint64_t last_index, uint64_t part_last_index, bint with_bytes,
    Amount *found, size_t *offset, Fault *fault
) noexcept nogil:
    """False: the postings are rotten."""
    cdef Posts posts
    cdef Salt salt = segment.salt
    cdef const Record *record
    cdef uint64_t base_index = postings.base_index, floor
    cdef size_t at, end
    cdef uint32_t number
    for number in range(postings.rooms):
        if not postings.room(number, &posts):
            return False
        floor = floors.of(posts.key, posts.key_size)
        if floor > last_index:
            continue
        if floor > base_index or last_index < part_last_index:
            if not postings.check(number):
                return False
            at = lower_bound(posts.at, posts.count, floor - base_index if floor > base_index else 0)
            end = lower_bound(posts.at, posts.count, last_index - base_index + 1)
            if at > 0 or end < posts.count:
                found.messages += end - at
                while with_bytes and at < end:
                    record = post_at(segment.data, segment.size, &salt, base_index, &posts.at[at], fault)
                    if record == NULL:
                        offset[0] = <size_t>posts.at[at].offset << 3
                        return True
                    found.bytes += record_size(record)
                    at += 1
                continue
        found.messages += posts.count
        found.bytes += posts.bytes
    return True


cdef uint64_t walk_live(Part part, Floors floors, uint64_t last_index, Amount *most, Amount *live) except? 0:
    """The lowest index below which that much lives, where `live` does before this segment; 0: not within it."""
    cdef Segment segment = part.segment
    cdef Salt salt = segment.salt
    cdef const char *key
    cdef const Record *record
    cdef Fault fault = FINE
    cdef size_t offset = segment.start
    cdef uint64_t index = part.base_index, found = 0
    cdef bint gaps = segment.revision != 0
    with nogil:
        while index <= last_index and not (gaps and offset == segment.size):
            record = <const Record *>(segment.data + offset)
            fault = record_fault(record, segment.size - offset, &salt, 0 if gaps else index, 0, 0)
            if fault == FINE and not index <= record.index:
                fault = INDEX
            if fault != FINE or record.index > last_index:
                break
            key = <const char *>record + HEADER_BYTES
            if record.kind == KIND_POST_ and record.index >= floors.of(key, record.key_size):
                live.messages += 1
                live.bytes += record_size(record)
                if live.messages >= most.messages and live.bytes >= most.bytes:
                    found = record.index + 1
                    break
            index = record.index + 1
            offset += record_size(record)
    if fault != FINE:
        raise CorruptLog(segment.path, offset, reason_of(fault))
    return found


cdef object trim(
    Parts parts, bytes key, uint64_t floor, uint64_t last_index, Amount most, uint64_t before_ms, uint64_t below
):
    """`LogReader.trim`; `most`: so much must go at least."""
    cdef Part part
    cdef Posts posts
    cdef Amount gone = Amount(0, 0)
    cdef uint64_t stays = 0, last
    cdef Py_ssize_t at = max(0, parts.at(floor))
    while stays == 0 and at < len(parts.known):
        part = parts.known[at]
        at += 1
        last = min(part.last_index, last_index)
        if part.base_index > last_index:
            break
        if last >= floor and part.look_up(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), last, &posts):
            stays = first_that_stays(part, &posts, floor, last, &most, before_ms, below, &gone)
    return Trim(stays or last_index + 1, gone.messages, gone.bytes, stays)


cdef object live_bytes(Parts parts, object mapping, uint64_t base_index, uint64_t last_index):
    """`LogReader.live_bytes`."""
    cdef Part part
    cdef Amount live = Amount(0, 0)
    cdef Py_ssize_t at = parts.at(base_index)
    if at < 0 or (<Part>parts.known[at]).base_index != base_index:
        raise IndexError(f"no segment begins with entry {base_index}")
    part = parts.known[at]
    count_live(part, floors_of(mapping), min(part.last_index, last_index), True, &live)
    return live.bytes


cdef object nth_oldest(Parts parts, object mapping, uint64_t last_index, Amount most):
    """`LogReader.nth_oldest`; `most`: so much must lie below."""
    cdef Part part
    cdef Floors floors
    cdef Amount live = Amount(0, 0), before
    cdef uint64_t last, found
    if most.messages == 0 and most.bytes == 0:
        return 0
    floors = floors_of(mapping)
    for part in parts.known:
        if part.base_index > last_index:
            break
        last = min(part.last_index, last_index)
        before = live
        count_live(part, floors, last, most.bytes > 0, &live)
        if live.messages >= most.messages and live.bytes >= most.bytes:
            found = walk_live(part, floors, last, &most, &before)
            if found:
                return found
    return last_index + 1

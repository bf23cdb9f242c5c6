"""Committed entries for other processes, from read-only mappings: the reading half of the log.

Never looks beyond what its caller says is committed. Knows segments and the shape of a post, not rooms or sockets.
"""

cimport cython
from cpython cimport array
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint64_t
from libc.stdlib cimport free
from libc.string cimport memcmp

from raftchat._log_lookup cimport Amount, live_bytes, nth_oldest, trim
from raftchat._log_part cimport Part, Parts
from raftchat._log_postings cimport Notes, Posts, lower_bound, new_notes
from raftchat._log_record cimport (
    FINE, HEADER_BYTES, INDEX_MAX, KIND_POST_, Fault, Record, Salt, entry_of, reason_of, record_size
)
from raftchat._log_render cimport Output, output_room, output_start, put, put_post
from raftchat._log_scan cimport Groups, collect, free_groups, group, reserve, start_groups
from raftchat._log_segment cimport Segment

import array
import json

from raftchat._log_header import CorruptLog

cdef uint64_t UNLIMITED = 1ULL << 62
cdef array.array INDEXES = array.array("Q")


@cython.final
cdef class LogReader:
    cdef str directory
    cdef Parts parts
    cdef dict names                     # key → its JSON string, for `frames` without names
    cdef bint closed

    def __init__(self, str directory):
        self.directory = directory
        self.parts = Parts()
        self.names = {}

    # Segments

    def add_segment(self, sequence, uint64_t base_index, revision=0):
        """The owner made a segment: every known one with a sequence up to this and a base index from this on is let go.

        Sequences do not fall but for compacted segments. One that is gone already is not an error until it is read:
        retention may be quicker than its reader. Raises ValueError, or as opening a log does.
        """
        self._require_open()
        self.parts.add(self.directory, sequence, base_index, revision)

    def drop_prefix(self, uint64_t first_index):
        """The owner let go of segments that hold nothing from that entry on: so does this, and their space is free."""
        self._require_open()
        self.parts.drop_prefix(first_index)

    def use_index(self, sequence):
        """The owner made an index of this sealed segment: use it, and free what is in memory. False: it cannot be."""
        cdef Part part
        self._require_open()
        for part in self.parts.known:
            if part.sequence == sequence and part.last_index <= INDEX_MAX:
                return part.use_index()
        return False

    def bad_indexes(self):
        """Sequences of the segments whose index was to be used and cannot be: to be made again."""
        cdef Part part
        return [part.sequence for part in self.parts.known if part.bad_index]

    cdef int _require_open(self) except -1:
        if self.closed:
            raise ValueError("the reader is closed")
        return 0

    # What was committed

    def scan(self, uint64_t first_index, uint64_t last_index):
        """Group a range by (kind, key), in order of first appearance. Where there is no index, notes where posts lie.

        Ranges follow each other; the first may begin anywhere. Compacted segments cannot be scanned (IndexError).
        """
        cdef Groups groups
        cdef Part part
        cdef Segment segment
        cdef Notes notes
        cdef uint64_t index = first_index, last
        cdef size_t offset
        cdef Fault fault
        cdef bint no_memory = False, broken
        cdef Salt salt
        self._require_open()
        if first_index > last_index:
            return []
        held = self.parts.known         # the runs point into these mappings
        start_groups(&groups)
        try:
            while index <= last_index:
                part = self.parts.holder(index)
                segment = part.segment
                if segment.revision:
                    raise IndexError(f"entry {index} may have been left out of a compacted segment")
                last = min(part.last_index, last_index)
                broken = not segment.try_walk(last)
                # What can be reached is read first, so that the fault is named that comes first.
                last = min(last, segment.walked - 1)
                if last < index:
                    raise segment.first_fault(index)
                reserve(&groups, last - first_index + 1)
                offset = segment.offset_of(index)
                salt = segment.salt
                if part.index is None and part.notes is None and index == part.base_index:
                    part.notes = new_notes(part.base_index, segment.start)
                notes = part.notes
                with nogil:
                    fault = group(
                        &groups, segment.data, segment.size, &salt, &offset, index, last, notes, &no_memory
                    )
                if no_memory:
                    raise MemoryError
                if fault != FINE:
                    raise CorruptLog(segment.path, offset, reason_of(fault))
                index = last + 1
                if broken:
                    raise segment.first_fault(index)
            return collect(&groups, first_index)
        finally:
            free_groups(&groups)

    def entries(self, uint64_t first_index, uint64_t last_index, uint64_t max_bytes=UNLIMITED):
        """The entries of a range, as many as fit into `max_bytes` of log, but at least one. Raises IndexError.

        What a compacted segment left out is skipped.
        """
        cdef const Record *record
        cdef uint64_t index = first_index, size
        self._require_open()
        found = []
        while True:
            record = self.parts.next(&index, last_index)
            if record == NULL:
                return found
            size = record_size(record)
            if found and size > max_bytes:
                return found
            max_bytes -= min(size, max_bytes)
            found.append(entry_of(record))

    def term_at(self, uint64_t index):
        """Term of an entry. Raises IndexError."""
        self._require_open()
        return self.parts.record(index).term

    def page(self, indexes):
        """A JSON array of these posts. Raises ValueError if one is not a post, or gone."""
        cdef Output output
        cdef const Record *record
        cdef uint64_t index
        cdef bint first = True
        self._require_open()
        output_start(&output)
        try:
            output_room(&output, 2)
            put(&output, b"[", 1)
            for index in indexes:
                record = self._post(index)
                output_room(&output, 2)
                if not first:
                    put(&output, b",", 1)
                first = False
                put_post(&output, record)
            output_room(&output, 1)
            put(&output, b"]", 1)
            return PyBytes_FromStringAndSize(output.data, output.size)
        finally:
            free(output.data)

    cdef const Record *_post(self, uint64_t index) except NULL:
        cdef uint64_t found = index
        cdef const Record *record = self.parts.next(&found, index)
        if record == NULL:
            raise ValueError(f"entry {index} is gone")
        if record.kind != KIND_POST_:
            raise ValueError(f"entry {index} is of kind {record.kind}, not a post")
        return record

    def frames(self, uint64_t first_index, uint64_t last_index, names):
        """(key, `{"RoomName":…,"Post":{…}}`) for each post in the range, in order.

        `names` maps a key to its JSON string; posts of keys not in it are left out. None: all, names made on the way.
        What a compacted segment left out is skipped.
        """
        cdef Output output
        cdef const Record *record
        cdef uint64_t index = first_index
        cdef bytes key = None, name = None
        self._require_open()
        if names is None and len(self.names) > 10_000:
            self.names = {}
        found = []
        output_start(&output)
        try:
            while True:
                record = self.parts.next(&index, last_index)
                if record == NULL:
                    return found
                if record.kind != KIND_POST_:
                    continue
                if key is None or PyBytes_GET_SIZE(key) != record.key_size or memcmp(
                    PyBytes_AS_STRING(key), <const char *>record + HEADER_BYTES, record.key_size
                ) != 0:
                    key = PyBytes_FromStringAndSize(<const char *>record + HEADER_BYTES, record.key_size)
                    name = names.get(key) if names is not None else self._name(key)
                if name is None:
                    continue
                output.size = 0
                output_room(&output, PyBytes_GET_SIZE(name) + 30)
                put(&output, b'{"RoomName":', 12)
                put(&output, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
                put(&output, b',"Post":', 8)
                put_post(&output, record)
                output_room(&output, 1)
                put(&output, b"}", 1)
                found.append((key, PyBytes_FromStringAndSize(output.data, output.size)))
        finally:
            free(output.data)

    cdef bytes _name(self, bytes key):
        name = self.names.get(key)
        if name is None:
            name = self.names[key] = json.dumps(key.decode(errors="replace"), ensure_ascii=False).encode()
        return name

    # Where posts lie

    def below(self, bytes key, uint64_t index, Py_ssize_t limit, uint64_t floor):
        """The last `limit` posts of a room with floor ≤ ID < index: IDs ('Q'), ascending.

        What lies below `index` must be committed.
        """
        cdef array.array found
        cdef Part part
        cdef Posts posts
        cdef uint64_t last
        cdef size_t low, high
        cdef Py_ssize_t at, left
        self._require_open()
        if index <= floor or limit <= 0:
            return array.array("Q")
        limit = left = min(<uint64_t>limit, index - floor)
        found = array.clone(INDEXES, limit, False)
        at = self.parts.at(index - 1)
        while at >= 0 and left > 0:
            part = self.parts.known[at]
            last = min(part.last_index, index - 1)
            if last < floor:
                break
            at -= 1
            if not part.look_up(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), last, &posts):
                continue
            low = lower_bound(posts.at, posts.count, part.above_base(floor))
            high = lower_bound(posts.at, posts.count, part.above_base(last) + 1)
            while high > low and left > 0:
                left -= 1
                high -= 1
                found.data.as_ulonglongs[left] = part.base_index + posts.at[high].index
        return found[left:] if left else found

    def above(self, bytes key, uint64_t index, Py_ssize_t limit, uint64_t last_index):
        """The first `limit` posts of a room with index < ID ≤ last_index: IDs ('Q'), ascending."""
        cdef array.array found
        cdef Part part
        cdef Posts posts
        cdef uint64_t last
        cdef size_t low, high
        cdef Py_ssize_t at, count = 0
        self._require_open()
        if index >= last_index or limit <= 0:
            return array.array("Q")
        limit = min(<uint64_t>limit, last_index - index)
        found = array.clone(INDEXES, limit, False)
        at = max(0, self.parts.at(index + 1))
        while at < len(self.parts.known) and count < limit:
            part = self.parts.known[at]
            at += 1
            last = min(part.last_index, last_index)
            if part.base_index > last_index:
                break
            if last <= index or not part.look_up(PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key), last, &posts):
                continue
            low = lower_bound(posts.at, posts.count, part.above_base(index + 1))
            high = lower_bound(posts.at, posts.count, part.above_base(last) + 1)
            while low < high and count < limit:
                found.data.as_ulonglongs[count] = part.base_index + posts.at[low].index
                count += 1
                low += 1
        return found[:count] if count < limit else found

    def trim(
        self, bytes key, uint64_t floor, uint64_t last_index, *, uint64_t messages, uint64_t bytes, uint64_t before_ms,
        uint64_t below
    ):
        """The floor that removes as little as it can so that, of the posts of a room from `floor` to `last_index`, at
        least `messages` and `bytes` go, and all that are older than `before_ms` or lie below index `below`.

        Whole segments are counted by their index; records are read only where the floor comes to lie.
        """
        self._require_open()
        return trim(self.parts, key, floor, last_index, Amount(messages, bytes), before_ms, below)

    def live_bytes(self, floors, uint64_t base_index, uint64_t last_index):
        """What the live posts of the segment that begins with `base_index` occupy, up to `last_index`; mostly without
        the GIL. Live: in a room that `floors` has, and not below its floor. Raises IndexError if there is none.
        """
        self._require_open()
        return live_bytes(self.parts, floors, base_index, last_index)

    def nth_oldest(self, floors, uint64_t last_index, *, uint64_t messages, uint64_t bytes):
        """The lowest index below which at least that many live posts, and bytes of them, of all rooms together lie.

        Live: in a room that `floors` has, not below its floor, up to `last_index`. `last_index` + 1 if there are fewer.
        """
        self._require_open()
        return nth_oldest(self.parts, floors, last_index, Amount(messages, bytes))

    def close(self):
        """Nothing that was handed out is lost by this."""
        self.closed = True
        self.parts = Parts()
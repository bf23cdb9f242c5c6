"""Committed entries for other processes, from read-only mappings: the reading half of the log.

Never looks beyond what its caller says is committed. Knows segments and the shape of a post, not rooms or sockets.
"""

cimport cython
from cpython cimport array
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp

from raftchat._log_record cimport (
    FINE, HEADER_BYTES, KIND_POST_, Fault, HashFunction, Record, Salt, entry_of, hash_function, reason_of, record_fault,
    record_size
)
from raftchat._log_render cimport Output, output_room, output_start, put, put_post
from raftchat._log_header cimport segment_path
from raftchat._log_segment cimport Segment as SegmentFile, open_segment

import array
import contextlib
import json
from collections import namedtuple

from raftchat._log_segment import CorruptLog

_new_tuple = tuple.__new__
KeyRun = namedtuple("KeyRun", "kind key indexes bytes last_time_ms", module="raftchat._log")

cdef uint64_t UNLIMITED = 1ULL << 62
cdef array.array INDEXES = array.array("Q")


# Entries of one kind and key.
cdef struct Run:
    const char *key                     # in the mapping
    uint16_t key_size
    uint8_t kind
    uint64_t count
    uint64_t bytes
    uint64_t last_time_ms
    uint64_t *next_index                # second pass: where the next index goes


# Grouping of a range: for each entry the number of its run, and a hash table of the runs.
cdef struct Groups:
    uint32_t *run_of
    uint64_t entries
    Run *runs
    uint32_t count
    uint32_t runs_room
    uint32_t *table                     # run number + 1; open addressing
    uint32_t table_size                 # power of two, at least twice `count`


cdef int grow_table(Groups *groups, HashFunction hash) noexcept nogil:
    cdef uint32_t size = groups.table_size * 2 if groups.table_size else 64
    cdef uint32_t *table = <uint32_t *>calloc(size, sizeof(uint32_t))
    cdef Run *runs = <Run *>realloc(groups.runs, (size // 2) * sizeof(Run))
    cdef uint32_t number, at
    if runs != NULL:
        groups.runs = runs
    if table == NULL or runs == NULL:
        free(table)
        return -1
    for number in range(groups.count):
        at = slot_hash(&runs[number], hash) & (size - 1)
        while table[at] != 0:
            at = (at + 1) & (size - 1)
        table[at] = number + 1
    free(groups.table)
    groups.table = table
    groups.table_size = size
    return 0


cdef inline uint32_t slot_hash(const Run *run, HashFunction hash) noexcept nogil:
    return <uint32_t>(hash(run.key, run.key_size) ^ run.kind * <uint64_t>0x9E3779B1)


cdef inline bint same_run(const Run *run, const Record *record) noexcept nogil:
    return (
        run.kind == record.kind
        and run.key_size == record.key_size
        and memcmp(run.key, <const char *>record + HEADER_BYTES, record.key_size) == 0
    )


cdef int run_number(Groups *groups, const Record *record, HashFunction hash) noexcept nogil:
    """The number of the run that an entry belongs to, made if it is the first; -1: no memory."""
    cdef Run wanted
    cdef uint32_t at
    if 2 * groups.count >= groups.table_size and grow_table(groups, hash) < 0:
        return -1
    wanted.key = <const char *>record + HEADER_BYTES
    wanted.key_size = record.key_size
    wanted.kind = record.kind
    at = slot_hash(&wanted, hash) & (groups.table_size - 1)
    while groups.table[at] != 0:
        if same_run(&groups.runs[groups.table[at] - 1], record):
            return groups.table[at] - 1
        at = (at + 1) & (groups.table_size - 1)
    wanted.count = wanted.bytes = wanted.last_time_ms = 0
    wanted.next_index = NULL
    groups.runs[groups.count] = wanted
    groups.count += 1
    groups.table[at] = groups.count
    return groups.count - 1


cdef Fault group(
    Groups *groups, const char *data, size_t size, Salt *salt, size_t *offset, uint64_t index, uint64_t last_index,
    bint *no_memory
) noexcept nogil:
    """Check and group the entries of one segment, from `offset` on."""
    cdef const Record *record
    cdef Run *run
    cdef Fault fault
    cdef int number = -1
    while index <= last_index:
        record = <const Record *>(data + offset[0])
        fault = record_fault(record, size - offset[0], salt, index, 0, 0)
        if fault != FINE:
            return fault
        if number < 0 or not same_run(&groups.runs[number], record):
            number = run_number(groups, record, salt.hash)
            if number < 0:
                no_memory[0] = True
                return FINE
        run = &groups.runs[number]
        run.count += 1
        run.bytes += record_size(record)
        run.last_time_ms = record.time_ms
        groups.run_of[groups.entries] = number
        groups.entries += 1
        offset[0] += record_size(record)
        index += 1
    return FINE


@cython.final
cdef class LogReader:
    cdef str directory
    cdef list known                     # [(sequence, base index, SegmentFile; None if unlinked before we came)]
    cdef SegmentFile near               # where the last record was looked up ...
    cdef uint64_t near_last             # ... and the last entry that may lie there
    cdef dict names                     # key → its JSON string, for `frames` without names
    cdef bint closed

    def __init__(self, str directory):
        self.directory = directory
        self.known = []
        self.names = {}

    def add_segment(self, sequence, uint64_t base_index):
        """The owner made a segment. Must be told in order of sequence, else ValueError.

        One that is gone already is not an error until it is read: retention may be quicker than its reader.
        """
        cdef SegmentFile segment = None
        self._require_open()
        if self.known and sequence <= self.known[-1][0]:
            raise ValueError(f"segment {sequence} comes after segment {self.known[-1][0]}")
        with contextlib.suppress(FileNotFoundError):
            segment = open_segment(self.directory, sequence, base_index, False)
        if segment is not None and segment.prev_sequence == 0:
            self.known = []
        self.known = [before for before in self.known if before[1] < base_index]
        self.known.append((sequence, base_index, segment))
        self.near = None

    cdef int _require_open(self) except -1:
        if self.closed:
            raise ValueError("the reader is closed")
        return 0

    cdef SegmentFile _holder(self, uint64_t index, uint64_t *last_index):
        """The segment an entry lies in, and the last that may. Raises IndexError, FileNotFoundError."""
        last_index[0] = <uint64_t>-1
        for sequence, base_index, segment in reversed(self.known):
            if base_index <= index:
                if segment is None:
                    path = segment_path(self.directory, sequence, base_index)
                    raise FileNotFoundError(2, "the segment is gone", path)
                return segment
            last_index[0] = base_index - 1
        raise IndexError(f"entry {index} is not in the log")

    cdef const Record *_record(self, uint64_t index) except NULL:
        cdef uint64_t last_index
        if self.near is None or not self.near.base_index <= index <= self.near_last:
            self.near = self._holder(index, &last_index)
            self.near_last = last_index
        return self.near.record(index)

    def scan(self, uint64_t first_index, uint64_t last_index):
        """Group a range by (kind, key), in order of first appearance."""
        cdef Groups groups = Groups(NULL, 0, NULL, 0, 0, NULL, 0)
        cdef SegmentFile segment
        cdef uint64_t index = first_index, last
        cdef size_t offset
        cdef Fault fault
        cdef bint no_memory = False, broken
        cdef void *grown
        cdef Salt salt
        self._require_open()
        if first_index > last_index:
            return []
        held = list(self.known)         # the runs point into these mappings
        try:
            while index <= last_index:
                segment = self._holder(index, &last)
                last = min(last, last_index)
                broken = not segment.try_walk(last)
                # What can be reached is read first, so that the fault is named that comes first.
                last = min(last, segment.walked - 1)
                if last < index:
                    raise segment.first_fault(index)
                grown = realloc(groups.run_of, (last - first_index + 1) * sizeof(uint32_t))
                if grown == NULL:
                    raise MemoryError
                groups.run_of = <uint32_t *>grown
                offset = segment.offset_of(index)
                salt = segment.salt
                with nogil:
                    fault = group(
                        &groups, segment.data, segment.size, &salt, &offset, index, last, &no_memory
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
            free(groups.run_of)
            free(groups.runs)
            free(groups.table)

    def entries(self, uint64_t first_index, uint64_t last_index, uint64_t max_bytes=UNLIMITED):
        """The entries of a range, as many as fit into `max_bytes` of log, but at least one. Raises IndexError."""
        cdef const Record *record
        cdef uint64_t index = first_index, size
        self._require_open()
        found = []
        while index <= last_index:
            record = self._record(index)
            size = record_size(record)
            if found and size > max_bytes:
                break
            max_bytes -= min(size, max_bytes)
            found.append(entry_of(record))
            index += 1
        return found

    def term_at(self, uint64_t index):
        """Term of an entry. Raises IndexError."""
        self._require_open()
        return self._record(index).term

    def page(self, indexes):
        """A JSON array of these posts. Raises ValueError if one is not a post."""
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
                record = self._record(index)
                if record.kind != KIND_POST_:
                    raise ValueError(f"entry {index} is of kind {record.kind}, not a post")
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

    def frames(self, uint64_t first_index, uint64_t last_index, names):
        """(key, `{"RoomName":…,"Post":{…}}`) for each post in the range, in order.

        `names` maps a key to its JSON string; posts of keys not in it are left out. None: all, names made on the way.
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
            while index <= last_index:
                record = self._record(index)
                index += 1
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
            return found
        finally:
            free(output.data)

    cdef bytes _name(self, bytes key):
        name = self.names.get(key)
        if name is None:
            name = self.names[key] = json.dumps(key.decode(errors="replace"), ensure_ascii=False).encode()
        return name

    def close(self):
        """Nothing that was handed out is lost by this."""
        self.closed = True
        self.known = []
        self.near = None


cdef list collect(Groups *groups, uint64_t first_index):
    """Second pass: the indexes of each run."""
    cdef array.array indexes
    cdef Run *run
    cdef uint64_t at
    cdef uint32_t number
    found = []
    for number in range(groups.count):
        run = &groups.runs[number]
        indexes = array.clone(INDEXES, run.count, False)
        run.next_index = <uint64_t *>indexes.data.as_voidptr
        key = PyBytes_FromStringAndSize(run.key, run.key_size)
        found.append(_new_tuple(KeyRun, (run.kind, key, indexes, run.bytes, run.last_time_ms)))
    with nogil:
        for at in range(groups.entries):
            run = &groups.runs[groups.run_of[at]]
            run.next_index[0] = first_index + at
            run.next_index += 1
    return found

"""Entries of a range, grouped by kind and key in one pass, and noted on the way. Knows records, not segments or rooms."""

from cpython cimport array
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp

from raftchat._log_postings cimport NOT_THERE
from raftchat._log_record cimport FINE, HEADER_BYTES, HashFunction, Record, record_fault, record_size

import array
from collections import namedtuple

_new_tuple = tuple.__new__
KeyRun = namedtuple("KeyRun", "kind key indexes bytes last_time_ms", module="raftchat._log")

cdef array.array INDEXES = array.array("Q")


cdef void start_groups(Groups *groups) noexcept:
    groups[0] = Groups(NULL, 0, NULL, 0, NULL, 0)


cdef void free_groups(Groups *groups) noexcept:
    free(groups.run_of)
    free(groups.runs)
    free(groups.table)


cdef int reserve(Groups *groups, uint64_t entries) except -1:
    """For so many entries in all."""
    cdef void *grown = realloc(groups.run_of, entries * sizeof(uint32_t))
    if grown == NULL:
        raise MemoryError
    groups.run_of = <uint32_t *>grown
    return 0


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
    wanted.room = NOT_THERE
    wanted.count = wanted.bytes = wanted.last_time_ms = 0
    wanted.next_index = NULL
    groups.runs[groups.count] = wanted
    groups.count += 1
    groups.table[at] = groups.count
    return groups.count - 1


cdef Fault group(
    Groups *groups, const char *data, size_t size, Salt *salt, size_t *offset, uint64_t index, uint64_t last_index,
    Notes notes, bint *no_memory
) noexcept nogil:
    """Check and group the entries of one segment, from `offset` on; those that come next in `notes`, if any, are noted."""
    cdef const Record *record
    cdef Run *run
    cdef Fault fault
    cdef int number = -1
    cdef uint32_t at
    for at in range(groups.count):
        groups.runs[at].room = NOT_THERE
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
        if notes is not None and notes.next_index == index and not notes.add(record, offset[0], &run.room):
            no_memory[0] = True
            return FINE
        run.count += 1
        run.bytes += record_size(record)
        run.last_time_ms = record.time_ms
        groups.run_of[groups.entries] = number
        groups.entries += 1
        offset[0] += record_size(record)
        index += 1
    return FINE


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

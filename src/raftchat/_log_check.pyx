"""Checks records of any file of a log, in C, without opening the log: for `verify` and for copies (docs/log-format.md, "Record").

Knows bytes: which segment they are from, and what may follow what, its caller says. Never follows a size out of the data.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport uint64_t

from raftchat._log_record cimport (
    FINE, HEADER_BYTES, INDEX, KIND_POST_, NOT_A_COMMAND, Fault, Record, Salt, hash_function, reason_of, record_fault,
    record_size, salt_start
)

from collections import namedtuple

Place = namedtuple("Place", "offset index term time_ms records")


def walk(data, place, uint64_t segment_id, uint64_t last_index, bint gaps=False):
    """Check records from a place on: where that ended, and why (None: `last_index`, or in compacted data its end, was reached).

    `place.index` is the next one expected, `term` and `time_ms` are those of the record before; `offset` counts in `data`.
    With `gaps`, as in a compacted segment, indexes ascend and all records are posts.
    """
    cdef Py_buffer buffer
    cdef Salt salt
    cdef const Record *record
    cdef Fault fault = FINE
    cdef size_t offset = place.offset, size
    cdef uint64_t index = place.index, term = place.term, time_ms = place.time_ms, records = place.records
    salt_start(&salt, hash_function(), segment_id)
    PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
    try:
        size = buffer.len
        with nogil:
            while index <= last_index and not (gaps and offset == size):
                record = <const Record *>(<const char *>buffer.buf + offset)
                fault = record_fault(record, size - offset, &salt, 0 if gaps else index, term, time_ms)
                if fault == FINE and gaps:
                    if record.index < index or record.index > last_index:
                        fault = INDEX
                    elif record.kind != KIND_POST_:
                        fault = NOT_A_COMMAND
                if fault != FINE:
                    break
                records += 1
                index = record.index + 1
                term = record.term
                time_ms = record.time_ms
                offset += record_size(record)
    finally:
        PyBuffer_Release(&buffer)
    return Place(offset, index, term, time_ms, records), None if fault == FINE else reason_of(fault)


def find(data, size_t offset, uint64_t segment_id, uint64_t index, uint64_t last_index):
    """The first valid record beyond `offset` of an entry in (index, last_index], at any multiple of 8: (offset, index, synced).

    None: there is none.
    """
    cdef Py_buffer buffer
    cdef Salt salt
    cdef const Record *record
    cdef size_t size
    cdef bint found = False
    cdef uint64_t its_index = 0, its_synced = 0
    salt_start(&salt, hash_function(), segment_id)
    PyObject_GetBuffer(data, &buffer, PyBUF_SIMPLE)
    try:
        size = buffer.len
        with nogil:
            offset = (offset & ~<size_t>7) + 8
            while offset + HEADER_BYTES <= size:
                record = <const Record *>(<const char *>buffer.buf + offset)
                if index < record.index <= last_index and record_fault(record, size - offset, &salt, 0, 0, 0) == FINE:
                    found = True
                    its_index = record.index
                    its_synced = record.synced
                    break
                offset += 8
    finally:
        PyBuffer_Release(&buffer)
    return (offset, its_index, its_synced) if found else None

"""Records that come from outside or go there: packed, checked, taken apart. Knows no files (docs/log-format.md, "Record")."""

cimport cython
from cpython.buffer cimport PyBUF_READ, PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.memoryview cimport PyMemoryView_FromMemory, PyMemoryView_FromObject
from libc.string cimport memset

import ctypes
import sys
from collections import namedtuple

import xxhash

RECORD_HEADER_BYTES = HEADER_BYTES
KIND_NOOP = KIND_NOOP_
KIND_MEMBERSHIP = KIND_MEMBERSHIP_
KIND_POST = KIND_POST_
KIND_TRIM = 17
KIND_REMOVE_ROOM = 18
KIND_RETENTION = 19

assert sys.byteorder == "little" and sizeof(Record) == HEADER_BYTES

_new_tuple = tuple.__new__              # a third of the time that calling a named tuple takes
Entry = namedtuple("Entry", "index term time_ms kind key meta value", module="raftchat._log")

REASONS = {
    HEADER_CUT: "the header is cut off",
    KIND_ZERO: "kind is 0",
    BODY_CUT: "the body is cut off",
    KEY_TOO_LONG: "key and meta are larger than the body",
    PADDING: "the padding is not zero",
    CHECKSUM: "the checksum does not match",
    INDEX: "the index is not the expected one",
    SYNCED: "it was durable before it was written",
    TERM: "the term goes back",
    TIME: "the time goes back or is out of range",
    TERM_CHANGES: "the term changes",
    NOT_ALONE: "a membership entry is not alone",
    STAMPED: "it is stamped",
    NOT_A_COMMAND: "its kind is not a command",
    TOO_LARGE: "it is larger than allowed",
}


class BadBatch(ValueError):
    """Records from outside (a peer, a worker) that are not what they claim to be."""

    __module__ = "raftchat._log"


# The hash: xxhash's own C function, which its shared object exports; its Python call where it does not.

cdef HashFunction _hash = NULL


cdef uint64_t _hash_by_call(const void *data, size_t size) noexcept with gil:
    return xxhash.xxh3_64_intdigest(PyMemoryView_FromMemory(<char *>data, size, PyBUF_READ))


def _find_hash():
    global _hash
    cdef size_t address = 0
    try:
        exported = ctypes.CDLL(sys.modules["xxhash._xxhash"].__file__).XXH3_64bits
        address = ctypes.cast(exported, ctypes.c_void_p).value
    except (KeyError, OSError, AttributeError):
        pass
    _hash = <HashFunction>address if address else _hash_by_call
    for size in (0, 16, 100, 200, 300, 2000):
        sample = bytes(range(200)) * 10
        assert _hash(PyBytes_AS_STRING(sample), size) == xxhash.xxh3_64_intdigest(sample[:size])


_find_hash()


cdef HashFunction hash_function() noexcept:
    return _hash


cdef str reason_of(Fault fault):
    return REASONS[fault]


cdef object view_of(object data):
    """A read-only view of single bytes."""
    view = PyMemoryView_FromObject(data).toreadonly()
    return view if view.format == "B" and view.ndim == 1 and view.contiguous else view.cast("B")


cdef object entry_of(const Record *record):
    """A checked record, taken apart."""
    cdef const char *key = <const char *>record + HEADER_BYTES
    cdef const char *meta = key + record.key_size
    cdef const char *value = meta + record.meta_size
    return _new_tuple(Entry, (
        record.index,
        record.term,
        record.time_ms,
        record.kind,
        PyBytes_FromStringAndSize(key, record.key_size),
        PyBytes_FromStringAndSize(meta, record.meta_size),
        PyBytes_FromStringAndSize(value, record.body_size - record.key_size - record.meta_size),
    ))


cdef Fault records_fault(const char *data, size_t size, size_t *count, size_t *at) noexcept nogil:
    """Whether these are whole records, and how many. `at`: where the bad one is."""
    cdef const Record *record
    cdef Fault fault
    cdef size_t offset = 0
    count[0] = 0
    while offset < size:
        record = <const Record *>(data + offset)
        fault = sizes_fault(record, size - offset)
        if fault != FINE:
            at[0] = offset
            return fault
        count[0] += 1
        offset += record_size(record)
    return FINE


@cython.final
cdef class Batch:
    """Consecutive entries of one term from one segment; a membership entry is always alone in its batch."""

    def __init__(self):
        raise TypeError("batches come from parse_batch and Log.slice")

    def __repr__(self):
        return f"Batch({self.first_index}..{self.last_index}, term {self.term}, {len(self.data)} bytes)"


cdef Batch new_batch(
    uint64_t first_index, uint64_t last_index, uint64_t term, uint64_t segment_id, object data, object membership
):
    cdef Batch batch = Batch.__new__(Batch)
    batch.first_index = first_index
    batch.last_index = last_index
    batch.term = term
    batch.segment_id = segment_id
    batch.data = data
    batch.membership = membership
    return batch


def pack(unsigned int kind, key, value, meta=b""):
    """One unstamped record. Raises ValueError for kind 0, key over 64 KiB - 1 or meta over 255 bytes."""
    cdef Py_buffer parts[3]
    cdef Record *record
    cdef char *at
    cdef size_t body_size = 0
    cdef int held = 0, i
    if not 1 <= kind <= 255:
        raise ValueError(f"kind is {kind}, must be 1 to 255")
    try:
        for part in (key, meta, value):
            PyObject_GetBuffer(part, &parts[held], PyBUF_SIMPLE)
            body_size += parts[held].len
            held += 1
        if parts[0].len > 0xFFFF:
            raise ValueError(f"key has {parts[0].len} bytes, at most 65535")
        if parts[1].len > 0xFF:
            raise ValueError(f"meta has {parts[1].len} bytes, at most 255")
        if body_size > 0xFFFFFFFF:
            raise ValueError("body has 4 GiB or more")
        packed = PyBytes_FromStringAndSize(NULL, HEADER_BYTES + ((body_size + 7) & ~<size_t>7))
        at = PyBytes_AS_STRING(packed)
        record = <Record *>at
        memset(at, 0, HEADER_BYTES)
        record.body_size = body_size
        record.kind = kind
        record.key_size = parts[0].len
        record.meta_size = parts[1].len
        at += HEADER_BYTES
        for i in range(3):
            memcpy(at, parts[i].buf, parts[i].len)
            at += parts[i].len
        memset(at, 0, -body_size & 7)
        return packed
    finally:
        for i in range(held):
            PyBuffer_Release(&parts[i])


cdef Fault _batch_fault(
    const char *data, size_t size, Salt *salt, uint64_t index, uint64_t *last_index, size_t *at
) noexcept nogil:
    cdef const Record *record
    cdef size_t offset = 0
    cdef uint64_t term = 0, time_ms = 0
    cdef Fault fault
    while offset < size:
        at[0] = offset
        record = <const Record *>(data + offset)
        fault = record_fault(record, size - offset, salt, index, term, time_ms)
        if fault != FINE:
            return fault
        if term != 0 and record.term != term:
            return TERM_CHANGES
        if record.kind == KIND_MEMBERSHIP_ and record_size(record) != size:
            return NOT_ALONE
        term = record.term
        time_ms = record.time_ms
        offset += record_size(record)
        last_index[0] = index
        index += 1
    return FINE


def parse_batch(data, uint64_t segment_id, uint64_t first_index):
    """Check records that a peer sent. Raises BadBatch unless whole, in order, of one term, and every checksum right."""
    cdef Py_buffer buffer
    cdef Salt salt
    cdef uint64_t last_index = 0
    cdef size_t at = 0
    cdef Fault fault
    cdef const Record *first
    view = view_of(data)
    if not view:
        raise BadBatch("no records")
    salt_start(&salt, _hash, segment_id)
    # Index 0 would mean any.
    if first_index == 0:
        raise BadBatch(f"record at byte 0: {REASONS[INDEX]}")
    PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
    try:
        if buffer.len >= GIL_FREE_BYTES:
            with nogil:
                fault = _batch_fault(<const char *>buffer.buf, buffer.len, &salt, first_index, &last_index, &at)
        else:
            fault = _batch_fault(<const char *>buffer.buf, buffer.len, &salt, first_index, &last_index, &at)
        if fault != FINE:
            raise BadBatch(f"record at byte {at}: {REASONS[fault]}")
        first = <const Record *>buffer.buf
        membership = entry_of(first).value if first.kind == KIND_MEMBERSHIP_ else None
        return new_batch(first_index, last_index, first.term, segment_id, view, membership)
    finally:
        PyBuffer_Release(&buffer)


def check_unstamped(data, size_t record_size_max_bytes):
    """How many unstamped records `data` is made of. Raises BadBatch unless whole, of kind ≥ 16 and within the size."""
    cdef Py_buffer buffer
    cdef const Record *record
    cdef size_t offset = 0, size, count = 0
    cdef Fault fault = FINE
    view = view_of(data)
    PyObject_GetBuffer(view, &buffer, PyBUF_SIMPLE)
    try:
        size = buffer.len
        while offset < size:
            record = <const Record *>(<const char *>buffer.buf + offset)
            fault = sizes_fault(record, size - offset)
            if fault == FINE:
                if record.checksum | record.synced | record.index | record.term | record.time_ms:
                    fault = STAMPED
                elif record.kind < KIND_POST_:
                    fault = NOT_A_COMMAND
                elif HEADER_BYTES + <size_t>record.body_size > record_size_max_bytes:
                    fault = TOO_LARGE
            if fault != FINE:
                raise BadBatch(f"record at byte {offset}: {REASONS[fault]}")
            count += 1
            offset += record_size(record)
        return count
    finally:
        PyBuffer_Release(&buffer)

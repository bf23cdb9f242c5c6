"""Bytes of a record, in C: layout, sizes, validity (docs/log-format.md, "Record"). Inline, so that loops over records stay
tight; nothing here takes the GIL, allocates, or reads a byte that its caller did not say is there."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy

ctypedef uint64_t (*HashFunction)(const void *, size_t) noexcept nogil

cdef enum:
    HEADER_BYTES = 48
    SALTED_BYTES = 16                   # checksum and synced: in front of what is hashed
    KIND_NOOP_ = 1
    KIND_MEMBERSHIP_ = 2
    KIND_POST_ = 16
    GIL_FREE_BYTES = 128 * 1024         # above this, other threads may run meanwhile

cdef enum Fault:
    FINE
    HEADER_CUT
    KIND_ZERO
    BODY_CUT
    KEY_TOO_LONG
    PADDING
    CHECKSUM
    INDEX
    SYNCED
    TERM
    TIME
    TERM_CHANGES
    NOT_ALONE
    STAMPED
    NOT_A_COMMAND
    TOO_LARGE

# Packed: frames do not align their contents.
cdef packed struct Record:
    uint64_t checksum
    uint64_t synced
    uint32_t body_size
    uint8_t kind
    uint8_t meta_size
    uint16_t key_size
    uint64_t index
    uint64_t term
    uint64_t time_ms

# The hash, and the salt it was last needed with.
cdef struct Salt:
    HashFunction hash
    uint64_t segment_id
    uint64_t synced
    uint64_t value


cdef inline void salt_start(Salt *salt, HashFunction hash, uint64_t segment_id) noexcept nogil:
    salt.hash = hash
    salt.segment_id = segment_id
    salt.synced = 0
    salt.value = hash(&salt.segment_id, 16)


cdef inline uint64_t salt_of(Salt *salt, uint64_t synced) noexcept nogil:
    if salt.synced != synced:
        salt.synced = synced
        salt.value = salt.hash(&salt.segment_id, 16)
    return salt.value


cdef inline size_t record_size(const Record *record) noexcept nogil:
    """Padding included. Cannot overflow: body_size has 32 bits."""
    return HEADER_BYTES + ((<size_t>record.body_size + 7) & ~<size_t>7)


cdef inline Fault sizes_fault(const Record *record, size_t left) noexcept nogil:
    """Whether the record's sizes fit into the `left` bytes that are there."""
    cdef uint64_t word
    cdef size_t size
    if left < HEADER_BYTES:
        return HEADER_CUT
    if record.kind == 0:
        return KIND_ZERO
    size = record_size(record)
    if size > left:
        return BODY_CUT
    if <size_t>record.key_size + record.meta_size > record.body_size:
        return KEY_TOO_LONG
    if record.body_size & 7:
        memcpy(&word, <const char *>record + size - 8, 8)
        if word >> (8 * (record.body_size & 7)):
            return PADDING
    return FINE


cdef inline uint64_t record_hash(const Record *record, HashFunction hash) noexcept nogil:
    return hash(<const char *>record + SALTED_BYTES, HEADER_BYTES - SALTED_BYTES + <size_t>record.body_size)


cdef inline Fault record_fault(
    const Record *record, size_t left, Salt *salt, uint64_t index, uint64_t term_min, uint64_t time_min_ms
) noexcept nogil:
    """Whether this is the valid record of entry `index` (0: of any), with term and time not going back."""
    cdef Fault fault = sizes_fault(record, left)
    if fault != FINE:
        return fault
    if record_hash(record, salt.hash) ^ salt_of(salt, record.synced) != record.checksum:
        return CHECKSUM
    if record.index == 0 or record.index > INDEX_MAX or (index != 0 and record.index != index):
        return INDEX
    if record.synced >= record.index:
        return SYNCED
    if record.term == 0 or record.term < term_min or record.term > INDEX_MAX:
        return TERM
    if record.time_ms < time_min_ms or record.time_ms > TIME_MAX_MS:
        return TIME
    return FINE


cdef extern from *:
    """
    #define RC_INDEX_MAX 0x7FFFFFFFFFFFFFFFULL
    #define RC_TIME_MAX_MS 253402300799999ULL /* 9999-12-31T23:59:59.999Z */
    """
    const uint64_t INDEX_MAX "RC_INDEX_MAX"
    const uint64_t TIME_MAX_MS "RC_TIME_MAX_MS"


cdef HashFunction hash_function() noexcept
cdef str reason_of(Fault fault)
cdef object view_of(object data)
cdef object entry_of(const Record *record)
cdef Fault records_fault(const char *data, size_t size, size_t *count, size_t *at) noexcept nogil


cdef class Batch:
    cdef readonly uint64_t first_index
    cdef readonly uint64_t last_index
    cdef readonly uint64_t term
    cdef readonly uint64_t segment_id
    cdef readonly object data           # memoryview, read-only, of whole records
    cdef readonly object membership     # bytes or None


cdef Batch new_batch(
    uint64_t first_index, uint64_t last_index, uint64_t term, uint64_t segment_id, object data, object membership
)

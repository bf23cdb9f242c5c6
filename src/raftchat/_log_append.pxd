"""The inner loop of appending: copy, stamp, hash. Inline; takes no GIL and allocates nothing."""

from libc.stdint cimport uint64_t
from libc.string cimport memcpy

from raftchat._log_record cimport Record, Salt, record_hash, record_size, salt_of, salt_start
from raftchat._log_segment cimport Segment

# A run of whole records, and where they go.
cdef struct Source:
    const char *data
    size_t size
    bint stamped                        # they have index, term and time; only the checksum's salt changes
    uint64_t segment_id                 # ... whose salt is on them
    uint64_t term                       # else: what they are stamped with
    uint64_t time_ms


cdef inline void copy_records(Segment active, Source *source, Salt *salt, uint64_t synced) noexcept nogil:
    """Copy records to the end of a segment, stamp and hash each while it is in the cache. They are known to fit.

    Leaves the last record's term and time in `source`.
    """
    cdef const char *data = source.data
    cdef const char *end = data + source.size
    cdef Record *record
    cdef Salt senders
    cdef size_t size
    cdef uint64_t value = salt_of(salt, synced)
    if source.stamped:
        salt_start(&senders, salt.hash, source.segment_id)
    while data < end:
        size = record_size(<const Record *>data)
        record = <Record *>(active.data + active.end)
        memcpy(record, data, size)
        if source.stamped:
            record.checksum ^= salt_of(&senders, record.synced) ^ value
            record.synced = synced
            source.term = record.term
            source.time_ms = record.time_ms
        else:
            record.synced = synced
            record.index = active.walked
            record.term = source.term
            record.time_ms = source.time_ms
            record.checksum = record_hash(record, salt.hash) ^ value
        active.note(active.walked - active.base_index, active.end)
        active.walked += 1
        active.end += size
        data += size

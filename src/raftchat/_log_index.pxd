"""The index file of a sealed segment."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from raftchat._log_mapping cimport Mapping
from raftchat._log_postings cimport Postings
from raftchat._log_record cimport HashFunction
from raftchat._log_segment cimport Segment

cdef enum:
    INDEX_VERSION = 1

cdef packed struct IndexHeader:
    uint8_t version
    char magic[7]
    uint64_t segment_id
    uint64_t base_index
    uint64_t last_index
    uint64_t size_bytes
    uint32_t rooms
    uint32_t steps
    uint64_t bytes
    uint64_t checksum

cdef packed struct RoomEntry:
    uint64_t postings_offset
    uint64_t postings_checksum
    uint64_t first_time_ms
    uint64_t last_time_ms
    uint64_t bytes
    uint32_t posts
    uint32_t key_offset
    uint16_t key_size
    uint16_t zero
    uint32_t zeros


cdef extern from *:
    """
    #define RC_INDEX_MAGIC "rc-idx\\n"
    """
    const char *INDEX_MAGIC "RC_INDEX_MAGIC"


cdef inline size_t aligned(size_t size) noexcept nogil:
    return (size + 7) & ~<size_t>7


cdef class Index(Postings):
    cdef Mapping mapping
    cdef const char *data
    cdef size_t size
    cdef size_t segment_size
    cdef size_t start                   # of the segment's records
    cdef uint64_t last_index
    cdef HashFunction hash
    cdef const RoomEntry *entries
    cdef size_t keys_end                # once the tables were checked
    cdef size_t tables_end
    cdef bint looked_at                 # the tables were checked ...
    cdef bint sound                     # ... and are right
    cdef uint8_t *checked               # one bit for each room whose postings were

    cdef bint tables_sound(self) except -1
    cdef bint check_tables(self) noexcept nogil
    cdef const char *key_of(self, uint32_t number) noexcept nogil


cdef Index open_index(Segment segment, uint64_t last_index)
cdef bint checksum_of(const char *data, size_t steps_end, HashFunction hash, uint64_t *checksum) noexcept nogil
cdef str index_path(str segment_path)

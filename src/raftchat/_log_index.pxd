"""The index file of a sealed segment."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from raftchat._log_mapping cimport Mapping
from raftchat._log_postings cimport Notes, Postings
from raftchat._log_record cimport HashFunction
from raftchat._log_segment cimport Segment

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
cdef int note_up_to(Notes notes, Segment segment, uint64_t last_index) except -1

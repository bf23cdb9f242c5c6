"""Where the posts of each room lie in one segment."""

from libc.stdint cimport uint16_t, uint32_t, uint64_t

from raftchat._log_record cimport Fault, HashFunction, Record, Salt
from raftchat._log_segment cimport Segment

cdef enum:
    STEP = 32                           # every so many records, an offset is kept
    NOT_THERE = -1                      # no such room
    ROTTEN = -2                         # what tells of it cannot be believed

# One post, as an index has it.
cdef struct Posting:
    uint32_t index                      # above base_index
    uint32_t offset                     # / 8

# The posts of one room. `at` may not be followed before `check`.
cdef struct Posts:
    const char *key
    size_t key_size
    const Posting *at
    uint32_t count
    uint64_t bytes
    uint64_t first_time_ms
    uint64_t last_time_ms

cdef struct NotedRoom:
    const char *key                     # in the mapping
    uint16_t key_size
    uint32_t count
    uint32_t places                     # that `at` has
    Posting *at
    uint64_t bytes
    uint64_t first_time_ms
    uint64_t last_time_ms


cdef class Postings:
    cdef uint64_t base_index
    cdef uint64_t bytes                 # of all posts
    cdef uint32_t rooms
    cdef const uint32_t *steps          # offset / 8 of every 32nd record
    cdef size_t step_count

    cdef int find(self, const char *key, size_t key_size) noexcept nogil
    cdef bint room(self, uint32_t number, Posts *posts) noexcept nogil
    cdef bint check(self, uint32_t number) noexcept nogil


cdef class Notes(Postings):
    cdef uint64_t next_index            # of the first entry that is not noted ...
    cdef size_t end                     # ... and where it lies
    cdef uint64_t records
    cdef HashFunction hash
    cdef NotedRoom *noted
    cdef uint32_t *table                # room number + 1; open addressing
    cdef uint32_t table_size            # power of two, at least twice `rooms`
    cdef uint32_t *own_steps
    cdef size_t step_places

    cdef bint add(self, const Record *record, size_t offset, int *number) noexcept nogil
    cdef bint grow(self) noexcept nogil
    cdef int slot(self, const char *key, size_t key_size, uint32_t *slot) noexcept nogil
    cdef int make_room(self, const Record *record) noexcept nogil
    cdef Fault read(
        self, const char *data, size_t size, Salt *salt, uint64_t last_index, bint gaps, bint *no_memory
    ) noexcept nogil


cdef Notes new_notes(uint64_t base_index, size_t start)
cdef int note_up_to(Notes notes, Segment segment, uint64_t last_index) except -1
cdef size_t lower_bound(const Posting *at, size_t count, uint64_t index) noexcept nogil

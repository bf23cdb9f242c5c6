"""What retention asks of the posts of a log."""

from libc.stdint cimport uint32_t, uint64_t

from raftchat._log_part cimport Parts

# Posts and what they occupy: what must go, what goes.
cdef struct Amount:
    uint64_t messages
    uint64_t bytes

cdef struct Floor:
    const char *key                     # in a bytes object that is held
    size_t key_size
    uint64_t index


cdef class Floors:
    cdef list held
    cdef Floor *table                   # open addressing; key NULL: free
    cdef size_t size                    # power of two, at least twice as many

    cdef uint64_t of(self, const char *key, size_t key_size) noexcept nogil


cdef object trim(
    Parts parts, bytes key, uint64_t floor, uint64_t last_index, Amount most, uint64_t before_ms, uint64_t below
)
cdef object nth_oldest(Parts parts, object mapping, uint64_t last_index, Amount most)
cdef object live_bytes(Parts parts, object mapping, uint64_t base_index, uint64_t last_index)

"""Entries of a range, grouped by kind and key."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from raftchat._log_postings cimport Notes
from raftchat._log_record cimport Fault, Salt

# Entries of one kind and key.
cdef struct Run:
    const char *key                     # in the mapping
    uint16_t key_size
    uint8_t kind
    int room                            # number in the notes of the segment that is being read; NOT_THERE: not known
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
    uint32_t *table                     # run number + 1; open addressing
    uint32_t table_size                 # power of two, at least twice `count`


cdef void start_groups(Groups *groups) noexcept
cdef int reserve(Groups *groups, uint64_t entries) except -1
cdef Fault group(
    Groups *groups, const char *data, size_t size, Salt *salt, size_t *offset, uint64_t index, uint64_t last_index,
    Notes notes, bint *no_memory
) noexcept nogil
cdef list collect(Groups *groups, uint64_t first_index)
cdef void free_groups(Groups *groups) noexcept

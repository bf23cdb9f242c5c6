"""Where the posts of each room lie in one segment: what look-ups ask, and the answer that is kept in memory.

Knows records and keys, and that the segment stays mapped. Does not know index files, nor how far the log reaches.
"""

cimport cython
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp

from raftchat._log_record cimport (
    FINE, HEADER_BYTES, INDEX, KIND_POST_, hash_function, reason_of, record_fault, record_size
)

from raftchat._log_header import CorruptLog


cdef size_t lower_bound(const Posting *at, size_t count, uint64_t index) noexcept nogil:
    """How many of these posts come before `index`, which is relative as theirs is."""
    cdef size_t low = 0, middle
    while low < count:
        middle = (low + count) // 2
        if at[middle].index < index:
            low = middle + 1
        else:
            count = middle
    return low


cdef class Postings:
    """Rooms have numbers from 0. Nothing here raises, so that all of it can run without the GIL."""

    cdef int find(self, const char *key, size_t key_size) noexcept nogil:
        """Number of a room, NOT_THERE, or ROTTEN."""
        return NOT_THERE

    cdef bint room(self, uint32_t number, Posts *posts) noexcept nogil:
        """What is known of a room. False: rotten."""
        return False

    cdef bint check(self, uint32_t number) noexcept nogil:
        """Whether the places of a room's posts can be believed: ascending, and in the segment."""
        return True


@cython.final
cdef class Notes(Postings):
    """Notes of one segment from its beginning up to `next_index`, in memory. Keys stay in the mapping."""

    def __dealloc__(self):
        cdef uint32_t number
        for number in range(self.rooms):
            free(self.noted[number].at)
        free(self.noted)
        free(self.table)
        free(self.own_steps)

    cdef int find(self, const char *key, size_t key_size) noexcept nogil:
        cdef uint32_t slot
        return self.slot(key, key_size, &slot)

    cdef bint room(self, uint32_t number, Posts *posts) noexcept nogil:
        cdef NotedRoom *noted = &self.noted[number]
        posts.key = noted.key
        posts.key_size = noted.key_size
        posts.at = noted.at
        posts.count = noted.count
        posts.bytes = noted.bytes
        posts.first_time_ms = noted.first_time_ms
        posts.last_time_ms = noted.last_time_ms
        return True

    cdef int slot(self, const char *key, size_t key_size, uint32_t *slot) noexcept nogil:
        """Number of a room or NOT_THERE. `slot`: where it is in the table, or belongs."""
        cdef NotedRoom *noted
        if self.table_size == 0:
            return NOT_THERE
        slot[0] = <uint32_t>self.hash(key, key_size) & (self.table_size - 1)
        while self.table[slot[0]] != 0:
            noted = &self.noted[self.table[slot[0]] - 1]
            if noted.key_size == key_size and memcmp(noted.key, key, key_size) == 0:
                return self.table[slot[0]] - 1
            slot[0] = (slot[0] + 1) & (self.table_size - 1)
        return NOT_THERE

    cdef bint grow(self) noexcept nogil:
        cdef uint32_t size = self.table_size * 2 if self.table_size else 64
        cdef uint32_t *table = <uint32_t *>calloc(size, sizeof(uint32_t))
        cdef NotedRoom *noted = <NotedRoom *>realloc(self.noted, (size // 2) * sizeof(NotedRoom))
        cdef uint32_t number, at
        if noted != NULL:
            self.noted = noted
        if table == NULL or noted == NULL:
            free(table)
            return False
        for number in range(self.rooms):
            at = <uint32_t>self.hash(noted[number].key, noted[number].key_size) & (size - 1)
            while table[at] != 0:
                at = (at + 1) & (size - 1)
            table[at] = number + 1
        free(self.table)
        self.table = table
        self.table_size = size
        return True

    cdef int make_room(self, const Record *record) noexcept nogil:
        """Number of a post's room, made if it is its first; NOT_THERE: no memory."""
        cdef const char *key = <const char *>record + HEADER_BYTES
        cdef uint32_t slot
        cdef int number
        if 2 * self.rooms >= self.table_size and not self.grow():
            return NOT_THERE
        number = self.slot(key, record.key_size, &slot)
        if number == NOT_THERE:
            number = self.rooms
            self.noted[number] = NotedRoom(key, record.key_size, 0, 0, NULL, 0, record.time_ms, 0)
            self.rooms += 1
            self.table[slot] = self.rooms
        return number

    cdef bint add(self, const Record *record, size_t offset, int *number) noexcept nogil:
        """Note the next record, which was checked. False: no memory, and it is not noted.

        `number`: of its room, as it was for an earlier post of it; NOT_THERE: not known. Set on return.
        """
        cdef NotedRoom *noted
        cdef void *grown
        cdef uint32_t places
        if self.records // STEP == self.step_places:
            grown = realloc(self.own_steps, (self.step_places * 2 + 64) * sizeof(uint32_t))
            if grown == NULL:
                return False
            self.steps = self.own_steps = <uint32_t *>grown
            self.step_places = self.step_places * 2 + 64
        if record.kind == KIND_POST_:
            if number[0] == NOT_THERE:
                number[0] = self.make_room(record)
                if number[0] == NOT_THERE:
                    return False
            noted = &self.noted[number[0]]
            if noted.count == noted.places:
                places = noted.places + noted.places // 2 + 2
                grown = realloc(noted.at, places * sizeof(Posting))
                if grown == NULL:
                    return False
                noted.at = <Posting *>grown
                noted.places = places
            noted.at[noted.count] = Posting(<uint32_t>(record.index - self.base_index), <uint32_t>(offset >> 3))
            noted.count += 1
            noted.bytes += record_size(record)
            noted.last_time_ms = record.time_ms
            self.bytes += record_size(record)
        if self.records % STEP == 0:
            self.own_steps[self.records // STEP] = <uint32_t>(offset >> 3)
            self.step_count += 1
        self.records += 1
        self.next_index = record.index + 1
        self.end = offset + record_size(record)
        return True

    cdef Fault read(
        self, const char *data, size_t size, Salt *salt, uint64_t last_index, bint gaps, bint *no_memory
    ) noexcept nogil:
        """Check and note everything up to that entry; a fault is at `end`. `gaps`: entries may be missing."""
        cdef const Record *record
        cdef Fault fault
        cdef int number
        while self.next_index <= last_index:
            if gaps and self.end == size:
                self.next_index = last_index + 1
                return FINE
            record = <const Record *>(data + self.end)
            fault = record_fault(record, size - self.end, salt, 0 if gaps else self.next_index, 0, 0)
            if fault != FINE:
                return fault
            if record.index < self.next_index or record.index - self.base_index > <uint32_t>-1:
                return INDEX
            if record.index > last_index:
                self.next_index = last_index + 1
                return FINE
            number = NOT_THERE
            if not self.add(record, self.end, &number):
                no_memory[0] = True
                return FINE
        return FINE


cdef Notes new_notes(uint64_t base_index, size_t start):
    """Of a segment whose first record lies at `start`."""
    cdef Notes notes = Notes.__new__(Notes)
    notes.base_index = notes.next_index = base_index
    notes.end = start
    notes.hash = hash_function()
    return notes


cdef int note_up_to(Notes notes, Segment segment, uint64_t last_index) except -1:
    """Read, check and note what is not noted yet up to that entry. Raises CorruptLog."""
    cdef Fault fault
    cdef Salt salt = segment.salt
    cdef bint no_memory = False, gaps = segment.revision != 0
    with nogil:
        fault = notes.read(segment.data, segment.size, &salt, last_index, gaps, &no_memory)
    if no_memory:
        raise MemoryError
    if fault != FINE:
        raise CorruptLog(segment.path, notes.end, reason_of(fault))
    return 0

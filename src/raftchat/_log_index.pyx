"""The index file of a sealed segment, as it is read (docs/log-format.md, "Index of a sealed segment").

Nothing in it is believed before its checksum, and no bound of it is followed unchecked even then. Knows one segment
and its index. Does not know who is asked when an index is bad.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy

from raftchat._log_mapping cimport map_file
from raftchat._log_postings cimport NOT_THERE, ROTTEN, STEP, Posting, Posts
from raftchat._log_record cimport HEADER_BYTES, hash_function
from raftchat._log_segment cimport Segment as SegmentFile, open_file

import os

from raftchat._log_header import LogError

cdef enum:
    HASHED_BYTES = 56                   # of the header: all but its checksum

assert sizeof(IndexHeader) == 64 and sizeof(RoomEntry) == 56


cdef str index_path(str segment_path):
    return segment_path.removesuffix(".log") + ".idx"


cdef bint checksum_of(const char *data, size_t steps_end, HashFunction hash, uint64_t *checksum) noexcept nogil:
    """Of the header and the tables, without the checksum that lies between them. False: no memory."""
    cdef size_t tables = steps_end - sizeof(IndexHeader)
    cdef char *hashed = <char *>malloc(HASHED_BYTES + tables)
    if hashed == NULL:
        return False
    memcpy(hashed, data, HASHED_BYTES)
    memcpy(hashed + HASHED_BYTES, data + sizeof(IndexHeader), tables)
    checksum[0] = hash(hashed, HASHED_BYTES + tables)
    free(hashed)
    return True


@cython.final
cdef class Index(Postings):

    def __dealloc__(self):
        free(self.checked)

    cdef bint tables_sound(self) except -1:
        """Whether header and tables are what was written. Reads them, the first time."""
        if not self.looked_at:
            with nogil:
                self.sound = self.check_tables()
            self.looked_at = True
            if self.sound:
                self.checked = <uint8_t *>calloc(self.rooms // 8 + 1, 1)
                if self.checked == NULL:
                    raise MemoryError
        return self.sound

    cdef bint check_tables(self) noexcept nogil:
        cdef const RoomEntry *last
        cdef size_t steps_at, steps_end, at, offset, end = self.start
        cdef uint64_t checksum
        self.keys_end = sizeof(IndexHeader) + <size_t>self.rooms * sizeof(RoomEntry)
        if self.rooms > 0:
            last = &self.entries[self.rooms - 1]
            if last.key_offset < self.keys_end or <size_t>last.key_offset + last.key_size > self.size:
                return False
            self.keys_end = <size_t>last.key_offset + last.key_size
        steps_at = aligned(self.keys_end)
        steps_end = steps_at + self.step_count * sizeof(uint32_t)
        self.tables_end = aligned(steps_end)
        if self.tables_end > self.size:
            return False
        self.steps = <const uint32_t *>(self.data + steps_at)
        if not checksum_of(self.data, steps_end, self.hash, &checksum):
            return False
        if checksum != (<const IndexHeader *>self.data).checksum:
            return False
        for at in range(self.step_count):
            offset = <size_t>self.steps[at] << 3
            if offset < end or offset + HEADER_BYTES > self.segment_size:
                return False
            end = offset + HEADER_BYTES
        return True

    cdef const char *key_of(self, uint32_t number) noexcept nogil:
        """A room's key, NULL if it is not among the keys."""
        cdef const RoomEntry *entry = &self.entries[number]
        if (
            entry.key_offset < sizeof(IndexHeader) + <size_t>self.rooms * sizeof(RoomEntry)
            or <size_t>entry.key_offset + entry.key_size > self.keys_end
        ):
            return NULL
        return self.data + entry.key_offset

    cdef int find(self, const char *key, size_t key_size) noexcept nogil:
        cdef uint32_t low = 0, high = self.rooms, middle
        cdef const char *other
        cdef size_t size
        cdef int order
        while low < high:
            middle = low + (high - low) // 2
            other = self.key_of(middle)
            if other == NULL:
                return ROTTEN
            size = self.entries[middle].key_size
            order = memcmp(other, key, min(size, key_size))
            if order == 0 and size == key_size:
                return middle
            if order < 0 or (order == 0 and size < key_size):
                low = middle + 1
            else:
                high = middle
        return NOT_THERE

    cdef bint room(self, uint32_t number, Posts *posts) noexcept nogil:
        cdef const RoomEntry *entry = &self.entries[number]
        posts.key = self.key_of(number)
        if (
            posts.key == NULL
            or entry.posts == 0
            or entry.postings_offset % 8
            or not self.tables_end <= entry.postings_offset <= self.size
            or (self.size - entry.postings_offset) // sizeof(Posting) < entry.posts
        ):
            return False
        posts.key_size = entry.key_size
        posts.at = <const Posting *>(self.data + entry.postings_offset)
        posts.count = entry.posts
        posts.bytes = entry.bytes
        posts.first_time_ms = entry.first_time_ms
        posts.last_time_ms = entry.last_time_ms
        return True

    cdef bint check(self, uint32_t number) noexcept nogil:
        cdef Posts posts
        cdef uint32_t at
        if self.checked[number // 8] >> number % 8 & 1:
            return True
        if (
            not self.room(number, &posts)
            or self.hash(posts.at, posts.count * sizeof(Posting)) != self.entries[number].postings_checksum
            or posts.at[posts.count - 1].index > self.last_index - self.base_index
            or (<size_t>posts.at[posts.count - 1].offset << 3) + HEADER_BYTES > self.segment_size
        ):
            return False
        for at in range(1, posts.count):
            if posts.at[at].index <= posts.at[at - 1].index or posts.at[at].offset <= posts.at[at - 1].offset:
                return False
        self.checked[number // 8] |= 1 << number % 8
        return True


cdef Index open_index(SegmentFile segment, uint64_t last_index):
    """The index of a segment that is sealed at that entry, its tables not looked at yet; None: none that could be it."""
    cdef Index index = Index.__new__(Index)
    cdef IndexHeader header
    cdef uint64_t records = segment.records if segment.revision else last_index - segment.base_index + 1
    try:
        fd = os.open(index_path(segment.path), os.O_RDONLY | os.O_CLOEXEC)
        try:
            raw = os.pread(fd, sizeof(IndexHeader), 0)
            index.size = os.fstat(fd).st_size
            if len(raw) < <Py_ssize_t>sizeof(IndexHeader):
                return None
            index.mapping = map_file(fd, index.size, False)
        finally:
            os.close(fd)
    except OSError:
        return None
    memcpy(&header, PyBytes_AS_STRING(raw), sizeof(IndexHeader))
    if (
        header.version != INDEX_VERSION
        or memcmp(header.magic, INDEX_MAGIC, 7) != 0
        or header.segment_id != segment.segment_id
        or header.base_index != segment.base_index
        or header.last_index != last_index
        or header.size_bytes != index.size
        or header.steps != (records + STEP - 1) // STEP
        or sizeof(IndexHeader) + <size_t>header.rooms * sizeof(RoomEntry) > index.size
    ):
        return None
    index.data = index.mapping.data
    index.hash = hash_function()
    index.base_index = segment.base_index
    index.last_index = last_index
    index.start = segment.start
    index.segment_size = segment.size
    index.rooms = header.rooms
    index.step_count = header.steps
    index.bytes = header.bytes
    index.entries = <const RoomEntry *>(index.data + sizeof(IndexHeader))
    return index


def has_index(segment):
    """Whether its `.idx` is there, whole and of this version, postings not looked at. Costs a few pages."""
    cdef Index index
    cdef SegmentFile file
    try:
        file = open_file(segment.path, False)
    except (OSError, LogError):
        return False
    index = open_index(file, segment.last_index)
    return index is not None and index.tables_sound()

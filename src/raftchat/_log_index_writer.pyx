"""The index file of a sealed segment, as it is made (docs/log-format.md, "Index of a sealed segment").

Reads the segment once, checks every record, and writes beside what somebody may be reading. Does not know when.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcmp, memcpy, memset

from raftchat._log_index cimport INDEX_MAGIC, INDEX_VERSION, IndexHeader, RoomEntry, aligned, checksum_of, index_path
from raftchat._log_postings cimport NotedRoom, Notes, Posting, new_notes, note_up_to
from raftchat._log_segment cimport Segment as SegmentFile, open_file

import contextlib
import os

from raftchat._log_header import CorruptLog

cdef int by_key(const void *left, const void *right) noexcept nogil:
    cdef const NotedRoom *first = (<const NotedRoom **>left)[0]
    cdef const NotedRoom *second = (<const NotedRoom **>right)[0]
    cdef int order = memcmp(first.key, second.key, min(first.key_size, second.key_size))
    return order if order != 0 else <int>first.key_size - <int>second.key_size


cdef bytes image_of(Notes notes, uint64_t segment_id, uint64_t last_index):
    """The file. Raises MemoryError."""
    cdef size_t size, keys_at, steps_at, steps_end, key_bytes = 0, posts = 0
    cdef uint32_t number
    cdef bytes image
    cdef char *data
    cdef bint hashed
    cdef const NotedRoom **order = <const NotedRoom **>malloc((notes.rooms + 1) * sizeof(NotedRoom *))
    if order == NULL:
        raise MemoryError
    try:
        for number in range(notes.rooms):
            order[number] = &notes.noted[number]
            key_bytes += notes.noted[number].key_size
            posts += notes.noted[number].count
        keys_at = sizeof(IndexHeader) + <size_t>notes.rooms * sizeof(RoomEntry)
        steps_at = aligned(keys_at + key_bytes)
        if steps_at > <uint32_t>-1:
            raise OverflowError("the keys of a segment have 4 GiB or more")
        steps_end = steps_at + notes.step_count * sizeof(uint32_t)
        size = aligned(steps_end) + posts * sizeof(Posting)
        image = PyBytes_FromStringAndSize(NULL, size)
        data = PyBytes_AS_STRING(image)
        with nogil:
            qsort(order, notes.rooms, sizeof(NotedRoom *), by_key)
            fill(data, notes, order, keys_at, steps_at, aligned(steps_end))
            hashed = finish(data, size, notes, segment_id, last_index, steps_end)
        if not hashed:
            raise MemoryError
        return image
    finally:
        free(order)


cdef void fill(
    char *data, Notes notes, const NotedRoom **order, size_t key_at, size_t steps_at, size_t postings_at
) noexcept nogil:
    cdef const NotedRoom *noted
    cdef RoomEntry *entry
    cdef uint32_t number
    memset(data + key_at, 0, postings_at - key_at)
    for number in range(notes.rooms):
        noted = order[number]
        entry = &(<RoomEntry *>(data + sizeof(IndexHeader)))[number]
        memcpy(data + key_at, noted.key, noted.key_size)
        memcpy(data + postings_at, noted.at, noted.count * sizeof(Posting))
        entry.postings_offset = postings_at
        entry.postings_checksum = notes.hash(noted.at, noted.count * sizeof(Posting))
        entry.first_time_ms = noted.first_time_ms
        entry.last_time_ms = noted.last_time_ms
        entry.bytes = noted.bytes
        entry.posts = noted.count
        entry.key_offset = <uint32_t>key_at
        entry.key_size = noted.key_size
        entry.zero = entry.zeros = 0
        key_at += noted.key_size
        postings_at += noted.count * sizeof(Posting)
    if notes.step_count > 0:
        memcpy(data + steps_at, notes.steps, notes.step_count * sizeof(uint32_t))


cdef bint finish(
    char *data, size_t size, Notes notes, uint64_t segment_id, uint64_t last_index, size_t steps_end
) noexcept nogil:
    cdef IndexHeader *header = <IndexHeader *>data
    cdef uint64_t checksum
    header.version = INDEX_VERSION
    memcpy(header.magic, INDEX_MAGIC, 7)
    header.segment_id = segment_id
    header.base_index = notes.base_index
    header.last_index = last_index
    header.size_bytes = size
    header.rooms = notes.rooms
    header.steps = <uint32_t>notes.step_count
    header.bytes = notes.bytes
    if not checksum_of(data, steps_end, notes.hash, &checksum):
        return False
    header.checksum = checksum
    return True


def write_index(segment):
    """Make the `.idx` file of a sealed segment, in any thread, mostly without the GIL: its size. Raises as `compact`."""
    cdef SegmentFile file = open_file(segment.path, False)
    cdef Notes notes = new_notes(file.base_index, file.start)
    if file.segment_id != segment.segment_id:
        raise CorruptLog(segment.path, 0, "it is another segment")
    note_up_to(notes, file, segment.last_index)
    image = image_of(notes, file.segment_id, segment.last_index)
    path = index_path(segment.path)
    temporary = f"{path}.tmp"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb", 0) as written:
            left = memoryview(image)
            while left:
                left = left[written.write(left):]
        os.rename(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    return len(image)

"""What clients are served, written in C: posts as JSON, log time as RFC 3339. Knows records, not where they lie."""

from libc.stdint cimport uint64_t, int64_t
from libc.string cimport memcpy
from libc.stdlib cimport realloc

from raftchat._log_record cimport HEADER_BYTES, Record

# Bytes that are being written, and the second that was last rendered.
cdef struct Output:
    char *data
    size_t size
    size_t room
    uint64_t second                     # ... plus 1, so that 0 means none yet
    char text[20]                       # "2001-02-03T04:05:06."


cdef inline void output_start(Output *output) noexcept nogil:
    output.data = NULL
    output.size = output.room = output.second = 0


cdef inline int output_room(Output *output, size_t size) except -1:
    """Make sure that so many bytes can be written."""
    cdef void *grown
    cdef size_t room
    if output.room - output.size < size:
        room = max(2 * output.room, output.size + size + 256)
        grown = realloc(output.data, room)
        if grown == NULL:
            raise MemoryError
        output.data = <char *>grown
        output.room = room
    return 0


cdef inline void put(Output *output, const char *data, size_t size) noexcept nogil:
    memcpy(output.data + output.size, data, size)
    output.size += size


cdef inline void put_digits(char *at, uint64_t value, int width) noexcept nogil:
    while width > 0:
        width -= 1
        at[width] = <char>(48 + value % 10)
        value //= 10


cdef inline void put_number(Output *output, uint64_t value) noexcept nogil:
    cdef int width = 1
    cdef uint64_t rest = value
    while rest > 9:
        rest //= 10
        width += 1
    put_digits(output.data + output.size, value, width)
    output.size += width


cdef inline void render_second(char *text, uint64_t second) noexcept nogil:
    """Days to a proleptic Gregorian date: eras of 400 years that begin in March, so that leap days come last."""
    cdef uint64_t days = second // 86400 + 719468, rest = second % 86400
    cdef uint64_t era = days // 146097
    cdef uint64_t day_of_era = days - era * 146097
    cdef uint64_t year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36524 - day_of_era // 146096) // 365
    cdef uint64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    cdef uint64_t shifted_month = (5 * day_of_year + 2) // 153
    cdef uint64_t day = day_of_year - (153 * shifted_month + 2) // 5 + 1
    cdef uint64_t month = shifted_month + 3 if shifted_month < 10 else shifted_month - 9
    cdef uint64_t year = year_of_era + era * 400 + (1 if month <= 2 else 0)
    memcpy(text, b"0000-00-00T00:00:00.", 20)
    put_digits(text, year, 4)
    put_digits(text + 5, month, 2)
    put_digits(text + 8, day, 2)
    put_digits(text + 11, rest // 3600, 2)
    put_digits(text + 14, rest // 60 % 60, 2)
    put_digits(text + 17, rest % 60, 2)


cdef inline void put_time(Output *output, uint64_t time_ms) noexcept nogil:
    cdef uint64_t second = time_ms // 1000
    if output.second != second + 1:
        render_second(output.text, second)
        output.second = second + 1
    put(output, output.text, 20)
    put_digits(output.data + output.size, time_ms % 1000, 3)
    output.size += 3
    put(output, b"Z", 1)


cdef inline int put_post(Output *output, const Record *record) except -1:
    """`{"ID":…,"PostedAt":"…",<value>}`"""
    cdef size_t skipped = <size_t>record.key_size + record.meta_size
    cdef size_t value_size = record.body_size - skipped
    output_room(output, value_size + 100)
    put(output, b'{"ID":', 6)
    put_number(output, record.index)
    put(output, b',"PostedAt":"', 13)
    put_time(output, record.time_ms)
    put(output, b'"', 1)
    if value_size:
        put(output, b",", 1)
        put(output, <const char *>record + HEADER_BYTES + skipped, value_size)
    put(output, b"}", 1)
    return 0

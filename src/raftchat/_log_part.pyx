"""Segments as a reader knows them: each mapped, with its index or with notes of its own in place of one.

An index that turns out to be rotten is let go and never asked again, until its owner makes a new one. Does not
know what records say, nor what is committed.
"""

cimport cython

from raftchat._log_header cimport segment_path
from raftchat._log_index cimport open_index
from raftchat._log_postings cimport NOT_THERE, ROTTEN, new_notes, note_up_to
from raftchat._log_record cimport Record
from raftchat._log_segment cimport open_segment

import contextlib


cdef Part open_part(str directory, object sequence, uint64_t base_index, object revision):
    """One that is gone already is not an error until it is read. Raises OSError, CorruptLog, ForeignFile, NewerFormat."""
    cdef Part part = Part.__new__(Part)
    part.sequence = sequence
    part.base_index = base_index
    part.revision = revision
    part.last_index = <uint64_t>-1
    part.path = segment_path(directory, sequence, base_index, revision)
    with contextlib.suppress(FileNotFoundError):
        part.segment = open_segment(directory, sequence, base_index, False, revision)
    return part


@cython.final
cdef class Part:

    cdef Segment file(self):
        """With the index's steps, if there are any. Raises FileNotFoundError if it was gone before we came."""
        cdef Index index = self.index
        if self.segment is None:
            raise FileNotFoundError(2, "the segment is gone", self.path)
        if index is not None and not self.lent:
            if index.tables_sound():
                self.segment.lend_steps(index, index.steps, index.step_count, index.last_index)
                self.lent = True
            else:
                self.distrust()
        return self.segment

    cdef int64_t prev_sequence(self) noexcept:
        """0: nothing older counts; -1: not known."""
        return self.segment.prev_sequence if self.segment is not None else -1

    cdef bint use_index(self) except -1:
        """Look for an index: whether there is one. What is in memory is not given up for one that is bad."""
        self.index = None
        self.lent = self.bad_index = False
        if self.segment is not None:
            self.index = open_index(self.segment, self.last_index)
        if self.index is None or (self.notes is not None and not self.index.tables_sound()):
            self.distrust()
            return False
        self.notes = None
        return True

    cdef int distrust(self) except -1:
        self.index = None
        self.bad_index = True
        return 0

    cdef Postings postings(self, uint64_t last_index):
        """What tells where posts lie, at least up to that entry. Raises CorruptLog, FileNotFoundError."""
        cdef Segment segment = self.file()
        if self.index is not None:
            return self.index
        if self.notes is None:
            self.notes = new_notes(self.base_index, segment.start)
        note_up_to(self.notes, segment, last_index)
        return self.notes

    cdef bint look_up(self, const char *key, size_t key_size, uint64_t last_index, Posts *posts) except -1:
        """Where the posts of a room lie, at least those up to that entry. False: there are none."""
        cdef Postings postings
        cdef int number
        while True:
            postings = self.postings(last_index)
            number = postings.find(key, key_size)
            if number == NOT_THERE:
                return False
            if number != ROTTEN and postings.check(number) and postings.room(number, posts):
                return True
            self.distrust()

    cdef uint64_t above_base(self, uint64_t index) noexcept:
        """As postings count; 0 for what lies below."""
        return index - self.base_index if index > self.base_index else 0


def _base_index(Part part):
    return part.base_index


@cython.final
cdef class Parts:
    """What a reader knows of a log: its segments in order, without those that others took the place of."""

    def __init__(self):
        self.known = []

    cdef int add(self, str directory, sequence, uint64_t base_index, revision) except -1:
        """Every known one with a sequence up to this and a base index from this on is let go. Raises ValueError."""
        cdef Part part, other
        cdef Part newest = self.known[-1] if self.known else None
        self.near = None
        if newest is None or (sequence > newest.sequence and base_index > newest.base_index):
            part = open_part(directory, sequence, base_index, revision)
            if newest is None or part.prev_sequence() != 0:
                # The common case, for which a long history is not gone through.
                self.known.append(part)
                self._bound(newest, part)
                self._bound(part, None)
                return 0
        else:
            for other in self.known:
                if other.sequence >= sequence and (
                    not revision
                    or (other.base_index <= base_index and (other.sequence, other.revision) >= (sequence, revision))
                ):
                    raise ValueError(f"segment {sequence} comes after segment {other.sequence}")
            part = open_part(directory, sequence, base_index, revision)
        kept = [part]
        for other in self.known:
            if other.sequence > sequence or (other.base_index < base_index and part.prev_sequence() != 0):
                kept.append(other)
        self.known = sorted(kept, key=_base_index)
        newest = None
        for part in self.known:
            self._bound(newest, part)
            newest = part
        self._bound(newest, None)
        return 0

    cdef int drop_prefix(self, uint64_t first_index) except -1:
        """Let go of what ends before that entry. What was handed out of it stays readable."""
        cdef Part part
        kept = []
        for part in self.known:
            if part.last_index >= first_index:
                kept.append(part)
        self.known = kept
        self.near = None
        return 0

    cdef int _bound(self, Part part, Part after) except -1:
        """A segment ends where the next one begins."""
        if part is not None:
            part.last_index = after.base_index - 1 if after is not None else <uint64_t>-1
            if part.segment is not None and part.segment.revision:
                part.last_index = min(part.last_index, part.segment.last_index)
            if part.index is not None and part.index.last_index != part.last_index:
                part.distrust()
        return 0

    cdef Py_ssize_t at(self, uint64_t index) except -2:
        """Where in `known` the one is that an entry lies in, or that ends before it; -1: it is below all."""
        cdef Py_ssize_t low = 0, high = len(self.known), middle
        while low < high:
            middle = (low + high) // 2
            if (<Part>self.known[middle]).base_index <= index:
                low = middle + 1
            else:
                high = middle
        return low - 1

    cdef Part holder(self, uint64_t index):
        """Raises IndexError, FileNotFoundError."""
        cdef Py_ssize_t at = self.at(index)
        cdef Part part
        if at >= 0:
            part = self.known[at]
            part.file()
            if index <= part.last_index:
                return part
        raise IndexError(f"entry {index} is not in the log")

    cdef const Record *record(self, uint64_t index) except NULL:
        """An entry. Raises IndexError, also if it was left out of a compacted segment."""
        if self.near is None or not self.near.base_index <= index <= self.near.last_index:
            self.near = self.holder(index)
        return self.near.segment.record(index)

    cdef const Record *next(self, uint64_t *index, uint64_t last_index) except? NULL:
        """The first entry from `index` on that was not left out, NULL if there is none; `index` goes behind it."""
        cdef const Record *record
        cdef Segment segment
        cdef size_t offset
        while index[0] <= last_index:
            if self.near is None or not self.near.base_index <= index[0] <= self.near.last_index:
                self.near = self.holder(index[0])
            segment = self.near.segment
            offset = segment.seek(index[0])
            if segment.revision == 0:
                record = segment.record_at(offset, index[0])
            elif offset == segment.size:
                index[0] = self.near.last_index + 1
                continue
            else:
                record = segment.record_at(offset, 0)
            if record.index > last_index:
                break
            index[0] = record.index + 1
            return record
        return NULL

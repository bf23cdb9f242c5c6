"""The segments of one log: which are live, made and unlinked in what order ("The directory" of docs/log-format.md).

Knows files and how they follow each other. Does not know what is appended, nor how far the log reaches.
"""

cimport cython
from libc.stdint cimport uint64_t

from raftchat._log_record cimport INDEX_MAX
from raftchat._log_segment cimport Segment, make_segment, open_segment, parse_segment_name, segment_path

import contextlib
import os
import threading

from raftchat._log_segment import CorruptLog


@cython.final
cdef class Directory:

    def __init__(self, str path, new_segment_id, size_t segment_size_bytes):
        self.syncing = threading.RLock()
        self.path = path
        self.new_segment_id = new_segment_id
        self.segment_size_bytes = segment_size_bytes
        self.live = []
        self.dead = []

    cdef bint open(self) except -1:
        """Steps 1 and 2 of "Opening": whether there is a log. Raises OSError, CorruptLog, ForeignFile, NewerFormat."""
        if not os.path.isdir(self.path):
            os.mkdir(self.path)
            sync_directory(os.path.dirname(os.path.abspath(self.path)))
        names = os.listdir(self.path)
        for name in names:
            if name.endswith(".tmp"):
                unlink(self.path, f"{self.path}/{name}")
        found = sorted([parse_segment_name(self.path, name) for name in names if name.endswith(".log")])
        files = [open_segment(self.path, key[0], key[1], key == found[-1]) for key in found]
        # A rename of a process that died may so far be in memory only.
        sync_directory(self.path)
        if files:
            self.live, self.dead = chain(files)
            self.active = self.live[-1]
            self.sequence = self.active.sequence
        return bool(files)

    cdef Segment holder(self, uint64_t index, uint64_t *last_index):
        """The segment of an entry that is not below the first. `last_index`: lowered to the last that counts there."""
        cdef Segment segment
        cdef Py_ssize_t at
        for at in range(len(self.live) - 1, -1, -1):
            segment = <Segment>self.live[at]
            if segment.base_index <= index:
                return segment
            last_index[0] = segment.base_index - 1
        raise AssertionError(f"entry {index} is below the first")

    # Making

    cdef list spares(self, size_t count):
        """Descriptors of all the files that are needed, or none: what a full disk may refuse is refused here."""
        spares = []
        try:
            for number in range(count):
                path = spare_path(self.path, number)
                spares.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
                os.posix_fallocate(spares[-1], 0, self.segment_size_bytes)
        except OSError:
            self.discard(spares, 0)
            raise
        return spares

    cdef int discard(self, list spares, Py_ssize_t first) except -1:
        """Remove spares that are not needed, from that number on."""
        for number in range(first, len(spares)):
            if spares[number] is not None:
                os.close(spares[number])
            with contextlib.suppress(OSError):
                unlink(self.path, spare_path(self.path, number))
        return 0

    cdef int reserve_active(self) except -1:
        """Before something is written to a segment that was found, not made. Raises OSError."""
        if not self.active.reserved:
            os.posix_fallocate(self.active.file.fd, 0, self.active.size)
            self.active.reserved = True
        return 0

    cdef int continue_after(
        self, uint64_t last_index, uint64_t last_term, uint64_t last_time_ms, list spares, size_t number, bint keep
    ) except -1:
        """Turn a spare into the active segment, which goes on after `last_index`.

        What it overrides is dead then, and all that was, unless `keep`. On OSError or ValueError before the rename,
        nothing changed and the spares from that one on are gone.
        """
        cdef Segment segment
        live = [known for known in self.live if keep and known.base_index <= last_index]
        segment_id, sequence = self.new_segment_id(), self.sequence + 1
        prev_sequence = live[-1].sequence if live else 0
        header = (segment_id, sequence, prev_sequence, last_index + 1, last_term, last_time_ms, self.segment_size_bytes)
        path = segment_path(self.path, sequence, last_index + 1)
        try:
            if not 1 <= segment_id <= 0xFFFFFFFFFFFFFFFF:
                raise ValueError(f"segment id is {segment_id}, must be 1 to 2**64 - 1")
            fd, spares[number] = spares[number], None
            segment = make_segment(path, fd, header)
            os.fdatasync(fd)
            if self.active is not None:
                with self.no_return():
                    os.fdatasync(self.active.file.fd)
            os.rename(spare_path(self.path, number), path)
        except (OSError, ValueError):
            self.discard(spares, number)
            raise
        with self.no_return():
            sync_directory(self.path)
        self.dead += self.live[len(live):]
        self.sequence = sequence
        if self.active is not None:
            self.active.file = None
        self.active = segment
        self.live = [*live, segment]
        return 0

    @contextlib.contextmanager
    def no_return(self):
        """What fails in here leaves it open what is on disk: the log refuses to be written to from then on.

        One at a time: the kernel tells of a failed write once for each open file. Of two syncs of a file, in two
        threads, the second would succeed, and a segment with a hole would be sealed.
        """
        with self.syncing:
            if self.failure is not None:
                raise OSError(self.failure.errno, "the log cannot go on after a failed sync") from self.failure
            try:
                yield
            except OSError as error:
                self.failure = error
                raise

    def verify(self, uint64_t last_index, on_progress):
        """Records found good, and each fault. `on_progress(bytes done, bytes in all)` or None."""
        cdef Segment segment
        good, done, faults = 0, 0, []
        live = list(self.live)
        total = sum([(<Segment>known).size for known in live])
        bounds = [known.base_index - 1 for known in live[1:]] + [last_index]
        for segment, last in zip(live, bounds):
            progress = None if on_progress is None else lambda part: on_progress(done + part, total)
            found, bad = segment.verify(last, progress)
            good += found
            faults += bad
            done += segment.size
            if on_progress is not None:
                on_progress(done, total)
        return good, faults

    # Removing

    cdef int unlink_dead(self) except -1:
        while self.dead:
            unlink(self.path, (<Segment>self.dead.pop()).path)
        return 0

    cdef int drop_prefix(self, uint64_t first_index) except -1:
        """Unlink sealed segments that hold nothing from `first_index` on, the oldest first."""
        while len(self.live) > 1 and (<Segment>self.live[1]).base_index <= first_index:
            unlink(self.path, (<Segment>self.live[0]).path)
            del self.live[0]
        return 0


cdef str spare_path(str directory, number):
    return f"{directory}/spare{f'-{number}' if number else ''}.tmp"


cdef int unlink(str directory, path) except -1:
    os.unlink(path)
    return sync_directory(directory)


cdef int sync_directory(path) except -1:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return 0


cdef tuple chain(list files):
    """(live, dead) of all segments in order of sequence: the live ones are found by `prev_sequence` from the last.

    Raises CorruptLog for two of one sequence, and for a segment that is neither live nor overridden.
    """
    cdef Segment segment, previous
    by_sequence = {}
    for segment in files:
        if by_sequence.setdefault(segment.sequence, segment) is not segment:
            raise CorruptLog(segment.path, None, "another segment has the same sequence")
    live = [files[-1]]
    while True:
        segment = live[-1]
        previous = by_sequence.get(segment.prev_sequence)
        if previous is None:
            break
        if previous.base_index >= segment.base_index:
            raise CorruptLog(segment.path, 0, "its base index is not above that of the segment before it")
        live.append(previous)
    live.reverse()
    oldest = live[0].sequence
    starts_here = live[0].prev_sequence == 0
    dead, override = [], INDEX_MAX
    for segment in reversed(files):
        if segment in live:
            override = segment.base_index
        elif (starts_here and segment.sequence < oldest) or segment.base_index >= override:
            dead.append(segment)
        else:
            raise CorruptLog(segment.path, None, "a segment is missing between this one and the next")
    return live, dead

"""The segments of one log: which are live, made, replaced and unlinked in what order ("The directory" of docs/log-format.md).

Knows files and how they follow each other. Does not know what is appended, nor how far the log reaches.
"""

cimport cython
from libc.stdint cimport uint64_t

from raftchat._log_header cimport SEGMENT_HEADER_SIZE, parse_segment_name, segment_path
from raftchat._log_record cimport INDEX_MAX, Record, record_size
from raftchat._log_segment cimport Descriptor, Segment, hold, make_segment, open_file, open_segment
from raftchat._log_sync cimport SyncLock

import contextlib
import errno
import os
import threading

from raftchat._log_header import CorruptLog, Header
from raftchat._log_record import BadBatch


@cython.final
cdef class Directory:

    def __init__(self, str path, new_segment_id, size_t segment_size_bytes):
        self.syncing = SyncLock()
        self.preparing = threading.Lock()
        self.path = path
        self.new_segment_id = new_segment_id
        self.segment_size_bytes = segment_size_bytes
        self.live = []
        self.retired = []
        self.dead = []

    cdef bint open(self) except -1:
        """Steps 1 and 2 of "Opening": whether there is a log. Raises OSError, CorruptLog, ForeignFile, NewerFormat."""
        if not os.path.isdir(self.path):
            os.mkdir(self.path)
            sync_directory(os.path.dirname(os.path.abspath(self.path)))
        names = set(os.listdir(self.path))
        for name in names:
            if name.endswith(".tmp"):
                unlink(self.path, f"{self.path}/{name}")
            elif name.endswith(".idx") and f"{name[:-4]}.log" not in names:
                os.unlink(f"{self.path}/{name}")
        found = sorted([parse_segment_name(self.path, name) for name in names if name.endswith(".log")], key=_order)
        files = [open_segment(self.path, key[0], key[1], key is found[-1] and not key[2], key[2]) for key in found]
        # A rename of a process that died may so far be in memory only.
        sync_directory(self.path)
        if files:
            live, self.retired, self.dead = chain(files)
            self._live_is(live)
            self.sequence = self.active.sequence
        return bool(files)

    cdef int _live_is(self, list live) except -1:
        cdef Segment segment
        self.live = live
        self.active = live[-1]
        self.first = self.active
        for segment in reversed(live):
            if segment.revision:
                break
            self.first = segment
        return 0

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

    cdef list place(self, const char *data, size_t data_size, uint64_t last_index):
        """(records, bytes) of these that go into the active segment, and into each new one after it.

        Records that fit into one segment are not divided, so that a single roll comes before all of them. Only what
        is larger than a segment is cut, and then every file is set aside beforehand.
        """
        cdef size_t capacity = self.segment_size_bytes - SEGMENT_HEADER_SIZE
        cdef size_t left = 0, offset = 0, size, count = 0, used = 0
        rooms = []
        if last_index < self.active.base_index:  # An empty segment is as good as a new one.
            left = self.active.size - self.active.end
        while offset < data_size:
            size = record_size(<const Record *>(data + offset))
            if size > capacity:
                raise BadBatch(f"a record of {size} bytes does not fit into a segment")
            if size > left:
                rooms.append((count, used))
                count = used = 0
                left = capacity
            count += 1
            used += size
            left -= size
            offset += size
        rooms.append((count, used))
        return rooms

    # Making

    cdef list spares(self, size_t count):
        """(path, Descriptor) of all the files that are needed, or none: what a full disk may refuse is refused here."""
        spares = []
        if count and self.prepared is not None:
            spares.append(self.prepared)
            self.prepared = None
        try:
            for number in range(len(spares), count):
                spares.append(make_spare(f"{self.path}/spare{f'-{number}' if number else ''}.tmp", self.segment_size_bytes))
        except OSError:
            self.discard(spares, 0)
            raise
        return spares

    cdef int discard(self, list spares, Py_ssize_t first) except -1:
        """Remove spares that are not needed, from that number on."""
        for path, _ in spares[first:]:
            with contextlib.suppress(OSError):
                unlink(self.path, path)
        return 0

    cdef int prepare(self) except -1:
        """Make the spare that will be needed next, durably, unless it is there."""
        if not self.preparing.acquire(blocking=False):
            return 0
        try:
            if self.prepared is None and self.failure is None and not self.closed:
                self.prepared_count += 1
                # A name of its own: the one before may be about to be renamed.
                spare = make_spare(f"{self.path}/prepared-{self.prepared_count}.tmp", self.segment_size_bytes)
                try:
                    os.fdatasync((<Descriptor>spare[1]).fd)
                except OSError:
                    self.discard([spare], 0)
                    raise
                self.prepared = spare
        finally:
            self.preparing.release()
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
        cdef Descriptor file
        live = [known for known in self.live if keep and known.base_index <= last_index]
        segment_id, sequence = self.new_segment_id(), self.sequence + 1
        prev_sequence = live[-1].sequence if live else 0
        header = Header(
            segment_id, sequence, prev_sequence, last_index + 1, last_term, last_time_ms, self.segment_size_bytes
        )
        path = segment_path(self.path, sequence, last_index + 1)
        try:
            require_id(segment_id)
            spare, file = spares[number]
            segment = make_segment(path, file, header)
            os.fdatasync(file.fd)
            if self.active is not None and self.active.file is not None:
                with self.no_return():
                    os.fdatasync(self.active.file.fd)
            os.rename(spare, path)
        except (OSError, ValueError):
            self.discard(spares, number)
            raise
        with self.no_return():
            sync_directory(self.path)
        self.dead += self.live[len(live):]
        if not keep:
            self.dead += [known for known, _ in self.retired]
            self.retired = []
        self.sequence = sequence
        if self.active is not None:
            self.active.file = None
        self._live_is([*live, segment])
        return 0

    @contextlib.contextmanager
    def no_return(self):
        """What fails in here leaves it open what is on disk: the log refuses to be written to from then on.

        One at a time: the kernel tells of a failed write once for each open file. Of two syncs of a file, in two
        threads, the second would succeed, and a segment with a hole would be sealed.
        """
        with self.syncing:
            if self.failure is None and self.syncing.failure:
                self.failure = OSError(self.syncing.failure, os.strerror(self.syncing.failure))
            if self.failure is not None:
                raise OSError(self.failure.errno, "the log cannot go on after a failed sync") from self.failure
            try:
                yield
            except OSError as error:
                self.fail(error)
                raise

    def fail(self, error):
        """Nothing may be written any more."""
        with self.syncing:
            if self.failure is None:
                self.failure = error
            self.syncing.failure = error.errno or errno.EIO

    cdef list install(self, object compacted):
        """Put a compacted segment in place of the live ones it was made of, which are retired: (Segment, last entry)."""
        cdef Segment segment, known
        path = segment_path(self.path, compacted.sequence, compacted.base_index, compacted.revision)
        try:
            first, after = self._replaced_by(compacted)
            segment = open_file(compacted.path, False)
            its = (segment.sequence, segment.base_index, segment.revision, segment.last_index, segment.segment_id)
            if its != (compacted.sequence, compacted.base_index, compacted.revision, compacted.last_index,
                       compacted.segment_id) or segment.prev_sequence != (<Segment>self.live[first]).prev_sequence:
                raise ValueError(f"{compacted.path} is not what was compacted")
            os.rename(compacted.path, path)
        except (OSError, ValueError):
            with contextlib.suppress(OSError):
                unlink(self.path, compacted.path)
            raise
        with self.no_return():
            sync_directory(self.path)
        segment.path = path
        replaced = []
        for at in range(first, after):
            known = self.live[at]
            replaced.append((known, (<Segment>self.live[at + 1]).base_index - 1))
        self.retired = [*self.retired, *replaced]
        self._live_is([*self.live[:first], segment, *self.live[after:]])
        return replaced

    def _replaced_by(self, compacted):
        """Where in `live` those begin and end that a compacted segment was made of. Raises ValueError."""
        firsts = [at for at, known in enumerate(self.live) if known.base_index == compacted.base_index]
        lasts = [at for at, known in enumerate(self.live[:-1]) if known.sequence == compacted.sequence]
        if firsts and lasts and firsts[0] <= lasts[0]:
            first, after = firsts[0], lasts[0] + 1
            revision = max([known.revision for known in self.live[first:after]])
            if (revision + 1, self.live[after].base_index - 1) == (compacted.revision, compacted.last_index):
                return first, after
        raise ValueError(f"what {compacted.path} was made of is not live")

    # Removing

    cdef int unlink_dead(self) except -1:
        while self.dead:
            unlink(self.path, (<Segment>self.dead.pop()).path)
        return 0

    cdef list drop_prefix(self, uint64_t first_index):
        """Retire sealed segments that hold nothing from `first_index` on: (Segment, last entry)."""
        dropped = []
        while len(self.live) > 1 and (<Segment>self.live[1]).base_index <= first_index:
            dropped.append((self.live[0], (<Segment>self.live[1]).base_index - 1))
            self._live_is(self.live[1:])
        self.retired = [*self.retired, *dropped]
        return dropped

    cdef int unlink_retired(self, list paths) except -1:
        """Remove retired files, the oldest first. Raises ValueError if one is not retired, or would revive an older one."""
        going = sorted([pair for pair in self.retired if pair[0].path in paths], key=lambda pair: _order_of(pair[0]))
        if len(going) != len(set(paths)):
            raise ValueError("not all of these files are retired")
        staying = [pair[0] for pair in self.retired if pair not in going]
        others = [*self.live, *[pair[0] for pair in self.retired]]
        for known, _ in going:
            # Older files that nothing else stands for would be live again, or cut off from what is, at the next open.
            if not any([replaces(other, known) for other in others]) and any(
                [_order_of(other) < _order_of(known) for other in staying]
            ):
                raise ValueError(f"older files than {known.path} must be unlinked before it")
        for pair in going:
            try:
                unlink(self.path, pair[0].path)
            except FileNotFoundError:       # Somebody else removed it.
                sync_directory(self.path)
            self.retired = [other for other in self.retired if other is not pair]
        return 0

    cdef int close(self) except -1:
        self.closed = True
        self.live, self.retired = [], []
        self.active = self.first = None
        self.prepared = None
        return 0

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


cdef tuple make_spare(str path, size_t size_bytes):
    """(path, Descriptor) of a file with all its blocks reserved. On OSError there is none."""
    file = hold(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
    try:
        os.posix_fallocate(file.fd, 0, size_bytes)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise
    return path, file


cdef int require_id(segment_id) except -1:
    if not 1 <= segment_id <= 0xFFFFFFFFFFFFFFFF:
        raise ValueError(f"segment id is {segment_id}, must be 1 to 2**64 - 1")
    return 0


cdef int unlink(str directory, path) except -1:
    """Remove a file, and first the index of it."""
    if path.endswith(".log"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{path[:-4]}.idx")
    os.unlink(path)
    return sync_directory(directory)


cdef int sync_directory(path) except -1:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    return 0


def _order(key):
    return key[0], key[2], key[1]


def _order_of(segment):
    return segment.sequence, segment.revision


cdef bint replaces(Segment one, Segment other) except -1:
    """Whether `one` is a compacted segment that stands for what `other` held."""
    return (
        one.revision != 0
        and _order_of(one) > _order_of(other)
        and one.base_index <= other.base_index <= one.last_index
    )


cdef list live_chain(list files):
    """The live ones of all segments in their order: they are found by `prev_sequence` from the last. Raises CorruptLog."""
    cdef Segment segment, previous
    by_sequence = {}
    for segment in files:
        previous = by_sequence.get(segment.sequence)
        if previous is not None and (previous.revision == segment.revision or segment.base_index > previous.base_index):
            raise CorruptLog(segment.path, None, "another segment has the same sequence")
        by_sequence[segment.sequence] = segment
    live = [files[-1]]
    while True:
        segment = live[-1]
        previous = by_sequence.get(segment.prev_sequence)
        if previous is None:
            break
        if previous.base_index >= segment.base_index:
            raise CorruptLog(segment.path, 0, "its base index is not above that of the segment before it")
        if previous.revision and previous.last_index + 1 != segment.base_index:
            raise CorruptLog(segment.path, 0, "it does not begin where the compacted segment before it ends")
        live.append(previous)
    live.reverse()
    return live


cdef tuple chain(list files):
    """(live, retired, dead) of all segments in their order; retired ones with the last entry that counted there.

    Raises CorruptLog for two of one sequence and revision, and for a segment that is neither live nor overridden.
    """
    cdef Segment segment
    live = live_chain(files)
    counts = {_order_of(known) for known in live}
    compacted = [known for known in live if known.revision]
    oldest = live[0].sequence
    starts_here = live[0].prev_sequence == 0
    retired, dead, override, bounds = [], [], INDEX_MAX, []
    for segment in reversed(files):
        if _order_of(segment) in counts:
            override = segment.base_index
            bounds.append(segment)
            continue
        standing = [known for known in compacted if replaces(known, segment)]
        if standing:
            last_index = min([standing[0].last_index] + [
                known.base_index - 1 for known in bounds if known.base_index > segment.base_index
            ])
            retired.append((segment, last_index))
            bounds.append(segment)
        elif (starts_here and segment.sequence < oldest) or segment.base_index >= override:
            dead.append(segment)
        else:
            raise CorruptLog(segment.path, None, "a segment is missing between this one and the next")
    retired.reverse()
    return live, retired, dead

"""The segmented log in C speed. `docs/log-format.md` is its specification, `log_reference` its plain twin.

Knows records, segments and files. Does not know Raft's rules, rooms, JSON beyond copying it, processes or clocks.
One process owns a directory (`Log`); any number may read what is committed (`LogReader`). Neither is thread-safe,
except for `SyncPoint.wait`.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, final

from raftchat._log_sync import SyncPoint as SyncPoint
from raftchat._log_sync import SyncThread as SyncThread

Buffer = bytes | bytearray | memoryview

RECORD_HEADER_BYTES: Final[int]
SEGMENT_HEADER_BYTES: Final[int]
KIND_NOOP: Final[int]
KIND_MEMBERSHIP: Final[int]
KIND_POST: Final[int]
KIND_TRIM: Final[int]
KIND_REMOVE_ROOM: Final[int]
KIND_RETENTION: Final[int]

class LogError(Exception):
    """What is wrong with a log, and where: `path`, `offset` (bytes, None if the whole file) and `reason`."""

    path: str
    offset: int | None
    reason: str

class CorruptLog(LogError): ...
class ForeignFile(LogError): ...
class NewerFormat(LogError): ...

class BadBatch(ValueError):
    """Records from outside (a peer, a worker) that are not what they claim to be."""

class Entry(NamedTuple):
    index: int  # type: ignore[assignment]  # hides tuple.index
    term: int
    time_ms: int
    kind: int
    key: bytes
    meta: bytes
    value: bytes

class Segment(NamedTuple):
    sequence: int
    base_index: int
    segment_id: int
    path: str
    revision: int
    """0: as it was written; above: compacted."""
    last_index: int
    """Last entry that counts there. Of the active segment: the log's."""
    size_bytes: int
    """Of the file."""

class Recovery(NamedTuple):
    """How the active segment was found: where its records end, and how much after that, up to the last byte not zero.

    `torn`: that tail never became durable (or the file was too short), and was cut.
    """

    torn: bool
    path: str
    offset: int
    dropped_bytes: int

@final
class Batch:
    """Consecutive entries of one term from one segment; a membership entry is always alone in its batch.

    `data` is a view of the mapped log, or of the frame it came in: whole records, checksummed under `segment_id`.
    """

    first_index: int
    last_index: int
    term: int
    segment_id: int
    data: memoryview
    membership: bytes | None

def pack(kind: int, key: Buffer, value: Buffer, meta: Buffer = b"") -> bytes:
    """One unstamped record. Raises ValueError for kind 0, key over 64 KiB - 1 or meta over 255 bytes."""

def parse_batch(data: Buffer, segment_id: int, first_index: int) -> Batch:
    """Check records that a peer sent. Raises BadBatch unless whole, in order, of one term, and every checksum right."""

def check_unstamped(data: Buffer, record_size_max_bytes: int) -> int:
    """How many unstamped records `data` is made of. Raises BadBatch unless whole, of kind ≥ 16 and within the size."""

@final
class Log:
    first_index: int
    """Lowest index of the log without gaps, behind the last compacted segment; `last_index + 1` when empty."""
    last_index: int
    last_term: int
    last_time_ms: int
    synced_index: int
    """Everything up to here is durable."""
    generation: int
    """Number of tail cuts since opening: an index means the same entry only within one generation."""
    active_sequence: int
    active_used_bytes: int
    """How far the active segment is filled, its header included."""
    size_bytes: int
    """Of the files of all segments, as they were when they were opened or made."""
    failed: bool
    """A sync failed, or only a part of what was to be appended is there: nothing can be written any more."""
    recovery: Recovery | None
    """None: the log is new."""
    def __init__(
        self,
        directory: str,
        *,
        new_segment_id: Callable[[], int],
        segment_size_bytes: int,
        durable_hint: int = 0,
    ) -> None:
        """Open or create, as "Opening" tells. Raises CorruptLog, ForeignFile, NewerFormat, OSError."""

    def append(self, records: Buffer, term: int, time_ms: int) -> tuple[int, int]:
        """Stamp unstamped records and append them: first and last index. One pass, no copy but into the mapping.

        `time_ms` below `last_time_ms` is raised to it. Raises OSError (ENOSPC) when no segment can be made; then,
        unless `failed`, nothing was appended. Raises BadBatch if `records` are not whole records, or one is larger
        than a segment.
        """

    def append_batch(self, batch: Batch, from_index: int) -> None:
        """Append the records of a checked batch from `from_index`, which must be `last_index + 1`, as they are.

        Raises BadBatch if term or time would go back, OSError as `append` does.
        """

    def begin_sync(self) -> SyncPoint:
        """What is to be flushed so that everything up to now is durable. The log may go on, even roll, meanwhile."""

    def end_sync(self, point: SyncPoint) -> None:
        """Advance `synced_index` to the point's, unless the tail was cut since. Raises ValueError before `wait`."""

    def term_at(self, index: int) -> int:
        """Term of an entry; also of `first_index - 1`; 0 for index 0. Raises IndexError elsewhere."""

    def slice(self, first_index: int, max_bytes: int) -> Batch | None:
        """The longest batch from `first_index` within `max_bytes`, but at least one entry; None past the end. No copy.

        It ends before an entry that is corrupt; only if that is the first, CorruptLog is raised.
        """

    def entries(self, first_index: int, last_index: int, max_bytes: int = ...) -> list[Entry]:
        """The entries of a range, as many as fit into `max_bytes` of log, but at least one. Raises IndexError."""

    def find_kind(self, kind: int, first_index: int = 0) -> list[Entry]:
        """All entries of one kind from an index on (walks every header there: for opening, and kinds that are rare)."""

    def roll(self) -> None:
        """Seal the active segment, unless it is empty, and begin a new one. Raises OSError; then nothing changed."""

    def prepare(self) -> None:
        """Set the next segment's file aside, so that a roll need not wait for it. In any thread. Raises OSError."""

    def install(self, compacted: Compacted) -> list[Segment]:
        """Put a compacted segment in place of those it was made of: these are retired, their files stay. Durable.

        Raises ValueError if those are not live any more, OSError if it could not be renamed; then nothing changed, and
        the compacted file is gone.
        """

    def retired(self) -> list[Segment]:
        """Files that were found at open or left by `install` and `drop_prefix`, and not unlinked yet."""

    def unlink(self, retired: Sequence[Segment]) -> None:
        """Remove retired files and their indexes, the oldest first, each durably. In any thread, one at a time.

        Raises OSError, ValueError if one is not retired, or older ones must go before it.
        """

    def truncate_suffix(self, last_index: int) -> None:
        """Keep up to `last_index`: a new segment is made, nothing is shrunk. Durable on return.

        Raises IndexError outside first_index - 1 to last_index, OSError if no segment can be made; then nothing is cut.
        """

    def drop_prefix(self, first_index: int) -> list[Segment]:
        """Let go of sealed segments that hold nothing from `first_index` on: they are retired, their files stay."""

    def reset(self, last_index: int, last_term: int, last_time_ms: int) -> None:
        """Forget everything and continue after `last_index` (an installed snapshot)."""

    def segments(self) -> list[Segment]: ...
    def verify(self, on_progress: Callable[[int, int], None] | None = None) -> tuple[int, list[LogError]]:
        """Read everything: records found good, and each fault. `on_progress(bytes done, bytes in all)`."""

    def close(self) -> None:
        """Batches that were handed out stay readable. Nothing is synced."""

class Compacted(NamedTuple):
    """A compacted segment that is complete and durable under a temporary name."""

    path: str
    sequence: int
    base_index: int
    revision: int
    last_index: int
    segment_id: int
    records: int
    size_bytes: int

def compact(
    directory: str,
    segments: Sequence[Segment],
    floors: Mapping[bytes, int],
    *,
    new_segment_id: Callable[[], int],
    on_progress: Callable[[int, int], None] | None = None,
) -> Compacted:
    """Write what lives of adjacent sealed segments, in order, to one `.tmp` file; flushed. In any thread, mostly
    without the GIL. A post lives if `floors` has its key and its index is not below that floor; nothing else does.

    `on_progress(bytes done, bytes in all)` is called every few MiB and may sleep or raise. Raises CorruptLog where a
    record is bad, OSError, ValueError for 2**32 entries and more; then nothing is left behind.
    """

def write_index(segment: Segment) -> int:
    """Make the `.idx` file of a sealed segment, mostly without the GIL, in any thread: its size. Raises OSError,
    CorruptLog."""

def has_index(segment: Segment) -> bool:
    """Whether its `.idx` is there, whole and of this version, postings not looked at. Costs a few pages."""

class Trim(NamedTuple):
    """What comes before a new floor of a room."""

    floor: int
    """First message that stays, or the bound if none does."""
    messages: int
    bytes: int
    first_id: int
    """0: no message stays."""

class KeyRun(NamedTuple):
    """Entries of one kind and key within a scanned range."""

    kind: int
    key: bytes
    indexes: array[int]
    """Type 'Q', ascending."""
    bytes: int
    """Their size in the log, headers and padding included."""
    last_time_ms: int

@final
class LogReader:
    """Committed entries for other processes, from read-only mappings. Every record read is checked.

    Reading raises IndexError below the first segment known, CorruptLog where a record is bad or there is none yet, and
    FileNotFoundError in a segment that was unlinked before it was added.
    """

    def __init__(self, directory: str) -> None: ...
    def add_segment(self, sequence: int, base_index: int, revision: int = 0) -> None:
        """The owner made a segment: every known one with a sequence up to this and a base index from this on is let go.

        Sequences do not fall but for compacted segments. Raises ValueError, or as opening a log does.
        """

    def drop_prefix(self, first_index: int) -> None:
        """The owner let go of segments that hold nothing from that entry on: so does this, and their space is free."""

    def use_index(self, sequence: int) -> bool:
        """The owner made an index of this sealed segment: use it, and free what is in memory. False: it cannot be."""

    def bad_indexes(self) -> list[int]:
        """Sequences of the segments whose index was to be used and cannot be: to be made again, and used again."""

    def scan(self, first_index: int, last_index: int) -> list[KeyRun]:
        """Group a range by (kind, key), in order of first appearance. Where there is no index, notes where posts lie.

        Ranges follow each other, and may come again; the first may begin anywhere. Compacted segments cannot be
        scanned (IndexError).
        """

    def below(self, key: bytes, index: int, limit: int, floor: int) -> array[int]:
        """The last `limit` posts of a room with floor ≤ ID < index: IDs ('Q'), ascending.

        What lies below `index` must be committed.
        """

    def above(self, key: bytes, index: int, limit: int, last_index: int) -> array[int]:
        """The first `limit` posts of a room with index < ID ≤ last_index: IDs ('Q'), ascending."""

    def trim(
        self, key: bytes, floor: int, last_index: int, *, messages: int, bytes: int, before_ms: int, below: int
    ) -> Trim:
        """The floor that removes as little as it can so that, of the posts of a room from `floor` to `last_index`, at
        least `messages` and `bytes` go, and all that are older than `before_ms` or lie below index `below`.

        Whole segments are counted by their index; records are read only where the floor comes to lie.
        """

    def live_bytes(self, floors: Mapping[bytes, int], base_index: int, last_index: int) -> int:
        """What the live posts of the segment that begins with `base_index` occupy, up to `last_index`; mostly without
        the GIL. Live: in a room that `floors` has, and not below its floor. Raises IndexError if there is none.
        """

    def nth_oldest(self, floors: Mapping[bytes, int], last_index: int, *, messages: int, bytes: int) -> int:
        """The lowest index below which at least that many live posts, and bytes of them, of all rooms together lie.

        Live: in a room that `floors` has, not below its floor, up to `last_index`. `last_index` + 1 if there are fewer.
        """

    def entries(self, first_index: int, last_index: int, max_bytes: int = ...) -> list[Entry]:
        """The entries of a range, as many as fit into `max_bytes` of log, but at least one. Raises IndexError.

        What a compacted segment left out is skipped, here and in `frames`.
        """

    def term_at(self, index: int) -> int:
        """Term of an entry. Raises IndexError, also if a compacted segment left it out."""

    def page(self, indexes: Sequence[int]) -> bytes:
        """A JSON array of these posts, rendered straight from the mapping. ValueError if one is not a post, or gone."""

    def frames(
        self, first_index: int, last_index: int, names: Mapping[bytes, bytes] | None
    ) -> list[tuple[bytes, bytes]]:
        """(key, `{"RoomName":…,"Post":{…}}`) for each post in the range, in order.

        `names` maps a key to its JSON string; posts of keys not in it are left out. None: all, names made on the way.
        """

    def close(self) -> None: ...

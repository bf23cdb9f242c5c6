"""The segmented log in C speed. `docs/log-format.md` is its specification, `log_reference` its plain twin.

Knows records, segments and files. Does not know Raft's rules, rooms, JSON beyond copying it, processes or clocks.
One process owns a directory (`Log`); any number may read what is committed (`LogReader`). Neither is thread-safe,
except for `SyncPoint.wait`.
"""

from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple, final

Buffer = bytes | bytearray | memoryview

RECORD_HEADER_BYTES: Final[int]
SEGMENT_HEADER_BYTES: Final[int]
KIND_NOOP: Final[int]
KIND_MEMBERSHIP: Final[int]
KIND_POST: Final[int]

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

@final
class SyncPoint:
    """An fdatasync to be made: begun by `Log.begin_sync`, waited for in any thread, ended by `Log.end_sync`."""

    last_index: int
    generation: int
    def wait(self) -> None:
        """Flush, without the GIL. Raises OSError; then the process must end (assumption 5): the log refuses more."""

def pack(kind: int, key: Buffer, value: Buffer, meta: Buffer = b"") -> bytes:
    """One unstamped record. Raises ValueError for kind 0, key over 64 KiB - 1 or meta over 255 bytes."""

def parse_batch(data: Buffer, segment_id: int, first_index: int) -> Batch:
    """Check records that a peer sent. Raises BadBatch unless whole, in order, of one term, and every checksum right."""

def check_unstamped(data: Buffer, record_size_max_bytes: int) -> int:
    """How many unstamped records `data` is made of. Raises BadBatch unless whole, of kind ≥ 16 and within the size."""

@final
class Log:
    first_index: int
    """Lowest index kept; `last_index + 1` when empty."""
    last_index: int
    last_term: int
    last_time_ms: int
    synced_index: int
    """Everything up to here is durable."""
    generation: int
    """Number of tail cuts since opening: an index means the same entry only within one generation."""
    active_sequence: int
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

        `time_ms` below `last_time_ms` is raised to it. Raises OSError (ENOSPC) when no segment can be made; then
        nothing was appended. Raises BadBatch if `records` are not whole records, or one is larger than a segment.
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

    def find_kind(self, kind: int) -> list[Entry]:
        """All entries of one kind (walks every header: for opening, and kinds that are rare)."""

    def truncate_suffix(self, last_index: int) -> None:
        """Keep up to `last_index`: a new segment is made, nothing is shrunk. Durable on return.

        Raises IndexError outside first_index - 1 to last_index, OSError if no segment can be made; then nothing is cut.
        """

    def drop_prefix(self, first_index: int) -> None:
        """Unlink sealed segments that hold nothing from `first_index` on."""

    def reset(self, last_index: int, last_term: int, last_time_ms: int) -> None:
        """Forget everything and continue after `last_index` (an installed snapshot)."""

    def segments(self) -> list[Segment]: ...
    def verify(self, on_progress: Callable[[int, int], None] | None = None) -> tuple[int, list[LogError]]:
        """Read everything: records found good, and each fault. `on_progress(bytes done, bytes in all)`."""

    def close(self) -> None:
        """Batches that were handed out stay readable. Nothing is synced."""

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
    def add_segment(self, sequence: int, base_index: int) -> None:
        """The owner made a segment. Told in order of sequence, else ValueError. Raises as opening a log does."""

    def scan(self, first_index: int, last_index: int) -> list[KeyRun]:
        """Group a range by (kind, key), in order of first appearance."""

    def entries(self, first_index: int, last_index: int, max_bytes: int = ...) -> list[Entry]: ...
    def term_at(self, index: int) -> int: ...
    def page(self, indexes: Sequence[int]) -> bytes:
        """A JSON array of these posts, rendered straight from the mapping. Raises ValueError if one is not a post."""

    def frames(
        self, first_index: int, last_index: int, names: Mapping[bytes, bytes] | None
    ) -> list[tuple[bytes, bytes]]:
        """(key, `{"RoomName":…,"Post":{…}}`) for each post in the range, in order.

        `names` maps a key to its JSON string; posts of keys not in it are left out. None: all, names made on the way.
        """

    def close(self) -> None: ...

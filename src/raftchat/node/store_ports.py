"""What the keeper of the store needs of others: the loop that owns the log, and files. The simulator has its own.

Types only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from raftchat.chat import apply, retention, state
from raftchat.storage.snapshot import Snapshot


class Segment(Protocol):
    """`_log.Segment`, whose documentation applies."""

    @property
    def sequence(self) -> int: ...
    @property
    def base_index(self) -> int: ...
    @property
    def segment_id(self) -> int: ...
    @property
    def path(self) -> str: ...
    @property
    def revision(self) -> int: ...
    @property
    def last_index(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...


class View(NamedTuple):
    """Where log and core stand, all of one moment."""

    segments: Sequence[Segment]
    """Live, the oldest first; the last one is active."""
    retired: Sequence[Segment]
    commit_index: int
    leads: bool
    term: int
    active_used_bytes: int
    """How far the active segment is filled."""


@dataclass(slots=True)
class Taken:
    """A snapshot that is durable."""

    index: int
    term: int
    time_ms: int
    membership: bytes
    path: str
    floors: dict[bytes, int] | None = None
    """None: not read yet; they are in the file."""


@dataclass(slots=True)
class Counters:
    """For `GET /raft` and /metrics: since this process started, but for those that say otherwise."""

    snapshots: int = 0
    indexes: int = 0
    """Written, those that were missing or bad included."""
    compactions: int = 0
    reclaimed_bytes: int = 0
    """What rewritten and dropped segments occupied beyond what took their place. It is free once the grace is over."""
    retention_plans: int = 0
    """Proposed."""
    retired_bytes: int = 0
    """Now: of files that wait for the end of their grace."""
    failures: int = 0
    """Times something could not be written, and was put off."""
    applied_index: int = 0
    live_bytes: int = 0
    """Now: of all messages."""
    snapshot_index: int = 0
    """Now: of the newest snapshot. 0: none."""


class Owner(Protocol):
    """The loop that owns log and core. Each call is carried out there, in order, and has been when it returns."""

    def view(self) -> View: ...
    def indexed(self, sequence: int) -> None:
        """The index of this segment can be used."""

    def snapshot_taken(self, taken: Taken) -> None: ...
    def install(self, compacted: Any) -> None:
        """`_log.Log.install`."""

    def drop_prefix(self, first_index: int) -> None:
        """`_log.Log.drop_prefix`."""

    def unlink(self, retired: Sequence[Any]) -> None:
        """`_log.Log.unlink`."""

    def prepare(self) -> None:
        """`_log.Log.prepare`."""

    def roll(self) -> None:
        """`_log.Log.roll`."""

    def hand_over(self, heard_within_ms: int) -> int:
        """Give leadership to a voter that holds all that is committed and was heard of so recently: its node id.

        0: this node does not lead, or there is none.
        """

    def propose(self, commands: Sequence[retention.Command]) -> int | None:
        """Index of the first; None if the leader did not take them. An acknowledgement of nothing yet."""


class Unreadable(Exception):
    """A record of that file is not what was written."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(reason)
        self.path = path


class Files(Protocol):
    """What takes long. OSError and `Unreadable` mean that there is nothing new."""

    faults: tuple[type[Exception], ...]
    """What the reader raises for a record that is not what was written."""

    def has_index(self, segment: Any) -> bool: ...
    def write_index(self, segment: Any) -> int: ...
    def live_bytes(self, segment: Any, floors: Mapping[bytes, int]) -> int:
        """What its posts that are at or above their rooms' floors occupy. It has an index."""

    def compact(self, segments: Sequence[Any], floors: Mapping[bytes, int]) -> Any:
        """`_log.Compacted`, at a bounded rate."""

    def discard(self, compacted: Any) -> None:
        """It is not needed after all."""

    def write_snapshot(self, snapshot: Snapshot) -> str: ...
    def floors(self, path: str) -> dict[bytes, int]:
        """Of the state in a snapshot. Raises as `storage.snapshot.load`."""

    def prune_snapshots(self, spare: Collection[str]) -> None:
        """Remove all but those with these paths, and but the two newest."""


class Entry(state.Entry, Protocol):
    @property
    def term(self) -> int: ...


class Reader(apply.Source, retention.Source, Protocol):
    """`_log.LogReader`."""

    def entries(self, first_index: int, last_index: int) -> Sequence[Entry]: ...

    def add_segment(self, sequence: int, base_index: int, revision: int = 0) -> None: ...
    def drop_prefix(self, first_index: int) -> None: ...
    def use_index(self, sequence: int) -> bool: ...
    def bad_indexes(self) -> list[int]: ...


class Clock(Protocol):
    def monotonic_ms(self) -> float:
        """Any origin; goes on while the machine sleeps, if it can."""

    def wall_ms(self) -> int: ...
    def pause(self) -> None:
        """Let others have the interpreter. Raises `Stopping` if there is no time for more."""


class Stopping(Exception):
    """The process ends: what is under way is given up."""


@dataclass(slots=True)
class Start:
    """What opening the directory found."""

    state: Any
    """`ChatState`, after the newest snapshot."""
    membership: bytes
    """In force, and committed, at that index."""
    snapshots: list[Taken] = field(default_factory=list)
    """Those the log can be opened with, ascending; only the newest is known to be whole."""
    surplus: list[str] = field(default_factory=list)
    """Older ones."""
    log_time_ms: int = 0
    """Of the last entry in the log, committed or not; 0: there is none."""

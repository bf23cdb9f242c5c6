"""Opens a node's data directory: makes it at bootstrap, checks whose it is, reads hard state, snapshot and log.

Translates what storage and log say into exit codes and remedies. Nothing per old message is read: state begins with a
snapshot, and what came after it is replayed by whoever needs it. Does not know peers, processes or time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from raftchat import _log
from raftchat.chat.state import ChatState, NewerState
from raftchat.config import Config
from raftchat.node.exits import CANNOT_START, CORRUPT, NodeFailed
from raftchat.node.store_ports import Start, Taken
from raftchat.raft import HardState, Membership
from raftchat.storage import hard_state, identity, incoming
from raftchat.storage import snapshot as snapshots
from raftchat.storage.errors import CorruptFile, ForeignFile, StorageError
from raftchat.storage.files import make_directory_durably
from raftchat.storage.hard_state import HardStateFile, OsFile
from raftchat.storage.identity import Identity

log = logging.getLogger(__name__)


def log_directory(data_dir: str) -> str:
    return os.path.join(data_dir, "log")


def snapshots_directory(data_dir: str) -> str:
    return os.path.join(data_dir, "snapshots")


def hard_state_path(data_dir: str) -> str:
    return os.path.join(data_dir, "hard-state")


def examine(data_dir: str, node_id: int, urls: Sequence[str]) -> Identity | None:
    """Whose directory this is, checked against the flags; None: nobody's yet. Raises NodeFailed."""
    with _explained():
        stored = identity.load(data_dir)
        if stored is None:
            _refuse_strangers(data_dir)
            return None
        identity.check(stored, data_dir, node_id, urls)
        return stored


def bootstrap(data_dir: str, node_id: int, urls: Sequence[str]) -> Identity:
    """Make it the directory of a member of a new cluster; the caller holds its lock. Raises NodeFailed."""
    with _explained():
        mine = identity.bootstrap(node_id, urls)
        make_directory_durably(log_directory(data_dir))
        hard_state.create(hard_state_path(data_dir))
        # Last: with it the directory is a node's.
        identity.store(data_dir, mine)
    log.info("New node", extra={"data_dir": data_dir, "id": node_id, "cluster": mine.cluster_id})
    return mine


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Errors of storage and log as NodeFailed."""
    try:
        yield
    except (CorruptFile, _log.CorruptLog) as error:
        raise NodeFailed(CORRUPT, str(error)) from error
    except (StorageError, _log.LogError, OSError) as error:
        raise NodeFailed(CANNOT_START, str(error)) from error


def _refuse_strangers(data_dir: str) -> None:
    """A log without an identity has lost its identity; starting over would forget what it acknowledged."""
    directory = log_directory(data_dir)
    if os.path.isdir(directory) and any(name.endswith(".log") for name in os.listdir(directory)):
        raise NodeFailed(
            CORRUPT,
            f"{data_dir} holds a log but no identity file; put the file back from a backup of this node, "
            "or use another --data-dir",
        )


@dataclass(slots=True)
class OpenDirectory:
    identity: Identity
    log: _log.Log
    hard_state_file: HardStateFile
    hard_state: HardState
    history: list[tuple[int, Membership]]
    """As `Raft` wants it: the memberships with the index of the entry that brought each."""
    start: Start
    """What the keeper of the store begins with."""

    @property
    def taken(self) -> Taken | None:
        """The snapshot that this is opened with."""
        return self.start.snapshots[-1] if self.start.snapshots else None


def open_directory(config: Config, data_dir: str) -> OpenDirectory:
    """Read a prepared directory, checking and repairing as docs/log-format.md tells. Raises NodeFailed."""
    with _explained():
        mine = identity.load(data_dir)
        assert mine is not None, "prepared by the supervisor"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(data_dir, identity.RESTORING))  # A restore that was killed when all was done.
        installed = incoming.install(data_dir)
        if installed is not None:
            log.info("Put the snapshot in place that was received", extra={"index": installed})
        start, bad = _begin(data_dir, mine)
        taken = start.snapshots[-1] if start.snapshots else None
        file = HardStateFile(OsFile(hard_state_path(data_dir)))
        if file.mended:
            log.warning("One copy of term and vote was unreadable: mended", extra={"path": hard_state_path(data_dir)})
        opened = _log.Log(
            log_directory(data_dir),
            new_segment_id=lambda: secrets.randbits(64) | 1,
            segment_size_bytes=config.segment_size_bytes,
            durable_hint=max(file.commit, taken.index if taken else 0),
        )
        if opened.recovery is not None and opened.recovery.torn:
            log.warning(
                "Cut a tail that was never durable",
                extra={
                    "path": opened.recovery.path,
                    "offset": opened.recovery.offset,
                    "dropped_bytes": opened.recovery.dropped_bytes,
                },
            )
        start.log_time_ms = opened.last_time_ms
        _require_joined(data_dir, opened, taken)
        for path in bad:
            os.unlink(path)
        _remove_orphans(log_directory(data_dir))
        index = start.state.applied_index
        history = [(index, Membership.decode(start.membership))]
        for entry in opened.find_kind(_log.KIND_MEMBERSHIP, index + 1):
            history.append((entry.index, Membership.decode(entry.value)))
        # What a snapshot holds was committed.
        hard = HardState(file.term, file.vote, max(file.commit, index))
        if incoming.drop_stale(data_dir, hard.commit):
            log.info("Removed what had come of a snapshot that is not needed any more")
        return OpenDirectory(mine, opened, file, hard, history, start)


def _begin(data_dir: str, mine: Identity) -> tuple[Start, list[str]]:
    """Where state begins: the newest snapshot that is whole; and newer ones that are not."""
    bad: list[str] = []
    paths = snapshots.paths(snapshots_directory(data_dir))
    for number, path in enumerate(paths):
        try:
            snapshot = snapshots.load(path)
            state = ChatState.decode(snapshot.state)
            Membership.decode(snapshot.membership)
        except NewerState as error:
            raise StorageError(f"{path}: {error}") from error
        except (CorruptFile, ForeignFile, ValueError) as error:
            log.warning("A snapshot cannot be used, an older one must do: %s", error, extra={"path": path})
            bad.append(path)
            continue
        if (snapshot.cluster_id, snapshot.epoch) != (mine.cluster_id, mine.epoch):
            raise StorageError(
                f"{path} is of the cluster {snapshot.cluster_id}, epoch {snapshot.epoch}, and this directory of "
                f"{mine.cluster_id}, epoch {mine.epoch}; put back what was there, or use another --data-dir"
            )
        newest = Taken(snapshot.index, snapshot.term, snapshot.time_ms, snapshot.membership, path, state.floors())
        older, surplus = paths[number + 1 : number + 2], paths[number + 2 :]
        known = [*(Taken(_index_of(path), 0, 0, b"", path) for path in older), newest]
        return Start(state, snapshot.membership, known, surplus), bad
    if bad:
        log.warning("No snapshot can be used: all of the log must do")
    return Start(ChatState(), Membership(mine.members).encode()), bad


def _index_of(path: str) -> int:
    return int(os.path.basename(path).partition("-")[0])


def _require_joined(data_dir: str, opened: _log.Log, taken: Taken | None) -> None:
    """The log must go on where the state ends."""
    index = taken.index if taken else 0
    remedy = (
        f"put the files of {snapshots_directory(data_dir)} back from a backup of this node, restore a backup with "
        "`raft-chat restore`, or, in a cluster with other members, remove this one and add it with an empty directory"
    )
    if index < opened.first_index - 1:
        have = f"the newest snapshot is of entry {index}" if taken else "there is no snapshot that can be used"
        raise NodeFailed(
            CORRUPT,
            f"{data_dir}: the log holds all entries only from {opened.first_index} on, what came before is in a "
            f"snapshot, and {have}; {remedy}",
        )
    if taken and opened.term_at(index) != taken.term:
        raise NodeFailed(
            CORRUPT,
            f"{taken.path} is of entry {index} in term {taken.term}, but the log's entry is of term "
            f"{opened.term_at(index)}: they do not belong together; {remedy}",
        )


def _remove_orphans(directory: str) -> None:
    """Indexes of segments that are gone."""
    names = set(os.listdir(directory))
    for name in names:
        if name.endswith(".idx") and f"{name.removesuffix('.idx')}.log" not in names:
            os.unlink(os.path.join(directory, name))

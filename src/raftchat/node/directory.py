"""Opens a node's data directory: makes it at bootstrap, checks whose it is, reads hard state, log and memberships.

Translates what storage and log say into exit codes and remedies. Does not know peers, processes or time.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from raftchat import _log
from raftchat.config import Config
from raftchat.node.exits import CANNOT_START, CORRUPT, NodeFailed
from raftchat.raft import HardState, Membership
from raftchat.storage import hard_state, identity
from raftchat.storage.errors import CorruptFile, StorageError
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


def open_directory(config: Config, data_dir: str) -> OpenDirectory:
    """Read a prepared directory, checking and repairing as docs/log-format.md tells. Raises NodeFailed."""
    with _explained():
        mine = identity.load(data_dir)
        assert mine is not None, "prepared by the supervisor"
        file = HardStateFile(OsFile(hard_state_path(data_dir)))
        if file.mended:
            log.warning("One copy of term and vote was unreadable: mended", extra={"path": hard_state_path(data_dir)})
        opened = _log.Log(
            log_directory(data_dir),
            new_segment_id=lambda: secrets.randbits(64) | 1,
            segment_size_bytes=config.segment_size_bytes,
            durable_hint=file.commit,
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
        history = [(0, Membership(mine.members))]
        for entry in opened.find_kind(_log.KIND_MEMBERSHIP):
            history.append((entry.index, Membership.decode(entry.value)))
        return OpenDirectory(mine, opened, file, HardState(file.term, file.vote, file.commit), history)

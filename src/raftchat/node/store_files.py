"""The keeper's files on a real disk (`store_ports.Files`): the log's own functions, held to a rate, and snapshots.

Called in the keeper's thread. Does not decide anything.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from raftchat import _log
from raftchat.chat.state import ChatState
from raftchat.config import Config
from raftchat.node.store_ports import Stopping, Unreadable
from raftchat.storage import snapshot as snapshots
from raftchat.storage.files import make_directory_durably
from raftchat.storage.snapshot import Snapshot


def new_segment_id() -> int:
    return secrets.randbits(64) | 1


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except _log.CorruptLog as error:
        raise Unreadable(error.path, str(error)) from error


class StoreFiles:
    faults: tuple[type[Exception], ...] = (_log.LogError,)

    def __init__(
        self,
        config: Config,
        log_directory: str,
        snapshots_directory: str,
        reader: _log.LogReader,
        stopping: threading.Event,
    ) -> None:
        self._rate_max_bytes_per_s = config.compaction_rate_max_bytes_per_s
        self._log_directory = log_directory
        self._snapshots_directory = snapshots_directory
        self._reader = reader
        self._stopping = stopping

    def has_index(self, segment: _log.Segment) -> bool:
        return _log.has_index(segment)

    def write_index(self, segment: _log.Segment) -> int:
        with _readable():
            return _log.write_index(segment)

    def live_bytes(self, segment: _log.Segment, floors: Mapping[bytes, int]) -> int:
        with _readable():
            return self._reader.live_bytes(floors, segment.base_index, segment.last_index)

    def compact(self, segments: Sequence[_log.Segment], floors: Mapping[bytes, int]) -> _log.Compacted:
        with _readable():
            return _log.compact(
                self._log_directory,
                segments,
                floors,
                new_segment_id=new_segment_id,
                on_progress=self._throttle(),
            )

    def _throttle(self) -> Callable[[int, int], None]:
        began_s = time.monotonic()

        def on_progress(done_bytes: int, total_bytes: int) -> None:
            early_s = done_bytes / self._rate_max_bytes_per_s - (time.monotonic() - began_s)
            if self._stopping.wait(max(0.0, early_s)):
                raise Stopping

        return on_progress

    def discard(self, compacted: _log.Compacted) -> None:
        with contextlib.suppress(OSError):
            os.unlink(compacted.path)

    def write_snapshot(self, snapshot: Snapshot) -> str:
        make_directory_durably(self._snapshots_directory)
        return snapshots.write(self._snapshots_directory, snapshot)

    def floors(self, path: str) -> dict[bytes, int]:
        return ChatState.decode(snapshots.load(path).state).floors()

    def prune_snapshots(self, spare: Collection[str]) -> None:
        snapshots.prune(self._snapshots_directory, spare=spare)

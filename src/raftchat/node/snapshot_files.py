"""What this node can give to a member that is far behind: its newest snapshot and the segments below it, as files.

Knows the data directory's names. Does not know who asks, or how files travel.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence

from raftchat import _log
from raftchat.node.transfer import Manifest, SegmentFile
from raftchat.storage import snapshot as snapshots
from raftchat.storage.errors import StorageError

log = logging.getLogger(__name__)


class SnapshotFiles:
    def __init__(
        self, log_directory: str, snapshots_directory: str, segments: Callable[[], Sequence[_log.Segment]]
    ) -> None:
        self._log_directory = log_directory
        self._snapshots_directory = snapshots_directory
        self._segments = segments

    def manifests(self, index: int) -> list[Manifest]:
        """Of the snapshots that reach up to `index` and whose segments are all here, the newest first."""
        found = []
        for path in snapshots.paths(self._snapshots_directory):
            name = os.path.basename(path)
            its_index, its_term = map(int, name.removesuffix(".snapshot").split("-"))
            # Not the active one: it is written to, though it may be empty.
            segments = [segment for segment in self._segments()[:-1] if segment.last_index <= its_index]
            if its_index >= index and segments and segments[-1].last_index == its_index:
                size_bytes = os.stat(path).st_size
                found.append(Manifest(its_index, its_term, name, size_bytes, tuple(map(_file, segments))))
        return found

    def is_whole(self, manifest: Manifest) -> bool:
        """Whether the snapshot's own file can be read. Takes a while if it is large."""
        try:
            snapshots.load(self.path(manifest.snapshot_name))
        except (OSError, StorageError) as error:
            log.error("A snapshot cannot be given to others: %s", error)
            return False
        return True

    def path(self, name: str) -> str:
        directory = self._snapshots_directory if name.endswith(".snapshot") else self._log_directory
        return os.path.join(directory, name)


def _file(segment: _log.Segment) -> SegmentFile:
    return SegmentFile(
        os.path.basename(segment.path),
        segment.sequence,
        segment.base_index,
        segment.revision,
        segment.last_index,
        segment.segment_id,
        segment.size_bytes,
    )

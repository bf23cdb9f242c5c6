"""What this node can give to a member that is far behind: its newest snapshot and the segments below it, as files.

Knows the data directory's names. Does not know who asks, or how files travel.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from raftchat import _log
from raftchat.node.transfer import Manifest, Refused, SegmentFile
from raftchat.storage import snapshot as snapshots


class SnapshotFiles:
    def __init__(
        self, log_directory: str, snapshots_directory: str, segments: Callable[[], Sequence[_log.Segment]]
    ) -> None:
        self._log_directory = log_directory
        self._snapshots_directory = snapshots_directory
        self._segments = segments

    def manifest(self, index: int) -> Manifest:
        """Of the newest snapshot, which must reach up to `index`. Raises Refused."""
        for path in snapshots.paths(self._snapshots_directory):
            name = os.path.basename(path)
            its_index, its_term = map(int, name.removesuffix(".snapshot").split("-"))
            segments = [segment for segment in self._segments() if segment.last_index <= its_index]
            if its_index < index or not segments or segments[-1].last_index != its_index:
                break
            return Manifest(
                its_index, its_term, name, os.stat(path).st_size, tuple(_file(segment) for segment in segments)
            )
        raise Refused(f"no snapshot up to {index} or beyond is here yet")

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

"""What a node does that needs state which the leader's log no longer holds: fetch it, decide, and start anew on it.

`Driver` says what is wanted, `SnapshotReceiver` gathers it in a thread, this decides when it counts. Knows no files.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

from raftchat.node.snapshot_receiver import SnapshotReceiver
from raftchat.node.transfer import Manifest
from raftchat.raft.messages import InstallSnapshot

log = logging.getLogger(__name__)


class CatchUp:
    """`start(snapshot, on_gathered)` makes a receiver that runs. `still_needed(index, term)` is the core's word, and
    `begin_anew(index)` ends this process: nothing may be added to the log between the two."""

    def __init__(
        self,
        start: Callable[[InstallSnapshot, Callable[[Manifest], None]], SnapshotReceiver | None],
        still_needed: Callable[[int, int], bool],
        begin_anew: Callable[[int], None],
    ) -> None:
        self._start = start
        self._still_needed = still_needed
        self._begin_anew = begin_anew
        self._receiver: SnapshotReceiver | None = None
        self._ending: SnapshotReceiver | None = None
        """Cancelled, and perhaps not through with what it does."""
        self._attempt = 0

    def want(self, snapshot: InstallSnapshot | None) -> None:
        receiver = self._receiver
        if receiver is not None:
            if snapshot is not None and receiver.sender == snapshot.sender:
                return  # A newer one of the same leader is what it is given when it asks.
            log.info("The snapshot is not fetched any more", extra={"from": receiver.sender})
            receiver.cancel()
            self._receiver, self._ending = None, receiver
        if snapshot is not None and (self._ending is None or self._ending.ended):
            # Two would gather in one place. The leader repeats its offer, so a later one finds the other ended.
            self._ending = None
            self._attempt += 1
            self._receiver = self._start(snapshot, partial(self._gathered, self._attempt))

    def _gathered(self, attempt: int, manifest: Manifest) -> None:
        """Called on the loop, perhaps by one that was cancelled when it had just ended."""
        if self._receiver is None or attempt != self._attempt:
            return
        self._receiver = None
        if self._still_needed(manifest.index, manifest.term):
            log.info("Installing a snapshot: starting anew", extra={"index": manifest.index, "term": manifest.term})
            self._begin_anew(manifest.index)
        else:
            log.info("The snapshot is not needed any more", extra={"index": manifest.index})

    @property
    def status(self) -> dict[str, Any] | None:
        """For `GET /raft`."""
        receiver = self._receiver
        if receiver is None:
            return None
        return {
            "From": receiver.sender,
            "ReceivedBytes": receiver.received_bytes,
            "TotalBytes": receiver.total_bytes,
        }

    def close(self) -> None:
        if self._receiver is not None:
            self._receiver.cancel()
            self._receiver = None

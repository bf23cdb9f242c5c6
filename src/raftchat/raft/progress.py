"""What the leader knows about one other member: how far it is, and what is under way to it.

    probe      where the logs meet is not known: one AppendEntries at a time, until one fits
    replicate  it is: send ahead, as much as the window allows
    snapshot   the log no longer holds what comes next: nothing is sent until the state has been installed

Knows neither the log nor messages; `replication.py` decides what to send.
"""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from math import inf


class Flow(StrEnum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


class Progress:
    """matchIndex and nextIndex of figure 3.1, and flow control (10.2.1)."""

    __slots__ = (
        "commit_sent",
        "contact_ms",
        "flow",
        "inflight",
        "inflight_bytes",
        "match_index",
        "next_index",
        "probe_sent",
        "round",
        "since_ms",
        "snapshot_index",
        "takes_snapshot",
    )

    def __init__(self, next_index: int, now_ms: float) -> None:
        self.flow = Flow.PROBE
        self.match_index = 0
        """Durable there and equal to our log up to here."""
        self.next_index = next_index
        """To be sent next; in flight between `match_index` and here."""
        self.probe_sent = False
        self.inflight: deque[tuple[int, int]] = deque()
        """(last index, bytes) of each AppendEntries that was sent and not acknowledged."""
        self.inflight_bytes = 0
        self.round = 0
        """Latest heartbeat round it answered (6.4)."""
        self.contact_ms = -inf
        """When it last answered."""
        self.since_ms = now_ms
        """Its silence before this says nothing: it was not asked, or we were not running."""
        self.commit_sent = 0
        """Commit index last told."""
        self.snapshot_index = 0
        """How far the snapshot reached that it was offered first."""
        self.takes_snapshot = True
        """Nothing is known that keeps it from getting one."""

    def probe(self, next_index: int) -> None:
        """Look for the place where the logs meet, from here downwards."""
        assert next_index > self.match_index, "what is matched need not be looked for"
        self.flow = Flow.PROBE
        self.next_index = next_index
        self.probe_sent = False
        self._forget_inflight()

    def replicate(self) -> None:
        """The logs meet at `match_index`: send ahead from there."""
        self.flow = Flow.REPLICATE
        self.next_index = self.match_index + 1
        self._forget_inflight()

    def snapshot(self, last_index: int) -> None:
        """It is to have the state up to there before it gets entries again."""
        self.flow = Flow.SNAPSHOT
        self.snapshot_index = last_index
        self.probe_sent = False
        self._forget_inflight()

    def sent(self, last_index: int, size_bytes: int) -> None:
        """Entries up to `last_index` are on their way."""
        assert last_index >= self.next_index
        self.inflight.append((last_index, size_bytes))
        self.inflight_bytes += size_bytes
        self.next_index = last_index + 1

    def acknowledged(self, match_index: int) -> bool:
        """It holds everything up to here. False if that was known (late, repeated or reordered replies)."""
        if match_index <= self.match_index:
            return False
        self.match_index = match_index
        if self.next_index <= match_index:
            self.next_index = match_index + 1
        inflight = self.inflight
        while inflight and inflight[0][0] <= match_index:
            self.inflight_bytes -= inflight.popleft()[1]
        return True

    def _forget_inflight(self) -> None:
        self.inflight.clear()
        self.inflight_bytes = 0

"""Why the core refuses what its caller asks for. Nothing was appended when one of these is raised."""

from __future__ import annotations


class Refused(Exception):
    """Common base: the request had no effect."""


class NotLeader(Refused):
    """This node cannot append. `leader` is the node that can; 0: none is known, or leadership is being handed over."""

    def __init__(self, leader: int) -> None:
        super().__init__(f"not the leader; leader is {leader}" if leader else "there is no leader to ask")
        self.leader = leader


class Overloaded(Refused):
    """More than `uncommitted_max_bytes` wait for a majority: the quorum is slower than its clients."""


class ChangeRefused(Refused):
    """A membership change that may not be appended. `retryable`: true if it only has to wait."""

    def __init__(self, reason: str, *, retryable: bool) -> None:
        super().__init__(reason)
        self.retryable = retryable

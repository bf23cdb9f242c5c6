"""A follower's proposals on their way to the leader: who asked, and what is known of each.

A request that was handed to a connection is answered by the leader or, when the connection breaks, its target has not
been the leader for an election timeout, or no answer came for as long as a client waits, by LOST: nobody here can know
whether it was appended. For the answer takes another connection, which may be down just when the leader wants to send
it. Does not know how connections are made or what the records are.
"""

from __future__ import annotations

from math import inf
from typing import Protocol

from raftchat.config import Config
from raftchat.ipc.frames import Accepted, Refusal
from raftchat.node.codec import Buffer, Forward, ForwardAccepted, WireMessage


class Asker(Protocol):
    """A worker."""

    def accepted(self, accepted: Accepted) -> None: ...
    def refused(self, batch: int, reason: Refusal) -> None: ...


class Road(Protocol):
    """The way to the other members."""

    def send(self, to: int, message: WireMessage) -> bool: ...
    def connected(self, peer: int) -> bool: ...


class Forwards:
    def __init__(self, config: Config, road: Road, request: int = 0) -> None:
        """Requests are numbered from behind `request`: another one in each life of the node, or a late answer to a
        request of its life before would be taken for one of this life, and a client be told another message's ID."""
        self._election_timeout_ms = config.election_timeout_ms
        self._answer_timeout_ms = config.request_timeout_ms
        self._road = road
        self._request = request
        self._pending: dict[int, tuple[Asker, int, int, float]] = {}
        """Request → who asked, its batch number, the node it was sent to, until when its answer is waited for; oldest
        first."""
        self._given_up_ms: dict[int, float] = {}
        """Node that is not the leader any more → when its answers are not waited for any longer."""
        self._leader = 0

    def send(self, asker: Asker, batch: int, records: Buffer, leader: int, now_ms: float) -> None:
        """Hand a batch to the leader; refused at once if there is no way to it."""
        self._request += 1
        if self._road.send(leader, Forward(self._request, records)):
            self._pending[self._request] = (asker, batch, leader, now_ms + self._answer_timeout_ms)
        else:
            asker.refused(batch, Refusal.OVERLOADED if self._road.connected(leader) else Refusal.NO_LEADER)

    def accepted(self, answer: ForwardAccepted) -> None:
        if pending := self._pending.pop(answer.request, None):
            asker, batch, _, _ = pending
            asker.accepted(Accepted(batch, answer.first_index, answer.term, answer.time_ms))

    def refused(self, request: int, reason: Refusal) -> None:
        if pending := self._pending.pop(request, None):
            asker, batch, _, _ = pending
            asker.refused(batch, reason)

    def broken(self, peer: int) -> None:
        """The connection to or from this peer is gone: requests or their answers may have been on it."""
        for request, (_, _, to, _) in list(self._pending.items()):
            if to == peer:
                self.refused(request, Refusal.LOST)

    def leader_is(self, leader: int, now_ms: float) -> None:
        """Called every turn. A former leader is given an election timeout to answer what it was sent."""
        while now_ms >= self._oldest_ms:
            self.refused(next(iter(self._pending)), Refusal.LOST)
        if leader != self._leader:
            self._leader = leader
            for peer in {to for _, _, to, _ in self._pending.values()}:
                self._given_up_ms.setdefault(peer, now_ms + self._election_timeout_ms)
            self._given_up_ms.pop(leader, None)
        if self._given_up_ms:
            for peer, given_up_ms in list(self._given_up_ms.items()):
                if now_ms >= given_up_ms:
                    del self._given_up_ms[peer]
                    self.broken(peer)

    @property
    def deadline_ms(self) -> float:
        """When `leader_is` has something to give up; inf if nothing."""
        return min([self._oldest_ms, *self._given_up_ms.values()])

    @property
    def _oldest_ms(self) -> float:
        return next(iter(self._pending.values()))[3] if self._pending else inf

    @property
    def waiting(self) -> int:
        """Batches that were forwarded and are not answered."""
        return len(self._pending)

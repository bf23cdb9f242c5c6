"""What an operator wants to read in the log about leadership and members: each change once, and what lasts too long.

    INFO     became leader, stepped down, another leader, standing for election, a member or a leader is back
    WARNING  no leader for two election timeouts; a member that the leader has not heard from for three

Looks at the core after each turn and writes lines; changes nothing. Does not know messages, peers or the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from raftchat.config import Config
from raftchat.raft import FollowerStatus, Role

log = logging.getLogger(__name__)

LEADERLESS_TIMEOUTS = 2
SILENT_TIMEOUTS = 3
_STANDING = (Role.PRECANDIDATE, Role.CANDIDATE)


class Watch:
    def __init__(self, config: Config, node_id: int, now_ms: float) -> None:
        self._election_timeout_ms = config.election_timeout_ms
        self._node_id = node_id
        self._role = Role.FOLLOWER
        self._leader = 0
        self._leaderless_since_ms: float | None = now_ms
        """None: there is a leader, or that there is none has been said."""
        self._leaderless_told = False
        self._listens_since_ms = now_ms
        """A member cannot have been silent for longer: this node did not lead, or stood still itself."""
        self._looked_ms = now_ms
        self._members_due_ms = now_ms
        self._silent: set[int] = set()

    @property
    def deadline_ms(self) -> float:
        """When the next `look` is due even if nothing happens; inf if not at all."""
        if self._leaderless_since_ms is None:
            return float("inf")
        return self._leaderless_since_ms + LEADERLESS_TIMEOUTS * self._election_timeout_ms

    def look(
        self, now_ms: float, role: Role, term: int, leader: int, followers: Callable[[], Mapping[int, FollowerStatus]]
    ) -> None:
        """`followers()` is asked once an election timeout, and only of a leader."""
        if role is not self._role or leader != self._leader:
            self._changed(now_ms, role, term, leader)
        if now_ms >= self.deadline_ms:
            self._leaderless_since_ms, self._leaderless_told = None, True
            log.warning(
                "No leader for %d ms: is a majority of the members running and reachable?",
                LEADERLESS_TIMEOUTS * self._election_timeout_ms,
                extra={"term": term},
            )
        if now_ms - self._looked_ms > self._election_timeout_ms:
            self._listens_since_ms = now_ms
        self._looked_ms = now_ms
        if role is Role.LEADER and now_ms >= self._members_due_ms:
            self._members_due_ms = now_ms + self._election_timeout_ms
            self._look_at_members(now_ms, followers())

    def _changed(self, now_ms: float, role: Role, term: int, leader: int) -> None:
        extra = {"term": term, "node": self._node_id}
        if self._role is Role.LEADER and role is not Role.LEADER:
            log.info("Stepped down", extra=extra)
            self._silent.clear()
        if role is Role.LEADER and self._role is not Role.LEADER:
            log.info("Became leader", extra=extra)
            self._listens_since_ms = now_ms
        elif role in _STANDING and self._role not in _STANDING:
            log.info("Standing for election", extra={**extra, "former_leader": self._leader})
        elif leader not in (0, self._leader, self._node_id):
            log.info("Leader is %d", leader, extra={**extra, "leader": leader})
        if leader == 0 and self._leader:
            self._leaderless_since_ms = now_ms
        elif leader:
            if self._leaderless_told:
                log.info("There is a leader again", extra={"term": term, "leader": leader})
            self._leaderless_since_ms, self._leaderless_told = None, False
        self._role, self._leader = role, leader

    def _look_at_members(self, now_ms: float, followers: Mapping[int, FollowerStatus]) -> None:
        self._silent &= followers.keys()
        for member, follower in followers.items():
            heard_ms = max(follower.last_contact_ms, self._listens_since_ms)
            if now_ms - heard_ms < SILENT_TIMEOUTS * self._election_timeout_ms:
                if member in self._silent and follower.last_contact_ms >= heard_ms:
                    self._silent.discard(member)
                    log.info("A member answers again", extra={"member": member})
            elif member not in self._silent:
                self._silent.add(member)
                log.warning(
                    "A member has been silent for %d ms: is it running and reachable?",
                    round(now_ms - heard_ms),
                    extra={"member": member},
                )

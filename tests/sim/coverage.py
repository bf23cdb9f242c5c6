"""Counts how often the rare branches were reached. `EXPECTED` names those that no run of many seeds may miss.

Looks on as a checker does, and never objects.
"""

from __future__ import annotations

from raftchat.raft.messages import (
    AppendEntries,
    AppendReply,
    PeerMessage,
    ReadIndexReply,
    ReadIndexRequest,
    RequestVote,
    Role,
    TimeoutNow,
    VoteReply,
)

from .checkers import Checker
from .node import SimNode
from .simulation import Simulation

EXPECTED = (
    "checked quorum and stepped down",
    "commit of earlier terms' entries",
    "conflict truncation",
    "fast back-up over a run of terms",
    "file torn",
    "leader deposed with uncommitted entries",
    "message doubled",
    "message lost",
    "post overwritten",
    "power lost within a disk operation",
    "pre-vote refused",
    "pre-vote refused to one that is behind",
    "probe refused",
    "read asked of a follower",
    "read index failed",
    "read refused by one that does not lead",
    "read waited to be applied",
    "refused: lost",
    "refused: no leader",
    "refused: overloaded",
    "restart with a longer log than committed",
    "segment rolled",
    "sync outlived by a tail cut",
    "torn tail cut",
    "transfer aborted",
    "transfer begun",
    "transfer done",
    "vote granted",
    "vote lost",
    "vote refused",
    "vote without a winner",
)


class Coverage(Checker):
    def __init__(self, simulation: Simulation) -> None:
        super().__init__(simulation)
        self._reached = simulation.trace.reached
        self._before: dict[int, tuple[Role, int, int]] = {}
        """Node → role, term and commit index after its last turn."""
        self._handing_over: dict[int, int] = {}
        """Term → node that was told to campaign."""

    def booted(self, node: SimNode) -> None:
        self._before.pop(node.id, None)
        if node.storage.log.recovery is not None and node.storage.log.recovery.torn:
            self._reached["torn tail cut"] += 1
        if node.view.last_index > len(self.simulation.committed) - 1:
            self._reached["restart with a longer log than committed"] += 1

    def truncated(self, node: SimNode, last_index: int) -> None:
        self._reached["conflict truncation"] += 1

    def sending(self, node: SimNode, target: int, message: PeerMessage) -> None:
        kind = type(message)
        if kind is AppendEntries:
            return
        if kind is AppendReply:
            if not message.success and message.conflict_index:
                self._reached["probe refused"] += 1
                if message.hint_index < message.conflict_index - 1:
                    self._reached["fast back-up over a run of terms"] += 1
        elif kind is VoteReply:
            if message.pre:
                if not message.granted:
                    self._reached["pre-vote refused"] += 1
                    if message.term > self.simulation.nodes[target].term:
                        self._reached["pre-vote refused to one that is behind"] += 1
            else:
                self._reached["vote granted" if message.granted else "vote refused"] += 1
        elif kind is RequestVote:
            if message.transfer and not message.pre:
                self._handing_over[message.term] = node.id
        elif kind is TimeoutNow:
            self._reached["told to campaign"] += 1
        elif kind is ReadIndexRequest:
            self._reached["read asked of a follower"] += 1
        elif kind is ReadIndexReply and message.index == 0:
            self._reached["read refused by one that does not lead"] += 1

    def turned(self, node: SimNode) -> None:
        role, term, commit = node.role, node.term, node.commit_index
        before = self._before.get(node.id)
        self._before[node.id] = role, term, commit
        if before is None or before == (role, term, commit):
            return
        was, old_term, old_commit = before
        if was is Role.LEADER and role is not Role.LEADER:
            if term == old_term:
                self._reached["checked quorum and stepped down"] += 1
            if node.view.last_index > commit:
                self._reached["leader deposed with uncommitted entries"] += 1
        elif was is Role.CANDIDATE and role is Role.FOLLOWER:
            self._reached["vote lost"] += 1
        elif was is Role.CANDIDATE and role is Role.PRECANDIDATE:
            self._reached["vote without a winner"] += 1
        if role is Role.LEADER:
            if was is not Role.LEADER and self._handing_over.get(term) == node.id:
                self._reached["transfer done"] += 1
            if commit > old_commit and node.view.terms[min(old_commit + 1, commit)] < term:
                self._reached["commit of earlier terms' entries"] += 1

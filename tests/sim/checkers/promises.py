"""A node says nothing that it could forget: votes, terms and entries are durable before the reply that tells of them.

The four safety properties follow from this only after a crash at the right moment; here it is seen at once.
"""

from __future__ import annotations

from raftchat.raft.messages import AppendReply, PeerMessage, Role, VoteReply

from ..node import SimNode
from . import Checker


class Promises(Checker):
    def sending(self, node: SimNode, target: int, message: PeerMessage) -> None:
        durable = node.storage.durable_hard_state
        if type(message) is AppendReply:
            if message.success:
                self.require(
                    message.term <= durable.term,
                    f"node {node.id} accepts entries in a term that it may forget: {message}",
                )
                self.require(
                    message.match_index <= node.storage.durable_index,
                    f"node {node.id} says entry {message.match_index} is durable, and {node.storage.durable_index} is",
                )
        elif type(message) is VoteReply and message.granted and not message.pre:
            self.require(
                (durable.term, durable.vote) == (message.term, target) or durable.term > message.term,
                f"node {node.id} tells of a vote for {target} in term {message.term}; durable: {durable}",
            )

    def turned(self, node: SimNode) -> None:
        if node.role is Role.LEADER:
            durable = node.storage.durable_hard_state
            self.require(
                durable.term == node.term and durable.vote == node.id,
                f"node {node.id} leads term {node.term} by a vote of its own that it may forget; durable: {durable}",
            )

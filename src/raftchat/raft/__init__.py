"""Raft, as a function of messages and time. This is the caller's whole loop:

    raft = Raft(config, node_id, log, hard_state, history, random, noop=…, pack_membership=…, now_ms=…)
    while True:
        inputs, now_ms = wait(until=raft.deadline_ms)      # drain all that arrived
        raft.tick(now_ms)
        for message in inputs:
            raft.step(message)                             # from peers, and Persisted from the disk
        raft.propose(records, time_ms)                     # on the leader: appended, not yet replicated
        ready = raft.ready()                               # once per turn: everything above as one batch
        send(ready.messages)                               # at once, while the disk syncs
        if ready.persist and disk_is_idle:                 # one write at a time, in another thread:
            persist(ready.persist)                         #   hard state and log, then step(Persisted(...))
        publish(ready.commit_index, ready.reads)

The core has no clock, no I/O, no asyncio and no randomness of its own; these are passed in. It writes to the log, which
is a store into mapped memory, but never waits for it: what must become durable leaves in `Ready.persist`, and that it
did comes back as a message. Every reply that depends on durability is held until then, so there is no acknowledgement
before fsync, by construction.

It does not know what an entry means (membership excepted), where members live, or that there are processes.

Sections named in this package are those of Diego Ongaro, "Consensus: Bridging Theory and Practice" (2014).
"""

from raftchat.raft.core import Raft
from raftchat.raft.errors import ChangeRefused, NotLeader, Overloaded, Refused
from raftchat.raft.membership import Membership
from raftchat.raft.messages import HardState, Persist, Persisted, Read, Ready, Role
from raftchat.raft.status import FollowerStatus, Status

__all__ = [
    "ChangeRefused",
    "FollowerStatus",
    "HardState",
    "Membership",
    "NotLeader",
    "Overloaded",
    "Persist",
    "Persisted",
    "Raft",
    "Read",
    "Ready",
    "Refused",
    "Role",
    "Status",
]

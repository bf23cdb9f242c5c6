"""What `GET /raft` tells, as JSON: this node's view, and of the others what it knows (all of it only on the leader).

Reads what others keep in memory, for it is asked in between turns: no file is looked at. Changes nothing.
"""

from __future__ import annotations

from typing import Any, Protocol

import orjson

from raftchat.node.driver import Driver
from raftchat.node.store_ports import Counters
from raftchat.node.workers import Workers
from raftchat.raft import Raft, Role, Status
from raftchat.raft.status import FollowerStatus
from raftchat.storage.identity import Identity


class Log(Protocol):
    @property
    def first_index(self) -> int: ...
    @property
    def size_bytes(self) -> int: ...
    def segments(self) -> list[Any]: ...


class Traffic(Protocol):
    """`Peers`."""

    sent_bytes: int
    dropped_frames: int

    def connected(self, peer: int) -> bool: ...


def status_json(
    identity: Identity,
    raft: Raft,
    log: Log,
    driver: Driver,
    workers: Workers,
    traffic: Traffic,
    store: Counters,
    catch_up: dict[str, Any] | None,
    now_ms: float,
) -> bytes:
    """A JSON object in PascalCase. `Lag` in entries; `LastContactMs`: milliseconds ago, null if never. `CatchUp`: the
    snapshot that is being fetched, or null."""
    status = raft.status()
    return orjson.dumps(
        {
            "ID": status.node_id,
            "Leader": status.leader,
            "Term": status.term,
            "Role": str(status.role),
            "CommitIndex": status.commit_index,
            "FirstIndex": log.first_index,
            "LastIndex": status.last_index,
            "DurableIndex": status.durable_index,
            "ClusterID": identity.cluster_id,
            "Epoch": identity.epoch,
            "Members": [_member(status, node, url, traffic, now_ms) for node, url in _members(status)],
            "Log": {"Segments": len(log.segments()), "Bytes": log.size_bytes},
            "Store": {
                "SnapshotIndex": store.snapshot_index,
                "AppliedIndex": store.applied_index,
                "Lag": max(0, status.commit_index - store.applied_index),
                "LiveBytes": store.live_bytes,
                "RetiredBytes": store.retired_bytes,
            },
            "CatchUp": catch_up,
            "Counters": {
                "turns": driver.turns,
                "batches": driver.batches,
                "syncs": driver.syncs,
                "peer_bytes_sent": traffic.sent_bytes,
                "peer_frames_dropped": traffic.dropped_frames,
                "workers_open": len(workers),
                "snapshots": store.snapshots,
                "segment_indexes": store.indexes,
                "compactions": store.compactions,
                "reclaimed_bytes": store.reclaimed_bytes,
                "retention_plans": store.retention_plans,
                "store_failures": store.failures,
                **workers.counters(),
            },
        }
    )


def _members(status: Status) -> list[tuple[int, str]]:
    return sorted(status.membership.members.items())


def _member(status: Status, node: int, url: str, traffic: Traffic, now_ms: float) -> dict[str, Any]:
    member: dict[str, Any] = {
        "ID": node,
        "URL": url,
        "Role": "learner" if node in status.membership.learners else "voter",
        "Leader": node == status.leader,
        "Connected": node == status.node_id or traffic.connected(node),
    }
    if status.role == Role.LEADER:
        follower = status.followers.get(node)
        if follower is None:
            member |= {"MatchIndex": status.durable_index, "Lag": status.last_index - status.durable_index}
        else:
            member |= _follower(status, follower, now_ms)
    return member


def _follower(status: Status, follower: FollowerStatus, now_ms: float) -> dict[str, Any]:
    never = follower.last_contact_ms == float("-inf")
    return {
        "MatchIndex": follower.match_index,
        "State": follower.state,
        "Lag": status.last_index - follower.match_index,
        "LastContactMs": None if never else max(0, round(now_ms - follower.last_contact_ms)),
        "InflightBytes": follower.inflight_bytes,
    }

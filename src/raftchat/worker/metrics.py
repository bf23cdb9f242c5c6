"""`/metrics` in Prometheus' text format: this node's Raft status, and the counters of all its workers together.

Knows names and shapes. No label carries a room or a user: those are without bound, and nobody's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from raftchat.chat.state import ChatState
from raftchat.worker.counters import COUNTERS, GAUGES, SECONDS_BOUNDS

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_RAFT_GAUGES = {
    "Term": ("raft_term", "Current term."),
    "CommitIndex": ("raft_commit_index", "Highest committed entry this node knows of."),
    "LastIndex": ("raft_last_index", "Last entry of this node's log."),
    "DurableIndex": ("raft_durable_index", "Everything up to this entry is on this node's disk."),
    "Leader": ("raft_leader_id", "The leader, as this node knows it; 0: none."),
}
_MEMBER_GAUGES = {
    "MatchIndex": ("raft_member_match_index", "Durable on that member, as the leader knows it."),
    "Lag": ("raft_member_lag_entries", "Entries that member is behind the leader."),
    "Connected": ("raft_member_connected", "1 if this node is connected to that member."),
    "LastContactMs": ("raft_member_last_contact_milliseconds", "Time since that member last answered the leader."),
}
_LOG_GAUGES = {
    "Bytes": ("log_bytes", "Size of the log's files."),
    "Segments": ("log_segments", "Files the log consists of."),
}
_STORE_GAUGES = {
    "SnapshotIndex": ("store_snapshot_index", "Last entry of the newest snapshot; 0: there is none."),
    "Lag": ("store_lag_entries", "Entries that are committed and that the keeper of the store has not applied yet."),
    "LiveBytes": ("store_live_bytes", "What all messages occupy in the log."),
    "RetiredBytes": ("store_retired_bytes", "Size of files that are kept only until their grace is over."),
}
_RAFT_COUNTERS = {
    "turns": "Turns of the Raft process's loop.",
    "batches": "Batches appended to the log.",
    "syncs": "Times the log was made durable.",
    "peer_bytes_sent": "Bytes sent to other members.",
    "peer_frames_dropped": "Frames dropped because a member did not read.",
    "snapshots": "Snapshots written.",
    "segment_indexes": "Indexes of sealed segments written.",
    "compactions": "Times sealed segments were rewritten without what was removed.",
    "reclaimed_bytes": "Bytes that rewritten and dropped segments gave back, or will once their grace is over.",
    "retention_plans": "Plans of what the policies remove that this node proposed as the leader.",
    "store_failures": "Times the keeper of the store could not write or read something, and put it off.",
}


def render(status: Mapping[str, Any] | None, counters: Mapping[str, float], state: ChatState) -> bytes:
    """`status`: the Raft process's report (`GET /raft`), None if it gives none; `counters`: its own and the sums over
    all workers, or those of the one that answers. With them `process_*`, of the worker that answers."""
    registry = CollectorRegistry()
    registry.register(_NodeCollector(status, counters, state))
    ProcessCollector(registry=registry)
    return generate_latest(registry)


class _NodeCollector(Collector):
    def __init__(self, status: Mapping[str, Any] | None, counters: Mapping[str, float], state: ChatState) -> None:
        self._status = status
        self._counters = counters
        self._state = state

    def collect(self) -> Iterable[Metric]:
        yield _gauge("rooms", "Rooms, those that retention left without messages included.", len(self._state))
        yield _gauge("messages", "Messages in all rooms.", self._state.messages)
        yield _gauge("messages_bytes", "What they occupy in the log.", self._state.bytes)
        yield _gauge("applied_index", "Last entry applied by the worker that answers.", self._state.applied_index)
        yield _gauge("raft_up", "1 if this node's Raft process answers.", int(self._status is not None))
        if self._status is not None:
            yield from self._raft(self._status)
        yield from self._counted()

    def _raft(self, status: Mapping[str, Any]) -> Iterator[Metric]:
        for key, (name, text) in _RAFT_GAUGES.items():
            if isinstance(status.get(key), int):
                yield _gauge(name, text, status[key])
        yield _gauge("raft_is_leader", "1 on the leader.", int(status.get("Role") == "leader"))
        for key, (name, text) in _MEMBER_GAUGES.items():
            family = GaugeMetricFamily(f"raftchat_{name}", text, labels=["member"])
            for member in status.get("Members", ()):
                if isinstance(member.get(key), int | float):
                    family.add_metric([str(member["ID"])], member[key])
            if family.samples:
                yield family
        for key, (name, text) in _LOG_GAUGES.items():
            yield _gauge(name, text, status.get("Log", {}).get(key, 0))
        for key, (name, text) in _STORE_GAUGES.items():
            if key in status.get("Store", {}):
                yield _gauge(name, text, status["Store"][key])

    def _counted(self) -> Iterator[Metric]:
        counters = self._counters
        for name, text in _RAFT_COUNTERS.items():
            if name in counters:
                yield CounterMetricFamily(f"raftchat_{name}", text, value=counters[name])
        for name, text in COUNTERS.items():
            yield CounterMetricFamily(f"raftchat_{name}", text, value=counters.get(name, 0))
        for name, text in GAUGES.items():
            yield _gauge(name, text, counters.get(name, 0))
        buckets: list[tuple[str, float]] = []
        total = 0.0
        for number, bound in enumerate([*(str(bound) for bound in SECONDS_BOUNDS), "+Inf"]):
            total += counters.get(f"post_seconds_bucket_{number}", 0)
            buckets.append((bound, total))
        yield HistogramMetricFamily(
            "raftchat_post_seconds",
            "Seconds from a post's request to its 201.",
            buckets=buckets,
            sum_value=counters.get("post_seconds_sum", 0),
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"raftchat_{name}", text, value=value)

"""Every limit of raft-chat, with its unit last in its name, and what must hold between them.

Knows nothing about where values come from (flags, environment, TOML: `cli/`) nor what they are used for.
"""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Limits of one node. Made once at start, passed to whoever needs it, never changed."""

    # Log (docs/log-format.md)
    segment_size_bytes: int = 64 * MIB
    record_size_max_bytes: int = 256 * KIB
    """Header and body of one entry."""

    # Raft (dissertation 3.4, 6.4, 10.2.1)
    election_timeout_ms: int = 1000
    """A follower that heard nothing for a random time in [1, 2) of this campaigns."""
    heartbeat_interval_ms: int = 100
    append_size_max_bytes: int = 512 * KIB
    """Log bytes in one AppendEntries."""
    inflight_max_bytes: int = 4 * MIB
    """Log bytes sent to one follower and not yet acknowledged."""
    inflight_max_messages: int = 256
    uncommitted_max_bytes: int = 64 * MIB
    """The leader refuses proposals above this: the quorum is slower than its clients."""

    # Between processes
    proposal_batch_max_bytes: int = 1 * MIB
    """Records in one frame from a worker, or in one forward to the leader."""
    ipc_frame_max_bytes: int = 4 * MIB
    peer_frame_max_bytes: int = 4 * MIB
    peer_send_buffer_max_bytes: int = 16 * MIB
    """A peer that does not read: beyond this, frames to it are dropped and Raft sends again."""
    peer_redial_min_ms: int = 50
    peer_redial_max_ms: int = 1000
    peer_handshake_timeout_ms: int = 3_000
    """Connecting included."""
    peer_handshakes_max: int = 64
    """Connections to the peer port that have not said yet who they are; more are closed at once."""
    transfer_chunk_bytes: int = 1 * MIB
    """Of a snapshot's files, this much is read and written at once."""
    transfer_rate_max_bytes_per_s: int = 512 * MIB
    """A snapshot is sent no faster to one member."""
    transfer_timeout_ms: int = 10_000
    """A transfer that stands still this long is broken off and taken up again."""
    transfer_retry_ms: int = 500
    transfer_attempts_max: int = 10
    """A member that asked this often for a snapshot does not get it."""
    leader_wait_max_ms: int = 3_000
    """Posts and linearizable reads that find no leader wait this long for one; then 503, `no_leader`."""
    leader_wait_max_bytes: int = 16 * MIB
    """Records that wait so; more are refused as overload."""
    commit_hint_idle_ms: int = 50
    """The commit index goes to the hard state once nothing was appended for this long."""

    # The store (ARCHITECTURE.md, "The log is the store")
    delete_grace_ms: int = 3_600_000
    """What was replaced or removed stays on disk this long, for copies that are being made."""
    store_interval_ms: int = 200
    """The keeper looks at what was committed, and does what follows from it, no more often."""
    store_retry_ms: int = 10_000
    """What could not be written (a full disk) is tried again after this."""
    store_pause_ms: int = 1
    """The keeper leaves the interpreter to the others this long between two slices of entries."""
    retention_interval_ms: int = 5_000
    """How often a leader looks what the policies remove."""
    retention_rooms_max: int = 1_000
    """So many rooms are changed by one plan; the rest by the next."""
    clock_leap_max_ms: int = 60_000
    """A wall clock that goes apart from the machine's own counting by more is not believed."""
    clock_settle_ms: int = 600_000
    """A node that starts with its wall clock further ahead of its log than that removes nothing by age for so long."""
    compaction_live_max_percent: int = 50
    """A sealed segment is rewritten once less of it lives."""
    compaction_rate_max_bytes_per_s: int = 64 * MIB
    """Read and written, so that posts find a disk that has time for them."""
    unlink_rate_max_bytes_per_s: int = 128 * MIB
    """What is not needed any more is given back no faster: to free 64 MiB keeps the system busy for 20 ms."""
    roll_interval_ms: int = 60_000
    """A segment is not sealed before its time, for the sake of what was removed, more often."""

    # The first policy of a new cluster; None: no limit
    initial_max_age_ms: int | None = None
    initial_max_messages: int | None = None
    initial_max_bytes: int | None = None
    initial_max_rooms: int | None = None
    initial_empty_room_age_ms: int | None = None
    """None: the default of a policy."""

    worker_restart_min_ms: int = 100
    worker_restart_max_ms: int = 5_000
    worker_failures_max: int = 5
    """A node whose workers failed this often without ever having served gives up."""

    # Chat
    message_size_max_bytes: int = 32 * KIB
    """UTF-8 bytes of one message's text."""
    name_size_max_bytes: int = 255
    """UTF-8 bytes of a room's or user's name."""
    body_size_max_bytes: int = 128 * KIB
    """An HTTP request's body. JSON may write one byte of text as six (\\u00XX)."""
    page_limit_default: int = 100
    page_limit_max: int = 1000
    rooms_limit_default: int = 1000
    rooms_limit_max: int = 10_000
    page_size_max_bytes: int = 8 * MIB
    """A page ends early, with a Link to the rest, once it is this large."""

    # HTTP and WebSocket
    request_timeout_ms: int = 10_000
    """A post or linearizable read that is not decided by then: 503, outcome unknown."""
    status_timeout_ms: int = 2_000
    """`GET /raft`: a Raft process that has not told by then hangs."""
    request_header_timeout_ms: int = 20_000
    """A request, body included, that has not arrived by then: 408."""
    request_head_max_bytes: int = 64 * KIB
    known_heads_max: int = 4096
    """Heads of requests that a worker recognises when they come again; 0: it parses each."""
    known_head_max_bytes: int = 2 * KIB
    request_discard_max_bytes: int = 8 * MIB
    """Of a body that was refused (413), this much is read and dropped so that the client gets to see the answer."""
    keep_alive_timeout_ms: int = 65_000
    shutdown_timeout_ms: int = 5_000
    """What is still unanswered this long after SIGTERM is dropped."""
    socket_frame_max_bytes: int = 64 * KIB
    socket_queue_max_bytes: int = 1 * MIB
    """Bytes waiting for one WebSocket; beyond, it is closed with 1013."""
    socket_ping_interval_ms: int = 20_000
    socket_ping_timeout_ms: int = 20_000
    socket_heartbeat_ms: int = 25_000
    socket_close_timeout_ms: int = 5_000
    """A WebSocket that was told to close and has not read that by then is cut off."""
    socket_rooms_max: int = 100
    """`room` parameters of one WebSocket."""
    counters_interval_ms: int = 1_000

    def __post_init__(self) -> None:
        def require(holds: bool, message: str) -> None:
            if not holds:
                raise ValueError(message)

        require(
            self.heartbeat_interval_ms * 3 <= self.election_timeout_ms,
            f"election timeout ({self.election_timeout_ms} ms) must be at least three heartbeat intervals "
            f"({self.heartbeat_interval_ms} ms), or a single lost heartbeat starts an election",
        )
        require(self.heartbeat_interval_ms >= 1, "heartbeat interval must be at least 1 ms")
        require(
            self.segment_size_bytes >= 4 * KIB and self.segment_size_bytes % 8 == 0,
            f"segment size ({self.segment_size_bytes} bytes) must be a multiple of 8 and at least 4 KiB",
        )
        require(
            self.record_size_max_bytes + 64 <= self.segment_size_bytes,
            f"a record ({self.record_size_max_bytes} bytes) must fit into a segment ({self.segment_size_bytes} bytes)",
        )
        require(
            self.record_size_max_bytes <= self.append_size_max_bytes <= self.inflight_max_bytes,
            "record size ≤ append size ≤ in-flight bytes",
        )
        require(
            self.append_size_max_bytes + 4 * KIB <= self.peer_frame_max_bytes
            and self.proposal_batch_max_bytes + 4 * KIB <= min(self.peer_frame_max_bytes, self.ipc_frame_max_bytes),
            "one append and one batch of proposals must fit into a frame",
        )
        require(
            1 <= self.store_interval_ms <= self.retention_interval_ms,
            f"retention interval ({self.retention_interval_ms} ms) must be at least the keeper's own "
            f"({self.store_interval_ms} ms)",
        )
        require(min(self.delete_grace_ms, self.roll_interval_ms, self.clock_settle_ms) >= 0, "times are not negative")
        require(1 <= self.compaction_live_max_percent < 100, "compaction must leave less than it began with")
        require(self.compaction_rate_max_bytes_per_s >= MIB, "compaction needs at least 1 MiB/s to come to an end")
        require(self.unlink_rate_max_bytes_per_s >= 1, "what is not needed any more must go at some rate")
        limits = (self.initial_max_age_ms, self.initial_max_messages, self.initial_max_bytes, self.initial_max_rooms)
        require(all(limit is None or limit >= 1 for limit in limits), "a limit of a policy is at least 1")
        # A post's record: header, room name, and two JSON strings in which one byte may become six.
        post_max = 48 + self.name_size_max_bytes + 6 * (self.message_size_max_bytes + self.name_size_max_bytes) + 64
        require(post_max <= self.record_size_max_bytes, "the largest post must fit into a record")
        require(self.page_limit_default <= self.page_limit_max, "default page ≤ largest page")

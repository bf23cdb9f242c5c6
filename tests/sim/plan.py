"""What one seed draws before anything happens: the cluster's size, its limits, its network and its clients.

Faults draw for themselves, each from a stream of its own (`stream`), so that a new kind of fault leaves the other
draws of a seed as they were. Knows nothing of how any of it is done.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from raftchat.config import KIB, Config

from .scheduler import MS, SECOND

RUN_US = 60 * SECOND

# After the faults, in election timeouts: a leader by then, everything settled by then, and the rest is silence.
LEADER_WITHIN = 10
PROBED_AT = 11
SETTLED_WITHIN = 14
QUIET_UNTIL = 18


def stream(seed: int, name: str) -> Random:
    """The random numbers of one concern of one seed."""
    return Random(f"{seed}/{name}")


@dataclass(frozen=True, slots=True)
class Plan:
    seed: int
    voters: int
    config: Config
    heal_us: int
    """When the faults stop."""
    restart_all: bool
    """At the end all nodes run; otherwise a random majority, and the rest stay down."""
    latency_us: int
    """Of a link when nothing is wrong."""
    turn_us: int
    """From the first input to the turn of the loop that takes it: more comes in meanwhile."""
    sync_us: int
    """Of an fdatasync when nothing is wrong."""
    log_before_hard_state: bool
    """In which order one write of the driver makes the two durable."""
    restart_us: int
    """Typical time from a crash to the next start."""
    posters: int
    readers: int
    think_us: int
    """Mean pause of a client between two requests."""
    burst_max: int
    """Posts in one request, at most."""
    text_max_bytes: int
    patience_us: int
    """A client that has no answer by then calls it unknown."""


def draw(seed: int) -> Plan:
    random = stream(seed, "plan")
    voters = random.choices((1, 2, 3, 4, 5, 6, 7), (3, 4, 54, 6, 27, 3, 3))[0]
    config = _config(random)
    timeout_us = config.election_timeout_ms * MS
    return Plan(
        seed=seed,
        voters=voters,
        config=config,
        heal_us=RUN_US - (QUIET_UNTIL + 1) * timeout_us,
        restart_all=random.random() < 0.6,
        latency_us=random.choice((200, 1000, 5 * MS, timeout_us // 40)),
        turn_us=random.choice((0, 200, 2 * MS)),
        sync_us=random.choice((100, 1000, 8 * MS)),
        log_before_hard_state=random.random() < 0.5,
        restart_us=random.choice((5 * MS, 100 * MS, timeout_us, 4 * timeout_us)),
        posters=random.randint(1, 4),
        readers=random.randint(1, 2),
        think_us=int(random.choice((0.4, 0.8, 1.6)) * SECOND),
        burst_max=random.choice((1, 3, 12)),
        text_max_bytes=random.choice((8, 60, 200)),
        patience_us=random.choice((2, 5)) * timeout_us,
    )


def _config(random: Random) -> Config:
    election_timeout_ms = random.choice((400, 600, 800, 1000, 1200))
    record_size_max_bytes = 1 * KIB
    append_size_max_bytes = random.choice((1 * KIB, 2 * KIB, 8 * KIB))
    return Config(
        segment_size_bytes=random.choice((4, 8, 16)) * KIB,
        record_size_max_bytes=record_size_max_bytes,
        election_timeout_ms=election_timeout_ms,
        heartbeat_interval_ms=election_timeout_ms // random.choice((3, 4, 6)),
        append_size_max_bytes=append_size_max_bytes,
        inflight_max_bytes=random.choice((1, 2, 8)) * append_size_max_bytes,
        inflight_max_messages=random.choice((1, 2, 8, 64)),
        uncommitted_max_bytes=random.choice((4, 16, 256)) * KIB,
        message_size_max_bytes=64,
        name_size_max_bytes=32,
    )

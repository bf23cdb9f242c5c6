"""Three-node posts beside etcd's puts and NATS JetStream's publishes, in one run, on one machine and one disk.

    make bench-peers        python -m bench.peers.run --strict: exit code 1 below 4 × etcd's puts; the aim is 8 ×

raft-chat acknowledges after fsync on a majority, and so does etcd; JetStream (its defaults) acknowledges what a
majority has received and syncs every two minutes. raft-chat and etcd are loaded by the same wrk with 64 connections,
JetStream by 64 publishes in flight on one connection. Rounds alternate; each system's best round counts.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import uvloop

from bench import wrk
from bench.bench_rest import POST
from bench.peers import jetstream, servers
from bench.report import table, tell_missed
from tests.faults.cluster import HOST, Cluster

CONNECTIONS = 64
SECONDS = 6.0
ROUNDS = 3
FLOOR_ETCD, AIM_ETCD = 4, 8
"""Times etcd's rate."""


def main(*, strict: bool = False) -> int:
    message = json.loads(POST)["Message"]
    with (
        Cluster(3) as cluster,
        tempfile.TemporaryDirectory(prefix="raft-chat-peers-") as name,
        servers.etcd(Path(name)) as etcd_urls,
        servers.nats(Path(name)) as nats_ports,
    ):
        cluster.start()
        leader = cluster.leader()
        uvloop.run(jetstream.create_stream(HOST, nats_ports[0]))
        put = servers.etcd_put("/rooms/bench", message)

        def post(urls: list[str]) -> float:
            return without_errors(wrk.run(urls, seconds=SECONDS, method="POST", path="/rooms/bench", body=POST))

        def etcd(urls: list[str]) -> float:
            return without_errors(wrk.run(urls, seconds=SECONDS, method="POST", path="/v3/kv/put", body=put))

        def nats() -> float:
            return uvloop.run(jetstream.publish_rate(HOST, nats_ports[0], message.encode(), CONNECTIONS, SECONDS))

        runs: dict[str, Callable[[], float]] = {
            "raft-chat, posts to all nodes": lambda: post([node.url for node in cluster]),
            "raft-chat, posts to the leader": lambda: post([leader.url]),
            "etcd, puts to all nodes": lambda: etcd(etcd_urls),
            "etcd, puts to the leader": lambda: etcd(etcd_urls[:1]),
            "NATS JetStream R3, publishes": nats,
        }
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(ROUNDS):
            for name, run in runs.items():
                rates[name].append(run())
    return report(rates, strict=strict)


def without_errors(rate: wrk.Rate) -> float:
    if rate.errors:
        raise RuntimeError(f"{rate.errors} requests failed")
    return rate.per_s


def report(rates: dict[str, list[float]], *, strict: bool = False) -> int:
    """The table, and the exit code."""
    best = {name: max(values) for name, values in rates.items()}
    ours = max(rate for name, rate in best.items() if name.startswith("raft-chat"))
    fsync = {"raft-chat": "yes", "etcd": "yes", "NATS": "no"}
    rows = [("three nodes, 64 in flight", "per second", "rounds", "fsync before ack", "raft-chat is", "floor", "aim")]
    missed = []
    for name, rate in best.items():
        rounds = " ".join(f"{value:.0f}" for value in rates[name])
        ratio = "" if name.startswith("raft-chat") else f"{ours / rate:.2f} ×"
        bounds = (f"{FLOOR_ETCD} ×", f"{AIM_ETCD} ×") if name.startswith("etcd") else ("", "")
        if name.startswith("etcd") and ours < FLOOR_ETCD * rate:
            missed.append(name)
        rows.append(
            (name, f"{rate:,.0f}", rounds, next(v for k, v in fsync.items() if name.startswith(k)), ratio, *bounds)
        )
    print(table(rows))
    return tell_missed(missed, strict=strict)


if __name__ == "__main__":
    sys.exit(main(strict="--strict" in sys.argv))

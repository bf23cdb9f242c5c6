"""`raft-chat serve`, and `raft-chat` with no subcommand: run a node.

Checks what can be checked before anything is touched, then directory, lock and sockets, then the supervisor.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
from typing import Any
from urllib.parse import urlsplit

import click

from raftchat import logs
from raftchat.cli.settings import config_option, option, warn_of_unknown
from raftchat.cli.store_options import EPILOG as STORE_EPILOG
from raftchat.cli.store_options import store_options
from raftchat.cli.units import Duration, PeerUrls
from raftchat.config import Config
from raftchat.node import directory
from raftchat.node.exits import CANNOT_START, NodeFailed
from raftchat.node.listen import bind, is_loopback
from raftchat.node.supervisor import NodeSettings, run_node
from raftchat.storage.errors import StorageError
from raftchat.storage.files import make_directory_durably
from raftchat.storage.lock import DirectoryLock

log = logging.getLogger(__name__)

EPILOG = """
\b
One node:
  raft-chat --id 1 --cluster http://127.0.0.1:12379 --port 12380
\b
Three nodes, each in a terminal of its own (one line each):
  raft-chat --id 1 --port 12380
            --cluster http://127.0.0.1:12379,http://127.0.0.1:22379,http://127.0.0.1:32379
  raft-chat --id 2 --port 22380  --cluster (the same)
  raft-chat --id 3 --port 32380  --cluster (the same)
\b
Then:
  curl -L http://127.0.0.1:12380/rooms/general -d '{"Message": "hello", "User": "username"}'
  curl -L http://127.0.0.1:12380/rooms/general
"""
EPILOG += STORE_EPILOG
EPILOG += """
Every option can also be given as RAFTCHAT_<NAME> in the environment (RAFTCHAT_ELECTION_TIMEOUT=2s) or in the file of
--config; the command line wins over the environment, and that over the file.

Exit codes: 0 ended in order, 1 failed while running, 2 wrong usage, 3 cannot start, 4 corrupt data.
"""


@click.command(epilog=EPILOG)
@config_option
@option(
    "--id", "node_id", type=click.IntRange(1), default=1, help="This node's number: its place in --cluster, from 1."
)
@option(
    "--cluster",
    type=PeerUrls(),
    default="http://127.0.0.1:9021",
    help="Peer URLs of all nodes, in order of id. This node listens for its peers on its own one.",
)
@option("--port", type=click.IntRange(0, 65535), default=9121, help="HTTP API and web client; 0: any free port.")
@option("--host", default="127.0.0.1", help="Address of the HTTP API; 0.0.0.0 or :: for all.")
@option("--data-dir", type=click.Path(file_okay=False), help="Everything the node owns.  [default: ./raft-chat-<id>]")
@option("--workers", type=click.IntRange(1, 64), default=1, help="Processes that serve HTTP.")
@option("--election-timeout", type=Duration(), default="1000ms", help="Silence after which a new leader is elected.")
@option("--heartbeat-interval", type=Duration(), default="100ms", help="How often a leader shows that it lives.")
@store_options
@option(
    "--insecure-peers",
    is_flag=True,
    help="Listen for peers on an address other machines can reach, although peers are neither authenticated nor "
    "encrypted: anyone who can connect can change everything.",
)
@option("--log-format", type=click.Choice(logs.FORMATS), help="[default: text on a terminal, else json]")
@option("--log-level", type=click.Choice(logs.LEVELS), default="info", help="Least important lines to write.")
def serve(
    node_id: int,
    cluster: list[str],
    port: int,
    host: str,
    data_dir: str | None,
    workers: int,
    election_timeout: int,
    heartbeat_interval: int,
    insecure_peers: bool,
    log_format: str | None,
    log_level: str,
    **store: Any,
) -> None:
    """Run a node: the default when no subcommand is given."""
    if node_id > len(cluster):
        raise click.UsageError(
            f"--id {node_id} is outside --cluster, which names {len(cluster)} node{'s' * (len(cluster) > 1)}: "
            f"use an id from 1 to {len(cluster)}, or add this node's URL to the list"
        )
    try:
        config = Config(
            election_timeout_ms=election_timeout,
            heartbeat_interval_ms=heartbeat_interval,
            **store,
        )
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    log_format = logs.choose_format(log_format, sys.stderr)
    logs.belong_to(node_id)
    logs.setup("node", log_format=log_format, level=log_level)
    warn_of_unknown(serve, os.environ)
    data_dir = os.path.abspath(data_dir or f"raft-chat-{node_id}")
    try:
        with _own(data_dir) as lock:
            stored = directory.examine(data_dir, node_id, cluster)
            members = stored.members if stored is not None else dict(enumerate(cluster, start=1))
            peer = _bind_peer(members[node_id], host, port, insecure_peers)
            http = bind(host, port, what="HTTP port", remedy="stop that, or choose another --port")
            if stored is None:
                directory.bootstrap(data_dir, node_id, cluster)
            code = run_node(
                NodeSettings(
                    node_id=node_id,
                    data_dir=data_dir,
                    workers=workers,
                    url=_url(host, http[0].getsockname()[1]),
                    http=http,
                    peer=peer,
                    lock_fd=lock.fd,
                    config=config,
                    log_format=log_format,
                    log_level=log_level,
                    environ=os.environ,
                )
            )
    except NodeFailed as failure:
        log.critical("Node %d ends: %s", node_id, failure)
        code = failure.code
    raise SystemExit(code)


def _own(data_dir: str) -> contextlib.closing[DirectoryLock]:
    try:
        make_directory_durably(data_dir)
        return contextlib.closing(DirectoryLock(data_dir))
    except (StorageError, OSError) as error:
        raise NodeFailed(CANNOT_START, str(error)) from error


def _bind_peer(url: str, host: str, port: int, insecure: bool) -> list[socket.socket]:
    """Listen on this node's own peer URL, unless it is the HTTP API's address or open to strangers."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    if (parts.hostname, parts.port) == (host, port):
        raise click.UsageError(f"--port {port} is also the port of this node's peer URL {url}: choose another one")
    if not insecure and not is_loopback(parts.hostname):
        raise click.UsageError(
            f"{url} can be reached from other machines, and peers are not authenticated: anyone who can connect could "
            "change everything. Use a loopback address, or say --insecure-peers if a firewall keeps others away"
        )
    remedy = "stop that, or change this node's URL in --cluster"
    return bind(parts.hostname, parts.port, what="peer port", remedy=remedy)


def _url(host: str, port: int) -> str:
    """What a user on this machine can open."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}"

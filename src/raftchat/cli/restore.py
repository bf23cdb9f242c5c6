"""`raft-chat restore SRC`: a new cluster out of a copy of an old one.

Knows flags, and what to do next; how it is done is in `node.restore`.
"""

from __future__ import annotations

import secrets
import shlex

import click

from raftchat.cli import work
from raftchat.cli.settings import option
from raftchat.cli.units import PeerUrls
from raftchat.config import Config
from raftchat.node.restore import NewCluster
from raftchat.node.restore import restore as make_directory

EPOCHS = 2**31
"""An epoch is greater than the old one by at most this: two restores of one copy meet with a chance of 1 in so many."""

EPILOG = """
\b
A single node:
  raft-chat restore ./monday --data-dir ./new --cluster http://127.0.0.1:12379
  raft-chat --id 1 --cluster http://127.0.0.1:12379 --port 12380 --data-dir ./new
\b
Three nodes: restore each from the same copy, the second and third with the epoch that the first restore tells.
  raft-chat restore ./monday --id 1 --cluster URL1,URL2,URL3
  raft-chat restore ./monday --id 2 --cluster URL1,URL2,URL3 --epoch 1743240913
  raft-chat restore ./monday --id 3 --cluster URL1,URL2,URL3 --epoch 1743240913

SRC may be a backup, the directory of a node that is stopped, or a copy (cp -a, rsync, tar) of one that was running.
Nodes of the old cluster are left alone, and refuse the new ones; clients see a new epoch. A restore that was broken
off is no node: give the same command again.

Exit codes: 0 done, 2 wrong usage, 3 cannot read or write, 4 the copy is corrupt: file and reason are named. With
--up-to-fault what comes before the fault is restored, and what shows that more is lost is told.
"""


@click.command(epilog=EPILOG, short_help="Make a new cluster out of a copy.")
@click.argument("source", metavar="SRC", type=click.Path(exists=True, file_okay=False))
@option("--id", "node_id", type=click.IntRange(1), default=1, help="The new node's number: its place in --cluster.")
@option(
    "--cluster", type=PeerUrls(), default="http://127.0.0.1:9021", help="Peer URLs of the new cluster, in order of id."
)
@option("--data-dir", type=click.Path(file_okay=False), help="Made, or empty.  [default: ./raft-chat-<id>]")
@click.option("--epoch", type=click.IntRange(2, 2**53), help="As the first restore of this cluster told.")
@click.option("--up-to-fault", is_flag=True, help="Although acknowledged messages after a fault are lost.")
@click.option("--no-retention", is_flag=True, help="Without the retention policies of the copy.")
def restore(
    source: str,
    node_id: int,
    cluster: list[str],
    data_dir: str | None,
    epoch: int | None,
    up_to_fault: bool,
    no_retention: bool,
) -> None:
    """Make the data directory of a node of a new cluster, with the messages, rooms and policies of a copy."""
    work.begin("restore")
    if node_id > len(cluster):
        raise click.UsageError(f"--id {node_id} is outside --cluster, which names {len(cluster)}")
    target = data_dir or f"raft-chat-{node_id}"
    new = NewCluster(
        node_id,
        cluster,
        lambda old: epoch if epoch is not None else old + 1 + secrets.randbelow(EPOCHS),
        lambda: secrets.randbits(64) | 1,
        Config().segment_size_bytes,
        not no_retention,
    )
    with work.explained(), work.progress(f"Restoring {source}") as on_progress:
        made = make_directory(source, target, new, on_progress, up_to_fault=up_to_fault)
    for fault in made.faults:
        click.echo(f"not used: {fault}")
    for loss in made.lost:
        click.echo(work.red(f"lost: {loss}"))
    click.echo(
        f"{target}: {made.messages} messages in {made.rooms} rooms, up to entry {made.last_index} "
        f"({made.ends_because}); cluster {made.identity.cluster_id}, epoch {made.identity.epoch}"
    )
    urls = ",".join(cluster)
    flags = [flag for flag, given in (("--up-to-fault", up_to_fault), ("--no-retention", no_retention)) if given]
    if epoch is None:
        for other in range(1, len(cluster) + 1):
            if other != node_id:
                command = ["raft-chat", "restore", source, "--id", str(other), "--cluster", urls, *flags]
                click.echo(f"node {other}: {shlex.join(command)} --epoch {made.identity.epoch}")
    start = ["raft-chat", "--id", str(node_id), "--cluster", urls, "--data-dir", target]
    click.echo(f"start it: {shlex.join(start)} --port PORT")

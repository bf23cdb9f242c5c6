"""`raft-chat backup DEST`: a copy of a node's directory, at once and while it runs.

Knows flags and how the result is told; how the copy is made is in `storage.backup`.
"""

from __future__ import annotations

import os

import click

from raftchat.cli import work
from raftchat.cli.settings import option
from raftchat.storage.backup import backup as make_backup

EPILOG = """
\b
  raft-chat backup /var/backups/raft-chat-monday --data-dir /var/lib/raft-chat
  raft-chat backup ./monday --id 1               of ./raft-chat-1
  raft-chat verify ./monday                      to be sure of every byte
  raft-chat restore ./monday --data-dir ./new    to make a new cluster of it

On the same file system immutable files are hard links, which cost no time and no room; copy the backup on from there
(cp -a, rsync, tar) to another disk. One backup of one node is a backup of the cluster.

Exit codes: 0 done, 2 wrong usage, 3 cannot read or write, 4 corrupt data.
"""


@click.command(epilog=EPILOG, short_help="Copy a node's directory, which may be running.")
@click.argument("destination", metavar="DEST", type=click.Path())
@option("--id", "node_id", type=click.IntRange(1), default=1, help="Node whose ./raft-chat-<id> is meant.")
@option("--data-dir", type=click.Path(file_okay=False), help="The node's data directory.  [default: ./raft-chat-<id>]")
def backup(destination: str, node_id: int, data_dir: str | None) -> None:
    """Copy a node's directory to DEST, which must be empty or not exist yet. The node may be running.

    The copy holds everything that was acknowledged before it began.
    """
    work.begin("backup")
    source = data_dir or f"raft-chat-{node_id}"
    if not os.path.isdir(source):
        raise click.UsageError(f"there is no directory {source}; say with --data-dir where the node keeps its data")
    with work.explained(), work.progress(f"Backup of {source}") as on_progress:
        made = make_backup(source, destination, on_progress)
    click.echo(
        f"{destination}: up to entry {made.last_index}; {made.linked} files linked, {made.copied} copied "
        f"({work.size(made.copied_bytes)})"
    )

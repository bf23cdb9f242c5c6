"""`raft-chat version`: this program's version, and what it was built with where that matters for a report."""

from __future__ import annotations

import platform

import click

from raftchat import __version__


@click.command()
def version() -> None:
    """Show the version."""
    click.echo(f"raft-chat {__version__} ({platform.python_implementation()} {platform.python_version()})")

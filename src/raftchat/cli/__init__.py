"""The command line: `raft-chat`, one module for each subcommand.

Knows flags, environment and configuration file, and how a program ends; what a node does is in `node/`.
"""

from __future__ import annotations

import click

from raftchat import __version__
from raftchat.cli.backup import backup
from raftchat.cli.restore import restore
from raftchat.cli.room import room
from raftchat.cli.serve import serve
from raftchat.cli.verify import verify
from raftchat.cli.version import version


class _Commands(click.Group):
    """Without a subcommand, `serve` is meant, and its options are shown."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0].startswith("-") and args[0] not in ("--help", "-h", "--version")):
            args = ["serve", *args]
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        records = [record for option in serve.params if (record := option.get_help_record(ctx)) is not None]
        with formatter.section("Options of a node"):
            formatter.write_dl(records)
        super().format_options(ctx, formatter)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog=serve.epilog,
)
@click.version_option(__version__, prog_name="raft-chat")
def main() -> None:
    """A highly-available chat server that needs no database.

    With no subcommand, runs a node (serve).
    """


for _command in (serve, verify, backup, restore, room):
    main.add_command(_command)
main.add_command(version)

"""`raft-chat verify D`: read everything in a data directory and say what is wrong.

Shows what `storage.verify` found. Does not know what is looked at.
"""

from __future__ import annotations

import logging
from dataclasses import asdict

import click
import orjson

from raftchat.cli import work
from raftchat.node.exits import CANNOT_START, CORRUPT, DONE
from raftchat.storage.verify import Finding, Report
from raftchat.storage.verify import verify as read_everything

log = logging.getLogger(__name__)

EPILOG = """
\b
  raft-chat verify ./raft-chat-1             a node's directory, stopped or running
  raft-chat verify /mnt/backup/raft-chat     a backup, or a copy made with cp -a
  raft-chat verify --json ./raft-chat-1

Exit codes: 0 all is well, 4 something is corrupt, 3 something could not be read, 2 wrong usage.
"""


@click.command(epilog=EPILOG, short_help="Read every byte of a data directory, and say what is wrong.")
@click.argument("directory", type=click.Path(file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="The result as a JSON object.")
def verify(directory: str, as_json: bool) -> None:
    """Read every byte of a data directory, and name file, offset and reason of each fault.

    Nothing is changed. A node may be running on it: a record that is just being written is no fault.
    """
    work.begin("verify")
    with work.explained(), work.progress(f"Reading {directory}") as on_progress:
        report = read_everything(directory, on_progress)
    click.echo(_json(report) if as_json else _text(report))
    raise SystemExit(_code(report))


def _code(report: Report) -> int:
    if report.corrupt:
        return CORRUPT
    return CANNOT_START if report.unreadable else DONE


def _json(report: Report) -> str:
    def findings(found: list[Finding]) -> list[dict[str, object]]:
        return [{name.capitalize(): value for name, value in asdict(finding).items()} for finding in found]

    document = {
        "Directory": report.directory,
        "OK": _code(report) == DONE,
        "Files": report.files,
        "Bytes": report.bytes,
        "Records": report.records,
        "LastIndex": report.last_index,
        "Corrupt": findings(report.corrupt),
        "Unreadable": findings(report.unreadable),
        "Notes": findings(report.notes),
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()


def _text(report: Report) -> str:
    lines = [f"note: {note}" for note in report.notes]
    lines += [f"{work.red('unreadable:')} {finding}" for finding in report.unreadable]
    lines += [f"{work.red('corrupt:')} {finding}" for finding in report.corrupt]
    faults = len(report.corrupt) + len(report.unreadable)
    verdict = work.red(f"{faults} fault{'s' * (faults > 1)}") if faults else "all is well"
    read = f"{report.files} files, {work.size(report.bytes)}, {report.records} records, up to entry {report.last_index}"
    return "\n".join([*lines, f"{report.directory}: {read}: {verdict}"])

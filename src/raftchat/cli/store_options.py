"""The options of `serve` that say what a node keeps and for how long: a new cluster's first policy, grace, segments.

Knows flags and the limits they set, not what is done with them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from raftchat.cli.settings import option
from raftchat.cli.units import Size
from raftchat.units import parse_duration_ms

F = TypeVar("F", bound=Callable[..., Any])

EPILOG = """
\b
Keep messages for 30 days, at most 10 GiB of them, and rooms without any for a day:
  raft-chat --id 1 --max-age 30d --max-bytes 10GiB --empty-room-age 1d
These are a new cluster's first policy: one that has a message older than a day, more than 10000 entries,
or ever had a policy, is left as it is. The policy of a running cluster is changed with PUT /retention.
"""


class Age(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions
    """Milliseconds: `30d`, `12h`. A number alone might be meant as anything, and messages would be gone: refused."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip()
        try:
            if text.replace(".", "", 1).isdigit() and float(text):
                raise ValueError
            return parse_duration_ms(text, "s")
        except ValueError:
            self.fail(f"{value!r} is not an age; write it with its unit: 90s, 15m, 12h or 30d", param, ctx)


class Limit(click.ParamType):  # type: ignore[type-arg]  # generic only in newer versions
    """Bytes of at least one."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        size_bytes = Size().convert(value, param, ctx)
        if size_bytes < 1:
            self.fail("must be at least 1 byte; leave the option out for no limit", param, ctx)
        return size_bytes


def store_options(function: F) -> F:
    """Adds them; the function gets them by the names of `Config`."""
    at_first = "Only for a new cluster's first policy (first day, first 10000 entries); later: PUT /retention."
    for add in reversed(
        [
            option("--max-age", "initial_max_age_ms", type=Age(), help=f"Messages older than this go. {at_first}"),
            option(
                "--max-messages",
                "initial_max_messages",
                type=click.IntRange(1),
                help=f"Of more messages in all rooms together the oldest go. {at_first}",
            ),
            option(
                "--max-bytes", "initial_max_bytes", type=Limit(), help=f"Of more than this the oldest go. {at_first}"
            ),
            option(
                "--max-rooms",
                "initial_max_rooms",
                type=click.IntRange(1),
                help=f"Of more rooms those go in which nobody wrote for longest. {at_first}",
            ),
            option(
                "--empty-room-age",
                "initial_empty_room_age_ms",
                type=Age(),
                help=f"A room without messages goes after this.  [default: 1h] {at_first}",
            ),
            option(
                "--delete-grace",
                "delete_grace_ms",
                type=Age(),
                default="1h",
                help="What was removed or replaced stays on disk this long, so that a copy of the directory that is "
                "being made is whole; make it longer than copying takes.",
            ),
            option(
                "--segment-size",
                "segment_size_bytes",
                type=Size(),
                default="64MiB",
                help="Size of one file of the log; space comes back by whole files.",
            ),
        ]
    ):
        function = add(function)
    return function

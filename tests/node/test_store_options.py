"""The flags of what a node keeps: units, and what must not be mistaken."""

from __future__ import annotations

from typing import Any

import click
import pytest
from click.testing import CliRunner

from raftchat.cli.store_options import store_options
from raftchat.config import MIB, Config


def parsed(*arguments: str, environment: dict[str, str] | None = None) -> tuple[dict[str, Any], str]:
    got: dict[str, Any] = {}

    @click.command()
    @store_options
    def command(**store: Any) -> None:
        got.update(store)

    result = CliRunner().invoke(command, arguments, env=environment)
    return got, result.output


def test_without_flags_there_is_no_policy_and_the_defaults_are_those_of_the_limits() -> None:
    got, _ = parsed()
    assert Config(**got) == Config()


def test_ages_and_sizes_take_units() -> None:
    got, _ = parsed(
        *("--max-age", "30d", "--max-messages", "1000", "--max-bytes", "1GiB", "--max-rooms", "9"),
        *("--empty-room-age", "90s", "--delete-grace", "0s", "--segment-size", "1MiB"),
    )
    config = Config(**got)
    assert config.initial_max_age_ms == 30 * 86_400_000
    assert (config.initial_max_messages, config.initial_max_bytes, config.initial_max_rooms) == (1000, 1024 * MIB, 9)
    assert config.initial_empty_room_age_ms == 90_000
    assert (config.delete_grace_ms, config.segment_size_bytes) == (0, MIB)
    got, _ = parsed(environment={"RAFTCHAT_MAX_AGE": "2h"})
    assert got["initial_max_age_ms"] == 7_200_000


@pytest.mark.parametrize(
    "arguments",
    [
        ("--max-age", "3600"),  # seconds or milliseconds? Whichever it is, what is removed does not come back.
        ("--max-age", "30 days"),
        ("--max-bytes", "0"),
        ("--max-messages", "0"),
        ("--max-rooms", "-1"),
        ("--empty-room-age", "1.5"),
    ],
)
def test_what_could_be_meant_otherwise_is_refused(arguments: tuple[str, ...]) -> None:
    got, output = parsed(*arguments)
    assert not got
    assert arguments[0] in output

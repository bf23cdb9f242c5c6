"""Log lines: text for people, JSON for machines, and nothing that a peer sent can pass for a line of ours."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from raftchat import logs


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def root() -> Iterator[None]:
    """The root logger as it was, afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level


def written(stream: io.StringIO, log_format: str, level: str = "info") -> str:
    logs.setup("worker 1", log_format=log_format, level=level, stream=stream)
    log = logging.getLogger("raftchat.some.module")
    log.debug("Hidden")
    log.warning("A peer said %s", "no", extra={"peer": 2, "text": "evil\n12:00:00 ERROR fake"})
    try:
        raise ValueError("broken")
    except ValueError:
        log.exception("Failed")
    return stream.getvalue()


def test_the_format_suits_the_stream_unless_told() -> None:
    assert logs.choose_format(None, Terminal()) == "text"
    assert logs.choose_format(None, io.StringIO()) == "json"
    assert logs.choose_format("json", Terminal()) == "json"


def test_json_lines_are_one_object_each() -> None:
    first, second = map(json.loads, written(io.StringIO(), "json").splitlines())
    assert first["Time"].endswith("Z")
    assert (first["Level"], first["Process"], first["Message"]) == ("WARNING", "worker 1", "A peer said no")
    assert (first["peer"], first["text"]) == (2, "evil\n12:00:00 ERROR fake")
    assert "ValueError: broken" in second["Exception"]


def test_json_lines_carry_the_node_once_it_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_node_id", 0)
    assert "Node" not in json.loads(written(io.StringIO(), "json").splitlines()[0])
    logs.belong_to(3)
    assert [json.loads(line)["Node"] for line in written(io.StringIO(), "json").splitlines()] == [3, 3]


def test_text_has_the_details_behind_and_quotes_what_is_not_one_word() -> None:
    lines = written(io.StringIO(), "text").splitlines()
    assert lines[0].endswith(r"A peer said no peer=2 text='evil\n12:00:00 ERROR fake'")
    assert "\x1b" not in lines[0]
    assert lines[-1] == "ValueError: broken"


def test_colours_are_for_terminals_that_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert "\x1b[33m" in written(Terminal(), "text")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in written(Terminal(), "text")

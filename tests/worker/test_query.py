"""Paths and queries are decoded strictly."""

from __future__ import annotations

import pytest

from raftchat.config import Config
from raftchat.worker.problems import Problem
from raftchat.worker.query import Query, segment_decoder

CONFIG = Config()
room = segment_decoder(CONFIG)


@pytest.mark.parametrize(
    ("segment", "name"),
    [
        (b"general", "general"),
        (b"a+b", "a+b"),
        (b"a%20b", "a b"),
        (b"gr%C3%BcN", "grüN"),
        (b"%2e%2E%2e", "..."),
        (b"%25", "%"),
    ],
)
def test_segments_are_names(segment: bytes, name: str) -> None:
    assert room(segment) == name.encode()


@pytest.mark.parametrize(
    ("segment", "code"),
    [
        (b"%", "invalid_path"),
        (b"%4", "invalid_path"),
        (b"%zz", "invalid_path"),
        (b"%ff", "invalid_path"),
        (b"%ed%a0%80", "invalid_path"),
        (b"%c0%af", "invalid_path"),
        (b"a%2Fb", "room_slash"),
        (b"..", "room_dot"),
        (b"%2e%2e", "room_dot"),
        (b"a%00", "room_control_character"),
        (b"", "room_empty"),
        (b"x" * 300, "room_too_long"),
    ],
)
def test_segments_that_are_no_names(segment: bytes, code: str) -> None:
    with pytest.raises(Problem) as caught:
        room(segment)
    assert caught.value.code == code
    assert 400 <= caught.value.status < 500


def query(raw: bytes) -> Query:
    return Query(raw, CONFIG)


def test_parameters() -> None:
    values = query(b"a=1&b=x%26y&c=a+b&&d&e=&f=%C3%BC&room=1&room=2&limit=7")
    assert [values.text(name) for name in "abcdefg"] == ["1", "x&y", "a b", "", "", "ü", None]
    assert values.all("room") == ["1", "2"]
    assert values.number("a") == 1
    assert values.limit(100, 1000) == 7
    assert query(b"").limit(100, 1000) == 100
    assert query(b"limit=99999").limit(100, 1000) == 1000
    assert query(b"consistency=local").local()
    assert not query(b"consistency=linearizable").local()
    assert query(b"details=true").flag("details")
    assert query(b"min_index=5").min_index() == 5
    assert query(b"").min_index() == 0


@pytest.mark.parametrize(
    "raw",
    [
        b"limit=0",
        b"limit=-1",
        b"limit=",
        b"limit=1.5",
        b"limit=ten",
        b"limit=%D9%A1",
        b"limit=1_000",
        b"limit=9223372036854775808",
        b"limit=" + b"9" * 5000,
        b"limit=1&limit=2",
        b"limit=%",
        b"limit=%ff",
        b"%ff=1",
    ],
)
def test_limits_that_are_refused(raw: bytes) -> None:
    with pytest.raises(Problem) as caught:
        query(raw).limit(100, 1000)
    assert (caught.value.status, caught.value.code) == (400, "invalid_query")


def test_words_that_are_refused() -> None:
    for raw, ask in ((b"consistency=eventual", Query.local), (b"min_index=x", Query.min_index)):
        with pytest.raises(Problem):
            ask(query(raw))
    with pytest.raises(Problem):
        query(b"details=1").flag("details")

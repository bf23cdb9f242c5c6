"""What may be said: every rule has its code, and what is accepted is encoded exactly once."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftchat import _log, log_reference
from raftchat.chat import commands, invisible
from raftchat.chat.commands import Refused, check_text, post_value, room_key
from raftchat.config import Config

CONFIG = Config()


def refused(function, *arguments) -> str:
    with pytest.raises(Refused) as caught:
        function(*arguments, CONFIG)
    assert caught.value.detail
    return caught.value.code


@pytest.mark.parametrize(
    "name",
    ["general", "a b", "größe", "😀👩‍👩‍👧", "\u05d9\u05de\u05d9\u05df", "...", ".hidden", "A", "a", "%2F", "x" * 255],
)
def test_room_names_round_trip_exactly(name):
    assert room_key(name, CONFIG).decode() == name


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("", "room_empty"),
        (" \u3000", "room_empty"),
        ("x" * 256, "room_too_long"),
        ("ü" * 128, "room_too_long"),
        ("x" * 10_000, "room_too_long"),
        ("a\x00b", "room_control_character"),
        ("a\nb", "room_control_character"),
        ("a\x7f", "room_control_character"),
        ("a\x85", "room_control_character"),
        ("a/b", "room_slash"),
        (".", "room_dot"),
        ("..", "room_dot"),
        ("a\ud800", "room_invalid_utf8"),
    ],
)
def test_room_names_that_are_refused(name, code):
    assert refused(room_key, name) == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ([], "body_wrong_type"),
        ("text", "body_wrong_type"),
        (None, "body_wrong_type"),
        ({}, "message_missing"),
        ({"User": "u"}, "message_missing"),
        ({"Message": "m"}, "user_missing"),
        ({"Message": None, "User": "u"}, "message_wrong_type"),
        ({"Message": 1, "User": "u"}, "message_wrong_type"),
        ({"Message": "m", "User": ["u"]}, "user_wrong_type"),
        ({"Message": "", "User": "u"}, "message_empty"),
        ({"Message": " \n", "User": "u"}, "message_empty"),
        ({"Message": "m", "User": ""}, "user_empty"),
        ({"Message": "m", "User": "u\x1b"}, "user_control_character"),
        ({"Message": "m", "User": "u" * 256}, "user_too_long"),
        ({"Message": "m", "User": "\udfff"}, "user_invalid_utf8"),
        ({"Message": "a\x00", "User": "u"}, "message_nul"),
        ({"Message": "\ud83d", "User": "u"}, "message_invalid_utf8"),
        ({"Message": "m" * (32 * 1024 + 1), "User": "u"}, "message_too_long"),
        ({"Message": "ü" * (16 * 1024 + 1), "User": "u"}, "message_too_long"),
    ],
)
def test_posts_that_are_refused(body, code):
    assert refused(post_value, body) == code


def test_limits_are_inclusive():
    assert post_value({"Message": "ü" * (16 * 1024), "User": "ü" * 127 + "u"}, CONFIG)


@given(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
)
def test_a_value_is_the_members_as_they_are_served(text, user):
    try:
        value = post_value({"Message": text, "User": user, "Extra": [1]}, CONFIG)
    except Refused:
        assert text.isspace() or user.isspace() or "\x00" in text or len(user.encode()) > 255 or invisible.find(user)
        return
    assert orjson.loads(b"{" + value + b"}") == {"User": user, "Message": text}
    assert value.startswith(b'"User":"')


def test_text_keeps_line_ends_tabs_and_escapes():
    check_text("a\r\n\tb\x1b[31m", CONFIG)


def test_the_largest_post_fits_into_a_record():
    worst = "\x01" * CONFIG.message_size_max_bytes
    value = post_value({"Message": worst, "User": "u" * 255}, CONFIG)
    assert len(log_reference.pack(commands.KIND_POST, b"r" * 255, value)) <= CONFIG.record_size_max_bytes


def test_kinds_are_the_logs():
    for log in (_log, log_reference):
        assert (log.KIND_NOOP, log.KIND_MEMBERSHIP, log.KIND_POST) == (
            commands.KIND_NOOP,
            commands.KIND_MEMBERSHIP,
            commands.KIND_POST,
        )

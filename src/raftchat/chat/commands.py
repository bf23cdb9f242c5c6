"""What may be said, and as which bytes it is written: names, texts, and the value of a post record.

Does not know requests, records' headers, or what becomes of a command. A post record's key is the room's name in UTF-8
and its value the JSON members it will be served with (docs/log-format.md), so it is encoded here once and never again.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

from raftchat.config import Config

KIND_NOOP = 1
KIND_MEMBERSHIP = 2
KIND_POST = 16

# C0, DEL and C1 (Unicode category Cc). In names none of them can be typed or seen, and NUL ends strings elsewhere.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class Refused(ValueError):
    """Input that breaks a rule: `code` is stable and for programs, `detail` for people."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def _name(name: str, what: str, size_max_bytes: int) -> bytes:
    """A name's UTF-8, or Refused with a code that starts with `what`."""
    try:
        data = name.encode()
    except UnicodeEncodeError:
        raise Refused(f"{what}_invalid_utf8", f"The {what} name is not valid Unicode (a lone surrogate).") from None
    if len(data) > size_max_bytes:
        raise Refused(
            f"{what}_too_long", f"The {what} name has {len(data)} bytes in UTF-8; at most {size_max_bytes} are allowed."
        )
    if not name or name.isspace():
        raise Refused(f"{what}_empty", f"The {what} name is empty.")
    if _CONTROL.search(name):
        raise Refused(f"{what}_control_character", f"The {what} name contains a control character.")
    return data


def room_key(name: str, config: Config) -> bytes:
    """The key of a room's records: its name in UTF-8, exactly as given (no case folding, no normalisation).

    Raises Refused: `room_empty`, `room_too_long`, `room_invalid_utf8`, `room_control_character`, `room_slash`,
    `room_dot`. The last two because a room is one segment of a path: `/` splits it, and clients resolve `.` and `..`.
    """
    key = _name(name, "room", config.name_size_max_bytes)
    if "/" in name:
        raise Refused("room_slash", "The room name contains '/'.")
    if name in (".", ".."):
        raise Refused("room_dot", "'.' and '..' cannot be room names.")
    return key


def check_user(name: str, config: Config) -> None:
    """Raises Refused: `user_empty`, `user_too_long`, `user_invalid_utf8`, `user_control_character`."""
    _name(name, "user", config.name_size_max_bytes)


def check_text(text: str, config: Config) -> None:
    """Raises Refused: `message_empty`, `message_too_long`, `message_invalid_utf8`, `message_nul`."""
    try:
        # A character is at least one byte and at most four: most texts need not be encoded to be measured.
        size_bytes = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError:
        raise Refused("message_invalid_utf8", "The message is not valid Unicode (a lone surrogate).") from None
    if size_bytes > config.message_size_max_bytes:
        raise Refused(
            "message_too_long",
            f"The message has {size_bytes} bytes in UTF-8; at most {config.message_size_max_bytes} are allowed.",
        )
    if not text or text.isspace():
        raise Refused("message_empty", "The message is empty.")
    if "\x00" in text:
        raise Refused("message_nul", "The message contains NUL.")


def post_value(body: Any, config: Config) -> bytes:
    """The value of a post record, `"User":…,"Message":…`, from a decoded JSON body.

    Other members of the body are ignored: existing clients send what they once received. Raises Refused:
    `body_wrong_type`, `user_missing`, `user_wrong_type`, `message_missing`, `message_wrong_type`, and those of
    `check_user` and `check_text`.
    """
    if type(body) is not dict:
        raise Refused("body_wrong_type", "The body must be a JSON object with the members Message and User.")
    text = body.get("Message")
    user = body.get("User")
    if type(text) is not str:
        raise _not_a_string("message", "Message", body)
    if type(user) is not str:
        raise _not_a_string("user", "User", body)
    check_text(text, config)
    check_user(user, config)
    return orjson.dumps({"User": user, "Message": text})[1:-1]


def _not_a_string(what: str, member: str, body: dict[str, Any]) -> Refused:
    if member not in body:
        return Refused(f"{what}_missing", f"The body has no member {member}.")
    return Refused(f"{what}_wrong_type", f"{member} must be a string.")

"""What may be said, and as which bytes it is written: names, texts, and the keys and values of commands.

Does not know requests, records' headers, or what becomes of a command. A post record's key is the room's name in UTF-8
and its value the JSON members it will be served with (docs/log-format.md), so it is encoded here once and never again.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from raftchat.chat import invisible
from raftchat.chat.errors import Refused
from raftchat.chat.policy import Policy
from raftchat.config import Config

__all__ = ["Refused"]

KIND_NOOP = 1
KIND_MEMBERSHIP = 2
KIND_POST = 16
KIND_TRIM = 17
KIND_REMOVE_ROOM = 18
KIND_RETENTION = 19

# C0, DEL and C1 (Unicode category Cc). In names none of them can be typed or seen, and NUL ends strings elsewhere.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


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
    if (char := invisible.find(name)) is not None:
        raise Refused(
            f"{what}_invisible_character",
            f"The {what} name contains U+{ord(char):04X}, which cannot be seen or changes the order of what is.",
        )
    return data


def room_key(name: str, config: Config) -> bytes:
    """The key of a room's records: its name in UTF-8, exactly as given (no case folding, no normalisation).

    Raises Refused: `room_empty`, `room_too_long`, `room_invalid_utf8`, `room_control_character`,
    `room_invisible_character`, `room_slash`, `room_dot`. The last two because a room is one segment of a path: `/`
    splits it, and clients resolve `.` and `..`.
    """
    key = _name(name, "room", config.name_size_max_bytes)
    if "/" in name:
        raise Refused("room_slash", "The room name contains '/'.")
    if name in (".", ".."):
        raise Refused("room_dot", "'.' and '..' cannot be room names.")
    return key


def check_user(name: str, config: Config) -> None:
    """Raises Refused: `user_empty`, `user_too_long`, `user_invalid_utf8`, `user_control_character`,
    `user_invisible_character`."""
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


class Command(NamedTuple):
    """What `_log.pack` makes a record of."""

    kind: int
    key: bytes
    value: bytes


class RoomTrim(NamedTuple):
    """The leader's decision which of a room's oldest messages go, with what that removes."""

    key: bytes
    from_floor: int
    """It holds only if this still is the room's floor."""
    floor: int
    messages: int
    bytes: int
    first_id: int
    """First message that stays. 0: none."""


class RetentionChange(NamedTuple):
    policy: Policy | None
    """None: no policy any more."""
    if_unset: bool
    """Only if the cluster has never had one (flags at bootstrap)."""


def trim_json(trim: RoomTrim) -> bytes:
    """One element of a trim command's value."""
    return orjson.dumps([trim.key.decode(), *trim[1:]])


def trim_rooms(trims: Iterable[bytes]) -> Command:
    """From what `trim_json` gave; they are applied in this order."""
    return Command(KIND_TRIM, b"", b"[%s]" % b",".join(trims))


def remove_room(key: bytes, if_last_id: int | None = None) -> Command:
    """All messages of a room and the room, and its policy unless `if_last_id` is given: only if that still is the ID of
    the last message it ever had, which is how retention does it."""
    return Command(KIND_REMOVE_ROOM, key, b"" if if_last_id is None else orjson.dumps({"IfLastID": if_last_id}))


def set_retention(key: bytes, policy: Policy | None, *, if_unset: bool = False) -> Command:
    """Set (None: remove) the policy of a room, or of the cluster if `key` is empty, where alone `if_unset` may be."""
    assert not (key and if_unset)
    if policy is None:
        return Command(KIND_RETENTION, key, b"null")
    value: dict[str, Any] = {**policy.to_json(cluster=not key)}
    if if_unset:
        value["IfUnset"] = True
    return Command(KIND_RETENTION, key, orjson.dumps(value))


def parse_trims(key: bytes, value: bytes) -> list[RoomTrim]:
    """Raises ValueError unless it is what `trim_rooms` makes."""
    if key:
        raise ValueError("a trim has no key")
    trims = []
    for element in _decoded(value, list):
        if type(element) is not list or len(element) != 6:
            raise ValueError("a trim has six members")
        name, *numbers = element
        if type(name) is not str or any(type(n) is not int or n < 0 for n in numbers):
            raise ValueError("a trim is a name and five numbers")
        trim = RoomTrim(name.encode(), *numbers)
        if not (trim.from_floor < trim.floor and trim.messages and trim.bytes and trim.first_id in (0, trim.floor)):
            raise ValueError("a trim raises the floor to the first message that stays")
        trims.append(trim)
    return trims


def parse_remove(key: bytes, value: bytes) -> int | None:
    """`if_last_id`. Raises ValueError unless it is what `remove_room` makes."""
    key.decode()
    if not value:
        return None
    given = _decoded(value, dict)
    if given.keys() != {"IfLastID"} or type(last_id := given["IfLastID"]) is not int or last_id < 1:
        raise ValueError("a conditional removal has the member IfLastID alone, an ID")
    return last_id


def parse_retention(key: bytes, value: bytes) -> RetentionChange:
    """Raises ValueError (Refused is one) unless it is what `set_retention` makes."""
    key.decode()
    if value == b"null":
        return RetentionChange(None, False)
    given = _decoded(value, dict)
    if_unset = given.pop("IfUnset", False)
    if type(if_unset) is not bool or (key and if_unset):
        raise ValueError("IfUnset is true or false, and for the cluster's policy alone")
    return RetentionChange(Policy.from_json(given, cluster=not key), if_unset)


def _decoded(value: bytes, kind: type) -> Any:
    decoded = orjson.loads(value)
    if type(decoded) is not kind:
        raise ValueError(f"the value is not a JSON {'array' if kind is list else 'object'}")
    return decoded

"""Retention policies: what they may say, and how that is written in JSON (requests, answers, log, snapshot alike).

Does not know rooms' contents, nor how a policy is carried out (`retention.py`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from raftchat.chat.errors import Refused
from raftchat.units import parse_duration_ms, parse_size

EMPTY_ROOM_AGE_DEFAULT_MS = 3_600_000
_MAX = 2**53 - 1
"""What any JSON reader takes as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What a room, or the cluster, may keep. None: no limit.

    A room's `max_messages` and `max_bytes` are its own; the cluster's count all rooms together. A room's `max_age_ms`
    replaces the cluster's for it. The last two are for the cluster only.
    """

    max_age_ms: int | None = None
    max_messages: int | None = None
    max_bytes: int | None = None
    """What the records occupy in the log."""
    max_rooms: int | None = None
    empty_room_age_ms: int | None = EMPTY_ROOM_AGE_DEFAULT_MS
    """A room without messages goes this long after its last message or trim. None: it stays."""

    @classmethod
    def from_json(cls, value: Any, *, cluster: bool) -> Policy:
        """From a decoded JSON object: durations are seconds or `"30d"`, sizes bytes or `"1GiB"`; null is no limit.

        What is missing is as in `Policy()`. Raises Refused: `body_wrong_type`, `retention_unknown_member`,
        `retention_wrong_type`, `retention_invalid`, `retention_out_of_range`.
        """
        if type(value) is not dict:
            raise Refused("body_wrong_type", "A retention policy must be a JSON object.")
        members = _MEMBERS if cluster else _ROOM_MEMBERS
        limits: dict[str, int | None] = {}
        for name, given in value.items():
            if name not in members:
                known = ", ".join(members)
                raise Refused("retention_unknown_member", f"{name} is not a member of this policy; there are {known}.")
            attribute, read, least = members[name]
            if given is None:
                limits[attribute] = None
                continue
            limit = read(name, given)
            if not least <= limit <= _MAX:
                raise Refused("retention_out_of_range", f"{name} is too {'small' if limit < least else 'large'}.")
            limits[attribute] = limit
        return cls(**limits)

    def to_json(self, *, cluster: bool) -> dict[str, int | str | None]:
        """All members; `from_json` of it is this policy again. Durations are seconds where they are whole ones."""
        members = _MEMBERS if cluster else _ROOM_MEMBERS
        written: dict[str, int | str | None] = {}
        for name, (attribute, read, _) in members.items():
            limit: int | None = getattr(self, attribute)
            if limit is not None and read is _duration_ms:
                written[name] = limit // 1000 if limit % 1000 == 0 else f"{limit}ms"
            else:
                written[name] = limit
        return written


def _count(name: str, given: Any) -> int:
    if type(given) is not int:
        raise Refused("retention_wrong_type", f"{name} must be a whole number or null.")
    return given


def _size_bytes(name: str, given: Any) -> int:
    if type(given) is str:
        try:
            return parse_size(given)
        except ValueError as error:
            raise Refused("retention_invalid", f"{name}: {error}") from None
    if type(given) is not int:
        raise Refused("retention_wrong_type", f'{name} must be a number of bytes, a size like "64MiB", or null.')
    return given


def _duration_ms(name: str, given: Any) -> int:
    if type(given) is str:
        try:
            return parse_duration_ms(given, "s")
        except ValueError as error:
            raise Refused("retention_invalid", f"{name}: {error}") from None
    if type(given) is int:
        return given * 1000
    if type(given) is not float or not math.isfinite(given):
        raise Refused("retention_wrong_type", f'{name} must be a number of seconds, a duration like "30d", or null.')
    return round(given * 1000)


_Member = tuple[str, Callable[[str, Any], int], int]
_ROOM_MEMBERS: dict[str, _Member] = {
    "MaxAge": ("max_age_ms", _duration_ms, 1),
    "MaxMessages": ("max_messages", _count, 1),
    "MaxBytes": ("max_bytes", _size_bytes, 1),
}
_MEMBERS: dict[str, _Member] = {
    **_ROOM_MEMBERS,
    "MaxRooms": ("max_rooms", _count, 1),
    "EmptyRoomAge": ("empty_room_age_ms", _duration_ms, 0),
}


@dataclass(slots=True)
class Policies:
    """All policies in force."""

    cluster: Policy | None = None
    cluster_was_set: bool = False
    """A policy for the cluster was once set or removed: what flags say at bootstrap does not count any more."""
    rooms: dict[bytes, Policy] = field(default_factory=dict)
    """By room key; the room need not exist."""

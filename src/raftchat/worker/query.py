"""Query strings and path segments, decoded strictly: what is not valid is refused, never repaired.

Does not know routes. Unknown parameters are ignored; a known one that is given twice, or wrongly, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from raftchat.chat.commands import Refused, room_key
from raftchat.config import Config
from raftchat.worker.problems import Problem, refused_name

INDEX_MAX = 2**63 - 1

_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")


def _decode(raw: bytes, what: str, code: str) -> str:
    """Percent-decode (RFC 3986 section 2.1) to UTF-8. Raises Problem `code`."""
    if b"%" in raw and _BAD_ESCAPE.search(raw):
        raise Problem(code, f"{what} contains a '%' that is not followed by two hexadecimal digits.")
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        raise Problem(code, f"{what} is not UTF-8 after percent-decoding.") from None


def segment_decoder(config: Config) -> Callable[[bytes], bytes]:
    """A function from one raw path segment to the key of the room it names; it remembers the last few thousand.

    The function raises Problem: `invalid_path`, `room_…`.
    """

    @lru_cache(maxsize=4096)
    def room_of_segment(segment: bytes) -> bytes:
        name = _decode(segment, "The room's name", "invalid_path")
        try:
            return room_key(name, config)
        except Refused as refused:
            raise refused_name(refused) from None

    return room_of_segment


class Query:
    """The parameters of one request."""

    __slots__ = ("_config", "_values")

    def __init__(self, raw: bytes, config: Config) -> None:
        """Raises Problem `invalid_query` if it cannot be decoded."""
        self._config = config
        self._values: dict[str, list[str]] = {}
        for pair in raw.split(b"&") if raw else ():
            if pair:
                name, _, value = pair.replace(b"+", b" ").partition(b"=")
                self._values.setdefault(_decode(name, "The query", "invalid_query"), []).append(
                    _decode(value, "The query", "invalid_query")
                )

    def text(self, name: str) -> str | None:
        values = self._values.get(name)
        if values is None:
            return None
        if len(values) > 1:
            raise Problem("invalid_query", f"{name} is given {len(values)} times.")
        return values[0]

    def all(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def number(self, name: str, minimum: int = 0) -> int | None:
        value = self.text(name)
        if value is None:
            return None
        if not (value.isascii() and value.isdecimal()) or not minimum <= int(value[:20]) <= INDEX_MAX:
            raise Problem("invalid_query", f"{name} must be a whole number from {minimum} to {INDEX_MAX}.")
        return int(value)

    def limit(self, default: int, maximum: int) -> int:
        """At least 1. More than `maximum` means `maximum`: the Link header says that there is more."""
        limit = self.number("limit", minimum=1)
        return default if limit is None else min(limit, maximum)

    def flag(self, name: str) -> bool:
        value = self.text(name)
        if value not in (None, "true", "false"):
            raise Problem("invalid_query", f"{name} must be true or false.")
        return value == "true"

    def local(self) -> bool:
        value = self.text("consistency")
        if value not in (None, "local", "linearizable"):
            raise Problem("invalid_query", "consistency must be local or linearizable.")
        return value == "local"

    def min_index(self) -> int:
        return self.number("min_index") or 0

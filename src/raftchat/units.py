"""Sizes and durations as people write them: `64MiB`, `1.5GB`, `30d`, `500ms`. Knows neither who wrote them nor why."""

from __future__ import annotations

import re
from decimal import Decimal

_SIZES = {"": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}
_SIZES |= {"kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_DURATIONS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_QUANTITY = re.compile(r"\s*([0-9]{1,18}(?:\.[0-9]{1,18})?)\s*([a-z]*)\s*", re.IGNORECASE | re.ASCII)


def parse_size(text: str) -> int:
    """Bytes; a number without a unit is bytes. Raises ValueError."""
    return _parse(text, _SIZES, "", "a size; write 1048576, 64MiB or 1.5GB")


def parse_duration_ms(text: str, default_unit: str) -> int:
    """Milliseconds; `default_unit`, one of ms, s, m, h, d, is that of a number without one. Raises ValueError."""
    return _parse(text, _DURATIONS_MS, default_unit, "a duration; write 500ms, 2s, 15m, 12h or 30d")


def _parse(text: str, units: dict[str, int], default_unit: str, what: str) -> int:
    match = _QUANTITY.fullmatch(text)
    unit = match and units.get(match[2].lower() or default_unit)
    if match is None or unit is None:
        raise ValueError(f"{text!r} is not {what}")
    return round(Decimal(match[1]) * unit)

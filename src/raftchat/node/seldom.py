"""What happens again and again is told at once, then seldom. Does not know what it is, nor clocks."""

from __future__ import annotations

from collections.abc import Hashable


class Seldom:
    """Remembers the newest `remembered` kinds of event; memory stays bounded whoever makes up kinds."""

    def __init__(self, interval_s: float, remembered: int) -> None:
        self._interval_s = interval_s
        self._remembered = remembered
        self._told: dict[Hashable, tuple[float, int]] = {}
        """Kind → when it was told last, how often it happened since; the one told longest ago first."""

    def seen(self, kind: Hashable, now_s: float) -> int | None:
        """It happened. None: do not tell; else how often it happened untold since it was told last."""
        told_s, untold = self._told.get(kind, (None, 0))
        if told_s is not None and now_s - told_s < self._interval_s:
            self._told[kind] = (told_s, untold + 1)
            return None
        self._told.pop(kind, None)
        if len(self._told) >= self._remembered:
            del self._told[next(iter(self._told))]
        self._told[kind] = (now_s, 0)
        return untold

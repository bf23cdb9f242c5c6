"""What the keeper could not do is told in one line, put off, and told again when it works. Nothing relies on it yet.

Does not know what was tried; the clock is given.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from raftchat.node.store_ports import Counters, Unreadable

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Tried:
    done: bool = False


class Setbacks:
    def __init__(self, retry_ms: int, now_ms: Callable[[], float], counters: Counters) -> None:
        self._retry_ms = retry_ms
        self._now_ms = now_ms
        self._counters = counters
        self._not_before_ms: dict[str, float] = {}

    def may_try(self, what: str) -> bool:
        return self._now_ms() >= self._not_before_ms.get(what, 0)

    @property
    def due_ms(self) -> float:
        """When something is tried again; inf if nothing was put off."""
        return min(self._not_before_ms.values(), default=float("inf"))

    def forget(self, began_ms: float) -> None:
        """A round is over that began then: what might have been tried in it and was not has nothing left to try."""
        self._not_before_ms = {what: due_ms for what, due_ms in self._not_before_ms.items() if due_ms > began_ms}

    @contextlib.contextmanager
    def put_off(
        self, what: str, unreadable: set[tuple[int, int]] | None = None, segments: Sequence[Any] = ()
    ) -> Iterator[Tried]:
        """Try it. After an OSError it waits; a segment with a bad record goes into `unreadable` and does not."""
        tried = Tried()
        try:
            yield tried
        except Unreadable as error:
            assert unreadable is not None
            # The fault may be in what belongs to a segment; then it is not clear which one's.
            bad = [segment for segment in segments if segment.path == error.path] or segments
            unreadable.update((segment.sequence, segment.revision) for segment in bad)
            self._counters.failures += 1
            log.error("A record is bad, so this file stays as it is: %s", error)
        except OSError as error:
            self._counters.failures += 1
            first = what not in self._not_before_ms
            self._not_before_ms[what] = self._now_ms() + self._retry_ms
            if first:
                log.warning(
                    "The %s could not be written; it is tried again until it can: %s", _NAMES.get(what, what), error
                )
        else:
            tried.done = True
            if self._not_before_ms.pop(what, None) is not None:
                log.info("The %s could be written again", _NAMES.get(what, what))


_NAMES = {
    "compaction": "compacted segment",
    "index": "index of a segment",
    "prepare": "next segment",
    "roll": "next segment",
    "unlink": "directory without what is not needed any more",
}

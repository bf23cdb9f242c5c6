"""How committed entries become state: scanned in runs, and one by one where the order of two entries matters.

Does not know where a source has the entries from, nor what is done with the state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from raftchat.chat.commands import KIND_MEMBERSHIP, KIND_NOOP, KIND_POST
from raftchat.chat.state import ChatState, Entry, Run

_IN_RUNS = (KIND_POST, KIND_NOOP, KIND_MEMBERSHIP)


class Source(Protocol):
    """The part of `_log.LogReader` that is needed. A range may be scanned again, in parts."""

    def scan(self, first_index: int, last_index: int) -> Sequence[Run]: ...
    def entries(self, first_index: int, last_index: int) -> Sequence[Entry]: ...


def advance(state: ChatState, source: Source, first_index: int, last_index: int) -> None:
    """Apply the entries `first_index` to `last_index`, which follow those applied so far.

    Posts commute but for their order within a room, so they are applied in runs; commands are applied one at a time,
    between the posts before and after them. Raises UnknownKind with the state as it is before that entry, and what
    reading the log may raise; then the process must halt, as the state would be wrong from there on.
    """
    assert first_index == state.applied_index + 1, (first_index, state.applied_index)
    runs = source.scan(first_index, last_index)
    commands = sorted(index for run in runs if run.kind not in _IN_RUNS for index in run.indexes)
    if not commands:
        state.apply(first_index, last_index, runs)
        return
    for index in commands:
        _advance_posts(state, source, index - 1)
        (entry,) = source.entries(index, index)
        state.apply_command(entry)
    _advance_posts(state, source, last_index)


def _advance_posts(state: ChatState, source: Source, last_index: int) -> None:
    first_index = state.applied_index + 1
    if first_index <= last_index:
        state.apply(first_index, last_index, source.scan(first_index, last_index))

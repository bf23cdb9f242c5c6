"""How a reference log was found, and what is flushed for it in other threads.

Knows files and who is told of a failure. Does not know what is in them.
"""

from __future__ import annotations

from typing import NamedTuple

from raftchat.log_directory import Directory
from raftchat.log_disk import File


class Recovery(NamedTuple):
    """What opening found. `torn` = a tail that never became durable was cut at `offset` of `path`."""

    torn: bool
    path: str
    offset: int
    dropped_bytes: int


class SyncPoint:
    """An fdatasync to be made: begun by `Log.begin_sync`, waited for in any thread, ended by `Log.end_sync`."""

    __slots__ = ("_directory", "_done", "_file", "generation", "last_index")

    def __init__(self, last_index: int, generation: int, file: File | None, directory: Directory) -> None:
        self.last_index = last_index
        self.generation = generation
        self._file = file
        self._directory = directory
        self._done = False

    def wait(self) -> None:
        """Flush. Raises OSError; then the process must end (assumption 5)."""
        if self._file is not None:
            with self._directory.no_return():
                self._file.sync()
            self._file = None
        self._done = True

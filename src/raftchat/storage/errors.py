"""What can be wrong with a file of the data directory. Each message says which file and what to do about it."""

from __future__ import annotations


class StorageError(Exception):
    """The node cannot start on this directory (exit 3)."""


class CorruptFile(StorageError):
    """Bytes that this program has not written like that (exit 4)."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class ForeignFile(StorageError):
    """A file that is not what its name or place says, though perhaps whole (exit 3)."""


class NewerFormat(StorageError):
    """Written by a newer version of raft-chat (exit 3)."""

    def __init__(self, path: str, version: int) -> None:
        super().__init__(f"{path}: written by a newer version of raft-chat (format {version}); start that version")
        self.path = path
        self.version = version

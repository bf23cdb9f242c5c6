"""One owner per data directory: an flock on its `LOCK` file, held for as long as the owner lives.

The lock goes away with the process, however that ends; the file and the pid in it stay and mean nothing then. Does not
know what the directory is for.
"""

from __future__ import annotations

import fcntl
import os

from raftchat.storage.errors import StorageError


class DirectoryLock:
    """Held from construction to `close` or the end of the process."""

    def __init__(self, directory: str) -> None:
        """Raises StorageError, naming the owner, if another process has it; OSError if the file cannot be made."""
        path = os.path.join(directory, "LOCK")
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(self._fd, 32, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise StorageError(
                f"{directory} is in use by another raft-chat (process {owner or 'unknown'}); "
                "stop that one, or give this node a --data-dir of its own"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        os.close(self._fd)

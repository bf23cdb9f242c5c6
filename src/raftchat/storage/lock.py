"""One owner per data directory: an flock on its `LOCK` file, held for as long as any process of the owner lives.

The lock belongs to the open file, so a child that inherits the descriptor keeps it: the directory is free only once the
last process of the old owner is gone, and with it the ports that it listened on. The file stays then. In it are the
owner's pid, which means nothing any more, and the file's own inode number, by which a copy is told from the original.
Does not know what the directory is for.
"""

from __future__ import annotations

import fcntl
import os
import time

from raftchat.storage.errors import StorageError

FILE_NAME = "LOCK"
ORPHANS_WAIT_S = 5.0
"""How long to wait for the children of an owner that is gone; they end by themselves."""


class DirectoryLock:
    """Held from construction to `close`, and by whoever inherits `fd`."""

    def __init__(self, directory: str) -> None:
        """Raises StorageError, naming the owner, if another process has it; OSError if the file cannot be made."""
        self.fd = os.open(os.path.join(directory, FILE_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        give_up = time.monotonic() + ORPHANS_WAIT_S
        while not self._try():
            owner = os.pread(self.fd, 64, 0).decode("ascii", "replace").partition(" ")[0].strip()
            if _is_alive(owner) or time.monotonic() > give_up:
                os.close(self.fd)
                raise StorageError(
                    f"{directory} is in use by another raft-chat (process {owner or 'unknown'}); "
                    "stop that one, or give this node a --data-dir of its own"
                )
            time.sleep(0.02)
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, f"{os.getpid()} {os.fstat(self.fd).st_ino}\n".encode(), 0)

    def _try(self) -> bool:
        try:
            fcntl.flock(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def close(self) -> None:
        os.close(self.fd)


def _is_alive(owner: str) -> bool:
    if not owner.isdigit():
        return False
    try:
        os.kill(int(owner), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def is_copy(directory: str) -> bool:
    """Whether an owner's directory was copied to here and has not had an owner since. Raises OSError."""
    try:
        with open(os.path.join(directory, FILE_NAME), "rb") as file:
            words = file.read(64).split()
            return len(words) == 2 and words[1] != str(os.fstat(file.fileno()).st_ino).encode()
    except FileNotFoundError:
        return False

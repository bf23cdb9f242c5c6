"""What the reference log needs of a disk, and the real one.

The simulator runs the same log on a disk that loses, tears and flips what was not synced. Knows nothing of segments.

What a `Disk` may do on a crash is what docs/log-format.md ("What is relied on") leaves open:

- `File.write` since the last `File.sync` of that file: any subset of its pages may survive, each old, new or torn.
- `create`, `rename` and `unlink` since the last `sync_directory`: each may or may not have happened. A created file
  that survives without its `sync` has its size and zeros, or less.
- `File.read` before the crash always sees what was written (the page cache).

Paths are whole, as the log was given its directory: `directory + "/" + name`.
"""

from __future__ import annotations

import contextlib
import os
from typing import Protocol


class File(Protocol):
    """An open file. Never shrunk, never grown; stays readable and syncable after it was unlinked."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset`, fewer only at the end of the file."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Always within `size`, and within what `create` or `reserve` set aside: cannot run out of space."""
        ...

    def reserve(self) -> None:
        """Set every block aside (a copied file may have holes). Raises OSError (ENOSPC)."""
        ...

    def sync(self) -> None:
        """fdatasync. Raises OSError; it is never called again after that."""
        ...

    def close(self) -> None: ...


class Disk(Protocol):
    """Every method raises OSError as the system call of its name would."""

    def make_directory(self, path: str) -> None:
        """Make the last component if it is missing, durably."""
        ...

    def list_directory(self, path: str) -> list[str]:
        """Names, in any order."""
        ...

    def create(self, path: str, size: int) -> File:
        """A file of `size` zeros with all blocks set aside, in place of any of that name. On error there is none."""
        ...

    def open(self, path: str, writable: bool) -> File:
        """`writable`: also forget what the cache holds without having to write it, so that the disk itself is read."""
        ...

    def rename(self, old: str, new: str) -> None: ...

    def unlink(self, path: str) -> None: ...

    def sync_directory(self, path: str) -> None:
        """fsync of the directory: what was created, renamed and unlinked in it is durable on return."""
        ...


class OsFile:
    """A file of the operating system."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.size = os.fstat(fd).st_size

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, offset)

    def write(self, offset: int, data: bytes) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._fd, view, offset)
            offset += written
            view = view[written:]

    def reserve(self) -> None:
        os.posix_fallocate(self._fd, 0, self.size)

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def forget(self) -> None:
        """Pages whose write failed are marked clean and stay in the cache: a lie that is not to be read."""
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __del__(self) -> None:
        self.close()


class OsDisk:
    """The operating system's disk."""

    def make_directory(self, path: str) -> None:
        if not os.path.isdir(path):
            os.mkdir(path)
            self.sync_directory(os.path.dirname(os.path.abspath(path)))

    def list_directory(self, path: str) -> list[str]:
        return os.listdir(path)

    def create(self, path: str, size: int) -> OsFile:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                os.unlink(path)
            raise
        return OsFile(fd)

    def open(self, path: str, writable: bool) -> OsFile:
        file = OsFile(os.open(path, (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC))
        if writable:
            file.forget()
        return file

    def rename(self, old: str, new: str) -> None:
        os.rename(old, new)

    def unlink(self, path: str) -> None:
        os.unlink(path)

    def sync_directory(self, path: str) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

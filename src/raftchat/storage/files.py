"""Small files that must be whole or absent: written beside, flushed, renamed, the directory flushed.

Knows nothing of what is in them.
"""

from __future__ import annotations

import errno
import os

_BLOCK_BYTES = 1 << 20


def write_durably(path: str, data: bytes, *, read_back: bool = False) -> None:
    """Replace or create `path`; after a crash at any moment it holds the old bytes or the new ones. Raises OSError.

    `read_back`: before it gets its name, what the disk holds is compared with what was to be written.
    """
    temporary = path + ".tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        os.fsync(fd)
    finally:
        os.close(fd)
    if read_back:
        _compare(temporary, data)
    os.rename(temporary, path)
    sync_directory(os.path.dirname(path))


def _compare(path: str, data: bytes) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # Otherwise it is memory that answers.
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        view = memoryview(data)
        while block := os.read(fd, _BLOCK_BYTES):
            if block != view[: len(block)]:
                break
            view = view[len(block) :]
        if block or view:
            raise OSError(errno.EIO, "what the disk holds is not what was written", path)
    finally:
        os.close(fd)


def make_directory_durably(path: str) -> None:
    """Create it, for its owner alone, and its parents; every new name is durable on return. Raises OSError."""
    _make(path, 0o700)


def _make(path: str, mode: int) -> None:
    path = os.path.abspath(path)
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    _make(parent, 0o755)
    os.mkdir(path, mode)
    sync_directory(parent)


def sync_directory(path: str) -> None:
    """Make the names in a directory durable. Raises OSError."""
    fd = os.open(path or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)

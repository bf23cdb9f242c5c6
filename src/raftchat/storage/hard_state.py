"""Term, vote and commit hint on disk: what a node must not forget (dissertation, figure 3.1).

Two slots, so that a write that power loss tears leaves the other one intact, and either alone tells term and vote:

```
offset  size  field
     0     1  version    1
     1     7  magic      "rc-hard"
     8     8  sequence   grows by one with each write; of two valid slots the one with the higher counts
    16     8  term
    24     8  vote       0: none
    32     8  commit     everything up to here was committed and is durable here
    40     8  checksum   XXH3-64 of bytes 0 to 39 (at this place in every version)
```

The slots are at 0 and 4096, so that no disk block holds both. All integers are little-endian.

A new term or vote is written to one slot and synced, then to the other and synced; only then may a reply depend on it.
So what a rotten slot said of them the other one says too, or nobody was told yet. Never are both slots in flight, so
power loss tears at most one. A hint alone is one write: term and vote are in both already.

Knows neither when something must be written nor what the numbers mean, except that none of them may go back.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import Protocol

import xxhash

from raftchat.storage.errors import CorruptFile, StorageError
from raftchat.storage.files import write_durably

FILE_NAME = "hard-state"
VERSION = 1
MAGIC = b"rc-hard"
SLOT_STRIDE_BYTES = 4096
FILE_SIZE_BYTES = 2 * SLOT_STRIDE_BYTES

_FIELDS = Struct("<B7sQQQQ")
_CHECKSUM = Struct("<Q")
SLOT_SIZE_BYTES = _FIELDS.size + _CHECKSUM.size

ADVICE = "so this member must not vote again; remove it from the cluster and add it with an empty data directory"


class SlotFile(Protocol):
    """The file operations that are needed; `OsFile` does them, the simulator has its own."""

    @property
    def path(self) -> str: ...
    def read(self, size_bytes: int, offset: int) -> bytes:
        """As many bytes as there are, up to `size_bytes`."""

    def write(self, data: bytes, offset: int) -> None: ...
    def sync(self) -> None:
        """What was written is durable on return. Raises OSError."""


class OsFile:
    """A file of the operating system."""

    def __init__(self, path: str) -> None:
        """Raises OSError if it does not exist."""
        self.path = path
        self._fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        # What an earlier process failed to flush may still be in the page cache, marked clean: a lie about a vote.
        os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def read(self, size_bytes: int, offset: int) -> bytes:
        return os.pread(self._fd, size_bytes, offset)

    def write(self, data: bytes, offset: int) -> None:
        written = os.pwrite(self._fd, data, offset)
        if written != len(data):
            raise OSError(f"{self.path}: wrote {written} of {len(data)} bytes")

    def sync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class HardStateFile:
    """The hard state: `term`, `vote` and `commit` are what was written last."""

    def __init__(self, file: SlotFile) -> None:
        """Read it, and make the slots agree on term and vote. Raises OSError, CorruptFile if neither slot can be
        believed, StorageError if a newer program wrote it."""
        self._file = file
        valid: list[tuple[int, int, int, int, int]] = []
        for slot in (0, 1):
            data = file.read(SLOT_SIZE_BYTES, slot * SLOT_STRIDE_BYTES)
            if (fields := _decode(data, file.path)) is not None:
                valid.append((*fields, slot))
        if not valid:
            raise CorruptFile(file.path, f"neither copy of term and vote can be read, {ADVICE}")
        older, newer = min(valid), max(valid)
        if older[0] == newer[0] and older[1:4] != newer[1:4]:
            raise CorruptFile(file.path, f"the two copies of term and vote contradict each other, {ADVICE}")
        self._sequence, self.term, self.vote, self.commit, self._durable_slot = newer
        # What was read may have come from the page cache of a process that died before its sync.
        file.sync()
        self.mended = len(valid) < 2
        """A slot could not be read, torn or rotten, and was written anew from the other."""
        if self.mended or older[1:3] != newer[1:3]:
            self._put(self.term, self.vote, self.commit)

    def write(self, term: int, vote: int, commit: int, *, sync: bool = True) -> None:
        """Store them; durable on return if `sync`. Raises OSError; then the process must end.

        Without `sync` only `commit` may have changed, and power loss may undo that, but nothing that was durable. A
        lower `commit` than the stored one is ignored: both are true.
        """
        assert term >= self.term, f"term goes back from {self.term} to {term}"
        assert term > self.term or self.vote in (0, vote), f"vote for {vote} after {self.vote} in term {term}"
        assert sync or (term, vote) == (self.term, self.vote), "term and vote must be durable"
        commit = max(commit, self.commit)
        promised = (term, vote) != (self.term, self.vote)
        self._put(term, vote, commit, sync=sync)
        if promised:
            self._put(term, vote, commit)
        self.term, self.vote, self.commit = term, vote, commit

    def _put(self, term: int, vote: int, commit: int, *, sync: bool = True) -> None:
        # Never over the slot that is durable: if power loss tears this write, that one remains.
        slot = 1 - self._durable_slot
        self._sequence += 1
        self._file.write(encode(self._sequence, term, vote, commit), slot * SLOT_STRIDE_BYTES)
        if sync:
            self._file.sync()
            self._durable_slot = slot


def create(path: str) -> None:
    """A new node's file: term 0, no vote, nothing committed. Raises OSError."""
    write_durably(path, initial())


def initial(term: int = 0, commit: int = 0) -> bytes:
    """The bytes of a file in which nobody was voted for: a new node's, or a restored one's, which has entries."""
    return b"".join(encode(sequence, term, 0, commit).ljust(SLOT_STRIDE_BYTES, b"\0") for sequence in (1, 2))


def encode(sequence: int, term: int, vote: int, commit: int) -> bytes:
    """One slot."""
    fields = _FIELDS.pack(VERSION, MAGIC, sequence, term, vote, commit)
    return fields + _CHECKSUM.pack(xxhash.xxh3_64_intdigest(fields))


def _decode(slot: bytes, path: str) -> tuple[int, int, int, int] | None:
    """Sequence, term, vote, commit; None if it is not a whole slot."""
    if len(slot) != SLOT_SIZE_BYTES:
        return None
    version, magic, sequence, term, vote, commit = _FIELDS.unpack_from(slot)
    (checksum,) = _CHECKSUM.unpack_from(slot, _FIELDS.size)
    if magic != MAGIC or xxhash.xxh3_64_intdigest(slot[: _FIELDS.size]) != checksum:
        return None
    if version > VERSION:
        raise StorageError(f"{path}: written by a newer version of raft-chat (format {version}); start that version")
    return (sequence, term, vote, commit) if version == VERSION else None


def slots(data: bytes, path: str) -> list[tuple[int, int, int, int] | None]:
    """Both slots of a file: sequence, term, vote, commit; None for one that is not whole. Raises StorageError."""
    starts = (0, SLOT_STRIDE_BYTES)
    return [_decode(data[start : start + SLOT_SIZE_BYTES], path) for start in starts]

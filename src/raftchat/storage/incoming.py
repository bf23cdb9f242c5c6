"""A snapshot on its way in: its files are gathered in `incoming/`, and put in place when the directory is opened next.

    <data dir>/incoming/manifest            what is to come, one line of JSON
    <data dir>/incoming/log/NAME.part       the beginning of a file
    <data dir>/incoming/log/NAME            a file that is whole, checked and durable
    <data dir>/incoming/snapshots/…         the same
    <data dir>/incoming/complete            everything is there: written last

Until `complete` exists nothing of it counts; from then on it replaces `log/` and `snapshots/`, and after a crash at any
moment `install` goes on where it was. Knows files; does not know where they come from, nor Raft.
"""

from __future__ import annotations

import contextlib
import os
import shutil

import orjson

from raftchat.storage.errors import CorruptFile
from raftchat.storage.files import make_directory_durably, sync_directory, write_durably

PART = ".part"
_REPLACED = ("log", "snapshots")


class Incoming:
    """The gathering place in one data directory."""

    def __init__(self, data_dir: str) -> None:
        self.path = os.path.join(data_dir, "incoming")
        self.log_directory = os.path.join(self.path, "log")
        self.snapshots_directory = os.path.join(self.path, "snapshots")

    def begin(self, manifest: bytes, files: dict[str, tuple[int, ...]]) -> None:
        """Make room for these files: path below `incoming/` → what tells it from any other of that name.

        What is there of the same identity stays, whole or not, as an earlier attempt left it; all else goes. Raises
        OSError.
        """
        make_directory_durably(self.log_directory)
        make_directory_durably(self.snapshots_directory)
        known = self._known()
        keep = {name for name, identity in files.items() if known.get(name) == list(identity)}
        for directory in _REPLACED:
            for name in os.listdir(os.path.join(self.path, directory)):
                if f"{directory}/{_belongs_to(name)}" not in keep:
                    os.unlink(os.path.join(self.path, directory, name))
        write_durably(
            os.path.join(self.path, "manifest"),
            orjson.dumps({"Manifest": manifest.decode(), "Files": {name: list(it) for name, it in files.items()}}),
        )

    def _known(self) -> dict[str, list[int]]:
        """The files of the attempt before, with their identities."""
        try:
            with open(os.path.join(self.path, "manifest"), "rb") as file:
                files: dict[str, list[int]] = orjson.loads(file.read())["Files"]
        except (OSError, ValueError, KeyError, TypeError):
            return {}
        return files if isinstance(files, dict) else {}

    def path_of(self, name: str) -> str:
        return os.path.join(self.path, name)

    def has(self, name: str) -> bool:
        """Whether that file is whole."""
        return os.path.exists(os.path.join(self.path, name))

    def part_size_bytes(self, name: str) -> int:
        """How much of it came so far."""
        try:
            return os.stat(os.path.join(self.path, name + PART)).st_size
        except FileNotFoundError:
            return 0

    def open_part(self, name: str) -> int:
        """A descriptor to append to what came so far. Raises OSError."""
        path = os.path.join(self.path, name + PART)
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def keep(self, name: str) -> str:
        """The part is whole and was flushed: its path from now on. Raises OSError."""
        path = os.path.join(self.path, name)
        os.rename(path + PART, path)
        return path

    def drop(self, name: str) -> None:
        """It turned out bad: begin again."""
        for suffix in ("", PART):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.path, name) + suffix)

    def sync(self) -> None:
        """The names of all files are durable on return. Raises OSError."""
        for directory in (self.log_directory, self.snapshots_directory, self.path):
            sync_directory(directory)

    def complete(self, index: int) -> None:
        """From now on it counts. The caller must not have added to the log since it decided. Raises OSError."""
        write_durably(os.path.join(self.path, "complete"), orjson.dumps({"Index": index}))

    def discard(self) -> None:
        """Give it up. Raises OSError."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path, "complete"))
        sync_directory(os.path.dirname(self.path))
        shutil.rmtree(self.path, ignore_errors=True)


def _belongs_to(name: str) -> str:
    """The file that this one is a part, or the index, of."""
    name = name.removesuffix(PART)
    return f"{name.removesuffix('.idx')}.log" if name.endswith(".idx") else name


def is_complete(data_dir: str) -> bool:
    """Whether what was received counts, and is not yet in place."""
    return os.path.exists(os.path.join(data_dir, "incoming", "complete"))


def place(data_dir: str, name: str) -> str:
    """Where those files of `log` or `snapshots` lie that count, relative to the directory: opened since or not."""
    gathered = os.path.join("incoming", name)
    return gathered if is_complete(data_dir) and os.path.isdir(os.path.join(data_dir, gathered)) else name


def drop_stale(data_dir: str, index: int) -> bool:
    """Let go of what was gathered of a snapshot that does not reach beyond `index`, which the node has by itself, or of
    none that can be told: whether there was such. Raises OSError."""
    gathering = Incoming(data_dir)
    if is_complete(data_dir) or not os.path.isdir(gathering.path):
        return False
    try:
        with open(os.path.join(gathering.path, "manifest"), "rb") as file:
            if orjson.loads(orjson.loads(file.read())["Manifest"])["Index"] > index:
                return False
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    gathering.discard()
    return True


def install(data_dir: str) -> int | None:
    """Put a complete snapshot in place of what the directory held: its index; None if there is none.

    Every step is durable before the next; called again after a crash, it ends the same. Raises OSError, CorruptFile.
    """
    incoming = os.path.join(data_dir, "incoming")
    complete = os.path.join(incoming, "complete")
    if not os.path.exists(complete):
        if not os.path.isdir(os.path.join(incoming, "log")):
            shutil.rmtree(incoming, ignore_errors=True)  # What an installation left that was interrupted at its end.
        _sweep(data_dir)
        return None
    try:
        with open(complete, "rb") as file:
            index = orjson.loads(file.read())["Index"]
    except (ValueError, KeyError, TypeError):
        raise CorruptFile(
            complete, "cannot be read; remove the directory it is in, and the snapshot will come again"
        ) from None
    for name in _REPLACED:
        new, place = os.path.join(incoming, name), os.path.join(data_dir, name)
        if os.path.isdir(new):
            if os.path.isdir(place):
                shutil.rmtree(place + ".replaced", ignore_errors=True)
                os.rename(place, place + ".replaced")
                sync_directory(data_dir)
            os.rename(new, place)
            sync_directory(incoming)
            sync_directory(data_dir)
    os.unlink(complete)
    sync_directory(incoming)
    shutil.rmtree(incoming, ignore_errors=True)
    _sweep(data_dir)
    return int(index)


def _sweep(data_dir: str) -> None:
    for name in _REPLACED:
        shutil.rmtree(os.path.join(data_dir, name + ".replaced"), ignore_errors=True)

"""What a disk may hold after power was lost, worked out from the system calls that a program made.

Beside them it is given what the files held before each call that changed something: what the program saw, mapped
stores included. What was not flushed may be there or not, in any part and order; docs/log-format.md ("What is relied
on") says what must. Knows files and directories, nothing of what is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.faults.crash_trace import Call

BLOCK_BYTES = 512

Image = dict[str, bytes | None]
"""Path relative to the root → content; None: a directory."""


def image_of(root: Path) -> Image:
    return {str(path.relative_to(root)): None if path.is_dir() else path.read_bytes() for path in root.rglob("*")}


def put(root: Path, image: Image) -> Path:
    """Make a directory of it."""
    root.mkdir()
    for name in sorted(image):
        content = image[name]
        if content is None:
            (root / name).mkdir(parents=True, exist_ok=True)
        else:
            (root / name).write_bytes(content)
    return root


@dataclass(eq=False, slots=True)
class File:
    seen: bytes
    """As the program last saw it."""
    durable: bytes | None
    """As it was at its last flush; None: never."""


@dataclass(eq=False, slots=True)
class Directory:
    seen: dict[str, File | Directory] = field(default_factory=dict)
    durable: dict[str, File | Directory] = field(default_factory=dict)


Change = list[tuple[Directory, str, File | Directory | None]]
"""One system call's: what a name in a directory means from then on. It happens whole or not at all."""


Content = Callable[[File], bytes]


def _mean(names: dict[str, File | Directory], name: str, meaning: File | Directory | None) -> None:
    if meaning is None:
        names.pop(name, None)
    else:
        names[name] = meaning


def _flushed(file: File) -> bytes:
    """Nothing that came later; of a file that never was flushed its size alone."""
    return bytes(len(file.seen)) if file.durable is None else file.durable


def _halved(file: File) -> bytes:
    """Half of what came later."""
    old = _flushed(file).ljust(len(file.seen), b"\0")
    differing = [at for at in range(len(file.seen)) if old[at] != file.seen[at]]
    end = differing[len(differing) // 2] if differing else 0
    return file.seen[:end] + old[end:]


def _torn(file: File, random: Random) -> bytes:
    """Of each block what was flushed or what was seen; of a file that never was, perhaps less."""
    size = len(file.seen)
    if file.durable is None and random.random() < 0.3:
        return file.seen[: random.randrange(size + 1)]
    old = _flushed(file).ljust(size, b"\0")
    blocks = range(0, size, BLOCK_BYTES)
    return b"".join((file.seen if random.random() < 0.5 else old)[at : at + BLOCK_BYTES] for at in blocks)


class PowerLoss:
    """A disk on which everything is durable at first."""

    def __init__(self, image: Image) -> None:
        self._root = Directory()
        self._pending: list[Change] = []
        for name in sorted(image):
            content = image[name]
            parent, last = self._place(name)
            parent.seen[last] = Directory() if content is None else File(content, content)
            parent.durable[last] = parent.seen[last]

    def _place(self, path: str) -> tuple[Directory, str]:
        *parents, last = path.split("/")
        directory = self._root
        for name in parents:
            found = directory.seen[name]
            assert isinstance(found, Directory)
            directory = found
        return directory, last

    def _find(self, path: str) -> File | Directory | None:
        if path == ".":
            return self._root
        try:
            directory, last = self._place(path)
        except KeyError:
            return None
        return directory.seen.get(last)

    def look(self, image: Image) -> None:
        """What the program saw before the next call."""
        for name, content in image.items():
            node = self._find(name)
            if content is not None and isinstance(node, File):
                node.seen = content

    def apply(self, call: Call) -> None:
        """A call that worked."""
        if any(path.startswith("..") for path in call.paths):
            return
        path = call.paths[0]
        if call.name in ("fsync", "fdatasync"):
            self._flush(path)
        elif call.name == "openat":
            if self._find(path) is None:
                self._change((*self._place(path), File(b"", None)))
        elif call.name in ("mkdir", "mkdirat"):
            self._change((*self._place(path), Directory()))
        elif call.name in ("unlink", "unlinkat", "rmdir"):
            self._change((*self._place(path), None))
        elif call.name.startswith(("rename", "link")):
            moved = self._find(path)
            assert moved is not None
            change = (*self._place(call.paths[1]), moved)
            self._change(*([(*self._place(path), None)] if call.name.startswith("rename") else []), change)

    def _change(self, *changes: tuple[Directory, str, File | Directory | None]) -> None:
        self._pending.append(list(changes))
        for directory, name, meaning in changes:
            _mean(directory.seen, name, meaning)

    def _flush(self, path: str) -> None:
        node = self._find(path)
        if isinstance(node, File):
            node.durable = node.seen
        elif node is not None:
            for change in [change for change in self._pending if any(place is node for place, _, _ in change)]:
                self._pending.remove(change)
                for directory, name, meaning in change:
                    _mean(directory.durable, name, meaning)

    def lost(self, random: Random) -> list[Image]:
        """What may be there if power is lost now: the least, all names, the last alone, torn writes, and any other."""
        some = [change for change in self._pending if random.random() < 0.5]
        return [
            self._image([], lambda file: file.durable or b""),
            self._image(self._pending, _flushed),
            self._image(self._pending[-1:], lambda file: file.seen),
            self._image(self._pending, _halved),
            self._image(some, lambda file: _torn(file, random)),
        ]

    def _image(self, changes: Sequence[Change], content: Content) -> Image:
        names: dict[int, dict[str, File | Directory]] = {}
        for change in changes:
            for directory, name, meaning in change:
                _mean(names.setdefault(id(directory), dict(directory.durable)), name, meaning)
        image: Image = {}
        pending: list[tuple[str, Directory]] = [("", self._root)]
        while pending:
            prefix, directory = pending.pop()
            for name, node in names.get(id(directory), directory.durable).items():
                if isinstance(node, Directory):
                    image[prefix + name] = None
                    pending.append((f"{prefix}{name}/", node))
                else:
                    image[prefix + name] = content(node)
        return image

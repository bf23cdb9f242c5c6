"""The program that is killed: waits for jobs on a socket and does each in a process of its own, forked for it.

    python -m tests.faults.crash_program <descriptor of the socket>

One message is one JSON object. A job: {"Operation", "Root", "Call", "Skip"}: before it begins, the process makes
`Skip` calls of that name that fail and do nothing, so that the one whose number the tracer was told is the one that is
meant. What an operation acknowledges is sent as it does so: {"Said": text}; when it ended: {"Ended", "Process"}.
Knows what is to be done, and nothing of how it is cut off.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import os
import socket
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from raftchat.node.exits import NodeFailed
from raftchat.storage.errors import StorageError
from tests.faults.crash_operations import ALL

DONE, REFUSED, BROKEN = 0, 10, 11
NOWHERE = 0x7FFFFFFF
"""A descriptor that nothing was ever opened as."""
PR_SET_PTRACER, ANY_PROCESS = 0x59616D61, ctypes.c_ulong(-1)

IN_VAIN: dict[str, Callable[[], object]] = {
    "openat": lambda: os.open("", os.O_RDONLY),
    "write": lambda: os.write(NOWHERE, b"-"),
    "pwrite64": lambda: os.pwrite(NOWHERE, b"-", 0),
    "fallocate": lambda: os.posix_fallocate(NOWHERE, 0, 1),
    "ftruncate": lambda: os.ftruncate(NOWHERE, 0),
    "fsync": lambda: os.fsync(NOWHERE),
    "fdatasync": lambda: os.fdatasync(NOWHERE),
    "rename": lambda: os.rename("", "-"),
    "renameat": lambda: os.rename("", "-"),
    "renameat2": lambda: os.rename("", "-"),
    "link": lambda: os.link("", "-"),
    "linkat": lambda: os.link("", "-"),
    "unlink": lambda: os.unlink(""),
    "unlinkat": lambda: os.unlink("-", dir_fd=NOWHERE),
    "mkdir": lambda: os.mkdir(""),
    "mkdirat": lambda: os.mkdir(""),
    "rmdir": lambda: os.rmdir(""),
    "fchmod": lambda: os.fchmod(NOWHERE, 0),
}
"""Every system call by which an operation may change the disk → one that fails."""


def skip(call: str, count: int) -> None:
    for _ in range(count):
        try:
            IN_VAIN[call]()
        except OSError:
            continue
        raise AssertionError(f"{call} did something")


def work(channel: socket.socket, job: dict[str, Any]) -> int:
    """Exit code."""
    if job["Call"]:
        skip(job["Call"], job["Skip"])
    os.getppid()  # Marks in the trace where it begins.
    try:
        ALL[job["Operation"]].perform(
            Path(job["Root"]), lambda text: channel.sendall(orjson.dumps({"Said": text})), itertools.count(1 << 40)
        )
    except (OSError, StorageError, NodeFailed) as error:
        channel.sendall(orjson.dumps({"Error": f"{type(error).__name__}: {error}"}))
        return REFUSED
    finally:
        os.getppid()
    return DONE


def in_a_child(channel: socket.socket, job: dict[str, Any]) -> None:
    child = os.fork()
    if child == 0:
        code = BROKEN
        try:
            code = work(channel, job)
        except BaseException:
            channel.sendall(orjson.dumps({"Error": traceback.format_exc()}))
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    channel.sendall(orjson.dumps({"Ended": os.waitstatus_to_exitcode(status), "Process": child}))


def warm() -> None:
    """Everything once, so that what is loaded late is loaded."""
    with tempfile.TemporaryDirectory(dir=sys.argv[2]) as place:
        for operation in ALL.values():
            root = Path(place) / operation.name
            root.mkdir()
            operation.prepare(root)
            operation.perform(root, lambda text: None, itertools.count(1 << 40))


def main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    ctypes.CDLL(None).prctl(PR_SET_PTRACER, ANY_PROCESS, 0, 0, 0)
    warm()
    gc.disable()
    channel.sendall(orjson.dumps({"Ready": os.getpid()}))
    while message := channel.recv(1 << 16):
        in_a_child(channel, orjson.loads(message))


if __name__ == "__main__":
    main()

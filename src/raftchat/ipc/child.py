"""How the supervisor starts a child, and what the child does first.

The first line of a child's stdin is a JSON object, `ChildConfig`. Nothing else is ever written there: the end of stdin
means that the supervisor is gone, and then the child ends too, as it does by PR_SET_PDEATHSIG on Linux. So no orphan
outlives a supervisor, however that ended.

`start_child` runs it by way of `spawn.py`, which asks for that signal before the child's own imports begin.

A child is in a process group of its own: Ctrl-C in a terminal reaches the supervisor alone, which ends the others in
the right order. SIGTERM asks a child to finish and exit 0.

Does not know what the children are for, or who restarts them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

import orjson

from raftchat import logs
from raftchat.config import Config
from raftchat.ipc import spawn


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildConfig:
    """What a child is told. Descriptors in `fds` are inherited and open."""

    role: str
    """`raft` or `worker`."""
    number: int
    """Which of the workers, from 1. Stays the same when it is restarted. 0: the Raft process."""
    node_id: int
    data_dir: str
    parent_pid: int
    fds: dict[str, Any]
    """worker: `{"http": [listening sockets], "ipc": fd}`; raft: `{"peer": [listening sockets], "control": fd}`.

    Both have `lock`, which is never used: while it is open, the data directory is locked.
    """
    log_format: str
    """`text` or `json`: decided by the supervisor, who knows whether stderr is a terminal."""
    log_level: str
    config: Config
    settings: dict[str, Any] = field(default_factory=dict)
    """What only this role needs."""

    def to_json(self) -> bytes:
        return orjson.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: bytes) -> ChildConfig:
        """Raises ValueError or TypeError if the line is of another version of this program."""
        values = orjson.loads(line)
        values["config"] = Config(**values["config"])
        return cls(**values)


async def start_child(module: str, child: ChildConfig) -> asyncio.subprocess.Process:
    """Run `python -m module` with the descriptors of `child.fds`. stdout and stderr are inherited."""
    descriptors: list[int] = []
    for value in child.fds.values():
        descriptors.extend(value if isinstance(value, list) else [value])
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "raftchat.ipc.spawn",
        module,
        str(child.parent_pid),
        stdin=asyncio.subprocess.PIPE,
        pass_fds=descriptors,
        process_group=0,
    )
    assert process.stdin is not None
    process.stdin.write(child.to_json() + b"\n")
    return process


def read_child_config() -> ChildConfig:
    """Called first by a child: its configuration; from now on it dies with its parent and its log lines say whose
    they are. Exits 2 if there is none."""
    line = bytearray()
    while not line.endswith(b"\n"):
        chunk = os.read(0, 65536)
        if not chunk:
            sys.stderr.write("This program is started by raft-chat; it cannot be run alone.\n")
            raise SystemExit(2)
        line += chunk
    child = ChildConfig.from_json(bytes(line))
    logs.belong_to(child.node_id)
    die_with_parent(child.parent_pid)
    return child


def die_with_parent(parent_pid: int) -> None:
    """End this process with SIGKILL when its parent ends, or now if it already has."""
    spawn.die_with_parent(parent_pid)
    threading.Thread(target=_die_at_end_of_stdin, name="stdin", daemon=True).start()


def _die_at_end_of_stdin() -> None:
    # os.read, not sys.stdin: a daemon thread must not hold a lock that the interpreter wants when it exits.
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGKILL)

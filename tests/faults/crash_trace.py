"""Runs operations of `crash_program` under strace: whole, killed before a system call, or refused one.

strace counts the calls of each name in each process. It is told one number, and each process makes as many calls in
vain before it begins as it takes for that number to fall on the call that is meant: so one strace does for all.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.faults.crash_program import BROKEN, DONE, IN_VAIN, REFUSED

ROOT = Path(__file__).resolve().parents[2]
NUMBER = 150
"""Of the call that is killed or refused; no operation makes so many of one name."""
_BAD = ("fsync", "fdatasync", "unlink", "unlinkat", "rmdir", "fchmod")
"""They take no space, so it is a broken disk that refuses them."""
KILL = [f"inject={','.join('?' + name for name in IN_VAIN)}:signal=KILL:when={NUMBER}"]
REFUSE = [
    f"inject={','.join('?' + name for name in IN_VAIN if name not in _BAD)}:error=ENOSPC:when={NUMBER}",
    f"inject={','.join('?' + name for name in _BAD)}:error=EIO:when={NUMBER}",
]
_LINE = re.compile(r"(\d+) +(\w+)\((.*)\) += (-?\d+|\?)")
_DESCRIPTOR = re.compile(r"\d+<([^>]*)>")
_AT = re.compile(r'(?:AT_FDCWD|\d+)(?:<([^>]*)>)?, "([^"]*)"')
_QUOTED = re.compile(r'"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Call:
    """A system call that may have changed the disk."""

    name: str
    paths: tuple[str, ...]
    """Relative to the root."""
    flags: str
    """Those of open and unlinkat that matter."""
    worked: bool
    number: int = 0
    """Which one of this name it is."""


@dataclass(slots=True)
class Run:
    """What came of one job."""

    calls: list[Call]
    said: list[str] = field(default_factory=list)
    code: int = 0
    """Of its exit; negative: the signal."""
    error: str = ""


class Traced:
    """The program and its tracer."""

    def __init__(self, place: Path, inject: list[str]) -> None:
        """`place`: a directory for its trace. Skips the test if no process can be traced here."""
        self._place = place
        mine, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel = mine
        mine.settimeout(60)
        self._program = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.crash_program", str(its.fileno()), str(place)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}", "PYTHONHASHSEED": "0"},
            pass_fds=[its.fileno()],
        )
        its.close()
        process = self._receive()["Ready"]
        trace = place / "trace"
        told = ["signal=none", f"trace=getppid,{','.join('?' + name for name in IN_VAIN)}", *inject]
        options = [option for text in told for option in ("-e", text)]
        self._tracer = subprocess.Popen(
            ["strace", "-f", "-y", "-qq", "-o", str(trace), *options, "-p", str(process)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + 10
        while not self._is_traced(process):
            if self._tracer.poll() is not None or time.monotonic() > deadline:
                assert self._tracer.stderr is not None
                said = self._tracer.stderr.read().decode()
                self.close()
                pytest.skip(f"strace may not attach here: {said}")
            time.sleep(0.01)
        self._trace = trace.open()
        self._busy = False

    @staticmethod
    def _is_traced(process: int) -> bool:
        status = Path(f"/proc/{process}/status").read_text()
        return re.search(r"^TracerPid:\s+[1-9]", status, re.MULTILINE) is not None

    def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = orjson.loads(self._channel.recv(1 << 16))
        return message

    def begin(self, operation: str, root: Path, call: Call | None = None) -> None:
        """Without `call` nothing happens to it. One at a time: what was begun before and is not asked for is let be."""
        if self._busy:
            self._rest()
        assert call is None or call.number < NUMBER
        job = {
            "Operation": operation,
            "Root": str(root),
            "Call": call.name if call else "",
            "Skip": NUMBER - call.number if call else 0,
        }
        self._root = str(root)
        self._busy = True
        self._channel.sendall(orjson.dumps(job))

    def end(self) -> Run:
        run, process = self._rest()
        assert run.code != BROKEN, run.error
        assert run.code in (DONE, REFUSED, -9), f"ended with {run.code}"
        run.calls = self._calls(process, complete=run.code != -9)
        return run

    def _rest(self) -> tuple[Run, int]:
        """What is told of the job until it ended, and its process."""
        run = Run([])
        while "Ended" not in (message := self._receive()):
            if "Said" in message:
                run.said.append(message["Said"])
            run.error = message.get("Error", run.error)
        run.code = message["Ended"]
        self._busy = False
        return run, message["Process"]

    def _calls(self, process: int, complete: bool) -> list[Call]:
        """Those between the marks."""
        calls: list[Call] = []
        counts: dict[str, int] = {}
        marks = 0
        deadline = time.monotonic() + 10
        while True:
            at = self._trace.tell()
            line = self._trace.readline()
            if not line.endswith("\n"):
                self._trace.seek(at)
                assert time.monotonic() < deadline, "the trace does not tell of it"
                time.sleep(0.001)
                continue
            if int(line.split()[0]) != process:
                continue
            match = _LINE.match(line)
            if match is None:
                assert "<unfinished" in line, line
                continue
            name, arguments, returned = match[2], match[3], match[4]
            if name == "getppid":
                marks += 1
                if marks == 2:
                    return calls
            elif marks:
                counts[name] = counts.get(name, 0) + 1
                calls.append(self._call(name, arguments, returned, counts[name]))
                if returned == "?" and not complete:
                    return calls

    def _call(self, name: str, arguments: str, returned: str, number: int) -> Call:
        flags = ""
        if name in ("openat", "unlinkat", "mkdirat", "renameat", "renameat2", "linkat"):
            paths = [os.path.join(at, path) for at, path in _AT.findall(arguments)]
            flags = " ".join(flag for flag in ("O_CREAT", "O_TRUNC", "AT_REMOVEDIR") if flag in arguments)
        elif match := _DESCRIPTOR.match(arguments):
            paths = [match[1]]
        else:
            paths = _QUOTED.findall(arguments)
        relative = tuple(os.path.relpath(path, self._root) for path in paths)
        return Call(name, relative, flags, not returned.startswith("-"), number)

    def close(self) -> None:
        self._channel.close()
        self._program.wait(20)
        self._tracer.wait(20)
        if self._tracer.stderr is not None:
            self._tracer.stderr.close()
        shutil.rmtree(self._place / "trace", ignore_errors=True)


def changing(calls: list[Call]) -> list[Call]:
    """Those that changed something. What is found before one is what was there after the one before."""
    return [
        call
        for call in calls
        if call.worked and not (call.name == "openat" and "O_CREAT" not in call.flags) and call.paths
    ]

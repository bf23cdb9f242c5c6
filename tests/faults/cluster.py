"""Real nodes as a user starts them: one command line each, own ports and directories, processes found by their parents.

Knows the command line, the ready line and `/readyz`, `/raft`. Does not know what is posted or what may go wrong.
Processes are signalled by pid only, and `close` leaves none behind.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeVar

import httpx2
import psutil

HOST = "127.0.0.1"
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
SEED_PORTS = {12379, 12380, 22379, 22380, 32379, 32380, 42379, 42380}
T = TypeVar("T")


def raft_chat() -> list[str]:
    """The command: the console script beside this interpreter."""
    script = Path(sys.executable).with_name("raft-chat")
    if not script.exists():
        raise RuntimeError(f"{script} is missing: make install")
    return [str(script)]


def wait_for(what: str, probe: Callable[[], T | None], timeout_s: float, interval_s: float = 0.02) -> T:
    """Poll until `probe` returns something true. Raises TimeoutError that names what did not happen."""
    deadline = time.monotonic() + timeout_s
    while True:
        if found := probe():
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {timeout_s:g} s")
        time.sleep(interval_s)


_reserved: dict[int, IO[str]] = {}


def free_port() -> int:
    """A port that nothing listens on and that no outgoing connection may be given, ours until this process ends."""
    locks = Path(tempfile.gettempdir()) / "raft-chat-test-ports"
    locks.mkdir(exist_ok=True)
    while True:
        port = random.SystemRandom().randrange(15_000, 32_000)  # below Linux's ephemeral ports
        if port in SEED_PORTS or port in _reserved:
            continue
        lock = (locks / str(port)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind((HOST, port))
        except OSError:
            lock.close()
            continue
        _reserved[port] = lock
        return port


@dataclass(frozen=True, slots=True)
class Processes:
    """A running node's processes, in the order in which they were started."""

    supervisor: psutil.Process
    raft: psutil.Process | None
    workers: list[psutil.Process]

    def all(self) -> list[psutil.Process]:
        return [self.supervisor, *([self.raft] if self.raft else []), *self.workers]


@dataclass(slots=True)
class Node:
    id: int
    command: Sequence[str]
    url: str
    directory: Path
    """Where it is started, and where its data directory and output are."""
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0
    environment: dict[str, str] = field(default_factory=dict)
    known: dict[int, psutil.Process] = field(default_factory=dict)
    """Every process of this node ever seen, so that `close` ends them all."""

    @property
    def data_dir(self) -> Path:
        return self.directory / f"raft-chat-{self.id}"

    @property
    def output(self) -> Path:
        return self.directory / f"node-{self.id}.log"

    def start(self, *prefix: str) -> None:
        """Start it as `command`, under `prefix` if there is one (a tracer)."""
        assert self.process is None or self.process.poll() is not None, f"node {self.id} is running"
        self.starts += 1
        with self.output.open("ab") as output:
            output.write(f"--- start {self.starts}\n".encode())
            output.flush()
            self.process = subprocess.Popen(
                [*prefix, *self.command],
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **self.environment},
                start_new_session=True,
            )

    def ready(self) -> bool:
        """It has said so since it was started, and says so when asked."""
        said = self.output.read_text(errors="replace").rpartition("--- start ")[2]
        if f" ready on {self.url}\n" not in said:
            return False
        with contextlib.suppress(httpx2.TransportError):
            return httpx2.get(f"{self.url}/readyz", timeout=2).status_code == 200
        return False

    def wait_ready(self, timeout_s: float = START_TIMEOUT_S) -> None:
        def probe() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(f"node {self.id} ended with {self.process.returncode}:\n{self.tail()}")
            return self.ready()

        wait_for(f"node {self.id} ready", probe, timeout_s)

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def processes(self) -> Processes:
        """Raises RuntimeError unless the supervisor runs. A child that is just being replaced may be missing."""
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"node {self.id} does not run")
        raft, workers = None, []
        supervisor = psutil.Process(self.process.pid)
        for child in supervisor.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                command = child.cmdline()
                if any(part.startswith("raftchat.node") for part in command):
                    raft = child
                elif any(part.startswith("raftchat.worker") for part in command):
                    workers.append(child)
                self.known[child.pid] = child
        self.known[supervisor.pid] = supervisor
        return Processes(supervisor, raft, workers)

    def wait_processes(self, workers: int = 1) -> Processes:
        """All of them, once they are there."""

        def probe() -> Processes | None:
            found = self.processes()
            return found if found.raft and len(found.workers) == workers else None

        return wait_for(f"node {self.id} has all its processes", probe, START_TIMEOUT_S)

    def kill(self) -> None:
        """SIGKILL to all processes at once, as a power cut of the machine minus the disk."""
        if self.running():
            with contextlib.suppress(RuntimeError, psutil.NoSuchProcess):
                self.processes()
        self._kill_known()

    def stop(self) -> int:
        """SIGTERM to the supervisor; its exit code."""
        assert self.process is not None
        with contextlib.suppress(RuntimeError, psutil.NoSuchProcess):
            self.processes()
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(STOP_TIMEOUT_S)

    def _kill_known(self) -> None:
        for process in self.known.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # psutil compares start times: never a stranger with a recycled pid
        if self.process is not None:
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait(STOP_TIMEOUT_S)

    def leftovers(self) -> list[psutil.Process]:
        """Processes of this node that still run, the supervisor's end notwithstanding."""
        alive = []
        for process in self.known.values():
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                    alive.append(process)
        return alive

    def tail(self, lines: int = 40) -> str:
        if not self.output.exists():
            return "(never started)"
        return "\n".join(self.output.read_text(errors="replace").splitlines()[-lines:])

    def get(self, path: str, **params: Any) -> httpx2.Response:
        return httpx2.get(f"{self.url}{path}", params=params, timeout=15)

    def post(self, room: str, message: str, user: str = "tester", timeout_s: float = 15) -> httpx2.Response:
        return httpx2.post(f"{self.url}/rooms/{room}", json={"Message": message, "User": user}, timeout=timeout_s)

    def must_post(self, room: str, message: str) -> int:
        """The new message's ID. Fails the test unless it is 201."""
        response = self.post(room, message)
        assert response.status_code == 201, f"node {self.id}: {response.status_code} {response.text}"
        return int(response.json()["ID"])

    def texts(self, room: str, **params: Any) -> list[str]:
        response = self.get(f"/rooms/{room}", **params)
        assert response.status_code == 200, f"node {self.id}: {response.status_code} {response.text}"
        return [message["Message"] for message in response.json()]

    def history(self, room: str) -> list[dict[str, Any]]:
        """Every message of a room, oldest first, page by page."""
        messages: list[dict[str, Any]] = []
        while True:
            after = messages[-1]["ID"] if messages else 0
            response = self.get(f"/rooms/{room}", after=after, limit=1000)
            assert response.status_code == 200, f"node {self.id}: {response.status_code} {response.text}"
            page = response.json()
            messages += page
            if len(page) < 1000:
                return messages


class Cluster:
    """`size` nodes on free ports below one directory of their own. A context manager; nothing runs until `start`."""

    def __init__(self, size: int, *flags: str, command: Sequence[str] | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="raft-chat-test-"))
        self.peers = [f"http://{HOST}:{free_port()}" for _ in range(size)]
        self.nodes = []
        for id in range(1, size + 1):
            port = free_port()
            arguments = ["--id", str(id), "--cluster", ",".join(self.peers), "--port", str(port), *flags]
            self.nodes.append(
                Node(id, [*(command or raft_chat()), *arguments], f"http://{HOST}:{port}", self.directory)
            )

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> Cluster:
        for node in self.nodes:
            node.start()
        for node in self.nodes:
            node.wait_ready()
        return self

    def __iter__(self) -> Iterator[Node]:
        return iter(self.nodes)

    def __getitem__(self, id: int) -> Node:
        """By its id, from 1."""
        return self.nodes[id - 1]

    def leader(self, timeout_s: float = START_TIMEOUT_S) -> Node:
        """The node that knows itself to lead, once there is one."""

        def probe() -> Node | None:
            for node in self.nodes:
                if node.running():
                    with contextlib.suppress(httpx2.TransportError, ValueError, KeyError):
                        status = httpx2.get(f"{node.url}/raft", timeout=1).json()
                        if status["Role"] == "leader":
                            return node
            return None

        return wait_for("a leader", probe, timeout_s)

    def followers(self) -> list[Node]:
        leader = self.leader()
        return [node for node in self.nodes if node is not leader]

    def transcript(self) -> list[tuple[str, str]]:
        """The end of what each node said, for the report of a test that failed."""
        return [(f"node {node.id}", node.tail()) for node in self.nodes]

    def close(self) -> None:
        for node in self.nodes:
            node.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

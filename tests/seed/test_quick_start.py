"""The quick start's commands, verbatim, through a shell, with the ports that they name."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.faults.cluster import wait_for

pytestmark = pytest.mark.process
README = Path(__file__).resolve().parents[2] / "README.md"

ONE = "raft-chat --id 1 --cluster http://127.0.0.1:12379 --port 12380"
PEERS = "http://127.0.0.1:12379,http://127.0.0.1:22379,http://127.0.0.1:32379"
THREE = [
    f"raft-chat --id 1 --cluster {PEERS} --port 12380",
    f"raft-chat --id 2 --cluster {PEERS} --port 22380",
    f"raft-chat --id 3 --cluster {PEERS} --port 32380",
]
POST_HELLO = """curl -L http://127.0.0.1:12380/rooms/general -d '{"Message": "hello", "User": "username"}'"""
READ_ROOM = "curl -L http://127.0.0.1:12380/rooms/general"
READ_ROOMS = "curl -L http://127.0.0.1:12380/rooms"
POST_FOO = """curl -L http://127.0.0.1:12380/rooms/general -d '{"Message": "foo", "User": "username"}'"""
POST_BAR = """curl -L http://127.0.0.1:22380/rooms/general -d '{"Message": "bar", "User": "username"}'"""
READ_GENERAL = "curl -L http://127.0.0.1:12380/general"


class Terminal:
    """A directory, and shells in it that find `raft-chat` on their path."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.nodes: list[subprocess.Popen[bytes]] = []
        self.waiting: list[Callable[[], bool]] = []
        self.seen: dict[int, psutil.Process] = {}

    def start(self, command: str) -> subprocess.Popen[bytes]:
        """Run a node as a shell would. `wait_ready` then waits for the line that says that it is."""
        port = command.split("--port ")[1].split()[0]
        output = self.directory / f"output-{len(self.nodes)}"
        with output.open("wb") as file:
            node = subprocess.Popen(
                ["bash", "-c", f"exec {command}"],
                cwd=self.directory,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.nodes.append(node)

        def ready() -> bool:
            text = output.read_text(errors="replace")
            assert node.poll() is None, f"{command} ended with {node.returncode}:\n{text}"
            return f"http://127.0.0.1:{port}" in text

        self.waiting.append(ready)  # not here: one node of three is ready only when another is there
        return node

    def wait_ready(self) -> None:
        while self.waiting:
            wait_for("the line with the node's URL", self.waiting.pop(), 30)
        for node in self.nodes:
            if node.poll() is None:
                process = psutil.Process(node.pid)
                self.seen |= {p.pid: p for p in [process, *process.children(recursive=True)]}

    def curl(self, command: str) -> Any:
        """What a curl command prints, as JSON. Fails unless curl succeeds."""
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.directory,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, f"{command}: curl's exit code"
        return json.loads(done.stdout)

    def close(self) -> None:
        for process in self.seen.values():
            if process.is_running():
                process.kill()
        for node in self.nodes:
            if node.poll() is None:
                node.kill()
            node.wait(10)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """One at a time on a machine: the commands name their ports."""
    with (Path(tempfile.gettempdir()) / "raft-chat-quick-start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        terminal = Terminal(tmp_path)
        try:
            yield terminal
        finally:
            terminal.close()
            for output in sorted(tmp_path.glob("output-*")):
                print(f"--- {output.name}\n{output.read_text(errors='replace')}")


def posts(answer: Any) -> list[tuple[str, str]]:
    return [(message["User"], message["Message"]) for message in answer]


def test_single_node(terminal: Terminal) -> None:
    terminal.start(ONE)
    terminal.wait_ready()
    posted = terminal.curl(POST_HELLO)
    assert set(posted) == {"ID", "PostedAt"}
    (message,) = terminal.curl(READ_ROOM)
    assert message == posted | {"User": "username", "Message": "hello"}
    assert terminal.curl(READ_ROOMS) == ["general"]


def test_three_nodes_take_and_show_messages_on_any_member(terminal: Terminal) -> None:
    for command in THREE:
        terminal.start(command)
    terminal.wait_ready()
    for port in (12380, 22380, 32380):
        terminal.curl(POST_HELLO.replace("12380", str(port)).replace("hello", f"hello from {port}"))
    for port in (12380, 22380, 32380):
        assert posts(terminal.curl(READ_ROOM.replace("12380", str(port)))) == [
            ("username", f"hello from {p}") for p in (12380, 22380, 32380)
        ]


def test_cluster_recovery(terminal: Terminal) -> None:
    nodes = [terminal.start(command) for command in THREE]
    terminal.wait_ready()
    terminal.curl(POST_FOO)
    nodes[0].send_signal(signal.SIGINT)  # what Ctrl-C does
    assert nodes[0].wait(15) == 0
    assert set(terminal.curl(POST_BAR)) == {"ID", "PostedAt"}
    terminal.start(THREE[0])
    terminal.wait_ready()
    assert posts(terminal.curl(READ_GENERAL)) == [("username", "foo"), ("username", "bar")]


@pytest.mark.parametrize("command", [ONE, *THREE, POST_HELLO, READ_ROOM, READ_ROOMS, POST_FOO, POST_BAR, READ_GENERAL])
def test_the_readme_shows_what_is_tested_here(command: str) -> None:
    assert command in README.read_text()

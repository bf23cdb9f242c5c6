"""A node as a user starts it: how it begins, who outlives whom, and with which exit code and words it ends."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from tests.faults.cluster import free_port, raft_chat, wait_for

pytestmark = pytest.mark.process
ROOT = Path(__file__).resolve().parents[2]


class Running:
    """A started node. stdout and stderr are kept apart, as a service manager would."""

    def __init__(self, directory: Path, command: list[str], environment: dict[str, str]) -> None:
        self.out, self.err = directory / "out", directory / "err"
        with self.out.open("ab") as out, self.err.open("ab") as err:
            self.process = subprocess.Popen(
                command,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            )
        self.family: list[psutil.Process] = []

    def wait_ready(self) -> None:
        def ready() -> bool:
            assert self.process.poll() is None, self.err.read_text()
            return "is ready on http://" in self.out.read_text()

        wait_for("the ready line", ready, 20)

    def children(self) -> dict[str, list[psutil.Process]]:
        """By module."""
        found: dict[str, list[psutil.Process]] = {}
        for child in psutil.Process(self.process.pid).children(recursive=True):
            self.family.append(child)
            with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
                found.setdefault(child.cmdline()[3], []).append(child)
        return found

    def raft(self) -> psutil.Process:
        return wait_for("Raft process", lambda: self.children().get("raftchat.node.raft_process", []), 10)[0]

    def wait(self, timeout_s: float = 15) -> int:
        return self.process.wait(timeout_s)

    def orphans(self) -> list[psutil.Process]:
        return [p for p in self.family if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Start a node below the test's directory; `worker` replaces the real one."""
    cluster, port = f"http://127.0.0.1:{free_port()}", free_port()
    running: list[Running] = []

    def start(*arguments: str, worker: str = "", **environment: str) -> Running:
        command = [sys.executable, "-m", "tests.node.run_node", worker] if worker else raft_chat()
        given = ["--cluster", cluster, "--port", str(port), *arguments]
        running.append(Running(tmp_path, [*command, *given], environment))
        return running[-1]

    yield start
    for node in running:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()


def test_the_ready_line_is_the_only_one_on_stdout_and_the_service_manager_hears_it(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(20)
        node = start("--workers", "2", "--log-format", "json", NOTIFY_SOCKET=str(tmp_path / "notify"))
        assert manager.recv(1000).startswith(b"READY=1\n")
        node.wait_ready()
        assert len(node.children()["raftchat.worker"]) == 2
        node.process.send_signal(signal.SIGTERM)
        assert manager.recv(1000) == b"STOPPING=1"
        assert node.wait() == 0
    assert len(node.out.read_text().splitlines()) == 1
    assert all(line.startswith("{") for line in node.err.read_text().splitlines())
    assert not node.orphans()


def test_the_log_of_a_run_begins_with_what_was_found_and_ends_with_how_long_the_end_took(
    start: Callable[..., Running],
) -> None:
    node = start("--log-format", "json", "--data-dir", "d")
    node.wait_ready()
    # A terminal that was closed.
    node.process.send_signal(signal.SIGHUP)
    assert node.wait() == 0
    lines = [json.loads(line) for line in node.err.read_text().splitlines()]
    assert {line["Node"] for line in lines} == {1}
    (started,) = [line for line in lines if line["Message"] == "Started"]
    assert started["data_dir"] == str(node.out.parent / "d")
    assert list(started["members"]) == ["1"]
    assert (started["last_index"], started["term"], started["torn_tail_cut"]) == (0, 0, False)
    assert [line["Message"] for line in lines if line["Message"] == "Became leader"]
    assert [line["signal"] for line in lines if line["Message"] == "Stopping"] == ["SIGHUP"]
    assert lines[-1]["Message"] == "Stopped"
    assert lines[-1]["took_ms"] >= 0


def test_whoever_was_started_to_outlive_its_terminal_does(start: Callable[..., Running]) -> None:
    """nohup(1) has SIGHUP ignored from the start."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        node = start()
    finally:
        signal.signal(signal.SIGHUP, before)
    node.wait_ready()
    node.process.send_signal(signal.SIGHUP)
    node.process.send_signal(signal.SIGTERM)
    assert node.wait() == 0
    assert "SIGHUP" not in node.err.read_text()


def test_children_may_have_as_many_files_open_as_the_system_allows(start: Callable[..., Running]) -> None:
    """A segment of the log costs a descriptor: 1024, the usual limit, would be the end of 64 GiB of history."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    # Low, but enough for the process that all tests run in.
    low = len(os.listdir("/proc/self/fd")) + 64
    assert low < hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    try:
        node = start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    node.wait_ready()
    for children in node.children().values():
        assert [child.rlimit(psutil.RLIMIT_NOFILE) for child in children] == [(hard, hard)]


def test_a_taken_port_is_exit_3_and_says_which(start: Callable[..., Running]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        node = start("--port", str(port))
        assert node.wait() == 3
        assert f"127.0.0.1:{port} is in use by another program; stop that, or choose another --port" in (
            node.err.read_text()
        )
        node = start("--cluster", f"http://127.0.0.1:{port}", "--data-dir", "other")
        assert node.wait() == 3
        assert f"peer port: 127.0.0.1:{port} is in use" in node.err.read_text()


def test_two_nodes_on_one_directory_the_second_is_exit_3(start: Callable[..., Running]) -> None:
    first = start()
    first.wait_ready()
    second = start("--port", "0")
    assert second.wait() == 3
    assert f"in use by another raft-chat (process {first.process.pid})" in second.err.read_text()
    assert first.process.poll() is None


def test_a_killed_raft_process_ends_the_node_with_exit_1_and_a_message(start: Callable[..., Running]) -> None:
    node = start()
    node.wait_ready()
    node.raft().kill()
    assert node.wait(5) == 1
    assert "the Raft process was killed by SIGKILL" in node.err.read_text()
    wait_for("no orphan", lambda: not node.orphans(), 2)


def test_no_orphan_survives_a_killed_supervisor(start: Callable[..., Running]) -> None:
    node = start("--workers", "2")
    node.wait_ready()
    assert sorted(node.children()) == ["raftchat.node.raft_process", "raftchat.worker"]
    node.process.kill()
    node.process.wait()
    wait_for("no orphan", lambda: not node.orphans(), 2)


def test_no_orphan_survives_a_supervisor_killed_while_it_starts_them(start: Callable[..., Running]) -> None:
    for _ in range(5):
        node = start("--workers", "2")
        wait_for("a first child", lambda node=node: node.children(), 10)
        node.process.kill()
        node.process.wait()
        wait_for("no orphan", lambda node=node: not node.orphans(), 2)


@pytest.mark.parametrize("damage", [b"", bytes(8192), b"\xff" * 8192], ids=["cut", "zeros", "ones"])
def test_a_corrupt_hard_state_is_exit_4_and_names_the_file(start: Callable[..., Running], damage: bytes) -> None:
    node = start("--data-dir", "d")
    node.wait_ready()
    node.process.send_signal(signal.SIGTERM)
    assert node.wait() == 0
    path = node.out.parent / "d" / "hard-state"
    path.write_bytes(damage)
    node = start("--data-dir", "d")
    assert node.wait() == 4
    assert f"{path}: neither copy of term and vote can be read" in node.err.read_text()


def test_workers_that_never_serve_end_the_node(start: Callable[..., Running]) -> None:
    node = start(worker="tests.node.failing_worker")
    assert node.wait(30) == 1
    assert "worker 1 ended 5 times in a row" in node.err.read_text()
    assert '"code":7' in node.err.read_text()
    assert not node.orphans()


@pytest.mark.parametrize("code", [3, 4])
def test_a_worker_that_cannot_read_or_understand_the_log_ends_the_node(
    start: Callable[..., Running], code: int
) -> None:
    node = start(worker="tests.node.failing_worker", FAILING_WORKER_CODE=str(code))
    assert node.wait(30) == code
    assert "worker 1 cannot go on with this log" in node.err.read_text()
    assert not node.orphans()


def test_a_second_ctrl_c_forces_the_end(start: Callable[..., Running]) -> None:
    node = start(worker="tests.node.stubborn_worker")
    node.wait_ready()
    node.children()
    node.process.send_signal(signal.SIGINT)
    wait_for("it is stopping", lambda: "Stopping" in node.err.read_text(), 5)
    assert node.process.poll() is None
    node.process.send_signal(signal.SIGINT)
    assert node.wait(1.0) == 1
    wait_for("no orphan", lambda: not node.orphans(), 2)


def test_what_does_not_end_in_time_is_forced(start: Callable[..., Running]) -> None:
    node = start(worker="tests.node.stubborn_worker")
    node.wait_ready()
    node.children()
    node.process.send_signal(signal.SIGTERM)
    assert node.wait(6) == 1
    assert "does not end in time" in node.err.read_text()
    wait_for("no orphan", lambda: not node.orphans(), 2)


def test_sigterm_to_all_processes_at_once_ends_in_order(start: Callable[..., Running]) -> None:
    """As a service manager does."""
    node = start()
    node.wait_ready()
    for child in [p for group in node.children().values() for p in group]:
        child.terminate()
    node.process.terminate()
    assert node.wait() == 0
    assert not node.orphans()


def test_a_node_told_to_end_before_it_is_ready_ends(start: Callable[..., Running], tmp_path: Path) -> None:
    others = ",".join(f"http://127.0.0.1:{free_port()}" for _ in range(3))
    node = start("--cluster", others, "--data-dir", "d")
    node.raft()
    node.process.terminate()
    assert node.wait() == 0
    assert "is ready" not in node.out.read_text()

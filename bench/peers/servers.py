"""etcd and NATS from Debian, as three-node clusters on loopback: unpacked, never installed, never a service.

Knows their flags and how to see that they are ready. Does not know what is measured.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2

from tests.faults.cluster import HOST, free_port, wait_for

UNPACKED = Path(__file__).resolve().parents[2] / "build" / "peers"


def binary(package: str, name: str) -> Path:
    """From PATH, or out of the Debian package. Raises RuntimeError with what to do if it cannot be had."""
    if found := shutil.which(name):
        return Path(found)
    found_here = [path for path in UNPACKED.glob(f"{package}/usr/*/{name}") if path.is_file()]
    if not found_here:
        target = UNPACKED / package
        target.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            subprocess.run(["apt-get", "update", "-qq"], check=True)
        try:
            subprocess.run(
                ["apt-get", "download", "-qq", "-o", "APT::Sandbox::User=root", package], cwd=target, check=True
            )
            for archive in target.glob("*.deb"):
                subprocess.run(["dpkg", "-x", archive.name, "."], cwd=target, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise RuntimeError(f"cannot get {name}: sudo apt-get install {package}") from error
        found_here = [path for path in target.glob(f"usr/*/{name}") if path.is_file()]
    return found_here[0]


@contextlib.contextmanager
def running(commands: list[list[str]], directory: Path) -> Iterator[None]:
    """Start programs, and end exactly these."""
    processes = []
    try:
        for number, command in enumerate(commands):
            with (directory / f"output-{number}").open("wb") as output:
                processes.append(
                    subprocess.Popen(command, cwd=directory, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
                )
        yield
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@contextlib.contextmanager
def etcd(directory: Path) -> Iterator[list[str]]:
    """Client URLs, the leader's first."""
    program = binary("etcd-server", "etcd")
    clients = [f"http://{HOST}:{free_port()}" for _ in range(3)]
    peers = [f"http://{HOST}:{free_port()}" for _ in range(3)]
    members = ",".join(f"n{n}={url}" for n, url in enumerate(peers))
    commands = [
        [
            *[str(program), "--name", f"n{n}", "--data-dir", str(directory / f"etcd-{n}"), "--logger", "zap"],
            *["--listen-client-urls", clients[n], "--advertise-client-urls", clients[n], "--log-level", "error"],
            *["--listen-peer-urls", peers[n], "--initial-advertise-peer-urls", peers[n], "--initial-cluster", members],
        ]
        for n in range(3)
    ]

    def leader_first() -> list[str] | None:
        with contextlib.suppress(httpx2.TransportError, KeyError):
            status = {url: httpx2.post(f"{url}/v3/maintenance/status", json={}).json() for url in clients}
            ids = {url: answer["header"]["member_id"] for url, answer in status.items()}
            leader = next(iter(status.values()))["leader"]
            if leader in ids.values():
                return sorted(clients, key=lambda url: ids[url] != leader)
        return None

    with running(commands, directory):
        yield wait_for("etcd has a leader", leader_first, 30)


def etcd_put(key: str, value: str) -> str:
    """Body of a put through the v3 JSON gateway."""
    return json.dumps(
        {part: base64.b64encode(text.encode()).decode() for part, text in (("key", key), ("value", value))}
    )


@contextlib.contextmanager
def nats(directory: Path) -> Iterator[list[int]]:
    """Client ports of a JetStream cluster."""
    program = binary("nats-server", "nats-server")
    clients = [free_port() for _ in range(3)]
    routes = [free_port() for _ in range(3)]
    urls = ", ".join(f"nats://{HOST}:{port}" for port in routes)
    for n in range(3):
        (directory / f"nats-{n}.conf").write_text(
            f'server_name: n{n}\nlisten: "{HOST}:{clients[n]}"\n'
            f'jetstream {{ store_dir: "{directory}/nats-{n}" }}\n'
            f'cluster {{ name: bench, listen: "{HOST}:{routes[n]}", routes: [ {urls} ] }}\n'
        )
    with running([[str(program), "-c", str(directory / f"nats-{n}.conf")] for n in range(3)], directory):
        yield clients

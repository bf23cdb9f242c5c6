"""wrk with a Lua script, as a function: how many requests a second were answered as they should be."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True, slots=True)
class Rate:
    per_s: float
    """Answers of status 2xx or 3xx."""
    errors: int
    """Other answers, time-outs, and broken connections."""
    latency_ms: dict[str, float]
    """`50`, `99`, `max`."""


def run(
    urls: Sequence[str], *, seconds: float, connections: int = 64, method: str = "GET", path: str = "/", body: str = ""
) -> Rate:
    """Load all `urls` evenly: one thread for each, the connections shared out between them."""
    wrk = shutil.which("wrk")
    if wrk is None:
        raise RuntimeError("wrk is not installed: scripts/prerequisites bench")
    threads = len(urls)
    command = [wrk, f"-t{threads}", f"-c{connections // threads * threads}", f"-d{seconds:g}s", "--timeout", "10s"]
    arguments = [method, path, body, *urls]
    done = subprocess.run(
        [*command, "-s", str(SCRIPT), urls[0], "--", *arguments],
        capture_output=True,
        text=True,
        timeout=seconds + 60,
        check=True,
    )
    result = json.loads(done.stdout[done.stdout.rindex("RESULT ") + len("RESULT ") :])
    assert result["ok"] > 0, f"nothing was answered: {done.stdout}"
    return Rate(result["ok"] / result["seconds"], result["errors"], result["latency_ms"])

"""The table of a benchmark run: floors are told, and only who asks for it gets an exit code of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.peers import run


def result(path: Path, *benchmarks: dict[str, Any]) -> str:
    path.write_text(
        json.dumps(
            {
                "machine_info": {"python_version": "3.11", "processor": "any", "cpu": {"count": 2}},
                "benchmarks": [
                    {"name": f"test_{number}", "stats": {"mean": 0.5}, "extra_info": info}
                    for number, info in enumerate(benchmarks)
                ],
            }
        )
    )
    return str(path)


REACHED = {"name": "append", "figure": 5e6, "unit": "records/s", "ratio": 0.7, "floor": "ratio >= 0.7", "aim": "0.9"}
MISSED = {"name": "restart", "figure": 2.5, "unit": "s", "ratio": 1.0, "floor": "figure <= 2"}


def test_floor_and_aim_are_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(result(tmp_path / "bench.json", REACHED, {}, MISSED)) == 0
    out = capsys.readouterr().out
    heading, _, without, append, restart, missed = out.splitlines()[3:]
    assert heading.split() == ["name", "figure", "unit", "reference", "ratio", "floor", "aim"]
    assert without.split() == ["1", "500", "ms"]
    assert append.split() == ["append", "5,000,000", "records/s", "0.7", "0.7", "×", "0.9"]
    assert restart.split() == ["restart", "2.5", "s", "1", "≤", "2", "MISSED"]
    assert missed == "below its floor: restart"


def test_a_missed_floor_is_an_exit_code_only_for_who_asks(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    assert report.main(result(path, REACHED, {}), strict=True) == 0
    assert report.main(result(path, REACHED, MISSED), strict=False) == 0
    assert report.main(result(path, REACHED, MISSED), strict=True) == 1


@pytest.mark.parametrize(("etcd", "missed"), [(250.0, False), (251.0, True)])
def test_beside_etcd(capsys: pytest.CaptureFixture[str], etcd: float, missed: bool) -> None:
    rates = {"raft-chat, posts": [900.0, 1000.0], "etcd, puts": [200.0, etcd], "NATS JetStream R3": [5000.0]}
    assert run.report(rates, strict=False) == 0
    assert run.report(rates, strict=True) == missed
    out = capsys.readouterr().out
    assert "8 ×" in out
    assert ("below its floor: etcd, puts" in out) == missed

"""One table of a benchmark run: what each benchmark put beside its reference.

    python -m bench.report [--strict] build/bench.json

Reads pytest-benchmark's JSON. A benchmark says in `extra_info`: `name` (else the test's), `figure`, `unit`, `reference`
(text), `ratio` (figure to reference), `floor` (what it must not be below, as `ratio >= 0.7` or `figure <= 2`) and `aim`
(text or number). One that gives no figure is shown by its mean time.

With `--strict` the exit code is 1 if a floor is missed. Without, it is told and no more: how fast a machine is that
does other things at the same time decides nothing by itself.
"""

from __future__ import annotations

import json
import operator
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

COLUMNS = ("name", "figure", "unit", "reference", "ratio", "floor", "aim")
SIGNS = {">=": operator.ge, "<=": operator.le}


def row(benchmark: dict[str, Any]) -> tuple[str, ...]:
    info = benchmark["extra_info"]
    if "figure" in info:
        figure, unit = number(info["figure"]), str(info.get("unit", ""))
    else:
        figure, unit = number(benchmark["stats"]["mean"] * 1e3), "ms"
    name = info.get("name") or benchmark["name"].removeprefix("test_").replace("_", " ")
    reference, ratio = str(info.get("reference", "")), number(info.get("ratio", ""))
    return (name, figure, unit, reference, ratio, floor_text(info), str(info.get("aim", "")))


def holds(info: dict[str, Any]) -> bool:
    """Whether a benchmark's floor is reached; also if it has none."""
    if not info.get("floor"):
        return True
    of, sign, bound = str(info["floor"]).split()
    return bool(SIGNS[sign](info[of], float(bound)))


def floor_text(info: dict[str, Any]) -> str:
    """`0.7`, `≤ 2`, `20,000,000/s`, and whether it is missed."""
    if not info.get("floor"):
        return ""
    of, sign, bound = str(info["floor"]).split()
    text = ("≤ " if sign == "<=" else "") + number(float(bound)) + (" ×" if of == "ratio" else "")
    return text if holds(info) else f"{text} MISSED"


def tell_missed(missed: Iterable[str], *, strict: bool) -> int:
    """The exit code."""
    missed = list(missed)
    for name in missed:
        print(f"below its floor: {name}")
    return 1 if strict and missed else 0


def number(value: object) -> str:
    if not isinstance(value, int | float):
        return str(value)
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def numeric(cell: str) -> bool:
    return not cell or cell[:1].isdigit()


def table(rows: list[tuple[str, ...]]) -> str:
    """The first row is the heading; columns of numbers are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    right = {n for n, column in enumerate(zip(*rows[1:], strict=True)) if all(map(numeric, column))}
    lines = [
        "  ".join(
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def main(path: str, *, strict: bool = False) -> int:
    result = json.loads(Path(path).read_text())
    rows = sorted((row(benchmark) for benchmark in result["benchmarks"]), key=lambda row: row[0])
    machine = result["machine_info"]
    print(f"\nPython {machine['python_version']}, {machine['cpu'].get('brand_raw', machine['processor'])},", end=" ")
    print(f"{machine['cpu'].get('count', '?')} cores, clients included\n")
    print(table([COLUMNS, *rows]))
    infos = [{"name": benchmark["name"], **benchmark["extra_info"]} for benchmark in result["benchmarks"]]
    return tell_missed((info["name"] for info in infos if not holds(info)), strict=strict)


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--strict"]
    sys.exit(main(*arguments, strict="--strict" in sys.argv))

"""One table of a benchmark run: what each benchmark put beside its reference.

    python -m bench.report build/bench.json

Reads pytest-benchmark's JSON. A benchmark says in `extra_info`: `name` (else the test's), `figure`, `unit`, `reference`
(text), `ratio` (figure to reference) and `aim` (text or number). One that gives no figure is shown by its mean time.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

COLUMNS = ("name", "figure", "unit", "reference", "ratio", "aim")


def row(benchmark: dict[str, Any]) -> tuple[str, ...]:
    info = benchmark["extra_info"]
    if "figure" in info:
        figure, unit = number(info["figure"]), str(info.get("unit", ""))
    else:
        figure, unit = number(benchmark["stats"]["mean"] * 1e3), "ms"
    name = info.get("name") or benchmark["name"].removeprefix("test_").replace("_", " ")
    return (name, figure, unit, str(info.get("reference", "")), number(info.get("ratio", "")), str(info.get("aim", "")))


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


def main(path: str) -> None:
    result = json.loads(Path(path).read_text())
    rows = sorted((row(benchmark) for benchmark in result["benchmarks"]), key=lambda row: row[0])
    machine = result["machine_info"]
    print(f"\nPython {machine['python_version']}, {machine['cpu'].get('brand_raw', machine['processor'])},", end=" ")
    print(f"{machine['cpu'].get('count', '?')} cores, clients included\n")
    print(table([COLUMNS, *rows]))


if __name__ == "__main__":
    main(sys.argv[1])

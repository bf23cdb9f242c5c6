"""`pytest tests/raft --rewrite` writes the transcripts anew: read the difference before you commit it."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write tests/raft/transcripts/*.txt anew")

"""Every test that takes `kit` runs on both implementations of the log."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from raftchat import _log, log_reference
from tests.log.kit import Kit

IMPLEMENTATIONS = {"compiled": _log, "reference": log_reference}


@pytest.fixture(params=IMPLEMENTATIONS.values(), ids=IMPLEMENTATIONS.keys())
def log_module(request: pytest.FixtureRequest) -> ModuleType:
    return request.param


@pytest.fixture
def fast_directory() -> Iterator[Path]:
    """In memory where there is such a place: what a sync costs is not what is tested."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="raft-chat-log-", dir=memory if memory.is_dir() else None))
    yield path
    shutil.rmtree(path)


@pytest.fixture
def kit(log_module: ModuleType, fast_directory: Path) -> Kit:
    return Kit(log_module, fast_directory)

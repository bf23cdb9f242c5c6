"""What `GET /raft` tells is in memory: the loop that decides who leads does not wait for a disk to tell it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from raftchat.node.status import status_json
from raftchat.node.store_ports import Counters
from raftchat.storage.identity import Identity
from tests.node.test_driver import Node, post


def test_the_size_of_the_log_is_told_without_looking_at_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(tmp_path, 1)
    node.lead()
    for batch in range(40):
        node.driver.propose(node, batch, post("x" * 20_000))
        node.settle()
    sizes = [path.stat().st_size for path in tmp_path.glob("*.log")]
    assert len(sizes) > 2

    def no_system_call(*_: Any, **__: Any) -> None:
        raise AssertionError("a file was looked at")

    workers: Any = type("Workers", (), {"__len__": lambda self: 1, "counters": lambda self: {"posts": 7}})()
    traffic: Any = SimpleNamespace(sent_bytes=5, dropped_frames=6, connected=lambda peer: True)
    identity = Identity("c", 1, 1, {1: "http://n1"})
    store = Counters(applied_index=40, snapshot_index=30, live_bytes=9, retired_bytes=8, compactions=2)
    with monkeypatch.context() as patched:
        for name in ("stat", "lstat", "fstat", "open", "listdir", "scandir"):
            patched.setattr(os, name, no_system_call)
        status = status_json(identity, node.raft, node.log, node.driver, workers, traffic, store, None, node.now_ms)  # type: ignore[arg-type]
    told = orjson.loads(status)
    assert told["Log"] == {"Segments": len(sizes), "Bytes": sum(sizes)}
    assert told["Store"] == {"SnapshotIndex": 30, "AppliedIndex": 40, "Lag": 1, "LiveBytes": 9, "RetiredBytes": 8}
    assert told["Counters"]["compactions"] == 2
    assert (told["LastIndex"], told["Role"], told["Counters"]["posts"]) == (41, "leader", 7)

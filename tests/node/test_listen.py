"""Binding: the remedy is said where it helps, and nowhere else."""

from __future__ import annotations

import socket

import pytest

from raftchat.node.exits import CANNOT_START, NodeFailed
from raftchat.node.listen import bind


def test_only_a_port_that_is_taken_is_answered_with_stopping_who_has_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(NodeFailed) as refused:
        bind("127.0.0.1", taken.getsockname()[1], what="HTTP port", remedy="stop that")
    assert refused.value.code == CANNOT_START
    assert str(refused.value).endswith("is in use by another program; stop that")
    with pytest.raises(NodeFailed) as refused:
        bind("192.0.2.1", 0, what="HTTP port", remedy="stop that")  # RFC 5737: nobody's address
    assert str(refused.value) == "HTTP port: cannot listen on 192.0.2.1:0: Cannot assign requested address"

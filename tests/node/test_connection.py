"""Connections between nodes, between the end of one and the moment its owner hears of it."""

from __future__ import annotations

import asyncio
import socket

import pytest
import uvloop

from raftchat.node import handshake
from raftchat.node.connection import Outgoing, tune


def test_writing_to_a_connection_that_was_just_lost_is_no_error() -> None:
    """uvloop raises RuntimeError for a closed transport; a turn may come before the dialler's task has run."""

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        dialled = handshake.Dialled("cluster", 1, 2, "127.0.0.1:1")
        _, connection = await loop.create_connection(lambda: Outgoing(dialled, loop), sock=ours)
        seen: list[int] = []

        def at_once(_: object) -> None:
            # After uvloop has closed its handle, before any task that waits for `lost` runs.
            connection.write([b"frame"])
            seen.append(connection.waiting_bytes)

        connection.lost.add_done_callback(at_once)
        theirs.close()
        await connection.lost
        assert seen == [0]
        assert connection.welcomed.exception() is not None

    uvloop.run(scenario())


def test_a_connection_that_is_already_gone_cannot_be_tuned_and_says_so_as_the_network_does() -> None:
    class Gone(asyncio.BaseTransport):
        """As uvloop's are once closed: no socket any more."""

    with pytest.raises(ConnectionAbortedError):
        tune(Gone())

"""Puts a protocol on an inherited Unix socket. Knows the event loop, not what is said."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

import uvloop


async def adopt(protocol_factory: Callable[[], asyncio.Protocol], sock: socket.socket) -> None:
    """Serve a connected socket, whose descriptor is the transport's from now on. Raises OSError.

    uvloop ties the socket object to its transport only after the connection was made. If the other end is gone by then,
    the transport has closed the descriptor, and the object would close it again when it is collected: by that time it
    may be the number of another connection. So the object lets go of it.
    """
    loop = asyncio.get_running_loop()
    await loop.create_unix_connection(protocol_factory, sock=sock)
    if isinstance(loop, uvloop.Loop):
        sock.detach()

"""What the supervisor and the Raft process say to each other, over a socket that keeps messages apart.

One JSON object is one message; a worker's socket travels with its message (SCM_RIGHTS). Knows nothing of what follows
from them.

| type | from | |
|---|---|---|
| worker      | supervisor | `Number`, and the Raft process's end of that worker's socket |
| hand-over   | supervisor | give leadership away; answered by `handed-over`, done or not |
| stop        | supervisor | write what there is, and exit 0 |
| ready       | raft | a leader is known and this node has caught up; once |
| serving     | raft | `Number`: that worker serves |
| handed-over | raft | |
| restart     | raft | a snapshot is to be installed: exit 0 follows, and all children are to be started again |
| failed      | raft | `Code`, `Message`: this process ends with that exit code |
"""

from __future__ import annotations

import array
import asyncio
import socket
from typing import Any

import orjson

MESSAGE_MAX_BYTES = 16 * 1024


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, message: dict[str, Any], descriptor: int | None = None) -> None:
    """Raises OSError if the other side is gone."""
    ancillary = []
    if descriptor is not None:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [descriptor]))]
    sock.sendmsg([orjson.dumps(message)], ancillary)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[int]] | None:
    """A message and the descriptors that came with it, close-on-exec. None: the other side is gone.

    Raises BlockingIOError on a non-blocking socket with nothing to read.
    """
    data, descriptors, _, _ = socket.recv_fds(sock, MESSAGE_MAX_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    message: dict[str, Any] = orjson.loads(data)
    return message, descriptors


class Sender:
    """Sends on a non-blocking socket, and waits while the other side has too much unread."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        """The loop has one writer for a descriptor."""

    async def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        """Raises ConnectionError if the other side is gone, OSError if this message cannot be sent now."""
        async with self._turn:
            while True:
                try:
                    return send(self._sock, message, descriptor)
                except BlockingIOError:
                    await self._writable()

    async def _writable(self) -> None:
        writable = asyncio.Event()
        fd = self._sock.fileno()
        self._loop.add_writer(fd, writable.set)
        try:
            await writable.wait()
        finally:
            self._loop.remove_writer(fd)

"""Binds the sockets that a node listens on: once, by the supervisor, for all who are started later.

Knows addresses and what to tell the user when one is taken. Does not accept anything.
"""

from __future__ import annotations

import errno
import ipaddress
import socket

from raftchat.node.exits import CANNOT_START, NodeFailed

BACKLOG = 4096


def bind(host: str, port: int, *, what: str, remedy: str) -> list[socket.socket]:
    """Listening sockets for every address of `host`, non-blocking. Raises NodeFailed with the remedy."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise NodeFailed(CANNOT_START, f"{what}: {host} is no address of this machine ({error.strerror})") from None
    sockets: list[socket.socket] = []
    for family, _, _, _, address in dict.fromkeys(found):
        try:
            sockets.append(_bind(family, (address[0], port, *address[2:])))
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL and sockets:
                continue  # "localhost" may stand for an IPv6 address that this machine does not have.
            for sock in sockets:
                sock.close()
            if error.errno == errno.EADDRINUSE:
                raise NodeFailed(
                    CANNOT_START, f"{what}: {host}:{port} is in use by another program; {remedy}"
                ) from None
            raise NodeFailed(CANNOT_START, f"{what}: cannot listen on {host}:{port}: {error.strerror}") from None
        port = sockets[0].getsockname()[1]  # 0: the system's choice, the same for all addresses
    return sockets


def _bind(family: int, address: tuple[object, ...]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


def is_loopback(host: str) -> bool:
    """Whether nobody outside this machine can connect to it."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

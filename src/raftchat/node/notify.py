"""Tells a service manager how far we are: the datagram protocol of sd_notify(3). Does nothing without NOTIFY_SOCKET."""

from __future__ import annotations

import socket
from collections.abc import Mapping


def notify(state: str, environ: Mapping[str, str]) -> None:
    """`state`: `READY=1`, `STOPPING=1`, …; errors are ignored, as nobody listens then."""
    path = environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    # A leading @ stands for the abstract name space, where names begin with a zero byte.
    address = "\0" + path[1:] if path.startswith("@") else path
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(state.encode(), address)
        except OSError:
            return

"""What an administrator changes: who may, and how a change becomes an entry that is committed as posts are.

Does not know which changes there are (`rooms.py`, `retention.py`), nor what applying one does (`chat/`).
"""

from __future__ import annotations

import asyncio
from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from urllib.parse import urlsplit

from starlette.types import Scope

from raftchat.chat.commands import Command
from raftchat.worker.pending import Failure, Outcome, Posted
from raftchat.worker.problems import Problem, failed_change
from raftchat.worker.services import Services

_HANDED_ON = frozenset((b"forwarded", b"x-forwarded-for", b"x-real-ip"))
"""Headers by which a proxy says that the client is somebody else (RFC 7239; the others are customary)."""


def require_loopback(scope: Scope) -> None:
    """There are no accounts, so whoever is on this machine administers. Raises Problem `loopback_only` for others.

    A proxy on this machine is on loopback whoever its client is, and so is a browser in which a page of any origin
    runs (its name may lead to 127.0.0.1: DNS rebinding): what they say about that counts.
    """
    client = scope.get("client")
    allowed = client is not None and _is_loopback(client[0])
    for name, value in scope["headers"]:
        if name in _HANDED_ON or (name == b"origin" and not _is_loopback_origin(value)):
            allowed = False
    if not allowed:
        raise Problem("loopback_only", "Only clients on the node's own machine, without a proxy between, may do this.")


@lru_cache(maxsize=256)
def _is_loopback(host: str) -> bool:
    try:
        address = ip_address(host)
    except ValueError:
        return False
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_loopback


def _is_loopback_origin(origin: bytes) -> bool:
    try:
        host = urlsplit(origin.decode("latin-1")).hostname
    except ValueError:
        return False
    return host is not None and (host == "localhost" or _is_loopback(host))


async def commit_change(services: Services, command: Command) -> Posted:
    """Have a command committed; this worker has applied it when this returns. Raises Problem as a post does."""
    decided: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def resolve(outcome: Outcome) -> None:
        if not decided.done():
            decided.set_result(outcome)

    services.link.propose(services.pack(*command), resolve)
    outcome = await decided
    if isinstance(outcome, Failure):
        raise failed_change(outcome)
    return outcome

"""How two nodes agree to talk: an HTTP/1.1 Upgrade (RFC 9110, 7.8), so that a stranger gets an answer it understands.

    GET /raft HTTP/1.1                      HTTP/1.1 101 Switching Protocols          (or GET /raft/snapshot)
    Host: …                                 Connection: Upgrade
    Connection: Upgrade                     Upgrade: raft-chat/1
    Upgrade: raft-chat/1                    Raft-Chat-Cluster: <cluster id>
    Raft-Chat-Cluster: <cluster id>         Raft-Chat-Node: 2
    Raft-Chat-Node: 1
    Raft-Chat-To: 2

Both sides are fed bytes and say what to write; sockets and timers are the caller's. h11 does the HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass

import h11

PROTOCOL = "raft-chat/1"
RAFT, SNAPSHOT = "/raft", "/raft/snapshot"
"""What a connection is for: frames of `codec.py`, or a snapshot (`transfer.py`)."""
REFUSAL_TEXT_MAX_BYTES = 1000


class HandshakeFailed(Exception):
    """The other side refuses, or is no node; the message says which, in its own words if it gave any."""

    def __init__(self, reason: str, *, closed: bool = False) -> None:
        """`closed`: it hung up without a word, as one does that is ending."""
        super().__init__(reason)
        self.closed = closed


def _hung_up() -> HandshakeFailed:
    return HandshakeFailed("the connection was closed during the handshake", closed=True)


@dataclass(frozen=True, slots=True)
class Welcome:
    """The handshake is over; `trailing` came behind it and belongs to the first frames."""

    peer: int
    reply: bytes
    trailing: bytes
    target: str = RAFT
    """What the connection is for."""


@dataclass(frozen=True, slots=True)
class Refused:
    """Write `reply`, then close."""

    reply: bytes
    reason: str


class Dialled:
    """The side that opened the connection: send `request`, feed the answer."""

    def __init__(self, cluster_id: str, node_id: int, to: int, host: str, target: str = RAFT) -> None:
        self._cluster_id = cluster_id
        self._to = to
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=4096)
        self._refusal: h11.Response | None = None
        self._text = b""
        request = h11.Request(
            method="GET",
            target=target,
            headers=[
                ("Host", host),
                ("Connection", "Upgrade"),
                ("Upgrade", PROTOCOL),
                ("Raft-Chat-Cluster", cluster_id),
                ("Raft-Chat-Node", str(node_id)),
                ("Raft-Chat-To", str(to)),
            ],
        )
        self.request = (self._http.send(request) or b"") + (self._http.send(h11.EndOfMessage()) or b"")

    def feed(self, data: bytes) -> Welcome | None:
        """Empty `data`: the connection was closed. None: more is needed. Raises HandshakeFailed."""
        if not data and self._refusal is None:
            raise _hung_up()
        try:
            self._http.receive_data(data)
            while True:
                event = self._http.next_event()
                if event is h11.NEED_DATA:
                    return None
                if isinstance(event, h11.InformationalResponse) and event.status_code == 101:
                    return self._welcome(event)
                if isinstance(event, h11.Response):
                    self._refusal = event
                elif isinstance(event, h11.Data):
                    self._text = (self._text + event.data)[:REFUSAL_TEXT_MAX_BYTES]
                elif isinstance(event, h11.EndOfMessage):
                    assert self._refusal is not None
                    text = self._text.decode("utf-8", "replace").strip()
                    raise HandshakeFailed(f"{self._refusal.status_code} {text or self._refusal.reason.decode()}")
                elif isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
                    raise _hung_up()
        except h11.RemoteProtocolError as error:
            raise HandshakeFailed(f"the answer is not a node's: {error}") from None

    def _welcome(self, event: h11.InformationalResponse) -> Welcome:
        headers = _headers(event)
        if headers.get(b"upgrade") != PROTOCOL.encode():
            raise HandshakeFailed("101 for another protocol")
        if headers.get(b"raft-chat-cluster") != self._cluster_id.encode():
            raise HandshakeFailed("answered by a node of another cluster")
        if headers.get(b"raft-chat-node") != str(self._to).encode():
            raise HandshakeFailed(f"answered by another node than {self._to}")
        return Welcome(self._to, b"", bytes(self._http.trailing_data[0]))


class Accepted:
    """The side that was dialled: feed what arrives, write the reply."""

    def __init__(self, cluster_id: str, node_id: int, members: Callable[[], Container[int]]) -> None:
        self._cluster_id = cluster_id
        self._node_id = node_id
        self._members = members
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=4096)

    def feed(self, data: bytes) -> Welcome | Refused | None:
        """None: more is needed. Raises HandshakeFailed when the connection ended without a request."""
        try:
            self._http.receive_data(data)
            event = self._http.next_event()
        except h11.RemoteProtocolError as error:
            return self._refuse(error.error_status_hint, f"not a request of HTTP/1.1: {error}")
        if event is h11.NEED_DATA:
            return None
        if not isinstance(event, h11.Request):
            raise HandshakeFailed("the connection was closed before a request")
        headers = _headers(event)
        if event.target not in (RAFT.encode(), SNAPSHOT.encode()):
            return self._refuse(404, "This port is for the members of the cluster; the HTTP API is on --port.")
        if event.method != b"GET":
            return self._refuse(405, "GET, with an upgrade to raft-chat/1.", [("Allow", "GET")])
        if headers.get(b"upgrade") != PROTOCOL.encode() or event.http_version != b"1.1":
            return self._refuse(426, "This port speaks raft-chat/1 only.", [("Upgrade", PROTOCOL)])
        return self._judge(headers, event.target.decode())

    def _judge(self, headers: dict[bytes, bytes], target: str) -> Welcome | Refused:
        sender, to = _number(headers.get(b"raft-chat-node")), _number(headers.get(b"raft-chat-to"))
        cluster = headers.get(b"raft-chat-cluster", b"").decode("ascii", "replace")
        if sender is None or to is None or not cluster:
            return self._refuse(400, "Raft-Chat-Cluster, Raft-Chat-Node and Raft-Chat-To are needed.")
        if cluster != self._cluster_id:
            return self._refuse(
                403,
                f"This node is of cluster {self._cluster_id}, not {cluster[:64]}: "
                "the nodes were first started with different --cluster lists.",
            )
        if to != self._node_id:
            return self._refuse(421, f"This is node {self._node_id}, not {to}: compare --id and --cluster of both.")
        if sender == self._node_id:
            return self._refuse(409, f"This is node {self._node_id} too: two nodes were started with the same --id.")
        if sender not in self._members():
            return self._refuse(403, f"Node {sender} is not a member of this cluster.")
        reply = self._http.send(
            h11.InformationalResponse(
                status_code=101,
                headers=[
                    ("Connection", "Upgrade"),
                    ("Upgrade", PROTOCOL),
                    ("Raft-Chat-Cluster", self._cluster_id),
                    ("Raft-Chat-Node", str(self._node_id)),
                ],
                reason="Switching Protocols",
            )
        )
        return Welcome(sender, reply or b"", bytes(self._http.trailing_data[0]), target)

    def _refuse(self, status: int, text: str, headers: list[tuple[str, str]] | None = None) -> Refused:
        body = (text + "\n").encode()
        events: list[h11.Event] = [
            h11.Response(
                status_code=status,
                headers=[
                    *(headers or []),
                    ("Content-Type", "text/plain; charset=utf-8"),
                    ("Content-Length", str(len(body))),
                    ("Connection", "close"),
                ],
            ),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        return Refused(b"".join(self._http.send(event) or b"" for event in events), text)


def _headers(event: h11.Request | h11.InformationalResponse) -> dict[bytes, bytes]:
    return dict(event.headers)  # h11 has lowered the names


def _number(value: bytes | None) -> int | None:
    return int(value) if value is not None and value.isdigit() and len(value) <= 18 else None

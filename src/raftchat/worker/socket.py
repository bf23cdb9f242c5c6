"""`/ws`: the stream of messages. Knows its query and who is subscribed; the bytes come from the hub.

Does not know WebSocket frames (`socket_protocol.py`) or how a message is rendered. This stream is one way: what a
client says is answered with an error and changes nothing.
"""

from __future__ import annotations

import orjson
from starlette.types import Receive, Scope, Send

from raftchat.chat.commands import Refused, room_key
from raftchat.worker.hub import Rooms, text_frame
from raftchat.worker.problems import Problem, refused_name
from raftchat.worker.query import Query
from raftchat.worker.replica import NotApplied
from raftchat.worker.respond import reject_socket
from raftchat.worker.services import Services
from raftchat.worker.socket_protocol import EXTENSION, SocketProtocol

_ONE_WAY = text_frame(
    orjson.dumps(
        {"Error": {"code": "posting_not_supported", "detail": "This socket only receives. POST to /rooms/{room}."}}
    )
)


class Stream:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        services = self._services
        await receive()  # websocket.connect
        try:
            rooms = self._rooms(Query(scope["query_string"], services.config))
            try:
                # What is replayed at start is history, not news.
                await services.replica.wait_applied(0)
            except NotApplied:
                raise Problem("not_ready", "This node is still reading its log.") from None
        except Problem as problem:
            await reject_socket(send, problem)
            return
        socket: SocketProtocol = scope["extensions"][EXTENSION]
        await send({"type": "websocket.accept"})
        services.counters.sockets_opened += 1
        services.hub.subscribe(socket, rooms)
        try:
            while (await receive())["type"] != "websocket.disconnect":
                socket.write(_ONE_WAY)
        finally:
            services.hub.unsubscribe(socket, rooms)
            if socket.lagged:
                services.counters.sockets_lagged += 1

    def _rooms(self, query: Query) -> Rooms:
        names = query.all("room")
        if not names:
            return None
        if len(names) > self._services.config.socket_rooms_max:
            raise Problem("invalid_query", f"At most {self._services.config.socket_rooms_max} rooms can be given.")
        try:
            return frozenset(room_key(name, self._services.config) for name in names)
        except Refused as refused:
            raise refused_name(refused) from None

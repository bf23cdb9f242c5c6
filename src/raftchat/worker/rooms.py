"""`GET /rooms`, the list of rooms, `GET /{room}`, the short way to one of them, and the end of one.

Does not know messages (`messages.py`, `post.py`).
"""

from __future__ import annotations

from urllib.parse import quote, urlencode

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Scope, Send

from raftchat.chat.commands import remove_room
from raftchat.chat.state import Room
from raftchat.worker.change import commit_change, require_loopback
from raftchat.worker.pending import rfc3339
from raftchat.worker.problems import Problem
from raftchat.worker.query import Query
from raftchat.worker.security import API_HEADERS
from raftchat.worker.services import Services


def routes(services: Services) -> list[Route]:
    """The last of them takes any single segment, so it must come after all others."""
    rooms = _Rooms(services)
    return [Route("/rooms", rooms.list), Route("/{room}", rooms.redirect)]


class _Rooms:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def list(self, request: Request) -> Response:
        services = self._services
        query = Query(request.scope["query_string"], services.config)
        limit = query.limit(services.config.rooms_limit_default, services.config.rooms_limit_max)
        after, prefix, details = query.text("after"), query.text("prefix") or "", query.flag("details")
        await services.settle(query.local(), query.min_index())
        rooms, more = services.replica.state.rooms_after(limit, after=after, prefix=prefix)
        headers = {name.decode(): value.decode() for name, value in API_HEADERS}
        headers["X-Raft-Index"] = str(services.replica.applied_index)
        headers["Cache-Control"] = "no-store"
        if more:
            following = {"after": rooms[-1].name, "limit": str(limit)}
            if prefix:
                following["prefix"] = prefix
            if details:
                following["details"] = "true"
            if query.local():
                following["consistency"] = "local"
            headers["Link"] = f'</rooms?{urlencode(following, quote_via=quote)}>; rel="next"'
        body = orjson.dumps([_details(room) if details else room.name for room in rooms])
        return Response(body, media_type="application/json", headers=headers)

    async def redirect(self, request: Request) -> Response:
        services = self._services
        segment = request.path_params["room"].encode("latin-1")
        key = services.room_of_segment(segment)
        if services.replica.state.room(key) is None:
            # Unknown here so far. That it exists nowhere must be confirmed, but a room that is known is known.
            query = Query(request.scope["query_string"], services.config)
            await services.settle(query.local(), query.min_index())
        if services.replica.state.room(key) is None:
            raise Problem("room_not_found", f"There is no room {key.decode()!r}.")
        query_string = request.scope["query_string"]
        # Relative to this path, so that it also holds behind a proxy that puts a prefix in front.
        location = b"rooms/" + segment + (b"?" + query_string if query_string else b"")
        headers = {name.decode(): value.decode() for name, value in API_HEADERS}
        headers["X-Raft-Index"] = str(services.replica.applied_index)
        headers["Location"] = location.decode("latin-1")
        return Response(status_code=307, headers=headers)


class RemoveRoom:
    """`DELETE /rooms/{room}`: the room goes, and with it all its messages and its policy."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, send: Send, segment: bytes) -> None:
        """`segment`: the raw path segment that names the room. Raises Problem.

        204 whether or not there was such a room: a request that is repeated must not end otherwise than the first
        would have, and what is asked for is so in either case.
        """
        services = self._services
        require_loopback(scope)
        key = services.room_of_segment(segment)
        if not self._known(key):
            # Unknown here so far. That it exists nowhere must be confirmed, but need not be written down.
            await services.settle(local=False, min_index=0)
        if self._known(key):
            await commit_change(services, remove_room(key))
        index = (b"x-raft-index", b"%d" % services.replica.applied_index)
        await send({"type": "http.response.start", "status": 204, "headers": [*API_HEADERS, index]})
        await send({"type": "http.response.body", "body": b""})

    def _known(self, key: bytes) -> bool:
        state = self._services.replica.state
        return state.room(key) is not None or key in state.policies.rooms


def _details(room: Room) -> dict[str, str | int]:
    return {
        "Name": room.name,
        "Messages": room.count,
        "Bytes": room.bytes,
        "FirstID": room.first_id,
        "LastID": room.last_id,
        "LastPostedAt": rfc3339(room.last_time_ms).decode(),
    }

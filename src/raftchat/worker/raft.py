"""`GET /raft` and `GET /raft/{id}`: the members and what this node knows of them.

Does not know Raft: it hands on what the Raft process says (`node/`), whose counters are for `/metrics` alone.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from raftchat.worker.problems import Problem
from raftchat.worker.security import API_HEADERS
from raftchat.worker.services import Services


async def status_of(services: Services, timeout_ms: int, code: str) -> dict[str, Any]:
    """The Raft process's report. Raises Problem of that code if there is none by then."""
    try:
        return await services.link.status(timeout_ms)
    except (TimeoutError, ConnectionError):
        raise Problem(code, "The Raft process of this node does not answer.") from None


def routes(services: Services) -> list[Route]:
    raft = _Raft(services)
    return [Route("/raft", raft.status), Route("/raft/{id}", raft.member)]


class _Raft:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def _status(self) -> dict[str, Any]:
        # Who is asked answers at once, or hangs: there is nothing that a client could wait for.
        return await status_of(self._services, self._services.config.status_timeout_ms, "raft_process_silent")

    async def status(self, request: Request) -> Response:
        status = await self._status()
        status.pop("Counters", None)
        return self._json(status)

    async def member(self, request: Request) -> Response:
        given = request.path_params["id"]
        if not (given.isascii() and given.isdecimal()):
            raise Problem("not_found", "Members are named by their number: /raft/1.")
        status = await self._status()
        for member in status["Members"]:
            if str(member["ID"]) == given:
                return self._json(member)
        raise Problem("member_not_found", f"There is no member {given[:20]}.")

    def _json(self, value: Any) -> Response:
        headers = {name.decode(): value.decode() for name, value in API_HEADERS}
        headers["X-Raft-Index"] = str(self._services.replica.applied_index)
        headers["Cache-Control"] = "no-store"
        return JSONResponse(value, headers=headers)

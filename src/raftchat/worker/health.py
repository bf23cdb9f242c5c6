"""`/livez`, `/readyz` and `/metrics`: what machines ask a node. Does not know rooms or messages."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from raftchat.worker import metrics
from raftchat.worker.problems import Problem
from raftchat.worker.raft import status_of
from raftchat.worker.services import Services

LAG_MAX = 1000
"""Entries committed and not applied here above which a node is not ready: it answers, but late."""


def routes(services: Services) -> list[Route]:
    health = _Health(services)
    return [
        Route("/livez", health.livez),
        Route("/readyz", health.readyz),
        Route("/metrics", health.metrics),
    ]


class _Health:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def livez(self, request: Request) -> Response:
        """This process answers. Never depends on a quorum: restarting a node does not bring one about."""
        return JSONResponse({"Live": True}, headers={"Cache-Control": "no-store"})

    async def readyz(self, request: Request) -> Response:
        replica, link = self._services.replica, self._services.link
        if not link.connected:
            raise Problem("not_ready", "The Raft process is not connected.")
        if replica.failed:
            raise Problem("not_ready", "The log cannot be read.")
        if not replica.replayed:
            raise Problem(
                "not_ready", f"Replaying: {replica.applied_index} of {replica.committed_index} entries are applied."
            )
        if not link.leader.node_id:
            raise Problem("not_ready", "No leader is known.")
        # What is known of it is only what it said last: a process that hangs says nothing, and its peers have elected
        # another leader after an election timeout. So it is asked.
        await status_of(self._services, self._services.config.election_timeout_ms, "not_ready")
        lag = replica.committed_index - replica.applied_index
        if not link.leader.ready or lag > LAG_MAX:
            raise Problem("not_ready", "Catching up with what the leader has committed.")
        return JSONResponse(
            {
                "Ready": True,
                "Leader": link.leader.node_id,
                "Term": link.leader.term,
                "CommitIndex": replica.committed_index,
                "AppliedIndex": replica.applied_index,
            },
            headers={"Cache-Control": "no-store"},
        )

    async def metrics(self, request: Request) -> Response:
        """Also when the Raft process hangs: then this worker's own counters, and `raftchat_raft_up 0`."""
        services = self._services
        status: dict[str, Any] | None
        try:
            status = await status_of(services, services.config.election_timeout_ms, "not_ready")
        except Problem:
            status = None
        counters = services.counted() if status is None else status["Counters"]
        body = metrics.render(status, counters, services.replica.state)
        return Response(body, headers={"Cache-Control": "no-store", "Content-Type": metrics.CONTENT_TYPE})

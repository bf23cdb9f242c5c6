"""`/retention` and `/rooms/{room}/retention`: what is kept, and what would go.

Knows requests and how policies are shown. Does not know what a policy may say or what it removes (`chat/retention.py`),
nor when that happens: the leader's keeper sees to that.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from raftchat import _log
from raftchat.chat import retention
from raftchat.chat.commands import set_retention
from raftchat.chat.errors import Refused
from raftchat.chat.policy import Policy
from raftchat.chat.retention import Plan
from raftchat.chat.retention_clock import RetentionClock
from raftchat.worker.body import ClientGone, read_body
from raftchat.worker.change import commit_change, require_loopback
from raftchat.worker.problems import Problem, refused_body, unreadable
from raftchat.worker.query import Query
from raftchat.worker.security import API_HEADERS
from raftchat.worker.services import Services

log = logging.getLogger(__name__)

_LOOKED_AT_MAX = 2_000
"""Rooms that a dry run looks at in detail, some 50 µs each, while other requests wait."""
_TOLD_MAX = 1000
"""Rooms that it tells of by name."""
_CLUSTER = b""
"""Key of the cluster's policy; no room has it."""
_EFFECTIVE = "Effective"


def routes(services: Services) -> list[Route]:
    """They must come before `/{room}`."""
    answer = _Retention(services).answer
    methods = ["DELETE", "GET", "PUT"]
    return [Route(path, answer, methods=methods) for path in ("/retention", "/rooms/{room}/retention")]


class _Retention:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def answer(self, request: Request) -> Response:
        require_loopback(request.scope)
        segment = request.path_params.get("room")
        key = _CLUSTER if segment is None else self._services.room_of_segment(segment.encode("latin-1"))
        query = Query(request.scope["query_string"], self._services.config)
        match request.method:
            case "PUT":
                return await self._put(request, key, dry_run=query.flag("dry_run"))
            case "DELETE":
                return await self._delete(key)
        await self._services.settle(query.local(), query.min_index())
        return self._json(self._shown(key))

    async def _put(self, request: Request, key: bytes, *, dry_run: bool) -> Response:
        services = self._services
        try:
            body = await read_body(request.scope, request.receive, services.config.body_size_max_bytes)
        except ClientGone:
            return Response(status_code=400)
        policy = _policy(body, key)
        if dry_run:
            await services.settle(local=False, min_index=0)
            try:
                plan = self._plan(key, policy)
            except (_log.LogError, OSError) as error:
                log.error("What a policy would remove cannot be found out: %s", error)
                raise unreadable() from None
            return self._json(_told(plan))
        await commit_change(services, set_retention(key, policy))
        return self._json(self._shown(key))

    async def _delete(self, key: bytes) -> Response:
        services = self._services
        if self._own(key) is None:
            # None here so far. That there is none anywhere must be confirmed, but need not be written down.
            await services.settle(local=False, min_index=0)
        if self._own(key) is not None:
            await commit_change(services, set_retention(key, None))
        return Response(status_code=204, headers=self._headers())

    def _own(self, key: bytes) -> Policy | None:
        policies = self._services.replica.state.policies
        return policies.rooms.get(key) if key else policies.cluster

    def _shown(self, key: bytes) -> dict[str, Any]:
        own = self._own(key) or Policy()
        if not key:
            return own.to_json(cluster=True)
        cluster = self._own(_CLUSTER) or Policy()
        max_age_ms = cluster.max_age_ms if own.max_age_ms is None else own.max_age_ms
        effective = replace(own, max_age_ms=max_age_ms).to_json(cluster=False)
        return {**own.to_json(cluster=False), _EFFECTIVE: effective}

    def _plan(self, key: bytes, policy: Policy) -> Plan:
        """What would go if that were the policy."""
        replica = self._services.replica
        state = replica.state
        wall_ms, config = self._services.time_ms(), self._services.config
        # The leader knows whether its clock leapt; here it is believed.
        clock = RetentionClock(wall_ms, 0, clock_leap_max_ms=config.clock_leap_max_ms)
        now_ms = clock.read(wall_ms, 0, state.applied_time_ms).now_ms
        cluster, rooms = state.policies.cluster, state.policies.rooms
        if key:
            rooms = {**rooms, key: policy}
        else:
            cluster = policy
        return retention.plan(
            state,
            replica.reader,
            now_ms,
            cluster=cluster,
            rooms=rooms,
            record_size_max_bytes=config.record_size_max_bytes,
            rooms_max=_LOOKED_AT_MAX,
        )

    def _headers(self) -> dict[str, str]:
        headers = {name.decode(): value.decode() for name, value in API_HEADERS}
        headers["X-Raft-Index"] = str(self._services.replica.applied_index)
        return headers

    def _json(self, value: dict[str, Any]) -> Response:
        headers = {**self._headers(), "Cache-Control": "no-store"}
        return Response(orjson.dumps(value), media_type="application/json", headers=headers)


def _policy(body: bytes, key: bytes) -> Policy:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Problem("invalid_json", f"The body is not JSON: {error}.") from None
    if key and isinstance(value, dict):
        value.pop(_EFFECTIVE, None)  # what is shown may be sent back
    try:
        return Policy.from_json(value, cluster=not key)
    except Refused as refused:
        raise refused_body(refused) from None


def _told(plan: Plan) -> dict[str, Any]:
    """The greatest losses first, and no more than anybody reads."""
    told = plan.to_json()
    told["Rooms"].sort(key=lambda room: (-room["Messages"], room["Name"]))
    told["Truncated"] = plan.more or len(told["Rooms"]) > _TOLD_MAX
    del told["Rooms"][_TOLD_MAX:]
    return told

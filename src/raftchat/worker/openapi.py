"""`/openapi.json`: the interface as an OpenAPI 3.1 document. A test holds it to the routes and to what they answer.

Knows what the routes promise. Does not know how they keep it.
"""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

import raftchat
from raftchat.config import Config
from raftchat.worker.openapi_schemas import components, ref
from raftchat.worker.security import API_HEADERS

Json = dict[str, Any]

_LOOPBACK = "For clients on the node's own machine only, as long as there are no accounts."
_INDEX_HEADER = {"X-Raft-Index": {"$ref": "#/components/headers/RaftIndex"}}


def routes(config: Config) -> list[Route]:
    body = orjson.dumps(document(config), option=orjson.OPT_INDENT_2)
    headers = {name.decode(): value.decode() for name, value in API_HEADERS}
    headers["Cache-Control"] = "no-cache"

    async def openapi(request: Request) -> Response:
        return Response(body, media_type="application/json", headers=headers)

    return [Route("/openapi.json", openapi)]


def document(config: Config) -> Json:
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "raft-chat",
            "version": raftchat.__version__,
            "summary": "A highly-available chat server that needs no database.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "."}],
        "paths": {
            "/rooms/{room}": _room(config),
            "/rooms/{room}/retention": _retention(
                "room", "RoomRetention", [{"$ref": "#/components/parameters/Room"}], 422
            ),
            "/retention": _retention("cluster", "Retention", []),
            "/rooms": _rooms(config),
            "/{room}": _short_room(),
            "/raft": {"get": _get("The members, and what this node knows of them", "raft", ref("Status"), 503)},
            "/raft/{id}": _member(),
            "/livez": {"get": _get("Whether this process answers", "livez", {"type": "object"})},
            "/readyz": {
                "get": _get("Whether this node serves: replayed, leader known, lag small", "readyz", ref("Ready"), 503)
            },
            "/metrics": {"get": _text("Metrics in Prometheus' text format", "metrics", "text/plain")},
            "/openapi.json": {"get": _get("This document", "openapi", {"type": "object"})},
            "/ws": _stream(),
            "/": {"get": _text("The web client", "index", "text/html")},
        },
        "components": components(config),
    }


def _room(config: Config) -> Json:
    return {
        "parameters": [{"$ref": "#/components/parameters/Room"}],
        "post": {
            "operationId": "postMessage",
            "summary": "Post a message",
            "description": "Answered once the message is on disk on a majority of the members. Any node takes it. A "
            "room comes into being with its first message. The body is parsed whatever its Content-Type says.",
            "requestBody": {"required": True, "content": {"application/json": {"schema": ref("NewMessage")}}},
            "responses": {
                "201": {
                    "description": "Committed",
                    "headers": {**_INDEX_HEADER, "Location": {"schema": {"type": "string"}}},
                    "content": {"application/json": {"schema": ref("Posted")}},
                },
                **_problems(400, 408, 413, 422, 503, 507),
            },
        },
        "get": {
            "operationId": "getMessages",
            "summary": "A page of messages, oldest first",
            "description": "Without a cursor the newest. An unknown room has none. A page ends early once it is larger "
            f"than {config.page_size_max_bytes} bytes; Link tells where to go on.",
            "parameters": [
                _query("limit", {"type": "integer", "minimum": 1, "default": config.page_limit_default})
                | {"description": f"More than {config.page_limit_max} means {config.page_limit_max}."},
                *(
                    _query(name, {"type": "integer", "minimum": 0}) | {"description": text}
                    for name, text in (
                        ("before", "Only messages with a lower ID: the newest of them."),
                        ("after", "Only messages with a higher ID: the oldest of them."),
                        ("around", "This message, or where it would be, in the middle."),
                    )
                ),
                *_consistency(),
            ],
            "responses": {
                "200": {
                    "description": "Messages",
                    "headers": {**_INDEX_HEADER, "Link": {"$ref": "#/components/headers/Link"}},
                    "content": {"application/json": {"schema": {"type": "array", "items": ref("Message")}}},
                },
                **_problems(400, 422, 503),
            },
        },
        "delete": {
            "operationId": "removeRoom",
            "summary": "Remove a room and all its messages",
            "description": f"{_LOOPBACK} The same answer if there is no such room.",
            "responses": {
                "204": {"description": "Committed", "headers": _INDEX_HEADER},
                **_problems(400, 403, 422, 503, 507),
            },
        },
    }


def _retention(whose: str, schema: str, parameters: list[Json], *statuses: int) -> Json:
    answer = {"application/json": {"schema": ref(schema)}}
    name = schema.replace("Retention", "")
    return {
        "parameters": parameters,
        "get": {
            "operationId": f"get{name}Retention",
            "summary": f"What is kept: the policy of the {whose}",
            "description": _LOOPBACK,
            "parameters": _consistency(),
            "responses": {
                "200": {"description": "The policy", "headers": _INDEX_HEADER, "content": answer},
                **_problems(400, 403, 503, *statuses),
            },
        },
        "put": {
            "operationId": f"put{name}Retention",
            "summary": f"Set the policy of the {whose}",
            "description": f"{_LOOPBACK} What is left out is not limited. Removal begins at once and goes on for ever.",
            "parameters": [
                _query("dry_run", {"type": "boolean", "default": False})
                | {"description": "Change nothing, tell what would go now."}
            ],
            "requestBody": {"required": True, "content": {"application/json": {"schema": ref(f"New{schema}")}}},
            "responses": {
                "200": {
                    "description": "Committed: the policy as it is now. With dry_run: what would go",
                    "headers": _INDEX_HEADER,
                    "content": {"application/json": {"schema": {"oneOf": [ref(schema), ref("DryRun")]}}},
                },
                **_problems(400, 403, 413, 422, 503, 507),
            },
        },
        "delete": {
            "operationId": f"delete{name}Retention",
            "summary": f"Remove the policy of the {whose}",
            "description": _LOOPBACK,
            "responses": {
                "204": {"description": "Committed", "headers": _INDEX_HEADER},
                **_problems(400, 403, 503, 507, *statuses),
            },
        },
    }


def _rooms(config: Config) -> Json:
    return {
        "get": {
            "operationId": "getRooms",
            "summary": "The rooms in order of name",
            "parameters": [
                _query("limit", {"type": "integer", "minimum": 1, "default": config.rooms_limit_default})
                | {"description": f"More than {config.rooms_limit_max} means {config.rooms_limit_max}."},
                _query("after", {"type": "string"}) | {"description": "Only names greater than this."},
                _query("prefix", {"type": "string"}) | {"description": "Only names that begin with this."},
                _query("details", {"type": "boolean", "default": False}) | {"description": "Objects instead of names."},
                *_consistency(),
            ],
            "responses": {
                "200": {
                    "description": "Rooms",
                    "headers": {**_INDEX_HEADER, "Link": {"$ref": "#/components/headers/Link"}},
                    "content": {
                        "application/json": {
                            "schema": {
                                "oneOf": [
                                    {"type": "array", "items": {"type": "string"}},
                                    {"type": "array", "items": ref("Room"), "minItems": 1},
                                ]
                            }
                        }
                    },
                },
                **_problems(400, 503),
            },
        }
    }


def _short_room() -> Json:
    return {
        "parameters": [{"$ref": "#/components/parameters/Room"}],
        "get": {
            "operationId": "findRoom",
            "summary": "The short way to a room",
            "description": "Names of other paths (rooms, raft, ws, …) are those paths.",
            "parameters": _consistency(),
            "responses": {
                "307": {
                    "description": "The room exists; the query is kept",
                    "headers": {**_INDEX_HEADER, "Location": {"schema": {"type": "string"}}},
                },
                **_problems(400, 404, 422, 503),
            },
        },
    }


def _member() -> Json:
    return {
        "parameters": [{"name": "id", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1}}],
        "get": _get("One member", "member", ref("Member"), 404, 503),
    }


def _stream() -> Json:
    return {
        "get": {
            "operationId": "stream",
            "summary": "WebSocket: every message as a text frame",
            "description": 'Frames are `{"RoomName":…,"Post":{"ID":…,"PostedAt":…,"User":…,"Message":…}}`, and every '
            '25 s `{"Heartbeat":<applied index>}`. What a client sends is answered with `{"Error":{…}}`.',
            "parameters": [
                _query("room", {"type": "array", "items": {"type": "string"}})
                | {"description": "Only these rooms; may be given several times."}
            ],
            "responses": {
                "101": {"description": "Switching to WebSocket"},
                **_problems(400, 422, 426, 503),
            },
        }
    }


def _query(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "schema": schema}


def _consistency() -> list[Json]:
    return [
        _query("consistency", {"enum": ["linearizable", "local"], "default": "linearizable"})
        | {"description": "local: what this node has, at once, also without a leader."},
        _query("min_index", {"type": "integer", "minimum": 0})
        | {"description": "Answer once this node has applied that index."},
    ]


def _problems(*statuses: int) -> Json:
    return {str(status): {"$ref": f"#/components/responses/{status}"} for status in statuses}


def _get(summary: str, operation: str, schema: Json, *statuses: int) -> Json:
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {
            "200": {"description": "OK", "content": {"application/json": {"schema": schema}}},
            **_problems(*statuses),
        },
    }


def _text(summary: str, operation: str, media_type: str, *statuses: int) -> Json:
    return {
        "operationId": operation,
        "summary": summary,
        "responses": {
            "200": {"description": "OK", "content": {media_type: {"schema": {"type": "string"}}}},
            **_problems(*statuses),
        },
    }

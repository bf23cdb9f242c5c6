"""The shapes that `/openapi.json` speaks of: bodies, headers, parameters and problems.

Knows what is in a body. Does not know which route has it (`openapi.py`).
"""

from __future__ import annotations

from typing import Any

from raftchat.config import Config

Json = dict[str, Any]

_ID = {"type": "integer", "minimum": 1, "description": "Index in the Raft log: unique, ascending, the same everywhere."}
_TIME = {"type": "string", "format": "date-time"}


_AGE = ["string", "number", "null"], "Seconds, or with a unit (ms, s, m, h, d): 30d."
_SIZE = ["string", "integer", "null"], "Bytes, or with a unit (KiB, MiB, GiB, kB, MB, GB): 64MiB."
_COUNT = ["integer", "null"], "At least 1."
_LIMITS = {"MaxAge": _AGE, "MaxMessages": _COUNT, "MaxBytes": _SIZE}
_CLUSTER_LIMITS = {**_LIMITS, "MaxRooms": _COUNT, "EmptyRoomAge": _AGE}


def _new_policy(limits: dict[str, tuple[list[str], str]]) -> Json:
    properties = {name: {"type": types, "description": text} for name, (types, text) in limits.items()}
    return {"type": "object", "properties": properties, "description": "null, or left out: not limited."}


def _policy(limits: dict[str, tuple[list[str], str]]) -> dict[str, Json]:
    """As it is shown: ages in whole seconds, else with a unit; sizes in bytes."""
    return {name: {"type": ["integer", "null", *(["string"] if of is _AGE else [])]} for name, of in limits.items()}


def components(config: Config) -> Json:
    what = f"At most {config.name_size_max_bytes} bytes of UTF-8; no characters of control, nor such as cannot be seen."
    name = {"type": "string", "minLength": 1, "description": what}
    text = {"type": "string", "minLength": 1, "description": f"At most {config.message_size_max_bytes} bytes of UTF-8."}
    return {
        "schemas": {
            "NewMessage": _object({"Message": text, "User": name}),
            "Posted": _object({"ID": _ID, "PostedAt": _TIME}),
            "Message": _object({"ID": _ID, "PostedAt": _TIME, "User": name, "Message": text}),
            "Room": _object(
                {
                    "Name": name,
                    "Messages": {"type": "integer", "minimum": 0, "description": "0: retention removed the last one."},
                    "Bytes": {"type": "integer", "description": "In the log, headers included."},
                    "FirstID": {"type": "integer", "minimum": 0, "description": "0: it has no message."},
                    "LastID": _ID,
                    "LastPostedAt": _TIME,
                }
            ),
            "NewRetention": _new_policy(_CLUSTER_LIMITS),
            "NewRoomRetention": _new_policy(_LIMITS),
            "Retention": _object(_policy(_CLUSTER_LIMITS)),
            "RoomRetention": _object({**_policy(_LIMITS), "Effective": _object(_policy(_LIMITS))}),
            "DryRun": _object(
                {
                    "Messages": {"type": "integer"},
                    "Bytes": {"type": "integer"},
                    "Rooms": {
                        "type": "array",
                        "items": _object(
                            {
                                "Name": name,
                                "Messages": {"type": "integer"},
                                "Bytes": {"type": "integer"},
                                "Removed": {"type": "boolean", "description": "The room goes as well."},
                            }
                        ),
                    },
                    "Truncated": {"type": "boolean", "description": "There are more rooms than are told."},
                }
            ),
            "Ready": _object(
                {
                    "Ready": {"const": True},
                    "Leader": {"type": "integer"},
                    "Term": {"type": "integer"},
                    "CommitIndex": {"type": "integer"},
                    "AppliedIndex": {"type": "integer"},
                }
            ),
            "Member": {
                "type": "object",
                "required": ["ID", "Role"],
                "properties": {
                    "ID": {"type": "integer", "minimum": 1},
                    "URL": {"type": "string"},
                    "Role": {"enum": ["voter", "learner"]},
                    "Leader": {"type": "boolean"},
                    "Connected": {"type": "boolean", "description": "To the node that is asked."},
                    "MatchIndex": {"type": "integer", "description": "Durable there; told by the leader alone."},
                    "Lag": {"type": "integer", "description": "Entries behind; told by the leader alone."},
                    "LastContactMs": {"type": ["integer", "null"], "description": "Milliseconds ago; null: never."},
                },
            },
            "Status": {
                "type": "object",
                "required": ["ID", "Role", "Term", "Leader", "CommitIndex", "Members"],
                "properties": {
                    "ID": {"type": "integer"},
                    "Role": {"enum": ["follower", "precandidate", "candidate", "leader", "learner"]},
                    "Term": {"type": "integer"},
                    "Leader": {"type": "integer", "description": "0: none known."},
                    "CommitIndex": {"type": "integer"},
                    "Members": {"type": "array", "items": ref("Member")},
                    "Log": {
                        "type": "object",
                        "properties": {"Segments": {"type": "integer"}, "Bytes": {"type": "integer"}},
                    },
                    "CatchUp": {
                        "type": ["object", "null"],
                        "description": "The snapshot that this node is fetching, if it lacks so much.",
                        "properties": {
                            "From": {"type": "integer"},
                            "ReceivedBytes": {"type": "integer"},
                            "TotalBytes": {"type": "integer", "description": "0: not known yet."},
                        },
                    },
                    "Store": {
                        "type": "object",
                        "description": "What is kept beside the log, and how much of that is needed.",
                        "properties": {
                            "SnapshotIndex": {"type": "integer", "description": "0: there is no snapshot yet."},
                            "AppliedIndex": {"type": "integer"},
                            "Lag": {"type": "integer", "description": "Committed entries that are not applied."},
                            "LiveBytes": {"type": "integer", "description": "What all messages occupy."},
                            "RetiredBytes": {"type": "integer", "description": "Files kept for their grace only."},
                        },
                    },
                },
            },
            "Problem": _object(
                {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "code": {"type": "string", "description": "Stable; for programs."},
                    "retryable": {"type": "boolean", "description": "Whether the same request may safely be repeated."},
                }
            ),
        },
        "parameters": {"Room": {"name": "room", "in": "path", "required": True, "schema": name}},
        "headers": {
            "RaftIndex": {
                "schema": {"type": "integer", "minimum": 0},
                "description": "Index applied on this node: what to give as min_index to read what you wrote.",
            },
            "Link": {
                "schema": {"type": "string"},
                "description": "RFC 8288: prev (older) and next (newer or further).",
            },
            "RetryAfter": {
                "schema": {"type": "integer"},
                "description": "Seconds. Only if the problem is retryable: never with outcome_unknown.",
            },
        },
        "responses": {
            str(status): {
                "description": text,
                "content": {"application/problem+json": {"schema": ref("Problem")}},
                **({"headers": {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}}} if status >= 503 else {}),
            }
            for status, text in _STATUSES.items()
        },
    }


_STATUSES = {
    400: "Not HTTP, JSON, percent-encoding or a query as they should be",
    403: "Not from here",
    404: "Nothing there",
    408: "The request did not arrive in time",
    413: "The body is too large; refused before it was read",
    422: "JSON that is not what belongs there, or a name that is not allowed",
    426: "Only a WebSocket is served here",
    503: "No leader, no quorum, or not in time; code and retryable say which",
    507: "The leader's disk is full",
}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}

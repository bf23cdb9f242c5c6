"""Every error a client can get, as RFC 9457 problem details with a stable `code` and whether a retry makes sense.

Knows codes, statuses and how a problem is rendered. Does not know where errors come from.
"""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import NamedTuple

import orjson

from raftchat.chat.commands import Refused
from raftchat.worker.pending import Failure

Headers = list[tuple[bytes, bytes]]

CONTENT_TYPE = b"application/problem+json"
RETRY_AFTER_S = 1
"""An election takes one to two election timeouts (dissertation 9.3), so the next try may well succeed."""

TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}
"""RFC 9110's, where Python before 3.13 has older ones."""


class Kind(NamedTuple):
    status: int
    retryable: bool
    """Sending the same request again, unchanged, is safe and may succeed."""


KINDS = {
    "bad_request": Kind(400, False),
    "incomplete_request": Kind(400, False),
    "invalid_json": Kind(400, False),
    "invalid_path": Kind(400, False),
    "invalid_query": Kind(400, False),
    "loopback_only": Kind(403, False),
    "not_found": Kind(404, False),
    "room_not_found": Kind(404, False),
    "member_not_found": Kind(404, False),
    "method_not_allowed": Kind(405, False),
    "request_timeout": Kind(408, True),
    "body_too_large": Kind(413, False),
    "invalid_body": Kind(422, False),
    "invalid_name": Kind(422, False),
    "idempotency_not_supported": Kind(422, False),
    "upgrade_required": Kind(426, False),
    "head_too_large": Kind(431, False),
    "internal_error": Kind(500, False),
    "no_leader": Kind(503, True),
    "not_committed": Kind(503, True),
    "not_applied": Kind(503, True),
    "not_ready": Kind(503, True),
    "raft_process_silent": Kind(503, True),
    "outcome_unknown": Kind(503, False),
    "overloaded": Kind(503, True),
    "shutting_down": Kind(503, True),
    "unreadable": Kind(503, False),
    "disk_full": Kind(507, True),
}
"""`invalid_body` and `invalid_name` stand for the finer codes of `chat.commands`, which are what is sent."""


class Problem(Exception):
    def __init__(
        self, code: str, detail: str, *, kind: str | None = None, headers: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        """`kind`: where in KINDS, if `code` is a finer one. `headers`: to be sent besides those all problems have."""
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status, self.retryable = KINDS[kind or code]
        self._headers = list(headers)

    def headers(self) -> Headers:
        headers = [(b"content-type", CONTENT_TYPE), (b"cache-control", b"no-store"), *self._headers]
        # Clients repeat a request that may be repeated "after": what is not retryable could be posted twice.
        if self.retryable and self.status in (503, 507):
            headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
        return headers

    def body(self) -> bytes:
        return orjson.dumps(
            {
                "type": "about:blank",
                "title": TITLES.get(self.status) or HTTPStatus(self.status).phrase,
                "status": self.status,
                "detail": self.detail,
                "code": self.code,
                "retryable": self.retryable,
            }
        )


def refused_name(error: Refused) -> Problem:
    return Problem(error.code, error.detail, kind="invalid_name")


def refused_body(error: Refused) -> Problem:
    return Problem(error.code, error.detail, kind="invalid_body")


_FAILURES = {
    Failure.NOT_COMMITTED: (
        "not_committed",
        "The leader changed before the message was committed. It was not posted and will not be.",
    ),
    Failure.UNKNOWN: (
        "outcome_unknown",
        "The message was handed to the cluster, but no decision came in time. It may be posted, now or later: "
        "look for it in the room before posting it again.",
    ),
    Failure.NO_LEADER: ("no_leader", "No leader is known: an election is under way, or a majority is not reachable."),
    Failure.OVERLOADED: ("overloaded", "More is being posted than a majority of the nodes can store."),
    Failure.DISK_FULL: ("disk_full", "The leader's disk is full. Reads go on; posts do once there is space."),
    Failure.SHUTTING_DOWN: ("shutting_down", "This node is shutting down. Post to another one."),
    Failure.BAD: ("internal_error", "This was encoded in a way that the log does not take."),
}


_CHANGE_DETAILS = {
    Failure.NOT_COMMITTED: "The leader changed before this was committed. It was not done and will not be.",
    Failure.UNKNOWN: "The change was handed to the cluster, but no decision came in time. It may be done, now or "
    "later: look before asking for it again.",
    Failure.OVERLOADED: "More is waiting than a majority of the nodes can store.",
    Failure.DISK_FULL: "The leader's disk is full: not even this can be written down. It can once there is space.",
    Failure.SHUTTING_DOWN: "This node is shutting down. Ask another one.",
}


def failed_post(failure: Failure) -> Problem:
    return Problem(*_FAILURES[failure])


def failed_change(failure: Failure) -> Problem:
    """Of what administrators change: codes as those of posts."""
    code, detail = _FAILURES[failure]
    return Problem(code, _CHANGE_DETAILS.get(failure, detail))


def unreadable() -> Problem:
    return Problem("unreadable", "This node cannot read its log; its own messages say why. Ask another node.")


def no_leader() -> Problem:
    return failed_post(Failure.NO_LEADER)


def internal_error() -> Problem:
    return Problem("internal_error", "This is a fault of the server; its log tells more.")

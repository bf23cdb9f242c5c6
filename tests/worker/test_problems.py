"""Problems are the same whichever Python renders them."""

from __future__ import annotations

import json

import pytest

from raftchat.worker.problems import KINDS, Problem

TITLES = {
    400: "Bad Request",
    404: "Not Found",
    413: "Content Too Large",
    422: "Unprocessable Content",
    503: "Service Unavailable",
}


@pytest.mark.parametrize("code", KINDS)
def test_titles_are_those_of_rfc_9110(code: str) -> None:
    body = json.loads(Problem(code, "why").body())
    assert body["status"] == KINDS[code].status
    assert body["title"] == TITLES.get(body["status"], body["title"])
    assert "Entity" not in body["title"]

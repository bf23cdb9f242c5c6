"""What machines ask: health, metrics, the OpenAPI document, members; and the web client's files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from raftchat.config import Config
from raftchat.worker import counters, static
from raftchat.worker.openapi import document
from raftchat.worker.problems import KINDS
from tests.worker.support import Worker, running, wait_for
from tests.worker.test_posts import problem

DOCUMENT = document(Config())


def test_readiness_needs_a_leader_and_liveness_does_not(worker: Worker) -> None:
    assert worker.client.get("/readyz").json() == {
        "Ready": True,
        "Leader": 1,
        "Term": 1,
        "CommitIndex": 1,
        "AppliedIndex": 1,
    }
    worker.call(lambda: worker.raft.lead(0))
    wait_for("not ready", lambda: worker.client.get("/readyz").status_code == 503)
    problem(worker.client.get("/readyz"), 503, "not_ready", retryable=True)
    assert worker.client.get("/livez").json() == {"Live": True}
    worker.call(lambda: worker.raft.lead(2, ready=False))
    wait_for("not ready", lambda: "Catching up" in worker.client.get("/readyz").text)
    worker.call(lambda: worker.raft.lead(2))
    wait_for("ready", lambda: worker.client.get("/readyz").status_code == 200)


def test_members(worker: Worker) -> None:
    status = worker.client.get("/raft").json()
    assert status["Role"] == "leader"
    assert "Counters" not in status
    assert worker.client.get("/raft/1").json() == status["Members"][0]
    problem(worker.client.get("/raft/2"), 404, "member_not_found", retryable=False)


def test_when_the_raft_process_does_not_answer_status_is_503(tmp_path: Path) -> None:
    """Long before a post would be given up: who is asked what it knows answers at once, or hangs."""
    with running(tmp_path, config=Config(status_timeout_ms=200, request_timeout_ms=60_000)) as worker:
        worker.raft.answer_status = False
        for path in ("/raft", "/raft/1"):
            problem(worker.client.get(path), 503, "raft_process_silent", retryable=True)
        worker.raft.answer_status = True
        assert worker.client.get("/raft").status_code == 200


def test_a_raft_process_that_hangs_is_not_ready_after_an_election_timeout(tmp_path: Path) -> None:
    """It said last that there is a leader, and says nothing since."""
    with running(tmp_path, config=Config(election_timeout_ms=300, request_timeout_ms=60_000)) as worker:
        worker.raft.answer_status = False
        response = worker.client.get("/readyz")
        problem(response, 503, "not_ready", retryable=True)
        assert response.json()["detail"] == "The Raft process of this node does not answer."
        assert worker.client.get("/livez").status_code == 200
        worker.raft.answer_status = True
        assert worker.client.get("/readyz").status_code == 200


def test_metrics_come_from_the_worker_alone_when_the_raft_process_hangs(tmp_path: Path) -> None:
    with running(tmp_path, config=Config(election_timeout_ms=300, request_timeout_ms=60_000)) as worker:
        worker.post("general", "hello")
        assert samples(worker)["raftchat_raft_up"] == 1
        worker.raft.answer_status = False
        found = samples(worker)
        assert found["raftchat_raft_up"] == 0
        assert found["raftchat_posts_committed_total"] == found["raftchat_post_seconds_count"] == 1
        # What is not known is left out: a counter that falls to 0 would be taken for a restart.
        assert not {"raftchat_raft_term", "raftchat_turns_total", "raftchat_log_bytes"} & set(found)


def test_the_raft_process_and_the_worker_process_are_counted_too(worker: Worker) -> None:
    found = samples(worker)
    names = ("turns", "batches", "syncs", "peer_bytes_sent", "peer_frames_dropped")
    assert [found[f"raftchat_{name}_total"] for name in names] == [11, 12, 13, 14, 15]
    assert found["process_resident_memory_bytes"] > 1 << 20
    assert found["process_open_fds"] > 2


def samples(worker: Worker) -> dict[str, float]:
    response = worker.client.get("/metrics")
    assert response.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return {
        sample.name + "".join(f",{value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_metrics_count_what_happened_and_name_nobody(worker: Worker) -> None:
    for n in range(5):
        worker.post("secret-room", str(n), user="secret-user")
    worker.post("secret-room", "")
    worker.texts("secret-room")
    wait_for("counters", lambda: worker.raft.counters.get("pages"))
    found = samples(worker)
    assert found["raftchat_messages"] == found["raftchat_posts_committed_total"] == 5
    assert found["raftchat_post_seconds_count"] == found["raftchat_post_seconds_bucket,+Inf"] == 5
    assert 0 < found["raftchat_post_seconds_sum"] < 60
    assert found["raftchat_rooms"] == found["raftchat_requests_refused_total"] == found["raftchat_pages_total"] == 1
    assert found["raftchat_read_rounds_total"] == 1
    assert found["raftchat_raft_is_leader"] == found["raftchat_raft_term"] == 1
    assert found["raftchat_raft_commit_index"] == found["raftchat_applied_index"] == 6
    assert found["raftchat_raft_member_match_index,1"] == 6
    assert "secret" not in worker.client.get("/metrics").text


def test_counters_are_sent_only_when_they_changed(worker: Worker) -> None:
    wait_for("first", lambda: worker.raft.counters)
    sent: list[dict[str, Any]] = []
    worker.call(lambda: setattr(worker.server._link, "send_counters", sent.append))
    for _ in range(3):
        worker.call(worker.server._send_counters)
    assert sent == []
    worker.post("r", "1")
    worker.call(worker.server._send_counters)
    assert [one["posts_committed"] for one in sent] == [1]


def test_every_counter_is_shown_and_explained(worker: Worker) -> None:
    snapshot = counters.Counters().snapshot(read_rounds=0, messages_delivered=0, sockets_open=0, post_bytes_pending=0)
    explained = {*counters.COUNTERS, *counters.GAUGES}
    assert {name for name in snapshot if not name.startswith("post_seconds")} == explained
    found = samples(worker)
    assert all(f"raftchat_{name}_total" in found for name in counters.COUNTERS)
    assert all(f"raftchat_{name}" in found for name in counters.GAUGES)


# OpenAPI


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in DOCUMENT["paths"].items():
        for method in ("get", "post", "put", "delete"):
            if method in item:
                yield path, method, item[method]


def test_the_document_is_served_and_its_references_lead_somewhere(shared: Worker) -> None:
    assert shared.client.get("/openapi.json").json() == DOCUMENT

    def walk(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if "$ref" in value:
                yield value["$ref"]
            for child in value.values():
                yield from walk(child)
        elif isinstance(value, list):
            for child in value:
                yield from walk(child)

    for reference in walk(DOCUMENT):
        target: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]
    ids = [operation["operationId"] for _, _, operation in operations()]
    assert len(ids) == len(set(ids))


def test_every_route_is_in_the_document(shared: Worker) -> None:
    app = shared.server._server.config.loaded_app
    routed = {route.path for route in app._others.routes} | {"/rooms/{room}"}
    assert routed - {"/web/{path:path}"} == set(DOCUMENT["paths"])


def test_every_documented_method_is_routed_and_others_are_not(shared: Worker) -> None:
    for path, item in DOCUMENT["paths"].items():
        url = path.replace("{room}", "openapi").replace("{id}", "1")
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            status = shared.client.request(method, url).status_code
            assert (status == 405) == (method.lower() not in item), (method, path, status)


def test_what_routes_answer_is_documented(shared: Worker) -> None:
    """Some requests for each operation; the statuses they get are in the document, with the shape they have."""
    requests = {
        ("/rooms/{room}", "post"): [
            ("/rooms/a", b'{"Message":"m","User":"u"}', 201),
            ("/rooms/a", b"{", 400),
            ("/rooms/a", b"{}", 422),
            ("/rooms/a", b"x" * 200_000, 413),
        ],
        ("/rooms/{room}", "get"): [("/rooms/a", b"", 200), ("/rooms/a?limit=x", b"", 400), ("/rooms/a%2Fb", b"", 422)],
        ("/rooms/{room}", "delete"): [("/rooms/gone", b"", 204), ("/rooms/a%2Fb", b"", 422), ("/rooms/%ff", b"", 400)],
        ("/retention", "get"): [("/retention", b"", 200), ("/retention?consistency=x", b"", 400)],
        ("/retention", "put"): [
            ("/retention", b'{"MaxAge":"1d"}', 200),
            ("/retention?dry_run=true", b'{"MaxAge":"1d"}', 200),
            ("/retention?dry_run=x", b"{}", 400),
            ("/retention", b"{", 400),
            ("/retention", b"[]", 422),
            ("/retention", b"x" * 200_000, 413),
        ],
        ("/retention", "delete"): [("/retention", b"", 204)],
        ("/rooms/{room}/retention", "get"): [
            ("/rooms/a/retention", b"", 200),
            ("/rooms/a%2Fb/retention", b"", 422),
            ("/rooms/%ff/retention", b"", 400),
        ],
        ("/rooms/{room}/retention", "put"): [
            ("/rooms/a/retention", b'{"MaxMessages":10}', 200),
            ("/rooms/a/retention?dry_run=true", b'{"MaxMessages":10}', 200),
            ("/rooms/a/retention", b'{"MaxRooms":10}', 422),
        ],
        ("/rooms/{room}/retention", "delete"): [("/rooms/a/retention", b"", 204), ("/rooms/%2E/retention", b"", 422)],
        ("/rooms", "get"): [("/rooms", b"", 200), ("/rooms?details=true", b"", 200), ("/rooms?limit=x", b"", 400)],
        ("/{room}", "get"): [("/a", b"", 307), ("/zzz", b"", 404), ("/a%2Fb", b"", 422), ("/%ff", b"", 400)],
        ("/raft", "get"): [("/raft", b"", 200)],
        ("/raft/{id}", "get"): [("/raft/1", b"", 200), ("/raft/9", b"", 404)],
        ("/livez", "get"): [("/livez", b"", 200)],
        ("/readyz", "get"): [("/readyz", b"", 200)],
        ("/metrics", "get"): [("/metrics", b"", 200)],
        ("/openapi.json", "get"): [("/openapi.json", b"", 200)],
        ("/ws", "get"): [("/ws", b"", 426)],
        ("/", "get"): [("/", b"", 200)],
    }
    assert set(requests) == {(path, method) for path, method, _ in operations()}
    for path, method, operation in operations():
        for url, body, expected in requests[path, method]:
            answer = shared.exchange(
                b"%b %b HTTP/1.1\r\nHost: x\r\n%b\r\n%b"
                % (method.upper().encode(), url.encode(), b"Content-Length: %d\r\n" % len(body) if body else b"", body)
            )
            head = answer.partition(b"\r\n\r\n")[0].decode().lower()
            status = int(answer[9:12])
            assert status == expected, (url, answer[:300])
            documented = operation["responses"][str(status)]
            if "$ref" in documented:
                documented = DOCUMENT["components"]["responses"][documented["$ref"].rsplit("/", 1)[1]]
            for header in documented.get("headers", {}):
                assert header.lower() in head or header == "Link", (url, header)
            if "content" in documented:
                assert re.search(r"content-type: ([^;\r]+)", head)[1] in documented["content"]  # type: ignore[index]


def test_every_status_of_a_problem_is_documented_somewhere() -> None:
    documented = {int(status) for _, _, operation in operations() for status in operation["responses"]}
    # Those that any request can get, whatever its path: from the HTTP parser, wrong methods, or a fault of ours.
    anywhere = {405, 431, 500}
    assert {kind.status for kind in KINDS.values()} <= documented | anywhere


# The web client's files


def test_the_page_is_served_with_a_strict_policy(shared: Worker) -> None:
    response = shared.client.get("/")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|style=|javascript:", response.text)
    for reference in re.findall(r'(?:src|href)="([^"#]+)"', response.text):
        assert not reference.startswith(("/", "http")), "relative, so that a prefix in front does no harm"
        assert shared.client.get("/" + reference).status_code == 200


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/web/main.js", "text/javascript; charset=utf-8"),
        ("/web/components/element.js", "text/javascript; charset=utf-8"),
        ("/web/style.css", "text/css; charset=utf-8"),
        ("/web/icon.svg", "image/svg+xml"),
        ("/web/index.html", "text/html; charset=utf-8"),
    ],
)
def test_files_have_types_and_validators(shared: Worker, path: str, kind: str) -> None:
    response = shared.client.get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, kind)
    assert response.headers["cache-control"] == "no-cache"
    etag = response.headers["etag"]
    for given in (etag, f"W/{etag}", f'"other", {etag}', "*"):
        again = shared.client.get(path, headers={"If-None-Match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert shared.client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200


def test_the_clients_modules_import_only_each_other_and_never_parse_markup() -> None:
    directory = Path(str(static.web_directory()))
    modules = {path.resolve(): path.read_text() for path in directory.rglob("*.js")}
    reached, todo = set(), [(directory / "main.js").resolve()]
    while todo:
        path = todo.pop()
        reached.add(path)
        for name in re.findall(r'from "([^"]+)"', modules[path]):
            assert name.startswith("."), f"{path.name} imports {name}"
            if (path.parent / name).resolve() not in reached:
                todo.append((path.parent / name).resolve())
    assert reached == set(modules), "a module that nobody imports"
    for path, text in modules.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", text), path
        assert "//" not in re.sub(r"^\s*//.*$|[^:]//.*$", "", text, flags=re.M).replace("https?:\\/\\/", ""), path


def test_every_code_and_parameter_is_in_the_manual() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    for code in set(KINDS) - {"invalid_body", "invalid_name"}:  # those stand for finer codes
        assert f"`{code}`" in manual, code
    for _, _, operation in operations():
        for parameter in operation.get("parameters", ()):
            assert re.search(rf"\b{parameter['name']}\b", manual), parameter["name"]

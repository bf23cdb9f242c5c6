"""The web client of a cluster that loses its leader or its majority: what it says, shows and sends by itself."""

from __future__ import annotations

import json

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.conftest import NewContext, visit
from tests.faults.cluster import Cluster, Node

pytestmark = [pytest.mark.browser, pytest.mark.process]


def enter(page: Page, text: str) -> None:
    page.fill("#user", "Ada")
    page.fill("#message", text)
    page.press("#message", "Enter")


def refuse_posts(page: Page, code: str, *, retryable: bool, times: int) -> list[str]:
    """Answer that many posts with a 503 before one gets through; what all of them said is appended to the result."""
    said: list[str] = []

    def answer(route: Route) -> None:
        if route.request.method != "POST":
            route.continue_()
            return
        said.append(route.request.post_data_json["Message"])
        if len(said) > times:
            route.continue_()
            return
        problem = {"status": 503, "code": code, "detail": "for engineers", "retryable": retryable}
        route.fulfill(status=503, content_type="application/problem+json", body=json.dumps(problem))

    page.route("**/rooms/general", answer)
    return said


def test_a_post_that_passes_is_tried_again_by_itself(page: Page, node: Node) -> None:
    said = refuse_posts(page, "no_leader", retryable=True, times=3)
    enter(page, "hello")
    expect(page.locator("#send")).to_have_text("Sending…")
    expect(page.locator("#error")).to_contain_text("The cluster is choosing a new leader")
    expect(page.locator(".message .text")).to_have_text(["hello"])
    expect(page.locator("#error")).to_be_hidden()
    expect(page.locator("#send")).to_have_text("Send")
    expect(page.locator("#message")).to_have_value("")
    assert said == ["hello"] * 4
    assert node.texts("general") == ["hello"]


def test_a_post_whose_outcome_is_unknown_is_not_sent_again(page: Page, node: Node) -> None:
    said = refuse_posts(page, "outcome_unknown", retryable=False, times=1)
    enter(page, "hello")
    expect(page.locator("#error")).to_contain_text("not known whether your message was posted")
    expect(page.locator("#message")).to_have_value("hello")
    expect(page.locator("#send")).to_have_text("Send")
    assert said == ["hello"]
    assert node.texts("general") == []


def test_when_the_leader_dies_a_post_arrives_without_the_users_help(
    new_context: NewContext, three_nodes: Cluster
) -> None:
    leader = three_nodes.leader()
    node = three_nodes.followers()[0]
    page = visit(new_context().pages[0], node)
    enter(page, "before")
    expect(page.locator(".message .text")).to_have_text(["before"])
    leader.kill()
    enter(page, "after")
    expect(page.locator("#message")).to_have_value("", timeout=20_000)
    expect(page.locator(".message .text")).to_have_text(["before", "after"])
    expect(page.locator("#error")).to_be_hidden()
    expect(page.locator("#state")).to_have_text("Live")


def test_without_a_majority_the_page_shows_history_says_so_and_recovers(
    new_context: NewContext, three_nodes: Cluster
) -> None:
    node, *others = three_nodes.nodes
    posted = others[0].must_post("general", "history")
    node.get("/rooms/general", min_index=posted)
    for other in others:
        other.kill()
    page = new_context().pages[0]
    page.goto(node.url)
    expect(page.locator(".message .text")).to_have_text(["history"])
    expect(page.locator("#rooms .name")).to_have_text(["general"])
    expect(page.locator("#state")).to_have_text("Read-only: waiting for the cluster")
    enter(page, "as soon as it can be")
    expect(page.locator("#send")).to_have_text("Sending…")
    others[0].start()
    expect(page.locator("#state")).to_have_text("Live", timeout=30_000)
    expect(page.locator("#error")).to_be_hidden()
    expect(page.locator("#send")).to_have_text("Send", timeout=20_000)
    if page.locator("#message").input_value():
        page.press("#message", "Enter")  # it took longer than a person is let wait
    expect(page.locator(".message .text")).to_have_text(["history", "as soon as it can be"])

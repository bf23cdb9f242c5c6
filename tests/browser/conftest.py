"""A real node, and a real browser with nothing in it."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Page, Playwright, sync_playwright

from tests.faults.cluster import Cluster, Node

ARGUMENTS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]

NewContext = Callable[..., BrowserContext]


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """Not for the session: while it runs, an event loop does, and no other test could start one of its own."""
    with sync_playwright() as started:
        yield started


@pytest.fixture
def new_context(playwright: Playwright, tmp_path: Path) -> Iterator[NewContext]:
    """Make contexts of Debian's Chromium, each with a profile of its own; complaints of a page fail the test."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def make(**options: object) -> BrowserContext:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / f"profile-{len(contexts)}",
            executable_path=chromium,
            args=ARGUMENTS,
            **options,  # type: ignore[arg-type]
        )
        contexts.append(context)
        context.on("weberror", lambda error: complaints.append(str(error.error)))
        context.on("console", lambda line: complaints.append(line.text) if "Content Security" in line.text else None)
        context.on("dialog", lambda dialog: (complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        context.set_default_timeout(15_000)
        return context

    yield make
    for context in contexts:
        context.close()
    assert not complaints


@pytest.fixture
def node(new_cluster: Callable[..., Cluster]) -> Node:
    return new_cluster(1).start()[1]


@pytest.fixture
def page(new_context: NewContext, node: Node) -> Page:
    """The web client, live."""
    return visit(new_context().pages[0], node)


def visit(page: Page, node: Node, path: str = "/") -> Page:
    page.goto(node.url + path)
    page.wait_for_selector('#state[data-state="live"]')
    return page

"""The web client in a real browser against a real node: post, see, find, lose the node and come back."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import httpx2
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import NewContext, visit
from tests.faults.cluster import Node, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.process]

ATTACKS = [
    "<script>attacked = 1</script>",
    "<img src=x onerror='attacked = 1'>",
    "<svg onload=attacked=1>",
    "javascript:attacked=1",
    "\"'><iframe srcdoc='<script>parent.attacked=1</script>'></iframe>",
    "https://example.org/\"onmouseover='attacked=1'",
    "{{constructor.constructor('attacked=1')()}}",
]


def say(page: Page, text: str, user: str | None = None) -> None:
    if user is not None:
        page.fill("#user", user)
    page.fill("#message", text)
    page.press("#message", "Enter")
    expect(page.locator("#message")).to_have_value("")


def texts(page: Page) -> list[str]:
    return page.locator(".message .text").all_text_contents()


def test_what_is_posted_is_shown_here_and_in_another_tab(page: Page, node: Node) -> None:
    other = visit(page.context.new_page(), node)
    say(page, "hello", "Ada")
    expect(page.locator(".message .text")).to_have_text(["hello"])
    expect(other.locator(".message .text")).to_have_text(["hello"])
    expect(other.locator(".byline strong")).to_have_text(["Ada"])
    say(other, "hello yourself", "Grace")
    expect(page.locator(".message .text")).to_have_text(["hello", "hello yourself"])
    assert node.texts("general") == ["hello", "hello yourself"]
    page.reload()
    expect(page.locator(".message .text")).to_have_text(["hello", "hello yourself"])


def test_lines_spaces_and_links_are_kept(page: Page, node: Node) -> None:
    node.must_post("general", "one\n  two\n\nhttps://example.org/a?b=1&c=2, and https://example.org.")
    expect(page.locator(".message .text")).to_have_count(1)
    assert texts(page) == ["one\n  two\n\nhttps://example.org/a?b=1&c=2, and https://example.org."]
    hrefs = [link.get_attribute("href") for link in page.locator(".text a").all()]
    assert hrefs == ["https://example.org/a?b=1&c=2", "https://example.org"]
    assert page.locator(".text a").first.get_attribute("rel") == "noopener noreferrer nofollow"


def test_nothing_that_is_posted_runs(page: Page, node: Node) -> None:
    """As a text, a name and a room: shown as it was written, whether it comes live or as history."""
    for attack in ATTACKS:
        node.must_post("general", attack)
        assert node.post("general", "named", user=attack).status_code == 201
        room = "".join(f"%{byte:02X}" for byte in attack.replace("/", "∕").encode())
        url = httpx2.URL(node.url).copy_with(raw_path=f"/rooms/{room}".encode())
        assert httpx2.post(url, json={"Message": "m", "User": "u"}).status_code == 201
    for _ in range(2):
        expect(page.locator(".message")).to_have_count(2 * len(ATTACKS))
        assert [text for text in texts(page) if text != "named"] == ATTACKS
        names = page.locator(".byline strong").all_text_contents()
        assert [name for name in names if name != "tester"] == ATTACKS
        expect(page.locator("#rooms a")).to_have_count(1 + len(ATTACKS))
        for link in page.locator("#rooms a").all():
            link.click()
        for link in page.locator(".text a").all():
            assert (link.get_attribute("href") or "").startswith("https://")
        assert page.evaluate("typeof attacked") == "undefined"
        assert page.locator("main iframe, main img, main script, #log svg").count() == 0
        visit(page, node, "/#general")
        page.reload()
    injected = "const s = document.createElement('script'); s.textContent = 'attacked = 1'; document.body.append(s)"
    assert page.evaluate(f"try {{ {injected} }} catch (error) {{ String(error) }}; typeof attacked") == "undefined"


def test_rooms_are_found_made_and_counted(page: Page, node: Node) -> None:
    for n in range(12):
        node.must_post(f"room {n}", "x")
    expect(page.locator("#rooms a")).to_have_count(13)
    expect(page.locator("#rooms a", has_text="room 3").locator(".unread")).to_have_text("1")
    page.fill("#find-name", "room 1")
    expect(page.locator("#rooms .name")).to_have_text(["room 1", "room 10", "room 11"])
    page.fill("#find-name", "größe / ?")
    page.press("#find-name", "Enter")
    expect(page.locator("#title")).to_have_text("größe / ?")
    page.fill("#find-name", "new & shiny")
    page.press("#find-name", "Enter")
    expect(page.locator("#empty")).to_be_visible()
    say(page, "first", "Ada")
    assert node.get("/rooms/new%20%26%20shiny").json()[0]["Message"] == "first"
    expect(page.locator('#rooms a[aria-current="page"] .name')).to_have_text(["new & shiny"])
    page.go_back()
    expect(page.locator("#empty")).to_have_text("The room name contains '/'.")
    expect(page.locator("#rooms .name", has_text="größe")).to_have_count(0)
    page.locator("#rooms a", has_text="room 3").click()
    expect(page.locator("#title")).to_have_text("room 3")
    expect(page.locator("#rooms a", has_text="room 3").locator(".unread")).to_have_text("")


def test_history_is_read_backwards_and_the_view_stays(page: Page, node: Node) -> None:
    for n in range(120):
        node.must_post("long", f"message {n}")
    visit(page, node, "/#long")
    expect(page.locator(".message")).to_have_count(50)
    expect(page.get_by_text("message 119", exact=True)).to_be_in_viewport()
    page.locator("#scroll").evaluate("element => element.scrollTop = 0")
    expect(page.locator(".message")).to_have_count(100)
    expect(page.get_by_text("message 70", exact=True)).to_be_in_viewport()
    page.locator("#scroll").evaluate("element => element.scrollTop = 0")
    expect(page.locator(".message")).to_have_count(120)
    expect(page.locator("#older")).to_be_hidden()
    assert texts(page) == [f"message {n}" for n in range(120)]
    node.must_post("long", "news")
    expect(page.locator("#newest")).to_be_visible()
    page.click("#newest")
    expect(page.get_by_text("news", exact=True)).to_be_in_viewport()
    expect(page.locator("#newest")).to_be_hidden()


def test_a_post_that_is_refused_is_kept_and_told(page: Page) -> None:
    page.fill("#message", "without a name")
    page.press("#message", "Enter")
    expect(page.locator("#error")).to_contain_text("Enter a name")
    page.fill("#user", "u" * 200 + "ü" * 50)
    page.press("#message", "Enter")
    expect(page.locator("#error")).to_contain_text("at most 255")
    expect(page.locator("#message")).to_have_value("without a name")
    page.fill("#user", "Ada")
    page.press("#message", "Enter")
    expect(page.locator(".message .text")).to_have_text(["without a name"])
    expect(page.locator("#error")).to_be_hidden()


def test_when_the_node_restarts_the_page_comes_back_and_misses_nothing(page: Page, node: Node) -> None:
    say(page, "before", "Ada")
    node.stop()
    expect(page.locator("#state")).to_have_attribute("data-state", "closed")
    page.fill("#message", "meanwhile")
    page.press("#message", "Enter")
    expect(page.locator("#error")).to_contain_text("cannot be reached")
    node.start()
    node.wait_ready()
    node.must_post("general", "posted while the page was away")
    expect(page.locator("#state")).to_have_attribute("data-state", "live", timeout=30_000)
    expect(page.locator(".message .text")).to_have_text(["before", "posted while the page was away"])
    page.press("#message", "Enter")
    expect(page.locator(".message .text")).to_have_text(["before", "posted while the page was away", "meanwhile"])


def test_a_room_that_was_removed_is_not_listed_any_more_when_the_page_comes_back(page: Page, node: Node) -> None:
    for room in ("goes", "stays"):
        node.must_post(room, "x")
    expect(page.locator("#rooms .name")).to_have_text(["general", "goes", "stays"])
    assert httpx2.delete(f"{node.url}/rooms/goes").status_code == 204
    node.stop()
    expect(page.locator("#state")).to_have_attribute("data-state", "closed")
    node.start()
    expect(page.locator("#state")).to_have_attribute("data-state", "live", timeout=30_000)
    expect(page.locator("#rooms .name")).to_have_text(["general", "stays"])


def test_enter_sends_and_shift_enter_does_not(page: Page) -> None:
    page.fill("#user", "Ada")
    page.locator("#message").press_sequentially("one")
    page.press("#message", "Shift+Enter")
    page.locator("#message").press_sequentially("two")
    page.press("#message", "Enter")
    expect(page.locator(".message .text")).to_have_text(["one\ntwo"])


def test_it_can_be_used_with_the_keyboard_and_is_named_for_readers(page: Page, node: Node) -> None:
    node.must_post("general", "hello")
    expect(page.get_by_role("log")).to_contain_text("hello")
    assert page.get_by_label("Message to general").count() == 1
    assert page.get_by_role("navigation", name="Rooms").count() == 1
    for field in page.locator("input, textarea, button").all():
        name = field.evaluate(
            "e => e.ariaLabel || [...(e.labels ?? [])].map(l => l.textContent).join('') || e.textContent"
        )
        assert name.strip(), field
    page.get_by_role("link", name="general").focus()
    page.keyboard.press("Enter")
    expect(page.locator("#title")).to_have_text("general")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_the_rooms_are_a_drawer_and_nothing_sticks_out(
    new_context: NewContext, node: Node, scheme: str
) -> None:
    node.must_post("general", "a-very-long-word-" * 40)
    node.must_post("ops", "x")
    context = new_context(viewport={"width": 360, "height": 640}, has_touch=True, color_scheme=scheme)
    page = visit(context.pages[0], node)
    expect(page.locator(".message")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    expect(page.locator("#side")).to_be_hidden()
    page.tap("#menu")
    expect(page.locator("#side")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#side")).to_be_hidden()
    page.tap("#menu")
    page.locator("#rooms a", has_text="ops").tap()
    expect(page.locator("#side")).to_be_hidden()
    expect(page.locator("#title")).to_have_text("ops")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(int(part) for part in background.removeprefix("rgb(").removesuffix(")").split(","))
    assert (brightness > 382) == (scheme == "light")


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 800)])
def test_long_names_and_words_push_nothing_off_the_page(
    new_context: NewContext, node: Node, tmp_path: Path, width: int, height: int
) -> None:
    room = "r" * 255
    assert node.post(room, "w" * 5000, user="u" * 255).status_code == 201
    page = visit(new_context(viewport={"width": width, "height": height}).pages[0], node, f"/#{room}")
    expect(page.locator(".message")).to_have_count(1)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    for part in ("#title", "#state", ".message .text", ".byline time", "#message", "#send"):
        box = page.locator(part).bounding_box()
        assert box is not None, part
        assert 0 <= box["x"] <= box["x"] + box["width"] <= width, part
    say(page, "v" * 5000, "n" * 255)
    expect(page.locator(".message")).to_have_count(2)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate("document.querySelector('#scroll').scrollWidth") <= width
    page.screenshot(path=tmp_path / f"long-{width}.png")


class _Prefix(http.server.BaseHTTPRequestHandler):
    """A proxy that strips `/chat/` from paths; of WebSockets it knows nothing."""

    target: ClassVar[str]
    protocol_version = "HTTP/1.1"

    def _pass_on(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        path = self.path.removeprefix("/chat")
        inside = self.path.startswith("/chat/") and "upgrade" not in self.headers.get("Connection", "").lower()
        answer = httpx2.request(self.command, self.target + path, content=self.rfile.read(size)) if inside else None
        self.send_response(answer.status_code if answer else 404)
        for name, value in answer.headers.items() if answer else ():
            if name not in ("content-length", "connection", "date", "content-encoding"):
                self.send_header(name, value)
        body = answer.content if answer else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _pass_on

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def behind_a_prefix(node: Node) -> Iterator[str]:
    handler = type("Handler", (_Prefix,), {"target": node.url})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/chat/"
        server.shutdown()


def test_it_works_behind_a_prefix(new_context: NewContext, node: Node, behind_a_prefix: str) -> None:
    node.must_post("general", "hello")
    node.must_post("ops", "hello")
    page = new_context().pages[0]
    page.goto(behind_a_prefix)
    expect(page.locator(".message .text")).to_have_text(["hello"])
    expect(page.locator("#rooms .name")).to_have_text(["general", "ops"])
    say(page, "from behind", "Ada")
    expect(page.locator(".message .text")).to_have_text(["hello", "from behind"])
    wait_for("posted", lambda: node.texts("general") == ["hello", "from behind"], 5)

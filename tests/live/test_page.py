"""The page, in the system's Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Playwright,
    ViewportSize,
    expect,
    sync_playwright,
)

from tests.live.browser import FLAGS
from tests.live.conftest import node_packages, tool
from tests.live.connection import fetch
from tests.live.servers import Server
from tests.live.services import SECRET, make_token, production

expect.set_options(timeout=20_000)
PHONE: ViewportSize = {"width": 360, "height": 740}


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright: Playwright) -> Iterator[Browser]:
    flags = [flag for flag in FLAGS if flag != "--headless"]
    browser = playwright.chromium.launch(executable_path=tool("chromium"), args=flags)
    yield browser
    browser.close()


class Complaints(list[str]):
    """What pages say in their console, and what goes wrong in them."""

    def watch(self, page: Page) -> Page:
        page.on("console", self._hear)
        page.on("pageerror", self._fail)
        return page

    def _hear(self, said: ConsoleMessage) -> None:
        if said.type in ("error", "warning"):
            self.append(said.text)

    def _fail(self, error: Exception) -> None:
        self.append(str(error))


@pytest.fixture
def complaints() -> Iterator[Complaints]:
    found = Complaints()
    yield found
    assert found == []


@pytest.fixture
def page(browser: Browser, development: Server, complaints: Complaints) -> Iterator[Page]:
    context = browser.new_context(base_url=development.url)
    opened = complaints.watch(context.new_page())
    opened.goto("/")
    yield opened
    context.close()


def begin_counter(page: Page, count: int, interval: float) -> None:
    page.get_by_label("Events", exact=True).fill(str(count))
    page.get_by_label("Seconds between").fill(str(interval))
    page.get_by_role("button", name="Start").click()


def test_the_counter(page: Page) -> None:
    begin_counter(page, 5, 0.05)
    expect(page.locator("#counter [data-said]")).to_have_text(
        "5 events over one connection, none lost and none twice."
    )
    expect(page.locator("#counter [data-number]")).to_have_text("4")
    frames = page.locator("#frames .frame").all_inner_texts()
    assert [text.split("\n") for text in frames] == [
        [f"id: {number}", f"data: {number}"] for number in range(5)
    ]
    expect(page.locator("#curl")).to_contain_text("/sse/v1?count=5&interval=0.05'")


def test_a_connection_that_is_dropped(page: Page) -> None:
    begin_counter(page, 8, 0.5)
    expect(page.locator("#counter [data-number]")).to_have_text(re.compile("[1-6]"))
    page.locator("#counter").get_by_role("button", name="Drop my connection").click()
    expect(page.locator("#state")).to_contain_text("opened again in")
    expect(page.locator("#counter [data-said]")).to_have_text(
        "8 events over 2 connections, none lost and none twice."
    )
    assert re.search("GET /sse/v1, after [1-7]", page.locator("#frames").inner_text())


def test_the_counter_is_stopped(page: Page) -> None:
    begin_counter(page, 1000, 0.1)
    expect(page.locator("#counter [data-number]")).to_have_text(re.compile("[1-9]"))
    page.locator("#counter").get_by_role("button", name="Stop").click()
    expect(page.locator("#state")).to_have_text("stopped")
    expect(page.locator("#counter").get_by_role("button", name="Stop")).to_be_disabled()


def ask(page: Page, text: str) -> None:
    page.get_by_role("tab", name="Chat").click()
    page.get_by_label("Message").fill(text)
    page.get_by_role("button", name="Send").click()


def answer(page: Page) -> str:
    return page.locator("#chat .answer").last.inner_text()


def test_chat(page: Page) -> None:
    ask(page, "hello **you**")
    expect(page.locator("#chat .assistant")).to_contain_text("You said: hello you")
    expect(page.locator("#chat .assistant strong")).to_have_text("you")
    expect(page.locator("#chat .user")).to_have_text("hello **you**")
    expect(page.locator("#state")).to_have_text("done")


def test_what_a_model_says_is_never_markup(page: Page) -> None:
    ask(page, '<img src=x onerror="alert(1)"> [a](javascript:alert(1))')
    expect(page.locator("#chat .assistant")).to_contain_text('<img src=x onerror="alert(1)">')
    assert page.locator("#chat .assistant img, #chat .assistant a").count() == 0


@pytest.mark.parametrize("what", ["reload", "drop"])
def test_an_answer_goes_on(page: Page, what: str) -> None:
    ask(page, what)
    expect(page.locator("#chat .assistant")).to_contain_text("I am the demo")
    if what == "reload":
        page.reload()
    else:
        page.locator("#chat").get_by_role("button", name="Drop my connection").click()
    expect(page.locator("#chat .answer")).to_have_text(
        re.compile(rf"^I am the demo model .*You said: {what}$", re.DOTALL)
    )


def test_an_answer_is_stopped(page: Page) -> None:
    ask(page, "stop")
    expect(page.locator("#chat .assistant")).to_contain_text("I am the demo")
    page.locator("#chat").get_by_role("button", name="Stop").click()
    expect(page.locator("#chat .ended")).to_have_text("Ended: stopped")
    assert "You said" not in answer(page)


def test_a_second_window_watches(page: Page, complaints: Complaints) -> None:
    ask(page, "watch")
    with page.context.expect_page() as opening:
        page.get_by_role("link", name="Watch in a second window").click()
    second = complaints.watch(opening.value)
    for each in (page, second):
        expect(each.locator("#chat .assistant")).to_contain_text("You said: watch")
    assert answer(page) == answer(second)


def test_tabs_share_one_connection(page: Page, complaints: Complaints) -> None:
    other = complaints.watch(page.context.new_page())
    other.goto("/#notifications")
    expect(other.locator("[data-share]")).to_contain_text("This tab reads")
    expect(other.locator("#state")).to_have_text("open")
    page.get_by_role("tab", name="Notifications").click()
    expect(page.locator("[data-share]")).to_contain_text("Another tab")
    page.get_by_label("A notification").fill("first")
    page.get_by_role("button", name="Publish").click()
    for each in (page, other):
        expect(each.locator("[data-notes] li")).to_have_text(["first"])
    other.close()
    expect(page.locator("[data-share]")).to_contain_text("This tab reads")
    expect(page.locator("#state")).to_have_text("open")
    page.get_by_label("A notification").fill("second")
    page.get_by_role("button", name="Publish").click()
    expect(page.locator("[data-notes] li")).to_have_text(["second", "first"])


def test_by_keyboard(page: Page) -> None:
    page.get_by_role("tab", name="Counter").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Chat")).to_be_focused()
    expect(page.locator("#chat")).to_be_visible()
    page.keyboard.press("End")
    expect(page.locator("#notifications")).to_be_visible()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Counter")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("panel", ["counter", "chat", "notifications"])
def test_nothing_keeps_anybody_out(
    browser: Browser,
    development: Server,
    complaints: Complaints,
    panel: str,
    scheme: Literal["light", "dark"],
) -> None:
    axe = (node_packages() / "node_modules" / "axe-core" / "axe.min.js").read_text()
    context = browser.new_context(base_url=development.url, color_scheme=scheme, viewport=PHONE)
    page = complaints.watch(context.new_page())
    page.goto(f"/#{panel}")
    expect(page.locator(f"#{panel}")).to_be_visible()
    page.evaluate(axe)
    found = page.evaluate("axe.run().then((found) => found.violations)")
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    context.close()


def test_signing_in(browser: Browser, tmp_path: Path, complaints: Complaints) -> None:
    settings = {"SSEFLASK_SECRET": SECRET, "SSEFLASK_PAGE": "true"}
    token = make_token("--sub", "alice", "--publish", "page.*", "--subscribe", "page.*")
    with production(tmp_path, settings) as server:
        context = browser.new_context(base_url=server.url)
        page = context.new_page()
        page.goto("/#notifications")
        expect(page.locator("[data-share]")).to_contain_text("token")
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("#who")).to_have_text("signed in as alice")
        expect(page.locator("#state")).to_have_text("open")
        complaints.watch(page)
        page.get_by_label("A notification").fill("hello")
        page.get_by_role("button", name="Publish").click()
        expect(page.locator("[data-notes] li")).to_have_text(["hello"])
        page.get_by_role("button", name="Sign out").click()
        expect(page.locator("#who")).to_have_text("")
        context.close()
        assert "content-security-policy" in fetch(server, "/").headers


def test_in_production_it_is_there_when_it_is_asked_for(guarded_runs: Server) -> None:
    assert fetch(guarded_runs, "/").status == 404

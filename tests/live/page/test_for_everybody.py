"""Without a mouse, without seeing, on a phone, with large letters, without scripts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, ViewportSize, expect

from tests.live.kit.servers import Server
from tests.live.kit.tools import node_packages
from tests.live.page.conftest import Complaints
from tests.live.page.test_live_data import open_live
from tests.live.page.test_panels import ask, begin_counter, publish

DESKTOP: ViewportSize = {"width": 1280, "height": 800}
PHONE: ViewportSize = {"width": 360, "height": 740}
NARROW: ViewportSize = {"width": 320, "height": 640}


def fill_counter(page: Page) -> None:
    begin_counter(page, 30, 0)
    expect(page.locator("#counter [data-number]")).to_have_text("29")


def fill_chat(page: Page) -> None:
    ask(page, "# A `title`\n\n- and https://an.address/that-is-long?and=has&no=place-to-break")
    expect(page.locator("#state")).to_have_text("done")


def fill_notifications(page: Page) -> None:
    page.get_by_role("tab", name="Notifications").click()
    publish(page, "a-word-without-an-end" * 10)
    expect(page.locator("[data-notes] li").first).to_be_visible()


def fill_live(page: Page) -> None:
    open_live(page)
    page.get_by_text("As a table").click()
    expect(page.locator("#live tbody td").first).to_be_visible()


FILL: dict[str, Callable[[Page], None]] = {
    "counter": fill_counter,
    "chat": fill_chat,
    "notifications": fill_notifications,
    "live": fill_live,
}


@pytest.mark.parametrize("panel", FILL)
def test_nothing_keeps_anybody_out(page: Page, panel: str) -> None:
    axe = (node_packages() / "node_modules" / "axe-core" / "axe.min.js").read_text()
    page.set_viewport_size(PHONE)
    page.get_by_text("Sign in").first.click()
    FILL[panel](page)
    page.evaluate(axe)
    looks: list[tuple[Literal["light", "dark"], ViewportSize]]
    looks = [("light", PHONE), ("dark", PHONE), ("dark", DESKTOP)]
    for scheme, size in looks:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size(size)
        found = page.evaluate("axe.run().then((found) => found.violations)")
        assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found] == []
    for size, letters in ((PHONE, "100%"), (NARROW, "100%"), (NARROW, "200%"), (DESKTOP, "200%")):
        page.set_viewport_size(size)
        page.evaluate("(size) => { document.documentElement.style.fontSize = size; }", letters)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= size["width"], f"{panel} at {size} with letters of {letters}"


def focused(page: Page) -> str:
    return str(
        page.evaluate(
            "(document.activeElement.id || document.activeElement.name"
            " || document.activeElement.textContent).trim()"
        )
    )


def test_by_keyboard(page: Page) -> None:
    page.keyboard.press("Tab")
    assert focused(page) == "Sign in"
    page.keyboard.press("Tab")
    assert focused(page) == "tab-counter"
    page.keyboard.press("ArrowRight")
    expect(page.locator("#chat")).to_be_visible()
    page.keyboard.press("End")
    expect(page.locator("#live")).to_be_visible()
    expect(page.get_by_role("tab", name="Live data")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Counter")).to_be_focused()
    order = []
    for _ in range(6):
        page.keyboard.press("Tab")
        order.append(focused(page))
    assert order == ["count", "interval", "Start", "curl", "copy", "frames"]
    page.get_by_label("Events", exact=True).focus()
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_text("open")
    # Past the number of events, the seconds and Start.
    for _ in range(3):
        page.keyboard.press("Tab")
    assert focused(page) == "stop"
    page.keyboard.press("Enter")
    expect(page.locator("#state")).to_have_text("stopped")
    page.get_by_role("tab", name="Counter").focus()
    page.keyboard.press("ArrowRight")
    page.get_by_label("Message").focus()
    page.keyboard.type("one\ntwo")
    expect(page.locator("#chat .user")).to_have_text("one")
    expect(page.get_by_label("Message")).to_have_value("two")


@pytest.fixture
def scriptless(browser: Browser, development: Server) -> Iterator[Page]:
    context = browser.new_context(base_url=development.url, java_script_enabled=False)
    yield context.new_page()
    context.close()


def test_without_scripts_it_says_so(scriptless: Page, complaints: Complaints) -> None:
    complaints.watch(scriptless)
    scriptless.goto("/")
    expect(scriptless.locator("#scriptless")).to_be_visible()

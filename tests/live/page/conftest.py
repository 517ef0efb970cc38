"""The page in the system's Chromium: one browser for all tests of it, a fresh context for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import (
    Browser,
    ConsoleMessage,
    Page,
    Playwright,
    expect,
    sync_playwright,
)

from tests.live.kit.browser import FLAGS, chromium_program
from tests.live.kit.servers import Server
from tests.live.kit.still_network import addresses_stay

expect.set_options(timeout=20_000)

#: A name of this machine that a browser does not take for it: its pages have no secure context.
ELSEWHERE = "page.test"


@pytest.fixture(autouse=True)
def still() -> Iterator[None]:
    with addresses_stay():
        yield


@pytest.fixture(scope="package")
def playwright() -> Iterator[Playwright]:
    with sync_playwright() as started:
        yield started


@pytest.fixture(scope="package")
def browser(playwright: Playwright) -> Iterator[Browser]:
    browser = playwright.chromium.launch(
        executable_path=chromium_program(),
        args=[*FLAGS, f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"],
        # As it is for people: a page that they come back to may be there still.
        ignore_default_args=["--disable-back-forward-cache"],
    )
    yield browser
    browser.close()


class Complaints(list[str]):
    """What pages say in their console, violations of their policy too, and what goes wrong."""

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

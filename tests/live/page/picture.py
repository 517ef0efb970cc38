"""Takes the README's pictures of the page, docs/page-light.png and docs/page-dark.png.

python -m tests.live.page.picture

Of the real service with two workers and some clients, in the system's Chromium, after a minute and
a half.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page, ViewportSize, expect, sync_playwright

from tests.live.kit.browser import FLAGS, chromium_program
from tests.live.kit.clients import open_stream
from tests.live.kit.connection import fetch
from tests.live.kit.servers import ROOT, Server
from tests.live.kit.services import service

SIZE: ViewportSize = {"width": 1280, "height": 810}
#: When clients come and how long they stay, in seconds, how many they are and what they read.
CLIENTS = (
    (4, 96, 6, "/channels/orders.*"),
    (12, 40, 4, "/sse/v1?count=100000&interval=0.2"),
    (30, 66, 9, "/channels/orders.*"),
    (58, 38, 5, "/sse/v1?count=100000&interval=0.05"),
)
SECONDS = 92
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")


def clients(server: Server, begin: float, seconds: float, count: int, path: str) -> None:
    time.sleep(begin)
    with ExitStack() as stack:
        for _ in range(count):
            stack.enter_context(open_stream(server, path))
        time.sleep(seconds)


@contextmanager
def traffic(server: Server) -> Iterator[None]:
    """Clients that come and go, a publisher, and completions, until the end of the block."""
    over = threading.Event()

    def publish() -> None:
        number = 0
        while not over.wait(0.06 if number % 240 < 180 else 0.3):
            number += 1
            fetch(server, "/channels/orders.eu", method="POST", body=b'{"data": {"order": 1}}')

    def ask() -> None:
        while not over.wait(1.5):
            fetch(server, "/sse/openai_out?user_message=Hello", method="POST")

    jobs = [threading.Thread(target=clients, args=(server, *each)) for each in CLIENTS]
    jobs += [threading.Thread(target=publish), threading.Thread(target=ask)]
    for job in jobs:
        job.start()
    try:
        yield
    finally:
        over.set()
        for job in jobs:
            job.join()


def take(page: Page, server: Server) -> None:
    """Two pictures of the same moment, as far as a moment lasts."""
    page.goto(f"{server.url}/#live")
    expect(page.locator("#state")).to_have_text("open")
    with traffic(server):
        time.sleep(SECONDS)
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.screenshot(path=ROOT / "docs" / f"page-{scheme}.png", animations="disabled")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as stack:
        server = stack.enter_context(service(Path(directory), workers=2))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium_program(), args=FLAGS)
        take(browser.new_page(viewport=SIZE), server)
        browser.close()
    for scheme in SCHEMES:
        path = ROOT / "docs" / f"page-{scheme}.png"
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

"""Headless Chromium: shown an address, or steered by Playwright."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.live.kit.still_network import addresses_stay
from tests.live.kit.tools import tool

#: For Playwright, which chooses by itself how to go without a window.
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium_program() -> str:
    """Chromium without its window, which starts sooner, if it is installed; else the full one."""
    return shutil.which("chromium-headless-shell") or tool("chromium")


@contextlib.contextmanager
def chromium(directory: Path, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """A browser showing that address, until the block is left."""
    program = chromium_program()
    with addresses_stay(), (directory / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--headless", *FLAGS, f"--user-data-dir={directory / 'profile'}", address],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        with process:
            try:
                yield process
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)


@contextlib.contextmanager
def chromium_page() -> Iterator[Page]:
    """An empty page, steered from here, which takes any certificate."""
    with addresses_stay(), sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_program(), args=FLAGS)
        yield browser.new_page(ignore_https_errors=True)
        browser.close()


#: Reads streams in a page with the project's own module, all at the same time, without the random
#: part of its delays. Returns what the module reports of each stream, as tests/node/sse.mjs prints
#: it. If the page has a function `seen`, it is called at each event.
READ = """
(reads) => Promise.all(reads.map(async ({ module, url, options }) => {
  const { stream } = await import(module);
  Math.random = () => 0;
  const reported = [];
  const ended = await stream(url, {
    retry: 10,
    ...options,
    onOpen: (response) => reported.push(["open", response.status]),
    onEvent: ({ id, event, data }) => {
      reported.push(["event", id, event, data]);
      globalThis.seen?.(url);
    },
    onGap: (gap) => reported.push(["gap", gap]),
    onDone: (data) => reported.push(["done", data ?? null]),
    onFailure: (error) => reported.push(["failure", error.message, error.code ?? null]),
    onRetry: ({ delay, lastEventId }) => reported.push(["again", lastEventId, delay]),
  });
  reported.push(["ended", ended]);
  return reported;
}))
"""

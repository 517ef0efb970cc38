"""Headless Chromium, told nothing but an address: its pages report by themselves."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

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
    """Chromium without the parts that nobody sees, which start slowly; else the whole one."""
    return shutil.which("chromium-headless-shell") or tool("chromium")


@contextlib.contextmanager
def chromium(directory: Path, address: str) -> Iterator[subprocess.Popen[bytes]]:
    """A browser showing that address, until the block is left."""
    program = chromium_program()
    with (directory / "chromium.log").open("wb") as log:
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
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_program(), args=FLAGS)
        yield browser.new_page(ignore_https_errors=True)
        browser.close()


#: Reads streams in a page by the project's own module, all at the same time. Gives what it tells of
#: each, as tests/node/sse.mjs prints it, and tells `seen` of each event at once where the page has
#: such a function. Without the random part of its delays.
READ = """
(reads) => Promise.all(reads.map(async ({ module, url, options }) => {
  const { stream } = await import(module);
  Math.random = () => 0;
  const told = [];
  const ended = await stream(url, {
    retry: 10,
    ...options,
    onOpen: (response) => told.push(["open", response.status]),
    onEvent: ({ id, event, data }) => {
      told.push(["event", id, event, data]);
      globalThis.seen?.(url);
    },
    onGap: (gap) => told.push(["gap", gap]),
    onDone: (data) => told.push(["done", data ?? null]),
    onFailure: (error) => told.push(["failure", error.message, error.code ?? null]),
    onRetry: ({ delay, lastEventId }) => told.push(["again", lastEventId, delay]),
  });
  told.push(["ended", ended]);
  return told;
}))
"""

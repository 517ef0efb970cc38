"""A server of pages for browsers, which post their results to it."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.scripted_upstream import Exchange, upstream

__all__ = ["Collector", "collector"]


_KINDS = {"html": "text/html", "js": "text/javascript"}


class Collector:
    """What pages have posted, by path.

    Args:
        url: where they post it.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._said: dict[str, queue.Queue[str]] = {}
        self._lock = threading.Lock()

    def queue(self, path: str) -> queue.Queue[str]:
        with self._lock:
            return self._said.setdefault(path, queue.Queue())

    def wait(self, path: str, seconds: float = 60.0) -> str:
        """The next of what is posted to a path."""
        return self.queue(path).get(timeout=seconds)


@contextlib.contextmanager
def collector(**files: Path) -> Iterator[Collector]:
    """Listens until the end of the block.

    Args:
        files: what a GET is answered with, by the last part of its path without its suffix.
    """
    seen = Collector("")

    def answer(exchange: Exchange) -> None:
        method, target, _ = exchange.line.split(" ")
        if method == "POST":
            exchange.send(b"HTTP/1.1 204 No Content\r\n\r\n")
            seen.queue(target).put(exchange.content.decode())
        else:
            name, _, kind = target.partition("?")[0].rpartition("/")[2].partition(".")
            exchange.answer(200, files[name].read_bytes(), _KINDS[kind])

    with upstream(answer) as server:
        seen.url = server.url.removesuffix("/v1")
        yield seen

"""Where pages of the tests come from, and what they report to."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

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

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.partition("?")[0].rpartition("/")[2]
            body = files[name.partition(".")[0]].read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", _KINDS[name.rpartition(".")[2]])
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.send_response(204)
            self.end_headers()
            seen.queue(self.path).put(body)

        def log_message(self, format: str, *args: object) -> None:
            """Not on the terminal."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        seen = Collector(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield seen
        finally:
            server.shutdown()
            thread.join()

"""The judge of the table of frames: headless Chromium's own EventSource."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.live.kit.browser import chromium
from tests.live.kit.servers import ROOT
from tests.vectors.table import Vector, frames

VECTORS = frames()
TYPES = sorted({message.event for vector in VECTORS for message in vector.messages})
#: What Chromium waits before it reconnects unless a stream says otherwise.
DEFAULT_RETRY = 3.0


@dataclass
class Verdict:
    """What the browser made of the vectors."""

    dispatched: dict[str, list[list[str]]] = field(default_factory=dict)
    last_event_ids: dict[int, str] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)
    pauses: dict[int, float] = field(default_factory=dict)
    complete: threading.Event = field(default_factory=threading.Event)


class Handler(BaseHTTPRequestHandler):
    """Serves the page and each vector once; a reconnection is noted and answered with 204."""

    protocol_version = "HTTP/1.1"
    verdict: Verdict

    def answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        if status != 204:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.path == "/":
            page = ROOT / "tests/live/kit/pages/vectors.html"
            self.answer(200, "text/html", page.read_bytes())
        elif self.path == "/table":
            table = {"names": [vector.name for vector in VECTORS], "types": TYPES}
            self.answer(200, "application/json", json.dumps(table).encode())
        elif self.path.startswith("/stream/"):
            self.stream(int(self.path.removeprefix("/stream/")))
        else:
            self.answer(404, "text/plain", b"")

    def stream(self, index: int) -> None:
        verdict = self.verdict
        if index not in verdict.ended:
            self.answer(200, "text/event-stream", VECTORS[index].stream)
            verdict.ended[index] = time.monotonic()
            return
        verdict.pauses[index] = time.monotonic() - verdict.ended[index]
        header = self.headers.get("Last-Event-ID", "")
        verdict.last_event_ids[index] = header.encode("latin-1").decode()
        self.answer(204, "", b"")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.verdict.dispatched = json.loads(body)
        self.answer(204, "", b"")
        self.verdict.complete.set()

    def log_message(self, format: str, *args: object) -> None:
        """Not on the terminal."""


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Verdict]:
    """One start of the browser for all vectors."""
    verdict = Verdict()

    class Bound(Handler):
        pass

    Bound.verdict = verdict
    with ThreadingHTTPServer(("127.0.0.1", 0), Bound) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        directory = tmp_path_factory.mktemp("chromium")
        try:
            with chromium(directory, f"http://127.0.0.1:{server.server_port}/"):
                if not verdict.complete.wait(60):
                    missing = [
                        vector.name
                        for index, vector in enumerate(VECTORS)
                        if index not in verdict.pauses
                    ]
                    pytest.fail(f"Chromium did not finish; not reconnected: {missing}")
            yield verdict
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.parametrize(
    ("index", "vector"),
    list(enumerate(VECTORS)),
    ids=[vector.name for vector in VECTORS],
)
def test_chromium_agrees(verdict: Verdict, index: int, vector: Vector) -> None:
    standard = [[message.data, message.event, message.last_event_id] for message in vector.messages]
    if vector.chromium is None:
        assert verdict.dispatched[vector.name] == standard
    else:
        assert verdict.dispatched[vector.name] != standard, "no longer a departure: say so"
    # A header's value can't keep the spaces around it.
    assert verdict.last_event_ids[index] == vector.last_event_id.strip(" ")
    if vector.retry is None:
        assert verdict.pauses[index] > DEFAULT_RETRY * 0.9
    else:
        assert vector.retry < 100, "or this test would wait for it"
        assert verdict.pauses[index] < DEFAULT_RETRY * 0.9

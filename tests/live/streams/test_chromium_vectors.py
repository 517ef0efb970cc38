"""The judge of the table of frames: headless Chromium's own EventSource."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field

import pytest

from tests.live.kit.browser import chromium
from tests.live.kit.servers import ROOT
from tests.scripted_upstream import Exchange, upstream
from tests.vectors.table import Vector, frames

VECTORS = frames()
TYPES = sorted({message.event for vector in VECTORS for message in vector.messages})
PAGE = ROOT / "tests/live/kit/pages/vectors.html"
NOTHING = b"HTTP/1.1 204 No Content\r\n\r\n"
#: What Chromium waits before it reconnects unless a stream says otherwise.
DEFAULT_RETRY = 3.0


@dataclass
class Verdict:
    """What the browser made of the vectors: it asks for each of them, and reports once."""

    dispatched: dict[str, list[list[str]]] = field(default_factory=dict)
    last_event_ids: dict[int, str] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)
    pauses: dict[int, float] = field(default_factory=dict)
    complete: threading.Event = field(default_factory=threading.Event)

    def __call__(self, exchange: Exchange) -> None:
        """Serves the page and each vector once; a reconnection is noted and answered with 204."""
        method, path, _ = exchange.line.split(" ")
        if method == "POST":
            self.dispatched = exchange.body
            exchange.send(NOTHING)
            self.complete.set()
        elif path == "/":
            exchange.answer(200, PAGE.read_bytes(), "text/html")
        elif path == "/table":
            table = {"names": [vector.name for vector in VECTORS], "types": TYPES}
            exchange.answer(200, json.dumps(table).encode())
        elif path.startswith("/stream/"):
            self.stream(int(path.removeprefix("/stream/")), exchange)
        else:
            exchange.answer(404, b"", "text/plain")

    def stream(self, index: int, exchange: Exchange) -> None:
        if index not in self.ended:
            # Before: the browser may come back while the answer's last bytes are on their way.
            self.ended[index] = time.monotonic()
            exchange.answer(200, VECTORS[index].stream, "text/event-stream")
            return
        self.pauses[index] = time.monotonic() - self.ended[index]
        self.last_event_ids[index] = exchange.headers.get("last-event-id", "")
        exchange.send(NOTHING)


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    """One start of the browser for all vectors."""
    verdict = Verdict()
    directory = tmp_path_factory.mktemp("chromium")
    with (
        upstream(verdict) as server,
        chromium(directory, server.url.removesuffix("/v1")),
    ):
        if not verdict.complete.wait(60):
            missing = [each.name for n, each in enumerate(VECTORS) if n not in verdict.pauses]
            pytest.fail(f"Chromium did not finish; not reconnected: {missing}")
    return verdict


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

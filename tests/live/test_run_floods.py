"""An upstream that never pauses, which no third party's server can be had to be: a script."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.connection import fetch
from tests.live.stage import stage_service, start
from tests.live.waiting import until

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
CHUNK = b'data: {"choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n'


class Flood:
    """Answers each request with the same bytes for as long as they are taken."""

    def __init__(self, piece: bytes) -> None:
        self.left = threading.Event()
        self._piece = piece * (65536 // len(piece))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._serve)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                with client, contextlib.suppress(OSError):
                    client.recv(65536)
                    client.sendall(HEAD)
                    while True:
                        client.sendall(self._piece)
                self.left.set()

    @contextlib.contextmanager
    def running(self) -> Iterator[Flood]:
        self._thread.start()
        try:
            yield self
        finally:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._thread.join(20)
            assert not self._thread.is_alive()


@pytest.mark.parametrize("piece", [b": ping\n\n", CHUNK], ids=["comments", "chunks"])
def test_a_flood_stops_nobody(tmp_path: Path, piece: bytes) -> None:
    """Others are served meanwhile, and the leaving of the one client ends it."""
    with (
        Flood(piece).running() as flood,
        stage_service(tmp_path, flood.port, workers=1) as server,
    ):
        with start(server, "anything", format="text", on_disconnect="cancel"):
            for _ in range(5):
                assert fetch(server, "/healthz").status == 200
        until(flood.left.is_set, "the upstream's connection closed")

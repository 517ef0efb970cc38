"""An upstream that never pauses, which no third party's server can be had to be: a script."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from tests.certificates import certified
from tests.completions.scripted import STREAM_HEAD, Exchange, upstream
from tests.live.connection import fetch
from tests.live.stage import stage_service, start
from tests.live.waiting import until

CHUNK = b'data: {"choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n'
#: Seconds of its processor's time that a worker may take for another request and the flood
#: meanwhile: many times what it does. That is the same however busy the machine is.
PROMPTLY = 0.1
REQUESTS = 20


@pytest.mark.parametrize("piece", [b": ping\n\n" * 50 + CHUNK, CHUNK], ids=["comments", "chunks"])
@pytest.mark.parametrize("chunked", [True, False], ids=["chunked", "until the end"])
@pytest.mark.parametrize("over_tls", [False, True], ids=["TCP", "TLS"])
def test_a_flood_stops_nobody(tmp_path: Path, piece: bytes, chunked: bool, over_tls: bool) -> None:
    """Others are served meanwhile, and the leaving of the one client ends it."""
    left = threading.Event()

    def script(exchange: Exchange) -> None:
        head, each = STREAM_HEAD, b"%x\r\n%s\r\n" % (len(piece), piece)
        if not chunked:
            head, each = head.replace(b"Transfer-Encoding: chunked", b"Connection: close"), piece
        exchange.send(head)
        try:
            while True:
                exchange.send(each * (65_536 // len(each)))
        finally:
            left.set()

    certificate = certified(tmp_path)
    with upstream(script, certificate.server if over_tls else None) as flood:
        settings = {"OPENAI_BASE_URL": flood.url, "SSL_CERT_FILE": str(certificate.authority)}
        with stage_service(tmp_path, 0, workers=1, settings=settings) as server:
            (worker,) = server.workers()
            with start(server, "anything", format="text", on_disconnect="cancel"):
                before = sum(worker.cpu_times()[:2])
                for _ in range(REQUESTS):
                    assert fetch(server, "/healthz").status == 200
                taken = sum(worker.cpu_times()[:2]) - before
                assert not left.is_set()
            until(left.is_set, "the upstream's connection closed")
    assert taken / REQUESTS < PROMPTLY


def test_models_end_with_their_client(tmp_path: Path) -> None:
    """Their upstream drips; the client of ours does not wait until that is too long."""
    begun, left = threading.Event(), threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(b"{")
        begun.set()
        if exchange.left():
            left.set()

    with (
        upstream(script) as slow,
        stage_service(tmp_path, 0, workers=1, settings={"OPENAI_BASE_URL": slow.url}) as server,
    ):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert begun.wait(10)
            assert not left.is_set()
        until(left.is_set, "the upstream's connection closed")

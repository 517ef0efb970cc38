"""An upstream that never pauses: a script, as no third party's server does that."""

from __future__ import annotations

import select
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.certificates import certified
from tests.live.kit.connection import fetch
from tests.live.kit.runs import read_run, run_of, run_service, start
from tests.live.kit.servers import Server
from tests.live.kit.waiting import until
from tests.scripted_upstream import STREAM_HEAD, Exchange, upstream

CHUNK = b'data: {"choices": [{"index": 0, "delta": {"content": "word "}}]}\n\n'
#: Seconds of its processor's time that a worker may take for another request and the flood
#: meanwhile: many times what it does. That is the same however busy the machine is.
PROMPTLY = 0.1
REQUESTS = 20
#: Bytes that a worker may have stored before it looks whether there is room for them.
TRANSACTIONS = 1 << 19


@dataclass
class Flooded:
    """A service of one worker, and what it asks.

    Args:
        server: the service.
        left: the messages of floods whose connection was closed.
    """

    server: Server
    left: list[str]


@pytest.fixture(scope="module", params=[False, True], ids=["TCP", "TLS"])
def flooded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Flooded]:
    """What floods it does so as the words of the message say."""
    left: list[str] = []

    def script(exchange: Exchange) -> None:
        message = exchange.body["messages"][-1]["content"]
        piece = b": ping\n\n" * 50 + CHUNK if "comments" in message else CHUNK
        head, each = STREAM_HEAD, b"%x\r\n%s\r\n" % (len(piece), piece)
        if "chunked" not in message:
            head, each = head.replace(b"Transfer-Encoding: chunked", b"Connection: close"), piece
        exchange.send(head)
        try:
            while True:
                exchange.send(each * (65_536 // len(each)))
        finally:
            left.append(message)

    directory = tmp_path_factory.mktemp("flooded")
    certificate = certified(directory)
    with upstream(script, certificate.server if request.param else None) as flood:
        settings = {"OPENAI_BASE_URL": flood.url, "SSL_CERT_FILE": str(certificate.authority)}
        with run_service(directory, 0, workers=1, settings=settings) as server:
            yield Flooded(server, left)


@pytest.mark.parametrize("what", ["comments", "chunks"])
@pytest.mark.parametrize("how", ["chunked", "until the end"])
def test_a_flood_stops_nobody(flooded: Flooded, what: str, how: str, tag: str) -> None:
    """Other clients are served meanwhile, and it ends when its one client leaves."""
    message = f"{what}, {how} {tag}"
    (worker,) = flooded.server.workers()
    with start(flooded.server, message, format="text", on_disconnect="cancel"):
        before = sum(worker.cpu_times()[:2])
        for _ in range(REQUESTS):
            assert fetch(flooded.server, "/healthz").status == 200
        taken = sum(worker.cpu_times()[:2]) - before
        assert not flooded.left.count(message)
    until(lambda: message in flooded.left, "the upstream's connection closed")
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
        run_service(tmp_path, 0, workers=1, settings={"OPENAI_BASE_URL": slow.url}) as server,
    ):
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /v1/models HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert begun.wait(10)
            assert not left.is_set()
        until(left.is_set, "the upstream's connection closed")


def test_a_run_is_bounded_in_bytes_and_seconds_and_the_store_in_bytes(tmp_path: Path) -> None:
    """They have no viewers, and their upstreams never end."""
    left: list[str] = []

    def script(exchange: Exchange) -> None:
        message = exchange.body["messages"][-1]["content"]
        piece = CHUNK if message == "flood" else b": thinking\n\n"
        each = b"%x\r\n%s\r\n" % (len(piece), piece)
        exchange.send(STREAM_HEAD)
        try:
            while True:
                exchange.send(each * (65_536 // len(each) if message == "flood" else 1))
                if message == "quiet" and select.select([exchange.connection], [], [], 0.1)[0]:
                    return
        finally:
            left.append(message)

    log, most = tmp_path / "runs.sqlite", 4_000_000
    with upstream(script) as scripted:
        settings = {
            "OPENAI_BASE_URL": scripted.url,
            "SSEFLASK_RUN_LOG": str(log),
            "SSEFLASK_RUN_LOG_BYTES": str(most),
            "SSEFLASK_MAX_RUN_BYTES": "500000",
            "SSEFLASK_MAX_RUN_SECONDS": "2",
        }
        with run_service(tmp_path, 0, workers=2, settings=settings) as server:
            for count in range(1, 21):
                with start(server, "flood", on_disconnect="continue") as stream:
                    run = run_of(stream)
                until(lambda: len(left) == count, "the upstream is left")  # noqa: B023  # at once
            answer = read_run(server, run, "events")
            assert answer.error["code"] == "run_too_large"
            assert 200_000 < len(answer.text) * len(CHUNK) / len("word ") < 500_000, (
                "it can be read"
            )
            assert log.stat().st_size <= most + 2 * TRANSACTIONS
            with start(server, "quiet", format="events", on_disconnect="continue") as stream:
                run = run_of(stream)
            assert read_run(server, run, "events").error["code"] == "run_too_long"
            until(lambda: "quiet" in left, "the upstream is left")

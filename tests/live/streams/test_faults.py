"""What goes wrong in views and generators stays there: proper responses, nothing misread."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.kit.clients import open_stream
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.kinds import GEVENT, probe_command
from tests.live.kit.servers import Server, free_port, running
from tests.live.kit.waiting import until

MIB = 1 << 20


@contextlib.contextmanager
def faulty_server(kind: str, directory: Path) -> Iterator[Server]:
    """The probe, whose log may hold any error: these tests make them."""
    port = free_port()
    command = probe_command(kind, port, "--graceful-timeout", "6")
    with running(kind, command, port, directory) as server:
        yield server


@pytest.fixture(scope="module", params=GEVENT)
def faulty(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    kind: str = request.param
    with faulty_server(kind, tmp_path_factory.mktemp(kind)) as server:
        yield server


def received_until_closed(connection: Connection) -> bytes:
    """Everything that comes; a server that has not read all ends with a reset."""
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.socket.recv(65536):
            received += piece
    return received


@pytest.mark.parametrize("seconds", ["0", "0.3"])
@pytest.mark.parametrize("keep_alive", [{}, {"Connection": "keep-alive"}], ids=["", "keep-alive"])
def test_a_body_is_never_answered_as_requests(
    faulty: Server, seconds: str, keep_alive: dict[str, str], tag: str
) -> None:
    name = f"smuggled-{tag}"
    smuggled = f"POST /wake?tag={name} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
    size = MIB + 60_000
    body = (smuggled * (size // len(smuggled) + 1))[-size:]
    with Connection(faulty) as connection:
        path = f"/faults/early?seconds={seconds}"
        with contextlib.suppress(ConnectionError):  # it need not take all of the body
            connection.request(path, method="POST", headers=keep_alive, body=body)
        received = received_until_closed(connection)
    assert received.count(b"HTTP/1.1 ") == 1, received[:2000]
    head, _, content = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 418 ")
    assert b"\r\nconnection: close" in head.lower()
    assert json.loads(content)["kind"] == "ProbeError"
    woken = json.loads(fetch(faulty, f"/wake?tag={name}", method="POST").body)["woken"]
    assert woken == 1, "no piece of the body was run as a request"


@pytest.mark.parametrize("where", ["generator", "view"])
@pytest.mark.parametrize("tail", [0, 512 * 1024], ids=["at-once", "tail-later"])
def test_a_generator_reads_the_whole_body(faulty: Server, where: str, tail: int) -> None:
    """The tail is sent when the generator's first event has come."""
    body = random.Random(1).randbytes(2 * MIB)
    head, rest = body[: len(body) - tail], body[len(body) - tail :]
    with Connection(faulty) as connection:
        lines = [
            f"POST /faults/body?{where} HTTP/1.1",
            "Host: x",
            f"Content-Length: {len(body)}",
            "Content-Type: application/octet-stream",
        ]
        connection.socket.sendall("\r\n".join([*lines, "", ""]).encode() + head)
        answer = connection.head()
        assert answer.status == 200
        pieces = connection.pieces(answer)
        first = next(pieces)
        assert first.startswith(b"data: first\n\n")
        connection.socket.sendall(rest)
        content = first + b"".join(pieces)
        assert connection.complete
    digest = content.split(b"\n\n")[1].decode()
    assert digest == f"data: {len(body)} {hashlib.sha256(body).hexdigest()}"


@pytest.mark.parametrize(
    "query", ["seconds=0", "seconds=0.5&first_byte=9", "seconds=1&first_byte=0.1"]
)
def test_a_header_that_cannot_be_sent(faulty: Server, query: str, tag: str) -> None:
    with Connection(faulty) as connection:
        connection.request(f"/faults/header?{query}&tag={tag}")
        received = received_until_closed(connection)
    assert received.startswith(b"HTTP/1.1 500 "), received[:500]
    head, _, content = received.partition(b"\r\n\r\n")
    assert content, "it says something"
    assert b"data: first" not in received
    assert received.count(b"HTTP/1.1 ") == 1
    assert b"\r\nx-title" not in head.lower()
    faulty.wait_for_mark(tag, "finally")
    assert faulty.marks(tag) == ["finally"]
    assert fetch(faulty, "/hello").status == 200


@pytest.mark.parametrize("how", ["plain", "events"])
def test_empty_pieces_let_others_run(faulty: Server, how: str, tag: str) -> None:
    name = f"{faulty.kind}-{tag}"
    with Connection(faulty) as connection:
        connection.request(f"/faults/idle?{how}&tag={name}")
        faulty.wait_for_mark(name, "started")
        assert fetch(faulty, f"/faults/nudge?tag={name}", method="POST").status == 204
        body = connection.body(connection.head())
    assert b"data: nudged\n\n" in body, body
    assert faulty.marks(name) == ["started", "finished", "finally"]


@pytest.mark.parametrize("how", ["plain", "events"])
def test_empty_pieces_notice_the_clients_leaving(faulty: Server, how: str, tag: str) -> None:
    name = f"{faulty.kind}-left-{tag}"
    with Connection(faulty) as connection:
        connection.request(f"/faults/idle?{how}&tag={name}")
        faulty.wait_for_mark(name, "started")
    faulty.wait_for_mark(name, "finally")
    assert faulty.marks(name) == ["started", "finally"], "it did not run to its end"


BARE = ["GeneratorExit", "KeyboardInterrupt", "SystemExit", "BareError"]


@pytest.mark.parametrize("error", BARE)
def test_what_is_no_exception_after_events(faulty: Server, error: str, tag: str) -> None:
    with open_stream(faulty, f"/faults/bare?error={error}&after=2&tag={tag}") as stream:
        assert stream.head.status == 200
        *events, failure = stream.rest()
    assert [(event.event, event.data) for event in events] == [(None, "0"), (None, "1")]
    assert failure.event == "failure"
    assert json.loads(failure.data or "")["error"]["code"] == "internal_error"
    assert "secret" not in (failure.data or "")
    assert fetch(faulty, "/hello").status == 200


@pytest.mark.parametrize("error", BARE)
def test_what_is_no_exception_before_the_first_event(faulty: Server, error: str) -> None:
    answer = fetch(faulty, f"/faults/bare?error={error}")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert fetch(faulty, "/hello").status == 200


def test_a_failure_event_that_fails(faulty: Server) -> None:
    with open_stream(faulty, "/faults/failure-event") as stream:
        first, failure = stream.rest()
    assert first.data == "first"
    assert failure.event == "failure"
    error = json.loads(failure.data or "")["error"]
    assert (error["message"], error["code"]) == ("the real one", "real")


class Visitor(threading.Thread):
    """Connects again and again until the server refuses; every answer that began must end."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.server = server
        self.answers = 0
        self.broken: list[str] = []

    def run(self) -> None:
        while not self.broken:
            try:
                connection = Connection(self.server)
            except OSError:
                return
            with connection:
                try:
                    connection.request("/short")
                    head = connection.head()
                    content = connection.body(head)
                    if not content.endswith(b"data: 2\n\n") and b"retry:" not in content:
                        self.broken.append(f"{head} {content!r}")
                    self.answers += 1
                except (OSError, AssertionError, ValueError) as error:
                    # Closed before it began is how a server that stops treats a connection.
                    if connection.buffer or connection.chunks:
                        self.broken.append(repr(error))


@pytest.mark.parametrize("kind", GEVENT)
def test_sigterm_while_clients_connect(kind: str, tmp_path: Path) -> None:
    with faulty_server(kind, tmp_path) as server:
        visitors = [Visitor(server) for _ in range(4)]
        for visitor in visitors:
            visitor.start()
        try:
            until(lambda: sum(visitor.answers for visitor in visitors) > 300, "some traffic")
        finally:
            server.send_signal(signal.SIGTERM)
            for visitor in visitors:
                visitor.join(20)
        assert not any(visitor.is_alive() for visitor in visitors)
        assert server.wait_until_ended() == 0
        assert [visitor.broken for visitor in visitors] == [[]] * len(visitors)
        assert "Bad file descriptor" not in server.log()
        server.assert_log_is_clean()

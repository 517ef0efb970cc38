"""What is counted of detached streams, and what is logged of all."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from flask import Flask

from sseflask import SSE, EventSourceResponse
from sseflask.counters.counts import COUNTS, REASONS, StreamCounts
from sseflask.logs.masking import guard
from sseflask.transport import accounting as account
from sseflask.transport.detached import delivery, stream_table
from sseflask.transport.detached.group import Backlog, Piece
from sseflask.transport.sockets import borrowed
from tests.unit.transport.detached.test_registry import Crowd, at_end, received, until

EVENT = b"data: 1\n\n"


@pytest.fixture
def counts() -> StreamCounts:
    return StreamCounts()


@pytest.fixture
def crowd(counts: StreamCounts) -> Iterator[Crowd]:
    made = Crowd()
    made.group.counts = counts
    yield made
    made.close()


def log_fields_of(number: int) -> dict[str, Any]:
    return {"request_id": f"request-{number}"}


@pytest.fixture
def ends(caplog: pytest.LogCaptureFixture) -> Iterator[dict[str, tuple[str, int, int]]]:
    """By request: the reason, the events and the bytes that were logged."""
    caplog.set_level(logging.INFO, "sseflask.streams")
    found: dict[str, tuple[str, int, int]] = {}

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said = vars(record)
            if record.msg == "stream ended":
                found[said["request_id"]] = (said["reason"], said["events"], said["bytes"])

    handler = Keeping()
    account.log.addHandler(handler)
    yield found
    account.log.removeHandler(handler)


def test_each_delivery_is_counted(crowd: Crowd, counts: StreamCounts) -> None:
    for _ in range(delivery.SOCKETS_AT_ONCE + 3):
        crowd.client()
    crowd.send(EVENT)
    crowd.send(EVENT + EVENT)
    assert counts.events == 3 * (delivery.SOCKETS_AT_ONCE + 3)
    assert counts.bytes == 27 * (delivery.SOCKETS_AT_ONCE + 3)


def test_who_comes_later_has_what_came_later(crowd: Crowd, ends: dict[str, Any]) -> None:
    crowd.client().log_fields = log_fields_of(0)
    crowd.send(EVENT)
    crowd.client().log_fields = log_fields_of(1)
    crowd.send(EVENT + EVENT)
    for client in crowd.clients:
        client.close()
    until(lambda: len(ends) == 2, "both have left")
    assert ends == {"request-0": ("left", 3, 27), "request-1": ("left", 2, 18)}


def test_a_slow_one_counts_when_it_has_taken_it(crowd: Crowd, counts: StreamCounts) -> None:
    crowd.client(buffer=4096)
    crowd.client()
    event = b"data: %b\n\n" % (b"x" * 9992)
    for _ in range(20):
        crowd.send(event)
    assert crowd.group.slow
    assert 20 <= counts.events < 40
    slow = b""
    while len(slow) < 200_000:
        slow += received(crowd.clients[0])
        gevent.sleep(0)
    until(lambda: not crowd.group.slow, "it has caught up")
    assert (counts.events, counts.bytes) == (40, 400_000)


def test_one_that_is_cut_has_what_its_socket_took(
    crowd: Crowd, counts: StreamCounts, ends: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_table, "BACKLOG", 100_000)
    crowd.client(buffer=4096).log_fields = log_fields_of(0)
    for _ in range(50):
        crowd.send(b"data: %b\n\n" % (b"x" * 9992))
    until(lambda: crowd.ends.closed == 1, "cut")
    reason, events, sent = ends["request-0"]
    assert reason == "slow"
    assert events == sent // 10_000 < 40
    assert (counts.events, counts.bytes) == (events, sent)


def test_one_whose_connection_the_system_ends(crowd: Crowd, ends: dict[str, Any]) -> None:
    member = crowd.client(buffer=4096)
    member.log_fields = log_fields_of(0)
    with borrowed(member.descriptor) as server:
        server.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 300)
    crowd.send(b"x" * 300_000)
    until(lambda: crowd.ends.closed == 1, "it has acknowledged nothing for too long")
    assert ends["request-0"][0] == "slow"


def test_reasons(ends: dict[str, Any]) -> None:
    crowd = Crowd(chunked=True)
    now = time.monotonic()
    for number, ends_at in enumerate((now + 0.1, now + 0.1, now + 1000, now + 1000)):
        crowd.client(ends_at=ends_at, expires=number == 1).log_fields = log_fields_of(number)
    assert b"token_expired" in at_end(crowd.clients[1])
    at_end(crowd.clients[0])
    crowd.clients[2].close()
    until(lambda: "request-2" in ends, "it has left")
    crowd.detached.drain()
    at_end(crowd.clients[3])
    crowd.close()
    reasons = [ends[f"request-{number}"][0] for number in range(4)]
    assert reasons == ["lifetime", "expired", "left", "drain"]
    assert ends["request-1"][1] == 1, "the failure is an event as well"


def test_a_finished_group_and_one_that_has_to_resume(ends: dict[str, Any]) -> None:
    crowd = Crowd()
    crowd.client().log_fields = log_fields_of(0)
    crowd.job(lambda: crowd.detached.end([crowd.group], "done"))
    at_end(crowd.clients[0])
    crowd.client().log_fields = log_fields_of(1)
    crowd.job(lambda: crowd.detached.end([crowd.group], "resync"))
    at_end(crowd.clients[1])
    crowd.client().log_fields = log_fields_of(2)
    crowd.job(lambda: crowd.detached.end([crowd.group], "closed"))
    at_end(crowd.clients[2])
    crowd.close()
    reasons = [ends[f"request-{number}"][0] for number in range(3)]
    assert reasons == ["done", "resync", "closed"]


def test_what_is_left_of_a_backlog() -> None:
    backlog = Backlog(9, 0.0)
    backlog.add(Piece(EVENT + EVENT, 18, 2))
    backlog.add(Piece(EVENT, 9, 1))
    assert backlog.events_left == 2
    backlog.done = 17
    assert backlog.events_left == 2, "the last byte of the second is missing"


def test_reasons_are_counted_by_kind() -> None:
    counts = COUNTS.streams["run"]
    before = (counts.open, counts.ended["slow"])
    kept = account.opened("run", {})
    assert counts.open == before[0] + 1
    account.ended("run", "slow", kept, 1.0, 2, 3)
    assert (counts.open, counts.ended["slow"]) == (before[0], before[1] + 1)
    assert set(counts.ended) == set(REASONS)


def test_what_a_client_wrote_can_not_forge_a_log(caplog: pytest.LogCaptureFixture) -> None:
    guard(logging.getLogger("sseflask"), ["a-secret-of-ours"])
    caplog.set_level(logging.INFO, "sseflask.streams")
    path = "/\xe7\xac\xac/a-secret-of-ours/eyJhbGciOiJIUzI1NiJ9.eyJzdWIi\n"
    kept = account.opened("stream", {"PATH_INFO": path, "REQUEST_METHOD": "GET"})
    account.ended("stream", "done", kept, 0.0, 0, 0)
    assert kept is not None
    assert kept["path"] == "/第/***/***\\n"


def test_nothing_is_kept_unless_it_is_logged() -> None:
    assert account.log.level > logging.INFO
    assert account.opened("stream", {}) is None
    account.ended("stream", "done", None, 0.0, 0, 0)


class BrokenHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        raise RuntimeError(f"no room for {record.levelname}")


def test_a_handler_that_fails_ends_no_stream(capsys: pytest.CaptureFixture[str]) -> None:
    app = Flask("somebody")
    SSE(app)

    @app.get("/events")
    def events() -> EventSourceResponse:
        return EventSourceResponse(["one", "two"])

    handler, level = BrokenHandler(), account.log.level
    account.log.addHandler(handler)
    account.log.setLevel(logging.INFO)
    try:
        bodies = [app.test_client().get("/events").data for _ in range(2)]
    finally:
        account.log.removeHandler(handler)
        account.log.setLevel(level)
    assert bodies == [b"data: one\n\ndata: two\n\n"] * 2
    said = "a handler of sseflask.streams failed: RuntimeError('no room for INFO')\n"
    assert capsys.readouterr().err == said, "once"

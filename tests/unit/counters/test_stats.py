"""What an application gets to know of its own streams."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from flask import Flask

from sseflask import SSE, Event, EventSourceResponse, Stats, StreamStats
from sseflask.extension import channels_of
from sseflask.testing import open_stream


@pytest.fixture
def sse() -> Iterator[SSE]:
    app = Flask(__name__)
    app.testing = True
    made = SSE(app)

    @app.get("/three")
    def three() -> EventSourceResponse:
        return EventSourceResponse(Event(str(number), id=number) for number in range(3))

    @app.get("/orders")
    def orders() -> EventSourceResponse:
        return made.subscribe("orders")

    yield made
    channels_of(app).close()


def gone_by(now: StreamStats, before: StreamStats) -> dict[str, int]:
    """What has changed of the numbers."""
    numbers = {"open", "opened", "refused", "resumed", "events", "replayed", "bytes"}
    return {
        name: getattr(now, name) - getattr(before, name)
        for name in sorted(numbers)
        if getattr(now, name) != getattr(before, name)
    }


def test_a_generator_s_stream(sse: SSE) -> None:
    before = sse.stats()
    with open_stream(sse._apps[0].test_client(), "/three") as stream:
        stream.read(1)
        assert sse.stats().streams["stream"].open == before.streams["stream"].open + 1
        stream.read(2)
    now = sse.stats()
    body = "".join(f"id: {number}\ndata: {number}\n\n" for number in range(3))
    said = gone_by(now.streams["stream"], before.streams["stream"])
    assert said == {"bytes": len(body), "events": 3, "opened": 1}
    assert sum(now.streams["stream"].ended.values()) == 1 + sum(
        before.streams["stream"].ended.values()
    )


def test_a_subscription_that_resumes(sse: SSE) -> None:
    before = sse.stats()
    first, *_ = (sse.publish("orders", number) for number in range(4))
    with open_stream(
        sse._apps[0].test_client(), "/orders", headers={"Last-Event-ID": first}
    ) as stream:
        assert [event.data for event in stream.read(3)] == ["1", "2", "3"]
    now = sse.stats()
    said = gone_by(now.streams["channel"], before.streams["channel"])
    assert said.pop("bytes") > 3 * len("data: 1\n\n")
    assert said == {"events": 3, "opened": 1, "replayed": 3, "resumed": 1}
    assert now.published - before.published == 4


def test_the_worker_is_this_process(sse: SSE) -> None:
    stats = sse.stats()
    (worker,) = stats.workers
    assert (worker.pid, stats.shared) == (os.getpid(), False)
    assert worker.memory > 10 << 20
    assert {field.name for field in dataclasses.fields(Stats)} == {
        *("streams", "published", "gaps", "runs_began", "runs_ended", "workers", "shared"),
    }


def test_whether_requests_are_to_be_sent_here(sse: SSE, monkeypatch: pytest.MonkeyPatch) -> None:
    found = sse.readiness()
    assert (found.ready, found.log, found.history) == (True, "available", "memory")
    assert "gone with it" in found.meaning
    draining = SimpleNamespace(worker_drain=SimpleNamespace(draining=True))
    monkeypatch.setitem(sys.modules, "sseflask.transport.gunicorn.drain", draining)
    assert not sse.readiness().ready

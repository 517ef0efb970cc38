"""With the demo model all is open: a client with a run's id may view and stop it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.kit.clients import open_stream
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import FORMATS, after, end_of, text_of
from tests.live.kit.runs import (
    JSON,
    NO_RUN,
    START,
    ask,
    attach,
    path_of,
    replay,
    rest,
    run_of,
    stop,
)
from tests.live.kit.servers import Server
from tests.live.kit.services import production
from tests.live.kit.workers import connect_to, other_worker

HELLO = path_of(START, user_message="Hello", format="text")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service as one tries it: no secret, no upstream."""
    directory = tmp_path_factory.mktemp("demo")
    settings = {
        "WEB_CONCURRENCY": "2",
        "SSEFLASK_RATE_LIMIT": "off",
    }
    with production(directory, settings) as server:
        yield server


def test_resumed_on_another_worker(demo: Server) -> None:
    with open_stream(demo, HELLO) as stream:
        run = run_of(stream)
        other = other_worker(demo, stream.connection)
        last = stream.next().id
    assert last is not None
    resumed = open_stream(connect_to(demo, other), HELLO, headers={"Last-Event-ID": last})
    assert run_of(resumed) == run
    events = rest(resumed)
    complete = replay(demo, run, "text")
    assert end_of("text", complete) == "stop"
    assert events == after(run, complete, int(last.partition(".")[2]))
    assert "Hello" in text_of("text", complete)


@pytest.mark.parametrize("format", FORMATS)
def test_each_format(demo: Server, format: str) -> None:
    with open_stream(demo, HELLO) as stream:
        run = run_of(stream)
        assert "Hello" in text_of(format, replay(demo, run, format))


def test_whoever_has_the_id_may_stop_it(demo: Server) -> None:
    # An answer of more than two seconds, or it might have ended by itself.
    with open_stream(demo, path_of(START, user_message="a " * 100, format="text")) as stream:
        run = run_of(stream)
        assert stop(demo, run) == "stopped"
        assert end_of("text", rest(stream)) == "stopped"
    assert end_of("text", rest(attach(demo, run, "text"))) == "stopped"


def test_no_id_no_run(demo: Server) -> None:
    assert error_of(ask(demo, f"/runs/{NO_RUN}"), 404)["code"] == "run_not_found"
    assert error_of(ask(demo, f"/runs/{NO_RUN}", "DELETE"), 404)["code"] == "run_not_found"


def test_openais_endpoint(demo: Server) -> None:
    body = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "Hello"}]}'
    events = rest(open_stream(demo, "/v1/chat/completions", method="POST", headers=JSON, body=body))
    assert "Hello" in text_of("chunks", events)
    assert end_of("chunks", events) == "[DONE]"


def test_idempotency(demo: Server) -> None:
    headers = {"Idempotency-Key": "once"}
    streams = [open_stream(demo, HELLO, headers=headers) for _ in range(3)]
    assert len({run_of(stream) for stream in streams}) == 1
    got = [rest(stream) for stream in streams]
    assert got[0] == got[1] == got[2]

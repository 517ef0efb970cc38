"""Any number of viewers of one run, in every format, at any time: all see the same bytes."""

from __future__ import annotations

import contextlib
import json

import pytest

from tests.live.kit.clients import Stream
from tests.live.kit.connection import Connection
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import FORMATS, after, end_of, expected_end, text_of
from tests.live.kit.runs import (
    NO_RUN,
    ask,
    ask_start,
    attach,
    raw,
    replay,
    rest,
    run_of,
    start,
    stop,
)
from tests.live.kit.scripted import ScriptedAnswer
from tests.live.kit.servers import Server
from tests.live.kit.stores import on_every_store
from tests.live.kit.waiting import until
from tests.live.kit.workers import connect_to
from tests.scripted_upstream import frame


@on_every_store
def test_all_formats_at_once_while_it_runs(runs: Server, script: ScriptedAnswer) -> None:
    """Viewers from before the first token, later ones, and ones after the end."""
    script.begin()
    with contextlib.ExitStack() as stack:
        original = stack.enter_context(start(runs, script, heartbeat="early"))
        run = run_of(original)
        viewers: list[tuple[str, Stream]] = []

        def come() -> None:
            for format in FORMATS:
                stream = stack.enter_context(attach(runs, run, format))
                assert stream.head.status == 200
                assert run_of(stream) == run
                viewers.append((format, stream))

        come()
        script.say("one ")
        come()
        assert original.next().id == f"{run}.1"
        script.say("two ")
        come()
        script.say("three")
        script.finish("length")
        got = [(format, rest(stream)) for format, stream in viewers]
        first = rest(original)
    expected = {format: replay(runs, run, format) for format in FORMATS}
    for format, events in got:
        assert events == expected[format]
        assert text_of(format, events) == "one two three"
        assert end_of(format, events) == expected_end(format, "length")
    assert first == after(run, expected["chunks"], 1)
    assert script.count == 1


@on_every_store
@pytest.mark.parametrize("format", FORMATS)
def test_every_reader_gets_identical_bytes(
    runs: Server, script: ScriptedAnswer, format: str
) -> None:
    """The one that started it, one on each worker while it runs, one on each afterwards."""
    script.say("one", "你好")
    with contextlib.ExitStack() as stack:
        original = stack.enter_context(start(runs, script, format=format))
        run = run_of(original)
        viewers = [original] + [
            stack.enter_context(attach(connect_to(runs, worker), run, format))
            for worker in runs.workers()
        ]
        script.send(frame(choices=[{"index": 0, "delta": {"reasoning": "hm", "content": "x"}}]))
        script.say("y" * 50_000)
        script.finish()
        bodies = [raw(stream) for stream in viewers]
    bodies += [raw(attach(connect_to(runs, worker), run, format)) for worker in runs.workers()]
    assert len(bodies) == 5
    assert len(set(bodies)) == 1
    assert b"y" * 50_000 in bodies[0]


def test_chunks_is_the_default(runs: Server, script: ScriptedAnswer) -> None:
    script.say("x")
    script.finish()
    with start(runs, script, format="text") as stream:
        run = run_of(stream)
    assert raw(attach(runs, run)) == raw(attach(runs, run, "chunks"))


def test_headers_of_a_viewer(runs: Server, script: ScriptedAnswer) -> None:
    script.say("x")
    script.finish()
    with start(runs, script) as stream:
        run = run_of(stream)
    for format in FORMATS:
        with attach(runs, run, format) as stream:
            headers = stream.head.headers
            assert headers["content-type"].startswith("text/event-stream")
            assert headers["cache-control"] == "no-store, no-transform"
            assert headers["x-accel-buffering"] == "no"
            ui = headers.get("x-vercel-ai-ui-message-stream")
            assert ui == ("v1" if format == "ui" else None)


def test_head_of_a_run(runs: Server, script: ScriptedAnswer) -> None:
    """Headers only, and it is no viewer: a run is not kept alive by it nor cancelled for it."""
    script.say("x")
    with start(runs, script, on_disconnect="cancel") as stream:
        run = run_of(stream)
        assert ask(runs, f"/runs/{run}", "HEAD").status == 200
        script.say("y")
        script.finish()
        assert text_of("chunks", rest(stream)) == "xy"


@pytest.mark.parametrize(
    "run", [NO_RUN, "x", NO_RUN.upper(), NO_RUN[:-1], NO_RUN + "0", "%00", "a.b", "../healthz"]
)
def test_an_unknown_run(runs: Server, run: str) -> None:
    answer = ask(runs, f"/runs/{run}")
    assert answer.status == 404
    assert ask(runs, f"/runs/{run}", "DELETE").status == 404
    assert set(json.loads(answer.body)) == {"error"}
    if run == NO_RUN:
        assert error_of(answer, 404)["code"] == "run_not_found"


def test_an_unknown_run_is_nothing_to_resume_for_the_ai_sdk(runs: Server) -> None:
    answer = ask(runs, f"/runs/{NO_RUN}?format=ui")
    assert (answer.status, answer.body) == (204, b"")
    error_of(ask(runs, f"/runs/{NO_RUN}?format=ui", "DELETE"), 404)


def test_other_methods(runs: Server, script: ScriptedAnswer) -> None:
    script.say("x")
    script.finish()
    with start(runs, script) as stream:
        run = run_of(stream)
    answer = ask(runs, f"/runs/{run}", "POST", body=b"x")
    error_of(answer, 405)
    assert "DELETE" in answer.headers["allow"]


@pytest.mark.parametrize("format", FORMATS)
def test_an_upstream_that_refuses(runs: Server, script: ScriptedAnswer, format: str) -> None:
    """Before the first byte: its status, and the same for all that request the run later."""
    error = {"message": "Slow down.", "type": "rate_limit_error", "param": None, "code": "slow"}
    script.answer(429, json.dumps({"error": error}).encode(), "Retry-After: 7")
    answer = ask_start(runs, script, format=format)
    assert answer.status == 429
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body) == {"error": error}
    assert answer.headers["retry-after"] == "7"
    run = run_of(answer)
    for viewed in FORMATS:
        later = ask(runs, f"/runs/{run}?format={viewed}")
        assert (later.status, json.loads(later.body)) == (429, {"error": error})
        assert run_of(later) == run
    assert stop(runs, run) == "failed"
    assert script.count == 1


@on_every_store
def test_viewers_that_come_and_go(runs: Server, script: ScriptedAnswer) -> None:
    """Half of them leave at once, without harm to the others."""
    with contextlib.ExitStack() as stack:
        script.say("0 ")
        original = stack.enter_context(start(runs, script))
        run = run_of(original)
        staying: list[Connection] = []
        for n in range(1, 60):
            connection = stack.enter_context(Connection(runs))
            connection.request(f"/runs/{run}?format=text")
            if n % 2:
                staying.append(connection)
            elif n % 4:
                connection.reset()
            else:
                connection.close()
            script.say(f"{n} ")
        script.finish()
        got = [rest(Stream(connection)) for connection in staying]
    expected = replay(runs, run, "text")
    assert text_of("text", expected) == "".join(f"{n} " for n in range(60))
    assert all(events == expected for events in got)
    assert script.count == 1


@on_every_store
def test_a_viewer_that_does_not_read(runs: Server, script: ScriptedAnswer) -> None:
    """It holds up neither the run nor the other viewers."""
    script.say("first")
    with start(runs, script) as stream:
        run = run_of(stream)
        slow = Connection(runs, receive_buffer=4096)
        with slow:
            slow.request(f"/runs/{run}")
            slow.head()
            for _ in range(40):
                script.say("x" * 250_000)
            script.finish()
            assert len(text_of("chunks", rest(stream))) == 5 + 10_000_000
            until(lambda: script.requests[0].ended, "the upstream is read to its end")
    assert len(text_of("text", replay(runs, run, "text"))) == 5 + 10_000_000

"""Runs whose workers are asked to stop: they go on for a while, and are resumed elsewhere."""

from __future__ import annotations

import contextlib
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import Connection
from tests.live.kit.run_events import FORMATS, RESUMABLE, after, end_of, expected_end, text_of
from tests.live.kit.runs import (
    JSON,
    START,
    ask,
    attach,
    path_of,
    replay,
    rest,
    run_of,
    run_service,
    start,
    stop,
)
from tests.live.kit.scripted import ScriptedAnswer, ScriptedUpstream
from tests.live.kit.servers import Server, free_port
from tests.live.kit.stores import Store, on_every_store
from tests.live.kit.waiting import until
from tests.live.kit.workers import connect_to

CHAT = "/v1/chat/completions"
GRACE = ("--graceful-timeout", "12")
#: For a run that must be over before the grace time is.
SHORT = ("--graceful-timeout", "6")

pytestmark = on_every_store


def resumed(
    where: Server | Connection, script: ScriptedAnswer, last: str | None, format: str
) -> Stream:
    path = path_of(START, user_message=script.message, format=format)
    return open_stream(where, path, headers={"Last-Event-ID": last or ""})


def assert_sent_away(stream: Stream) -> None:
    """Nothing more, and a proper end that says when to come back."""
    assert rest(stream) == []
    assert 500 <= int(stream.retries[-1]) <= 3000


@pytest.mark.waits_long
def test_sigterm(tmp_path: Path, store: Store, scripted: ScriptedUpstream) -> None:
    """Clients that can, resume at the next release, which reads what the old one still writes."""
    settings = store(tmp_path)
    script, short = scripted.script(), scripted.script()
    script.say("one ")
    body = b'{"model": "m", "stream": true, "messages": [{"role": "user", "content": "%s"}]}'
    with (
        run_service(tmp_path / "old", scripted, *GRACE, workers=1, settings=settings) as old,
        run_service(tmp_path / "new", scripted, workers=1, settings=settings) as new,
        contextlib.ExitStack() as stack,
    ):
        original = stack.enter_context(start(old, script))
        run = run_of(original)
        resumable = {
            format: stack.enter_context(attach(old, run, format, f"{run}.0"))
            for format in RESUMABLE
        }
        ids = {format: stream.next().id for format, stream in resumable.items()}
        assert original.next().id == f"{run}.1"
        ui = stack.enter_context(attach(old, run, "ui"))
        v1 = stack.enter_context(
            open_stream(old, CHAT, method="POST", headers=JSON, body=body % script.message.encode())
        )
        v1.next()
        short.say("a ")
        brief = stack.enter_context(start(old, short))
        brief.next()

        old.send_signal(signal.SIGTERM)
        for stream in (original, brief, *resumable.values()):
            assert_sent_away(stream)
        viewers = {
            format: stack.enter_context(resumed(new, script, ids[format], format))
            for format in RESUMABLE
        }
        script.say("two ")
        for stream in viewers.values():
            assert "two " in (stream.next().data or ""), "the old worker still writes"
        assert "two " in (v1.next().data or "")
        short.say("b")
        short.finish()
        events = replay(new, run_of(brief), "text")
        assert (text_of("text", events), end_of("text", events)) == ("a b", "stop")

        ends = {format: rest(stream) for format, stream in viewers.items()}
        for format, seen in ends.items():
            assert end_of(format, seen) == "error:interrupted"
        assert end_of("chunks", rest(v1)) == "error:interrupted"
        assert end_of("ui", rest(ui)) == "error:"
        assert old.wait_until_ended() == 0
        script.wait_until_left()
        for format in FORMATS:
            complete = replay(new, run, format)
            assert text_of(format, complete) == "one two "
            assert end_of(format, complete) == expected_end(format, "error:interrupted")
            if format in RESUMABLE:
                assert ends[format] == after(run, complete, 2)
        assert stop(new, run) == "failed"
    assert (script.count, short.count) == (2, 1)


def test_sighup(tmp_path: Path, store: Store, scripted: ScriptedUpstream) -> None:
    """A rolling reload in mid-answer: the reader changes workers, the writer stays."""
    settings = store(tmp_path)
    scripts = {format: scripted.script() for format in RESUMABLE}
    # A new worker may take long to begin on a busy machine; the old one writes until then.
    grace = ("--graceful-timeout", "60")
    with (
        run_service(tmp_path, scripted, *grace, workers=1, settings=settings) as server,
        contextlib.ExitStack() as stack,
    ):
        (old,) = server.workers()
        streams, runs, last = {}, {}, {}
        for format, script in scripts.items():
            script.say("one ")
            streams[format] = stack.enter_context(start(server, script, format=format))
            runs[format], last[format] = run_of(streams[format]), streams[format].next().id
        server.send_signal(signal.SIGHUP)
        for stream in streams.values():
            assert_sent_away(stream)
        new = until(lambda: [w for w in server.workers() if w != old], "a new worker")[0]
        whole_runs = {}
        for format, script in scripts.items():
            with resumed(connect_to(server, new), script, last[format], format) as stream:
                script.say("two ")
                got = [stream.next()]
                script.say("three")
                script.finish()
                got += rest(stream)
            complete = whole_runs[format] = replay(server, runs[format], format)
            assert [event.data for event in got] == [
                each.data for each in after(runs[format], complete, 1)
            ]
            assert text_of(format, complete) == "one two three"
            assert end_of(format, complete) == ("[DONE]" if format == "chunks" else "stop")
        until(lambda: not old.is_running(), "the old worker has gone", seconds=60)
        for format, complete in whole_runs.items():
            assert replay(server, runs[format], format) == complete
    assert [script.count for script in scripts.values()] == [1] * len(scripts)


def test_what_had_ended_is_there_after_a_restart(
    tmp_path: Path, store: Store, scripted: ScriptedUpstream
) -> None:
    """Its key is there too, and its status for DELETE."""
    served = partial(
        run_service,
        tmp_path,
        scripted,
        *SHORT,
        workers=1,
        port=free_port(),
        settings=store(tmp_path),
    )
    script, refused = scripted.script(), scripted.script()
    script.say("one ", "two")
    script.finish("length")
    refused.answer(429, b'{"error": {"message": "Slow down.", "code": "slow"}}')
    key = {"Idempotency-Key": "k"}
    with served() as server:
        stream = start(server, script, key)
        run = run_of(stream)
        rest(stream)
        expected = {format: replay(server, run, format) for format in FORMATS}
        with start(server, refused) as stream:
            assert stream.head.status == 429
            failed = run_of(stream)
    with served() as server:
        for format in FORMATS:
            assert replay(server, run, format) == expected[format]
        events = expected["chunks"]
        for seen in range(5):
            headers = {"Last-Event-ID": f"{run}.{seen}"}
            path = path_of(START, user_message=script.message)
            assert rest(open_stream(server, path, headers=headers)) == after(run, events, seen)
        with start(server, script, key) as stream:
            assert run_of(stream) == run
            assert stream.head.headers["idempotency-replayed"] == "true"
        assert stop(server, run) == "finished"
        assert ask(server, f"/runs/{failed}").status == 429
    assert (script.count, refused.count) == (1, 1)


def test_ctrl_c(tmp_path: Path, store: Store, scripted: ScriptedUpstream) -> None:
    """No grace time: the run ends so at once, and is known by that after the next start."""
    script, settings = scripted.script(), store(tmp_path)
    script.say("one")
    with run_service(tmp_path, scripted, *GRACE, workers=1, settings=settings) as server:
        with start(server, script, on_disconnect="continue") as stream:
            run = run_of(stream)
            stream.next()
            server.interrupt()
            script.wait_until_left()
        server.wait_until_ended(20)
    with run_service(tmp_path, scripted, *SHORT, workers=1, settings=settings) as server:
        for format in FORMATS:
            events = replay(server, run, format)
            assert text_of(format, events) == "one"
            assert end_of(format, events) == expected_end(format, "error:interrupted")

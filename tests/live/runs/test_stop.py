"""DELETE stops a run, from any worker and at any time; what it had said stays readable."""

from __future__ import annotations

import contextlib
import json

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import (
    FORMATS,
    RESUMABLE,
    after,
    end_of,
    expected_end,
    number,
    parsed,
    text_of,
)
from tests.live.kit.runs import (
    NO_RUN,
    START,
    all_at_once,
    ask,
    attach,
    path_of,
    replay,
    rest,
    run_of,
    start,
    stop,
)
from tests.live.kit.scripted import ScriptedAnswer
from tests.live.kit.servers import Server
from tests.live.kit.stores import on_every_store
from tests.live.kit.workers import connect_to, other_worker


def viewers_on_all_workers(
    stack: contextlib.ExitStack, server: Server, run: str
) -> list[tuple[str, Stream]]:
    found = []
    for worker in server.workers():
        for format in FORMATS:
            stream = stack.enter_context(attach(connect_to(server, worker), run, format))
            found.append((format, stream))
    return found


def assert_stopped(server: Server, run: str, got: list[tuple[str, Stream]], text: str) -> None:
    """All of these viewers have seen the same, and so do later ones."""
    read = [(format, rest(stream)) for format, stream in got]
    later = {format: replay(server, run, format) for format in FORMATS}
    for format, events in read:
        assert events == later[format]
    for format, events in later.items():
        assert end_of(format, events) == expected_end(format, "stopped")
        assert text_of(format, events) == text


@on_every_store
@pytest.mark.parametrize("begun", [False, True], ids=["no answer yet", "only its headers"])
def test_before_the_first_token(runs: Server, script: ScriptedAnswer, begun: bool) -> None:
    if begun:
        script.begin()
    with contextlib.ExitStack() as stack:
        original = stack.enter_context(start(runs, script, heartbeat="early"))
        run = run_of(original)
        script.wait_for_requests()
        viewers = viewers_on_all_workers(stack, runs, run)
        assert stop(runs, run) == "stopped"
        script.wait_until_left()
        assert_stopped(runs, run, [("chunks", original), *viewers], "")
    assert script.count == 1


@on_every_store
@pytest.mark.parametrize("on_disconnect", ["cancel", "continue", "30"])
def test_in_mid_answer(runs: Server, script: ScriptedAnswer, on_disconnect: str) -> None:
    script.say("one ", "two")
    with contextlib.ExitStack() as stack:
        original = stack.enter_context(start(runs, script, on_disconnect=on_disconnect))
        run = run_of(original)
        viewers = viewers_on_all_workers(stack, runs, run)
        assert original.next().id == f"{run}.1"
        with attach(runs, run, "text") as stream:
            assert stream.data(2) == ["one ", "two"]
        assert stop(runs, run) == "stopped"
        script.wait_until_left()
        script.say("too late")
        rest(original)
        assert_stopped(runs, run, viewers, "one two")
        assert stop(runs, run) == "stopped", "again"
    assert replay(runs, run, "text")[-1].id == f"{run}.3"


@on_every_store
@pytest.mark.parametrize("begun", [False, True], ids=["first token", "mid-answer"])
def test_from_another_worker(runs: Server, script: ScriptedAnswer, begun: bool) -> None:
    if begun:
        script.say("one")
    with start(runs, script, heartbeat="early", format="text") as stream:
        run = run_of(stream)
        if begun:
            assert stream.next().data == "one"
        script.wait_for_requests()
        with connect_to(runs, other_worker(runs, stream.connection)) as connection:
            connection.request(f"/runs/{run}", method="DELETE")
            head = connection.head()
            assert head.status == 200
            assert json.loads(connection.body(head)) == {"id": run, "status": "stopped"}
        script.wait_until_left()
        assert end_of("text", rest(stream)) == "stopped"


@pytest.mark.parametrize("format", FORMATS)
def test_how_each_format_says_so(runs: Server, script: ScriptedAnswer, format: str) -> None:
    script.say("one")
    with start(runs, script, format=format) as stream:
        run = run_of(stream)
        while "one" not in (stream.next().data or ""):
            pass
        stop(runs, run)
        events = rest(stream)
    last = events[-1]
    assert number(run, last) == 2
    if format == "chunks":
        error = parsed(last)["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert (error["type"], error["param"], error["code"]) == ("run_stopped", None, "stopped")
        assert last.event is None
    elif format == "ui":
        assert parsed(events[-2]) == {"type": "abort", "reason": "stopped"}
        assert last.data == "[DONE]"
    else:
        assert (last.event, parsed(last)) == ("done", {"finish_reason": "stopped"})
    if format == "events":
        assert (events[-2].event, parsed(events[-2])) == (
            "usage",
            {"completion_tokens": 1, "partial": True},
        )


def test_after_the_end(runs: Server, script: ScriptedAnswer) -> None:
    script.say("one")
    script.finish()
    stream = start(runs, script, format="text")
    run = run_of(stream)
    events = rest(stream)
    for _ in range(3):
        assert stop(runs, run) == "finished"
    assert replay(runs, run, "text") == events
    assert end_of("text", events) == "stop"


def test_after_a_failure(runs: Server, script: ScriptedAnswer) -> None:
    script.say("one")
    script.hang_up()
    stream = start(runs, script, format="text")
    run = run_of(stream)
    events = rest(stream)
    assert stop(runs, run) == "failed"
    assert replay(runs, run, "text") == events


@on_every_store
def test_many_stop_it_at_once(runs: Server, script: ScriptedAnswer) -> None:
    script.say("one")
    with start(runs, script, format="text") as stream:
        run = run_of(stream)
        stream.next()
        assert all_at_once(*[lambda: stop(runs, run)] * 12) == ["stopped"] * 12
        events = rest(stream)
    assert end_of("text", events) == "stopped"
    assert replay(runs, run, "text") == [*replay(runs, run, "text")[:1], *events]


@pytest.mark.parametrize("run", [NO_RUN, "x", NO_RUN.upper()])
def test_an_unknown_run(runs: Server, run: str) -> None:
    answer = ask(runs, f"/runs/{run}", "DELETE")
    assert answer.status == 404
    if run == NO_RUN:
        assert error_of(answer, 404)["code"] == "run_not_found"


@on_every_store
def test_while_nobody_watches(runs: Server, script: ScriptedAnswer) -> None:
    script.say("one")
    with start(runs, script, on_disconnect="continue") as stream:
        run = run_of(stream)
        stream.next()
    assert stop(runs, run) == "stopped"
    script.wait_until_left()
    assert text_of("text", replay(runs, run, "text")) == "one"


@on_every_store
def test_while_the_upstream_says_more_than_anybody_reads(
    runs: Server, script: ScriptedAnswer
) -> None:
    """The run ends where it was when it was stopped, without a hole."""
    for n in range(400):
        script.say(f"{n} ")
    with start(runs, script) as stream:
        run = run_of(stream)
        stream.next()
        stop(runs, run)
        script.wait_until_left()
        events = rest(stream)
    assert [number(run, event) for event in events] == list(range(2, len(events) + 2))
    assert end_of("chunks", events) == "error:stopped"
    later = replay(runs, run, "chunks")
    assert after(run, later, 1) == events


@pytest.mark.parametrize("format", RESUMABLE)
def test_resuming_what_was_stopped(runs: Server, script: ScriptedAnswer, format: str) -> None:
    script.say("one", "two")
    with start(runs, script, format=format) as stream:
        run = run_of(stream)
        stream.data(2)
        stop(runs, run)
    events = replay(runs, run, format)
    path = path_of(START, user_message=script.message, format=format)
    for seen in range(3):
        headers = {"Last-Event-ID": f"{run}.{seen}"}
        assert rest(open_stream(runs, path, headers=headers)) == after(run, events, seen)
    assert ask(runs, path, headers={"Last-Event-ID": f"{run}.3"}).status == 204
    assert script.count == 1


def test_other_sites_can_not(runs: Server, script: ScriptedAnswer) -> None:
    """A page from elsewhere must not stop, start or run on the strength of loopback."""
    script.say("one")
    with start(runs, script, format="text") as stream:
        run = run_of(stream)
        for headers in (
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
            {"Origin": "https://example.org"},
        ):
            error_of(ask(runs, f"/runs/{run}", "DELETE", headers), 403)
            path = path_of(START, user_message=script.message)
            error_of(ask(runs, path, headers=headers), 403)
        script.finish()
        assert end_of("text", rest(stream)) == "stop"
    assert script.count == 1

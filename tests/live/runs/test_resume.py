"""A reader that comes back gets exactly the rest, from any worker; the upstream is asked once."""

from __future__ import annotations

import contextlib

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import Connection
from tests.live.kit.publishing import error_of
from tests.live.kit.run_cursors import WAYS, Way, at_the_run, by_header, by_query
from tests.live.kit.run_events import FORMATS, RESUMABLE, after, end_of, text_of
from tests.live.kit.runs import START, ask, path_of, replay, rest, run_of, start
from tests.live.kit.scripted import ScriptedAnswer
from tests.live.kit.servers import Server
from tests.live.kit.stores import on_every_store
from tests.live.kit.workers import connect_to
from tests.scripted_upstream import frame

TEXT = "one 你好🌊 four"
#: Frames of the answer below, its end included.
LAST = 8


def first_half(script: ScriptedAnswer) -> None:
    """Three frames."""
    thought = {"index": 0, "delta": {"reasoning": "hm", "content": "one "}, "finish_reason": None}
    script.send(frame(""), frame(choices=[thought]), frame("你好"))


def read_half(stream: Stream, run: str) -> None:
    """Up to the third frame: from here on every worker must know that it exists."""
    while stream.next().id != f"{run}.3":
        pass


def second_half(script: ScriptedAnswer) -> None:
    """Five more."""
    script.say("🌊", " four")
    script.finish()


in_every_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)


@in_every_way
@pytest.mark.parametrize("format", RESUMABLE)
def test_after_the_end_from_every_position(
    runs: Server, script: ScriptedAnswer, format: str, way: Way
) -> None:
    first_half(script)
    second_half(script)
    stream = start(runs, script, format=format)
    run = run_of(stream)
    events = rest(stream)
    assert text_of(format, events) == TEXT
    for seen in range(LAST):
        path, headers = way(format, script.message, f"{run}.{seen}")
        stream = open_stream(runs, path, headers=headers)
        assert stream.head.status == 200
        assert run_of(stream) == run
        assert rest(stream) == after(run, events, seen), f"after {seen}"
    path, headers = way(format, script.message, f"{run}.{LAST}")
    answer = ask(runs, path, headers=headers)
    assert (answer.status, answer.body) == (204, b""), "or an EventSource would never stop"
    assert script.count == 1


@in_every_way
@pytest.mark.parametrize("format", RESUMABLE)
def test_while_it_runs_from_every_position(
    runs: Server, script: ScriptedAnswer, format: str, way: Way
) -> None:
    first_half(script)
    with contextlib.ExitStack() as stack:
        original = stack.enter_context(start(runs, script, format=format))
        run = run_of(original)
        read_half(original, run)
        resumed: list[Stream] = []
        for seen in range(4):
            path, headers = way(format, script.message, f"{run}.{seen}")
            resumed.append(stack.enter_context(open_stream(runs, path, headers=headers)))
            assert resumed[-1].head.status == 200
            assert run_of(resumed[-1]) == run
        for ahead in (4, LAST):
            path, headers = way(format, script.message, f"{run}.{ahead}")
            error_of(ask(runs, path, headers=headers), 400)
        second_half(script)
        got = [rest(stream) for stream in resumed]
    events = replay(runs, run, format)
    assert text_of(format, events) == TEXT
    assert got == [after(run, events, seen) for seen in range(4)]
    assert script.count == 1


@on_every_store
@pytest.mark.parametrize("format", FORMATS)
def test_on_each_worker(runs: Server, script: ScriptedAnswer, format: str) -> None:
    """While it runs and afterwards; `ui` starts over."""
    first_half(script)
    with contextlib.ExitStack() as stack:
        original = stack.enter_context(start(runs, script, format=format))
        run = run_of(original)
        read_half(original, run)
        path, headers = by_header(format, script.message, f"{run}.2")
        streams = [
            stack.enter_context(open_stream(connect_to(runs, worker), path, headers=headers))
            for worker in runs.workers()
        ]
        second_half(script)
        got = [rest(stream) for stream in streams]
        assert original.rest()
    events = replay(runs, run, format)
    expected = events if format == "ui" else after(run, events, 2)
    assert text_of(format, events) == TEXT
    assert got == [expected, expected]
    for worker in runs.workers():
        stream = open_stream(connect_to(runs, worker), path, headers=headers)
        assert rest(stream) == expected
    assert script.count == 1


@on_every_store
@pytest.mark.parametrize("format", RESUMABLE)
def test_a_reader_that_drops_after_every_event(
    runs: Server, script: ScriptedAnswer, format: str
) -> None:
    """It comes back with what it has; in the end it has everything once."""
    first_half(script)
    got = []
    last = None
    message = script.message
    while True:
        headers: dict[str, str] = {"Last-Event-ID": last} if last else {}
        path = path_of(START, user_message=message, format=format, idempotency_key=message)
        answer = open_stream(runs, path, headers=headers)
        if answer.head.status == 204:
            answer.connection.close()
            break
        with answer as stream:
            run = run_of(stream)
            event = stream.next()
            part = [event]
            while event.id is None:
                event = stream.next()
                part.append(event)
        got += [(each.event, each.data) for each in part]
        last = event.id
        if len(got) >= 2 and not script.requests[0].ended:
            second_half(script)
    assert got == [(event.event, event.data) for event in replay(runs, run, format)]
    assert script.count == 1


@pytest.mark.parametrize("in_query", [False, True], ids=["header", "query"])
def test_ui_starts_over_unless_there_is_nothing_left(
    runs: Server, script: ScriptedAnswer, in_query: bool
) -> None:
    first_half(script)
    second_half(script)
    stream = start(runs, script, format="ui")
    run = run_of(stream)
    events = rest(stream)
    way = by_query if in_query else by_header
    for seen in (0, 1, 3, LAST - 1):
        path, headers = way("ui", script.message, f"{run}.{seen}")
        assert rest(open_stream(runs, path, headers=headers)) == events
    path, headers = way("ui", script.message, f"{run}.{LAST}")
    assert ask(runs, path, headers=headers).status == 204
    assert end_of("ui", events) == "stop"
    assert script.count == 1


def test_another_format_than_before(runs: Server, script: ScriptedAnswer) -> None:
    """Ids belong to the run, not to the format that a client reads."""
    first_half(script)
    second_half(script)
    stream = start(runs, script, format="events")
    run = run_of(stream)
    rest(stream)
    for format in RESUMABLE:
        events = replay(runs, run, format)
        for seen in range(LAST):
            path, headers = at_the_run(format, script.message, f"{run}.{seen}")
            assert rest(open_stream(runs, path, headers=headers)) == after(run, events, seen)


@pytest.mark.parametrize("value", ["earliest", ""])
@pytest.mark.parametrize("in_query", [False, True], ids=["header", "query"])
def test_earliest_and_nothing_begin_a_new_run(
    runs: Server, script: ScriptedAnswer, value: str, in_query: bool
) -> None:
    script.say("x")
    script.finish()
    way = by_query if in_query else by_header
    path, headers = way("text", script.message, value)
    found = set()
    for _ in range(2):
        stream = open_stream(runs, path, headers=headers)
        found.add(run_of(stream))
        assert text_of("text", rest(stream)) == "x"
    assert len(found) == 2
    assert script.count == 2


@pytest.mark.parametrize("value", ["earliest", ""])
def test_earliest_of_a_run_is_all_of_it(runs: Server, script: ScriptedAnswer, value: str) -> None:
    script.say("x")
    script.finish()
    stream = start(runs, script)
    run = run_of(stream)
    events = rest(stream)
    assert rest(open_stream(runs, f"/runs/{run}?last_event_id={value}")) == events
    assert rest(open_stream(runs, f"/runs/{run}", headers={"Last-Event-ID": value})) == events


@on_every_store
def test_many_come_back_at_once(runs: Server, script: ScriptedAnswer) -> None:
    """All of an interrupted page's tabs, on whatever worker: one request of the upstream."""
    first_half(script)
    with contextlib.ExitStack() as stack:
        original = stack.enter_context(start(runs, script))
        run = run_of(original)
        original.data(3)
        connections = [stack.enter_context(Connection(runs)) for _ in range(40)]
        path, _ = by_header("chunks", script.message, "")
        for seen, connection in enumerate(connections):
            connection.request(path, headers={"Last-Event-ID": f"{run}.{seen % 4}"})
        streams = [Stream(connection) for connection in connections]
        second_half(script)
        got = [rest(stream) for stream in streams]
        original.rest()
    events = replay(runs, run, "chunks")
    assert got == [after(run, events, seen % 4) for seen in range(40)]
    assert script.count == 1

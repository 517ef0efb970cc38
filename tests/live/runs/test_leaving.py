"""When the last viewer has gone: the upstream is cancelled at once, never, or after a while."""

from __future__ import annotations

import time

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import Connection
from tests.live.kit.run_events import FORMATS, end_of, expected_end, parsed, text_of
from tests.live.kit.runs import JSON, START, attach, path_of, replay, rest, run_of, start, stop
from tests.live.kit.scripted import USAGE, ScriptedAnswer, usage_frame
from tests.live.kit.servers import Server
from tests.live.kit.stores import on_every_store
from tests.live.kit.waiting import until
from tests.live.kit.workers import connect_to, other_worker


def read_heartbeats(stream: Stream, seconds: float) -> None:
    """Read heartbeats for some seconds; fails if there is an event or an end."""
    until_then = time.monotonic() + seconds
    while time.monotonic() < until_then:
        assert stream.next_comments(1) == ["ping"]


def silent_for(script: ScriptedAnswer, seconds: float) -> None:
    """The time itself is tested: during it the upstream's request must not be closed."""
    until_then = time.monotonic() + seconds
    until(
        lambda: script.left() or time.monotonic() > until_then,
        "the time passes",
        seconds=seconds + 10,
    )
    assert not script.left(), f"cancelled within {seconds} s"


@pytest.mark.parametrize("on_disconnect", ["cancel", "0"])
@pytest.mark.parametrize("format", FORMATS)
def test_cancelled_at_once(
    runs: Server, script: ScriptedAnswer, format: str, on_disconnect: str
) -> None:
    script.say("one ", "two")
    with start(runs, script, format=format, on_disconnect=on_disconnect) as stream:
        run = run_of(stream)
        while "two" not in (stream.next().data or ""):
            pass
    script.wait_until_left()
    events = replay(runs, run, format)
    assert end_of(format, events) == expected_end(format, "cancelled")
    assert text_of(format, events) == "one two"
    if format == "chunks":
        assert parsed(events[-1])["error"]["type"] == "run_cancelled"
    assert stop(runs, run) == "cancelled", "it had ended by itself"
    assert replay(runs, run, format) == events


@pytest.mark.parametrize("how", ["query", "form", "json"])
def test_asked_for_in_every_way(runs: Server, script: ScriptedAnswer, how: str) -> None:
    script.say("one")
    path = path_of(START, user_message=script.message, on_disconnect="cancel")
    if how == "query":
        stream = open_stream(runs, path)
    elif how == "form":
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        stream = open_stream(
            runs, START, method="POST", headers=kind, body=path.partition("?")[2].encode()
        )
    else:
        body = b'{"user_message": "%s", "on_disconnect": 0}' % script.message.encode()
        stream = open_stream(runs, START, method="POST", headers=JSON, body=body)
    with stream:
        stream.next()
        assert not script.left()
    script.wait_until_left()


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("headers", [False, True], ids=["without headers", "with headers"])
def test_before_the_first_token(
    runs: Server, script: ScriptedAnswer, headers: bool, leave: str
) -> None:
    """The upstream has not even answered, and the client may have nothing in its hands yet."""
    early = "early" if headers else None
    path = path_of(START, user_message=script.message, on_disconnect="cancel", heartbeat=early)
    connection = Connection(runs)
    connection.request(path)
    script.wait_for_requests()
    if headers:
        assert connection.head().status == 200
    if leave == "reset":
        connection.reset()
    else:
        connection.close()
    script.wait_until_left()


@on_every_store
def test_another_viewer_keeps_it_alive(runs: Server, script: ScriptedAnswer) -> None:
    """On another worker; when that one leaves too it is the end, wherever the run is written."""
    script.say("one ")
    with start(runs, script, format="text", on_disconnect="cancel") as stream:
        run = run_of(stream)
        stream.next()
        other = connect_to(runs, other_worker(runs, stream.connection))
        viewer = attach(other, run, "text")
        assert viewer.next().data == "one "
    with viewer:
        read_heartbeats(viewer, 1.5)
        assert not script.left()
        script.say("two")
        assert viewer.next().data == "two"
    script.wait_until_left()
    events = replay(runs, run, "text")
    assert (text_of("text", events), end_of("text", events)) == ("one two", "cancelled")


@on_every_store
def test_viewers_of_a_viewer_do_not_decide(runs: Server, script: ScriptedAnswer) -> None:
    """A viewer that comes later and leaves does not end what the first one still reads."""
    script.say("one ")
    with start(runs, script, format="text", on_disconnect="cancel") as stream:
        run = run_of(stream)
        stream.next()
        for worker in runs.workers():
            with attach(connect_to(runs, worker), run, "text") as viewer:
                assert viewer.next().data == "one "
        read_heartbeats(stream, 1.5)
        script.say("two")
        script.finish()
        assert text_of("text", rest(stream)) == "two"


def test_continued(runs: Server, script: ScriptedAnswer) -> None:
    script.say("one ")
    with start(runs, script, on_disconnect="continue") as stream:
        run = run_of(stream)
        stream.next()
    silent_for(script, 1.5)
    script.say("two")
    script.finish()
    until(lambda: script.requests[0].ended, "the upstream has been read to its end")
    events = replay(runs, run, "text")
    assert (text_of("text", events), end_of("text", events)) == ("one two", "stop")
    assert not script.left()


def test_continued_before_the_first_token(runs: Server, script: ScriptedAnswer) -> None:
    with start(runs, script, on_disconnect="continue", heartbeat="early") as stream:
        run = run_of(stream)
        script.wait_for_requests()
    silent_for(script, 1)
    script.say("one")
    script.finish()
    assert text_of("text", replay(runs, run, "text")) == "one"


def test_after_a_grace_time(runs: Server, script: ScriptedAnswer) -> None:
    script.say("one")
    with start(runs, script, on_disconnect="2") as stream:
        run = run_of(stream)
        stream.next()
    silent_for(script, 1.5)
    script.wait_until_left()
    assert end_of("text", replay(runs, run, "text")) == "cancelled"


@on_every_store
def test_whoever_comes_back_in_time_keeps_it_alive(runs: Server, script: ScriptedAnswer) -> None:
    """On another worker; leaving again gives the whole grace time again."""
    script.say("one ")
    with start(runs, script, format="text", on_disconnect="4") as stream:
        run = run_of(stream)
        other = other_worker(runs, stream.connection)
        stream.next()
    silent_for(script, 2)
    headers = {"Last-Event-ID": f"{run}.1"}
    path = path_of(START, user_message=script.message, format="text")
    with open_stream(connect_to(runs, other), path, headers=headers) as stream:
        read_heartbeats(stream, 2.5)
        assert not script.left()
        script.say("two ")
        assert stream.next().data == "two "
    silent_for(script, 2.4)  # more than was left of the first time
    with attach(runs, run, "text") as stream:
        assert stream.data(2) == ["one ", "two "]
    script.wait_until_left()
    assert end_of("text", replay(runs, run, "text")) == "cancelled"
    assert script.count == 1


@pytest.mark.waits_long
def test_the_default_is_half_a_minute(runs: Server, script: ScriptedAnswer) -> None:
    script.say("one")
    with start(runs, script) as stream:
        run = run_of(stream)
        stream.next()
    silent_for(script, 25)
    script.wait_until_left(seconds=40)
    assert end_of("text", replay(runs, run, "text")) == "cancelled"


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
@pytest.mark.parametrize("known", [False, True], ids=["upstream never said", "upstream said"])
def test_usage_of_what_was_broken_off(
    runs: Server, script: ScriptedAnswer, known: bool, how: str
) -> None:
    script.say("one ", "two ", "three")
    if known:
        script.send(usage_frame(USAGE))
    with start(runs, script, format="chunks", on_disconnect="cancel") as stream:
        run = run_of(stream)
        for _ in range(4 if known else 3):
            stream.next()
        if how == "stopped":
            stop(runs, run)
    script.wait_until_left()
    events = replay(runs, run, "events")
    assert end_of("events", events) == how
    (usage,) = (parsed(event) for event in events if event.event == "usage")
    assert usage == (USAGE if known else {"completion_tokens": 3, "partial": True})


@pytest.mark.parametrize("how", ["finished", "stopped", "cancelled", "failed"])
def test_the_log_has_a_line_for_each_end(runs: Server, script: ScriptedAnswer, how: str) -> None:
    """With the run, how it has ended and what it has cost."""
    script.say("something confidential")
    with start(runs, script, on_disconnect="cancel") as stream:
        run = run_of(stream)
        stream.next()
        if how == "finished":
            script.finish(usage={"completion_tokens": 8_765_309})
        elif how == "failed":
            script.hang_up()
        elif how == "stopped":
            stop(runs, run)
        if how != "cancelled":
            rest(stream)

    figure = "8765309" if how == "finished" else "partial"

    def lines() -> list[str]:
        # An id is a secret if the demo model answers everybody: the log may shorten it.
        parts = (run[:8], how, figure)
        return [line for line in runs.log().splitlines() if all(part in line for part in parts)]

    until(lines, f"a line that says {how}")
    assert len(lines()) == 1
    assert "confidential" not in runs.log()

"""When the last viewer has gone: the upstream is cancelled at once, never, or after a while."""

from __future__ import annotations

import time

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import Connection
from tests.live.kit.paced import USAGE, Play, usage_frame
from tests.live.kit.run_events import FORMATS, end_of, expected_end, parsed, text_of
from tests.live.kit.runs import JSON, START, attach, path_of, replay, rest, run_of, start, stop
from tests.live.kit.servers import Server
from tests.live.kit.waiting import until
from tests.live.kit.workers import connect_to, other_worker


def watch_for(stream: Stream, seconds: float) -> None:
    """Read heartbeats for so long; fails when there is an event or an end."""
    until_then = time.monotonic() + seconds
    while time.monotonic() < until_then:
        assert stream.next_comments(1) == ["ping"]


def silent_for(play: Play, seconds: float) -> None:
    """The time itself is what is tested: for so long the upstream must not be left."""
    until_then = time.monotonic() + seconds
    until(
        lambda: play.left() or time.monotonic() > until_then,
        "the time passes",
        seconds=seconds + 10,
    )
    assert not play.left(), f"cancelled within {seconds} s"


@pytest.mark.parametrize("on_disconnect", ["cancel", "0"])
@pytest.mark.parametrize("form", FORMATS)
def test_cancelled_at_once(runs: Server, play: Play, form: str, on_disconnect: str) -> None:
    play.say("one ", "two")
    with start(runs, play, format=form, on_disconnect=on_disconnect) as stream:
        run = run_of(stream)
        while "two" not in (stream.next().data or ""):
            pass
    play.wait_until_left()
    events = replay(runs, run, form)
    assert end_of(form, events) == expected_end(form, "cancelled")
    assert text_of(form, events) == "one two"
    if form == "chunks":
        assert parsed(events[-1])["error"]["type"] == "run_cancelled"
    assert stop(runs, run) == "cancelled", "it had ended by itself"
    assert replay(runs, run, form) == events


@pytest.mark.parametrize("how", ["query", "form", "json"])
def test_asked_for_in_every_way(runs: Server, play: Play, how: str) -> None:
    play.say("one")
    path = path_of(START, user_message=play.message, on_disconnect="cancel")
    if how == "query":
        stream = open_stream(runs, path)
    elif how == "form":
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        stream = open_stream(
            runs, START, method="POST", headers=kind, body=path.partition("?")[2].encode()
        )
    else:
        body = b'{"user_message": "%s", "on_disconnect": 0}' % play.message.encode()
        stream = open_stream(runs, START, method="POST", headers=JSON, body=body)
    with stream:
        stream.next()
        assert not play.left()
    play.wait_until_left()


@pytest.mark.parametrize("leave", ["close", "reset"])
@pytest.mark.parametrize("headers", [False, True], ids=["without headers", "with headers"])
def test_before_the_first_token(runs: Server, play: Play, headers: bool, leave: str) -> None:
    """The upstream has not even answered, and the client may have nothing in its hands yet."""
    early = "early" if headers else None
    path = path_of(START, user_message=play.message, on_disconnect="cancel", heartbeat=early)
    connection = Connection(runs)
    connection.request(path)
    play.wait_for_asked()
    if headers:
        assert connection.head().status == 200
    if leave == "reset":
        connection.reset()
    else:
        connection.close()
    play.wait_until_left()


def test_another_viewer_keeps_it_alive(runs: Server, play: Play) -> None:
    """On another worker; when that one leaves too it is the end, wherever the run is written."""
    play.say("one ")
    with start(runs, play, format="text", on_disconnect="cancel") as stream:
        run = run_of(stream)
        stream.next()
        other = connect_to(runs, other_worker(runs, stream.connection))
        viewer = attach(other, run, "text")
        assert viewer.next().data == "one "
    with viewer:
        watch_for(viewer, 1.5)
        assert not play.left()
        play.say("two")
        assert viewer.next().data == "two"
    play.wait_until_left()
    events = replay(runs, run, "text")
    assert (text_of("text", events), end_of("text", events)) == ("one two", "cancelled")


def test_viewers_of_a_viewer_do_not_decide(runs: Server, play: Play) -> None:
    """Who comes later and leaves does not end what the first one still reads."""
    play.say("one ")
    with start(runs, play, format="text", on_disconnect="cancel") as stream:
        run = run_of(stream)
        stream.next()
        for worker in runs.workers():
            with attach(connect_to(runs, worker), run, "text") as viewer:
                assert viewer.next().data == "one "
        watch_for(stream, 1.5)
        play.say("two")
        play.finish()
        assert text_of("text", rest(stream)) == "two"


def test_continued(runs: Server, play: Play) -> None:
    play.say("one ")
    with start(runs, play, on_disconnect="continue") as stream:
        run = run_of(stream)
        stream.next()
    silent_for(play, 1.5)
    play.say("two")
    play.finish()
    until(lambda: play.asked[0].ended, "the upstream has been read to its end")
    events = replay(runs, run, "text")
    assert (text_of("text", events), end_of("text", events)) == ("one two", "stop")
    assert not play.left()


def test_continued_before_the_first_token(runs: Server, play: Play) -> None:
    with start(runs, play, on_disconnect="continue", heartbeat="early") as stream:
        run = run_of(stream)
        play.wait_for_asked()
    silent_for(play, 1)
    play.say("one")
    play.finish()
    assert text_of("text", replay(runs, run, "text")) == "one"


def test_after_a_grace_time(runs: Server, play: Play) -> None:
    play.say("one")
    with start(runs, play, on_disconnect="2") as stream:
        run = run_of(stream)
        stream.next()
    silent_for(play, 1.5)
    play.wait_until_left()
    assert end_of("text", replay(runs, run, "text")) == "cancelled"


def test_whoever_comes_back_in_time_keeps_it_alive(runs: Server, play: Play) -> None:
    """On another worker; leaving again gives the whole grace time again."""
    play.say("one ")
    with start(runs, play, format="text", on_disconnect="4") as stream:
        run = run_of(stream)
        other = other_worker(runs, stream.connection)
        stream.next()
    silent_for(play, 2)
    headers = {"Last-Event-ID": f"{run}.1"}
    path = path_of(START, user_message=play.message, format="text")
    with open_stream(connect_to(runs, other), path, headers=headers) as stream:
        watch_for(stream, 2.5)
        assert not play.left()
        play.say("two ")
        assert stream.next().data == "two "
    silent_for(play, 2.4)  # more than was left of the first time
    with attach(runs, run, "text") as stream:
        assert stream.data(2) == ["one ", "two "]
    play.wait_until_left()
    assert end_of("text", replay(runs, run, "text")) == "cancelled"
    assert play.count == 1


@pytest.mark.waits_long
def test_the_default_is_half_a_minute(runs: Server, play: Play) -> None:
    play.say("one")
    with start(runs, play) as stream:
        run = run_of(stream)
        stream.next()
    silent_for(play, 25)
    play.wait_until_left(seconds=40)
    assert end_of("text", replay(runs, run, "text")) == "cancelled"


@pytest.mark.parametrize("how", ["stopped", "cancelled"])
@pytest.mark.parametrize("told", [False, True], ids=["upstream never said", "upstream said"])
def test_usage_of_what_was_broken_off(runs: Server, play: Play, told: bool, how: str) -> None:
    play.say("one ", "two ", "three")
    if told:
        play.send(usage_frame(USAGE))
    with start(runs, play, format="chunks", on_disconnect="cancel") as stream:
        run = run_of(stream)
        for _ in range(4 if told else 3):
            stream.next()
        if how == "stopped":
            stop(runs, run)
    play.wait_until_left()
    events = replay(runs, run, "events")
    assert end_of("events", events) == how
    (usage,) = (parsed(event) for event in events if event.event == "usage")
    assert usage == (USAGE if told else {"completion_tokens": 3, "partial": True})


@pytest.mark.parametrize("how", ["finished", "stopped", "cancelled", "failed"])
def test_the_log_has_a_line_for_each_end(runs: Server, play: Play, how: str) -> None:
    """With the run, how it has ended and what it has cost."""
    play.say("something confidential")
    with start(runs, play, on_disconnect="cancel") as stream:
        run = run_of(stream)
        stream.next()
        if how == "finished":
            play.finish(usage={"completion_tokens": 8_765_309})
        elif how == "failed":
            play.hang_up()
        elif how == "stopped":
            stop(runs, run)
        if how != "cancelled":
            rest(stream)

    figure = "8765309" if how == "finished" else "partial"

    def lines() -> list[str]:
        # An id is a secret where the demo model answers everybody: the log may shorten it.
        parts = (run[:8], how, figure)
        return [line for line in runs.log().splitlines() if all(part in line for part in parts)]

    until(lines, f"a line that says {how}")
    assert len(lines()) == 1
    assert "confidential" not in runs.log()

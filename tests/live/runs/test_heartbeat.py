"""Long silences: when the headers leave, and the heartbeats that every client survives."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import Connection
from tests.live.kit.run_events import (
    FORMATS,
    end_of,
    expected_end,
    parsed,
    text_of,
    without_heartbeats,
)
from tests.live.kit.runs import (
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
from tests.live.kit.servers import Server
from tests.scripted_upstream import frame

ERROR = {"message": "Slow down.", "type": "rate_limit_error", "param": None, "code": "slow"}
REFUSAL = json.dumps({"error": ERROR}).encode()
SILENCE = 0.7


@pytest.fixture(scope="module")
def waiting(
    tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedUpstream
) -> Iterator[Server]:
    """A service whose headers wait for a minute, with ten heartbeats a second."""
    directory = tmp_path_factory.mktemp("waiting")
    settings = {"SSEFLASK_FIRST_BYTE": "60", "SSEFLASK_HEARTBEAT": "0.1"}
    with run_service(directory, scripted, workers=1, settings=settings) as server:
        yield server


def silent(connection: Connection) -> None:
    """Nothing comes although heartbeats would be due."""
    connection.socket.settimeout(SILENCE)
    with pytest.raises(TimeoutError):
        connection.socket.recv(1)
    connection.socket.settimeout(20)


@pytest.mark.parametrize("format", FORMATS)
def test_headers_wait_for_the_upstream(
    waiting: Server, script: ScriptedAnswer, format: str
) -> None:
    """So that its refusal is a response with its status."""
    with Connection(waiting) as connection:
        connection.request(path_of(START, user_message=script.message, format=format))
        script.wait_for_requests()
        silent(connection)
        script.answer(429, REFUSAL)
        head = connection.head()
        assert head.status == 429
        assert json.loads(connection.body(head)) == {"error": ERROR}


@pytest.mark.parametrize("format", FORMATS)
def test_headers_wait_for_the_first_frame(
    waiting: Server, script: ScriptedAnswer, format: str
) -> None:
    with Connection(waiting) as connection:
        connection.request(path_of(START, user_message=script.message, format=format))
        script.wait_for_requests()
        script.begin()
        silent(connection)
        script.say("one")
        stream = Stream(connection)
        stream.next()
        assert stream.comments == [], "there was something to say at once"
        script.finish()
        rest(stream)


def test_not_longer_than_that(runs: Server, script: ScriptedAnswer) -> None:
    """A second by default; then a heartbeat goes with them, and a refusal is in band."""
    with start(runs, script, format="text") as stream:
        assert stream.head.status == 200
        run = run_of(stream)
        assert stream.next_comments(1) == ["ping"]
        script.answer(429, REFUSAL)
        events = rest(stream)
    assert end_of("text", events) == "error:slow"
    assert stop(runs, run) == "failed"


@pytest.mark.parametrize("format", FORMATS)
def test_early(waiting: Server, script: ScriptedAnswer, format: str) -> None:
    """At once, before the upstream has answered; at the price of its status."""
    path = path_of(START, user_message=script.message, format=format, heartbeat="early")
    with open_stream(waiting, path) as stream:
        assert stream.head.status == 200
        run = run_of(stream)
        assert stream.next_comments(3) == ["ping"] * 3
        script.answer(429, REFUSAL)
        events = rest(stream)
    assert end_of(format, events) == expected_end(format, "error:slow")
    if format == "ui":
        (failure,) = (parsed(e) for e in events[:-1] if parsed(e)["type"] == "error")
        assert failure["errorText"] == ERROR["message"]
    else:
        assert parsed(events[-1]) == {"error": ERROR}
    later = ask(waiting, f"/runs/{run}?format={format}")
    assert (later.status, json.loads(later.body)) == (429, {"error": ERROR})


@pytest.mark.parametrize("format", FORMATS)
def test_early_and_well(waiting: Server, script: ScriptedAnswer, format: str) -> None:
    with start(waiting, script, format=format, heartbeat="early") as stream:
        run = run_of(stream)
        stream.next_comments(2)
        script.say("one")
        script.finish()
        events = rest(stream)
    assert text_of(format, events) == "one"
    assert events == replay(waiting, run, format)


@pytest.mark.parametrize("who", ["starts", "attaches"])
@pytest.mark.parametrize("format", FORMATS)
def test_each_is_one_line(waiting: Server, script: ScriptedAnswer, format: str, who: str) -> None:
    """`: ping` and one newline: with a blank line after it some clients see an empty event."""
    script.say("one")
    with start(waiting, script, format=format) as original:
        run = run_of(original)
        stream = attach(waiting, run, format) if who == "attaches" else original
        body = b""
        with stream:
            for piece in stream.connection.pieces(stream.head):
                body += piece
                if body.count(b": ping\n") >= 5 and not script.requests[0].ended:
                    script.send(frame(" two"))
                    script.finish()
        assert stream.connection.complete
    events = body.split(b"\n\n")
    assert events.pop() == b"", "the last thing is the end of an event"
    assert b": ping\n\n" not in body
    assert b"\n\n: ping\n" in body
    for event in without_heartbeats(body).split(b"\n\n")[:-1]:
        assert all(line.startswith((b"id: ", b"data: ", b"event: ")) for line in event.split(b"\n"))


@pytest.mark.parametrize("early", [False, True], ids=["headers wait", "headers early"])
def test_leaving_before_the_first_token(
    waiting: Server, script: ScriptedAnswer, early: bool
) -> None:
    heartbeat = "early" if early else None
    path = path_of(START, user_message=script.message, on_disconnect="cancel", heartbeat=heartbeat)
    with Connection(waiting) as connection:
        connection.request(path)
        script.wait_for_requests()
        if early:
            assert connection.head().status == 200
        else:
            silent(connection)
        assert not script.left()
    script.wait_until_left()


def test_a_viewer_does_not_wait(waiting: Server, script: ScriptedAnswer) -> None:
    """The run exists, so there is no reason to hold the headers back."""
    with start(waiting, script, heartbeat="early") as stream:
        run = run_of(stream)
        with attach(waiting, run) as viewer:
            assert viewer.head.status == 200
            assert viewer.next_comments(1) == ["ping"]

"""Exactly one terminal event for every run, whatever happens; the same for all and for ever."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.kit.clients import Stream
from tests.live.kit.events import Sent
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import (
    FORMATS,
    RESUMABLE,
    end_of,
    expected_end,
    number,
    parsed,
    text_of,
)
from tests.live.kit.runs import (
    JSON,
    START,
    ask,
    ask_start,
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
from tests.live.kit.workers import connect_to
from tests.scripted_upstream import DONE, frame

ERROR = {"message": "Too much of it.", "type": "server_error", "param": None, "code": "overloaded"}
ERROR_FRAME = b"data: " + json.dumps({"error": ERROR}).encode() + b"\n\n"


@pytest.fixture(scope="module")
def impatient(
    tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedUpstream
) -> Iterator[Server]:
    """A service that gives up on an upstream that is silent for 2 s."""
    directory, settings = tmp_path_factory.mktemp("impatient"), {"SSEFLASK_UPSTREAM_TIMEOUT": "2"}
    with run_service(directory, scripted, workers=1, settings=settings) as server:
        yield server


def finish(reason: str) -> Callable[[ScriptedAnswer], None]:
    return lambda script: script.finish(reason)


def send(*data: bytes) -> Callable[[ScriptedAnswer], None]:
    def act(script: ScriptedAnswer) -> None:
        script.send(*data)
        script.end()

    return act


def cut_in_a_frame(script: ScriptedAnswer) -> None:
    script.send(frame("never whole")[:-20])
    script.hang_up()


ENDS: dict[str, tuple[Callable[[ScriptedAnswer], None], str]] = {
    "stop": (finish("stop"), "stop"),
    "length": (finish("length"), "length"),
    "content filter": (finish("content_filter"), "content_filter"),
    "tool calls": (finish("tool_calls"), "tool_calls"),
    "no [DONE]": (send(frame(finish="stop")), "stop"),
    "more after [DONE]": (send(frame(finish="stop"), DONE, frame("x"), DONE), "stop"),
    "an error and [DONE]": (send(ERROR_FRAME, DONE), "error:overloaded"),
    "an error": (send(ERROR_FRAME), "error:overloaded"),
    "two errors": (send(ERROR_FRAME, ERROR_FRAME), "error:overloaded"),
    "truncated": (send(), "error:upstream_truncated"),
    "cut": (ScriptedAnswer.hang_up, "error:upstream_truncated"),
    "cut in a frame": (cut_in_a_frame, "error:upstream_truncated"),
    "garbage": (send(b"data: {no json\n\n", DONE), "error:upstream_invalid"),
}


def assert_one_end(
    server: Server, run: str, seen: dict[str, list[Sent]], said: str, text: str = "one two"
) -> None:
    """The viewers have seen what each worker gives to later viewers."""
    for format in FORMATS:
        assert end_of(format, seen[format]) == expected_end(format, said)
        assert text_of(format, seen[format]) == text
        for worker in server.workers():
            assert rest(attach(connect_to(server, worker), run, format)) == seen[format]
    last = {number(run, events[-1]) for events in seen.values()}
    assert len(last) == 1, "it is the same event in every format"
    chunks = [number(run, event) for event in seen["chunks"]]
    assert chunks == list(range(1, chunks[-1] + 1))
    (end,) = last
    for format in FORMATS:
        answer = ask(server, f"/runs/{run}?format={format}&last_event_id={run}.{end}")
        assert (answer.status, answer.body) == (204, b"")
    status = {True: "failed", False: said if said in ("stopped", "cancelled") else "finished"}
    assert stop(server, run) == status[said.startswith("error:")]
    for format in FORMATS:
        assert replay(server, run, format) == seen[format], "stopping it changes nothing"


@pytest.mark.parametrize("what", ENDS)
def test_ends(runs: Server, script: ScriptedAnswer, what: str) -> None:
    act, said = ENDS[what]
    script.say("one ", "two")
    with contextlib.ExitStack() as stack:
        original = stack.enter_context(start(runs, script))
        run = run_of(original)
        streams = {format: stack.enter_context(attach(runs, run, format)) for format in FORMATS}
        act(script)
        seen = {format: rest(stream) for format, stream in streams.items()}
        assert rest(original) == seen["chunks"]
    assert_one_end(runs, run, seen, said)
    assert script.count == 1


def test_json_that_is_no_chunk(runs: Server, script: ScriptedAnswer) -> None:
    """It is skipped or the run fails, but all viewers see the same run."""
    script.say("one")
    send(b'data: {"hello": 1}\n\n', frame(finish="stop"), DONE)(script)
    stream = start(runs, script)
    run = run_of(stream)
    rest(stream)
    ends = {format: end_of(format, replay(runs, run, format)) for format in FORMATS}
    said = ends["text"]
    assert said in ("stop", "error:upstream_invalid")
    assert ends == {format: expected_end(format, said) for format in FORMATS}


def test_an_upstreams_error_is_reported_in_its_own_words(
    runs: Server, script: ScriptedAnswer
) -> None:
    script.say("one")
    send(ERROR_FRAME)(script)
    stream = start(runs, script)
    run = run_of(stream)
    assert parsed(rest(stream)[-1]) == {"error": ERROR}
    for format in ("text", "events"):
        assert parsed(replay(runs, run, format)[-1]) == {"error": ERROR}
    part, done = replay(runs, run, "ui")[-2:]
    assert parsed(part) == {"type": "error", "errorText": ERROR["message"]}
    assert done.data == "[DONE]"


def test_a_silent_upstream(impatient: Server, script: ScriptedAnswer) -> None:
    script.say("one ", "two")
    with contextlib.ExitStack() as stack:
        original = stack.enter_context(start(impatient, script))
        run = run_of(original)
        streams = {
            format: stack.enter_context(attach(impatient, run, format)) for format in FORMATS
        }
        seen = {format: rest(stream) for format, stream in streams.items()}
    script.wait_until_left()
    assert_one_end(impatient, run, seen, "error:upstream_timeout")


@pytest.mark.parametrize("format", FORMATS)
def test_an_upstream_that_never_begins(
    impatient: Server, script: ScriptedAnswer, format: str
) -> None:
    """The headers have been sent by then, without any text of the answer."""
    with start(impatient, script, format=format) as stream:
        run = run_of(stream)
        events = rest(stream)
    assert end_of(format, events) == expected_end(format, "error:upstream_timeout")
    script.wait_until_left()
    assert stop(impatient, run) == "failed"


STATUSES = [(400, "bad"), (403, "denied"), (404, "gone"), (429, "slow"), (500, None), (503, "busy")]


@pytest.mark.parametrize(("status", "code"), STATUSES)
def test_refused_before_the_first_byte(
    runs: Server, script: ScriptedAnswer, status: int, code: str | None
) -> None:
    error = {"message": "No.", "type": "some_error", "param": "model", "code": code}
    script.answer(status, json.dumps({"error": error}).encode())
    answer = ask_start(runs, script)
    assert (answer.status, json.loads(answer.body)) == (status, {"error": error})
    run = run_of(answer)
    for format in FORMATS:
        later = ask(runs, f"/runs/{run}?format={format}")
        assert (later.status, json.loads(later.body)) == (status, {"error": error})
    assert stop(runs, run) == "failed"
    assert script.count == 1


@pytest.mark.parametrize("body", [b"<html>", b'"text"', b"{", b"\xff"], ids=repr)
@pytest.mark.parametrize("status", [200, 502])
def test_an_answer_that_is_no_stream(
    runs: Server, script: ScriptedAnswer, status: int, body: bytes
) -> None:
    script.answer(status, body, kind="text/html")
    answer = ask_start(runs, script)
    assert answer.status == 502
    assert set(json.loads(answer.body)["error"]) >= {"message", "type", "param", "code"}
    assert stop(runs, run_of(answer)) == "failed"


def test_an_upstream_that_is_not_there(
    tmp_path: Path, scripted: ScriptedUpstream, script: ScriptedAnswer
) -> None:
    settings = {"OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}/v1"}
    with run_service(tmp_path, scripted, workers=1, settings=settings) as server:
        for format in FORMATS:
            answer = ask_start(server, script, format=format)
            assert error_of(answer, 502)["code"] == "upstream_unreachable"
            again = ask(server, f"/runs/{run_of(answer)}")
            assert (again.status, again.body) == (502, answer.body)
            stream = start(server, script, format=format, heartbeat="early")
            events = rest(stream)
            assert end_of(format, events) == expected_end(format, "error:upstream_unreachable")


def test_cut_before_the_first_byte(runs: Server, script: ScriptedAnswer) -> None:
    script.hang_up()
    answer = ask_start(runs, script)
    assert answer.status == 502
    again = ask(runs, f"/runs/{run_of(answer)}")
    assert (again.status, again.body) == (502, answer.body)


def test_cut_before_the_first_frame(runs: Server, script: ScriptedAnswer) -> None:
    script.begin()
    script.hang_up()
    answer = ask_start(runs, script)
    assert answer.status == 502
    assert json.loads(answer.body)["error"]["code"] == "upstream_truncated"


@pytest.mark.parametrize("rival", ["stop", "leave"])
@pytest.mark.parametrize("format", RESUMABLE)
def test_ending_in_two_ways_at_once(
    runs: Server, scripted: ScriptedUpstream, format: str, rival: str
) -> None:
    """Whichever wins: one terminal event, and DELETE, viewers and latecomers agree on it."""
    seen = set()
    for round in range(25):
        script = scripted.script()
        script.say("one")
        with start(runs, script, on_disconnect="cancel", format=format) as original:
            run = run_of(original)
            original.next()
            if rival == "stop":
                viewer = attach(runs, run, format)
            barrier = threading.Barrier(2)

            def finish_it(
                script: ScriptedAnswer = script, barrier: threading.Barrier = barrier
            ) -> None:
                barrier.wait(20)
                script.finish("stop", usage=None)

            thread = threading.Thread(target=finish_it)
            thread.start()
            barrier.wait(20)
            if rival == "stop":
                status = stop(runs, run)
                events = rest(viewer)
                assert events[1:] == rest(original)
        thread.join(20)
        if rival == "leave":
            events = replay(runs, run, format)
            status = stop(runs, run)
        for worker in runs.workers() if round < 3 else []:
            assert rest(attach(connect_to(runs, worker), run, format)) == events
        assert replay(runs, run, format) == events
        broken = "stopped" if rival == "stop" else "cancelled"
        assert end_of(format, events) == expected_end(
            format, broken if status == broken else "stop"
        )
        assert status in (broken, "finished")
        seen.add(status)
        script.hang_up()
    assert seen, "which of them is up to the machine"


def test_the_same_end_for_a_viewer_who_came_before_it_was_known(
    runs: Server, script: ScriptedAnswer
) -> None:
    """A start whose upstream refuses late: in band, as the headers have been sent."""
    with contextlib.ExitStack() as stack:
        original = stack.enter_context(start(runs, script, heartbeat="early", format="text"))
        run = run_of(original)
        viewers: list[Stream] = [
            stack.enter_context(attach(connect_to(runs, worker), run, "text", headers={}))
            for worker in runs.workers()
        ]
        script.answer(429, json.dumps({"error": ERROR}).encode())
        ends = [rest(stream)[-1] for stream in (original, *viewers)]
    assert {(end.event, end.data, end.id) for end in ends} == {
        ("failure", ends[0].data, f"{run}.1")
    }
    assert parsed(ends[0]) == {"error": ERROR}


def test_json_that_the_upstream_refuses(runs: Server, script: ScriptedAnswer) -> None:
    """A refusal belongs to the run, not to the service: the next request is a new one."""
    script.answer(400, json.dumps({"error": ERROR}).encode())
    body = json.dumps({"user_message": script.message}).encode()
    answers = [ask(runs, path_of(START), "POST", JSON, body) for _ in range(2)]
    assert len({run_of(answer) for answer in answers}) == 2
    assert script.count == 2

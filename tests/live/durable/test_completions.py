"""Completions of an application's own client, and its texts: in every format, durable."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.durable import command
from tests.live.kit.publishing import error_of
from tests.live.kit.run_events import FORMATS, RESUMABLE, expected_end, last_id
from tests.live.kit.runs import (
    JSON,
    ask,
    ask_start,
    attach,
    read,
    read_run,
    replay,
    run_of,
    start,
    stop,
    take,
)
from tests.live.kit.scripted import USAGE, ScriptedAnswer, ScriptedUpstream
from tests.live.kit.servers import Server, free_port, running
from tests.live.kit.services import KEY
from tests.live.kit.waiting import until
from tests.live.kit.workers import connect_to, other_worker, wait_for_workers
from tests.scripted_upstream import event

APP = "tests.live.durable.probe.completions_app:app"
GEVENT, THREADS = "gunicorn-worker", "gunicorn-gthread"


@pytest.fixture(scope="module", params=[GEVENT, THREADS])
def server(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    scripted: ScriptedUpstream,
) -> Iterator[Server]:
    """The application with two workers."""
    directory, port = tmp_path_factory.mktemp("completing"), free_port()
    changes = {
        "PROBE_MARKS": str(directory),
        "PROBE_RUNS": str(directory / "runs.sqlite"),
        **scripted.settings(),
    }
    started = [*command(request.param, port)[:-1], APP]
    with running(request.param, started, port, directory / "log", changes, "/healthz") as found:
        wait_for_workers(found, 2)
        yield found
        assert KEY not in found.log(), "the upstream's key is in the log"


def say(server: Server, tag: str, *pieces: str, then: str = "", format: str = "text") -> Stream:
    body = json.dumps([pieces, then]).encode()
    return open_stream(
        server, f"/texts/{tag}?format={format}", method="POST", headers=JSON, body=body
    )


def marks(server: Server, tag: str) -> list[str]:
    path = server.directory.parent / tag
    return path.read_text().splitlines() if path.exists() else []


@pytest.mark.parametrize("format", FORMATS)
def test_each_format(server: Server, script: ScriptedAnswer, format: str) -> None:
    stream = start(server, script, format=format)
    script.say("One ", "zwei\n", "你好")
    script.finish()
    found = read(stream, format)
    assert found.text == "One zwei\n你好"
    assert found.end == expected_end(format, "stop")
    if format in ("chunks", "events"):
        assert found.usage == [USAGE]
    assert read_run(server, run_of(stream), format).events == found.events
    assert script.count == 1


@pytest.mark.parametrize("format", RESUMABLE)
def test_it_goes_on_at_another_worker(server: Server, script: ScriptedAnswer, format: str) -> None:
    stream = start(server, script, format=format)
    run, worker = run_of(stream), other_worker(server, stream.connection)
    with stream:
        script.say("One ", "zwei ")
        seen = take(stream, 1, format)
    script.say("three")
    script.finish()
    again = attach(connect_to(server, worker), run, format, last_id(seen))
    whole = read(again, format, before=seen)
    assert whole.text == "One zwei three"
    assert replay(server, run, format) == whole.events
    assert script.count == 1
    answer = ask(server, f"/results/{run}")
    said = json.loads(answer.body)
    assert said["state"] == "finished"
    assert "".join(said["text"]) == "One zwei three"


def test_it_begins_without_a_client(server: Server, script: ScriptedAnswer) -> None:
    run = json.loads(ask(server, f"/start/{script.message}", "POST").body)["run"]
    script.say("One")
    script.finish()
    assert [read_run(server, run, format).text for format in FORMATS] == ["One"] * len(FORMATS)
    assert script.count == 1


def test_another_owner_has_no_such_run(server: Server, script: ScriptedAnswer) -> None:
    mine, other = {"X-User": "ann"}, {"X-User": "bob"}
    with start(server, script, headers=mine, format="text") as stream:
        run = run_of(stream)
        for method in ("GET", "DELETE"):
            error_of(ask(server, f"/runs/{run}", method, other), 404)
        script.say("mine")
        script.finish()
        assert read(attach(server, run, "text", headers=mine), "text").text == "mine"


@pytest.mark.parametrize("begun", [False, True], ids=["before the first token", "between tokens"])
def test_stop_closes_the_upstream(server: Server, script: ScriptedAnswer, begun: bool) -> None:
    """From the other worker; without gevent with the next token."""
    script.begin()
    if begun:
        script.say("One")
    with start(server, script, format="text", first_byte=0) as stream:
        seen = take(stream, 1) if begun else []
        script.wait_for_requests()
        worker = other_worker(server, stream.connection)
        with connect_to(server, worker) as elsewhere:
            elsewhere.request(f"/runs/{run_of(stream)}", method="DELETE")
            assert json.loads(elsewhere.body(elsewhere.head()))["status"] == "stopped"
        if server.kind == THREADS:
            script.say("too late")
        script.wait_until_left()
        found = read(stream, "text", before=seen)
    assert (found.text, found.end) == ("One" if begun else "", "stopped")


def test_leaving_closes_the_upstream(server: Server, script: ScriptedAnswer) -> None:
    with start(server, script, format="text", on_disconnect="cancel") as stream:
        script.say("One")
        take(stream, 1)

    def left() -> bool:
        if server.kind == THREADS:
            script.say("more")  # nobody takes it, which is noticed
        return script.left()

    until(left, "the upstream's connection closed early")
    assert read_run(server, run_of(stream)).end == "cancelled"


@pytest.mark.parametrize("format", FORMATS)
def test_a_failure_before_the_first_chunk(
    server: Server, script: ScriptedAnswer, format: str
) -> None:
    error = {"message": f"Slow down, {KEY}", "type": "requests", "param": None, "code": "slow"}
    script.refuse(429, json.dumps({"error": error}).encode(), "Retry-After: 7")
    answer = ask_start(server, script, format=format)
    assert error_of(answer, 429) == {**error, "message": "Slow down, ***"}
    assert answer.headers["retry-after"] == "7"
    assert script.count == 1


@pytest.mark.parametrize("format", FORMATS)
def test_a_failure_in_the_middle(server: Server, script: ScriptedAnswer, format: str) -> None:
    script.say("One")
    script.hang_up()
    found = read(start(server, script, format=format), format)
    assert (found.text, found.end) == ("One", expected_end(format, "error:upstream_truncated"))


def test_a_key_runs_it_once(server: Server, script: ScriptedAnswer, tag: str) -> None:
    script.say("once")
    script.finish()
    found = [read(start(server, script, format="text", idempotency_key=tag), "text") for _ in "ab"]
    assert found[0].events == found[1].events
    assert script.count == 1


def test_a_response(server: Server, script: ScriptedAnswer) -> None:
    script.send(
        event("response.output_text.delta", delta="Hi", output_index=0, content_index=0),
        event("response.completed", response={"status": "completed", "usage": {"input_tokens": 1}}),
    )
    script.end()
    found = read(start(server, script, api="responses", format="events"), "events")
    assert (found.text, found.end, found.usage) == ("Hi", "stop", [{"input_tokens": 1}])


@pytest.mark.parametrize("format", FORMATS)
def test_text_of_anything(server: Server, tag: str, format: str) -> None:
    stream = say(server, tag, "One ", "", "zwei\n", "你好", format=format)
    found = read(stream, format)
    assert found.text == f"/texts/{tag} gOne zwei\n你好"
    assert found.end == expected_end(format, "stop")
    if format == "events":
        assert found.usage == [{"completion_tokens": 4, "partial": True}]
    assert replay(server, run_of(stream), format) == found.events
    assert marks(server, tag) == ["finally"]


@pytest.mark.parametrize("format", FORMATS)
def test_text_that_fails(server: Server, tag: str, format: str) -> None:
    found = read(say(server, tag, then="fail", format=format), format)
    assert found.end == expected_end(format, "error:internal_error")
    assert "secret detail" not in str(found.events)
    assert f"Exception in the stream of '/texts/{tag}'" in server.log()
    assert marks(server, tag) == ["finally"]


def test_text_is_stopped(server: Server, tag: str) -> None:
    """Wherever it waits; without gevent at its next item."""
    with say(server, tag, "One", then="go on" if server.kind == THREADS else "wait") as stream:
        until(lambda: marks(server, tag) == ["waits"], "the generator waits")
        assert stop(server, run_of(stream)) == "stopped"
        until(lambda: marks(server, tag) == ["waits", "finally"], "its finally has run")
        assert read(stream, "text").end == "stopped"

"""The Responses API relayed: typed events, and an end of their own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live.kit.clients import Stream, open_stream
from tests.live.kit.connection import Connection
from tests.live.kit.events import Sent
from tests.live.kit.run_events import after, number, parsed
from tests.live.kit.runs import JSON, ask, attach, raw, rest, run_of, stop
from tests.live.kit.scripted import ScriptedAnswer
from tests.live.kit.servers import Server
from tests.live.kit.workers import connect_to

ROUTE = "/v1/responses"


def typed(kind: str, **fields: Any) -> bytes:
    """One event as OpenAI sends it."""
    data = json.dumps({"type": kind, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()


def say(script: ScriptedAnswer, *texts: str) -> None:
    script.send(*(typed("response.output_text.delta", delta=text) for text in texts))


def end(script: ScriptedAnswer, how: str = "completed") -> None:
    script.send(typed(f"response.{how}", response={"status": how, "usage": {"total_tokens": 3}}))
    script.end()


def respond(
    where: Server | Connection, script: ScriptedAnswer, query: str = "", key: str | None = None
) -> Stream:
    body = json.dumps({"model": "m", "input": script.message, "stream": True}).encode()
    headers = {**JSON, **({"Idempotency-Key": key} if key else {})}
    return open_stream(where, ROUTE + query, method="POST", headers=headers, body=body)


def assert_error(event: Sent, code: str) -> None:
    """How a failure of ours is reported in such a stream."""
    assert event.event == "error"
    assert code in (event.data or "")
    assert parsed(event).get("type", "error") == "error"


@pytest.mark.parametrize("how", ["completed", "incomplete", "failed"])
def test_the_upstreams_events_with_ids(runs: Server, script: ScriptedAnswer, how: str) -> None:
    """Its own last event is the end: nothing comes after it."""
    sent = [
        typed("response.created", response={"id": "resp_1"}),
        typed("response.reasoning_text.delta", delta="hm"),
        typed("response.output_text.delta", delta="你好 \U0001f30a"),
        typed("keepalive", sequence_number=3),
        typed(f"response.{how}", response={"status": how}),
    ]
    script.send(*sent)
    script.end()
    stream = respond(runs, script)
    assert stream.head.status == 200
    run = run_of(stream)
    blocks = [block + b"\n\n" for block in raw(stream).split(b"\n\n")[:-1]]
    assert len(blocks) == len(sent)
    for n, (block, expected) in enumerate(zip(blocks, sent, strict=True), 1):
        id_line = b"id: %s.%d\n" % (run.encode(), n)
        assert block.count(id_line) == 1
        assert block.replace(id_line, b"") == expected
    assert stop(runs, run) == ("failed" if how == "failed" else "finished")


def test_resumed(runs: Server, script: ScriptedAnswer) -> None:
    say(script, "one ", "two ")
    with respond(runs, script) as stream:
        run = run_of(stream)
        assert stream.next().id == f"{run}.1"
    viewers = [attach(connect_to(runs, worker), run, last=f"{run}.1") for worker in runs.workers()]
    say(script, "three")
    end(script)
    got = [rest(viewer) for viewer in viewers]
    complete = rest(attach(runs, run))
    assert [number(run, event) for event in complete] == [1, 2, 3, 4]
    for seen in range(4):
        assert rest(attach(runs, run, last=f"{run}.{seen}")) == after(run, complete, seen)
    assert got == [after(run, complete, 1)] * 2
    assert complete[-1].event == "response.completed"
    assert ask(runs, f"/runs/{run}", headers={"Last-Event-ID": f"{run}.4"}).status == 204
    assert script.count == 1


@pytest.mark.parametrize("begun", [False, True])
def test_stopped(runs: Server, script: ScriptedAnswer, begun: bool) -> None:
    if begun:
        say(script, "one")
    with respond(runs, script, "?heartbeat=early") as stream:
        run = run_of(stream)
        script.wait_for_requests()
        if begun:
            stream.next()
        viewer = attach(runs, run)
        assert stop(runs, run) == "stopped"
        script.wait_until_left()
        (last,) = rest(stream)
    assert_error(last, "stopped")
    assert rest(viewer)[-1] == last
    assert stop(runs, run) == "stopped"


def test_truncated(runs: Server, script: ScriptedAnswer) -> None:
    """A stream without its last event is no complete answer."""
    say(script, "one")
    script.end()
    events = rest(respond(runs, script))
    assert [event.event for event in events] == ["response.output_text.delta", "error"]
    assert_error(events[-1], "upstream_truncated")


def test_an_error_event_of_the_upstream(runs: Server, script: ScriptedAnswer) -> None:
    say(script, "one")
    script.send(typed("error", code="overloaded", message="Too much.", param=None))
    script.end()
    stream = respond(runs, script)
    run = run_of(stream)
    events = rest(stream)
    assert_error(events[-1], "overloaded")
    assert len(events) == 2
    assert rest(attach(runs, run)) == events
    assert stop(runs, run) == "failed"


def test_cancelled(runs: Server, script: ScriptedAnswer) -> None:
    say(script, "one")
    with respond(runs, script, "?on_disconnect=cancel") as stream:
        run = run_of(stream)
        stream.next()
    script.wait_until_left()
    assert_error(rest(attach(runs, run))[-1], "cancelled")
    assert stop(runs, run) == "cancelled"


def test_idempotency(runs: Server, script: ScriptedAnswer) -> None:
    say(script, "one")
    end(script)
    first = respond(runs, script, key=script.message)
    again = respond(runs, script, key=script.message)
    assert again.head.headers["idempotency-replayed"] == "true"
    assert run_of(first) == run_of(again)
    assert raw(first) == raw(again)
    assert script.count == 1


def test_no_done_is_added(runs: Server, script: ScriptedAnswer) -> None:
    """What OpenAI's clients read to the end is what OpenAI would have sent."""
    say(script, "[DONE]")
    end(script)
    events = rest(respond(runs, script))
    assert [event.data for event in events].count("[DONE]") == 0
    assert events[-1].event == "response.completed"

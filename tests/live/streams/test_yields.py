"""What a view may return and a generator may yield, and what they can rely on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.live.kit.clients import open_stream, wake
from tests.live.kit.connection import fetch
from tests.live.kit.events import Sent
from tests.live.kit.kinds import on_every_server, on_gevent, probe_server
from tests.live.kit.servers import Server
from tests.live.kit.waiting import until


@on_every_server
def test_what_may_be_yielded(server: Server) -> None:
    with open_stream(server, "/kinds") as stream:
        text, lines, mapping, sequence, *others = stream.rest()
        assert stream.comments == ["a remark"]
    assert text == Sent(data="text")
    assert lines == Sent(data="two\nlines")
    assert json.loads(mapping.data or "") == {"n": 1, "text": "你好"}
    assert json.loads(sequence.data or "") == [1, "two", None]
    assert others == [
        Sent(data="5"),
        Sent(data="1.5"),
        Sent(data="true"),
        Sent(data="data", event="kind", id="7", retry="2500"),
        Sent(data="made", event="ready", id="8"),
        Sent(data="data: not a frame"),
        Sent(data=""),
    ]


@on_gevent
def test_an_event_is_let_go_of_before_the_next_one_is_asked_for(server: Server) -> None:
    """A stream that waits for hours must not hold its last event, which may be large."""
    with open_stream(server, "/released") as stream:
        assert len(stream.next().data or "") == 100_000
        assert stream.next().data == "released"


@on_every_server
def test_what_no_stream_can_carry_is_an_error_in_band(server: Server) -> None:
    with open_stream(server, "/unfit") as stream:
        assert stream.next().data == "fine"
        (failure,) = stream.rest()
    assert failure.event == "failure"
    assert json.loads(failure.data or "")["error"]["type"] == "server_error"
    assert "EventError" in server.log()


@on_every_server
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_plain_response_is_upgraded(server: Server, tag: str, method: str) -> None:
    with open_stream(server, f"/plain?tag={tag}", method=method) as stream:
        assert stream.head.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.head.headers["cache-control"] == "no-store, no-transform"
        assert stream.head.headers["x-accel-buffering"] == "no"
        assert stream.head.headers["x-view"] == "plain"
        assert stream.rest() == [Sent(id=str(n), data=f"第{n}") for n in range(5)]
    server.wait_for_mark(tag, "closed")
    assert server.marks(tag) == ["finally", "closed"]


@on_gevent
def test_leaving_an_upgraded_response_ends_it(server: Server, tag: str) -> None:
    with open_stream(server, f"/plain?tag={tag}") as stream:
        assert stream.next().data == "第0"
    server.wait_for_mark(tag, "closed")
    assert server.marks(tag) == ["finally", "closed"]


@on_every_server
def test_pieces_of_frames_pass_as_they_are(server: Server) -> None:
    with open_stream(server, "/plain-pieces") as stream:
        body = b"".join(stream.connection.pieces(stream.head))
    assert body == b"data: one\n\ndata: two\n\n"


@on_every_server
def test_the_request_is_there_in_the_generator(server: Server) -> None:
    with open_stream(server, "/context?name=Li", headers={"X-Name": "Mo"}) as stream:
        assert [event.data for event in stream.rest()] == [f"{n} Li Mo" for n in range(3)]


@on_every_server
@pytest.mark.parametrize(("query", "seen"), [("&keep", "Li"), ("", "no context")])
def test_a_plain_response_keeps_the_context_it_had(server: Server, query: str, seen: str) -> None:
    with open_stream(server, f"/plain-context?name=Li{query}") as stream:
        assert [event.data for event in stream.rest()] == ["first", seen]


@on_every_server
def test_contexts_of_streams_side_by_side_are_not_mixed_up(server: Server) -> None:
    names = [f"name-{n}" for n in range(10)]
    streams = [
        open_stream(server, f"/context?name={name}", headers={"X-Name": name}) for name in names
    ]
    for name, stream in zip(names, streams, strict=True):
        with stream:
            assert [event.data for event in stream.rest()] == [
                f"{n} {name} {name}" for n in range(3)
            ]


@on_gevent
def test_a_long_computation_between_two_yields_is_logged(server: Server) -> None:
    before = len(server.log())
    with open_stream(server, "/compute") as stream:
        assert [event.data for event in stream.rest()] == ["before", "after"]
    until(lambda: "/compute" in server.log()[before:], "a line in the log that names the stream")
    assert "computation" in server.log()[before:]


@on_every_server
def test_a_lifetime_rotates_a_stream_that_can_resume(server: Server, tag: str) -> None:
    path = f"/numbers?tag={tag}&ids&count=100000&interval=0.02&lifetime=0.3"
    with open_stream(server, path) as stream:
        events = stream.rest()
        assert stream.retries == []
    assert [(event.id, event.data) for event in events] == [
        (str(n), str(n)) for n in range(len(events))
    ]
    server.wait_for_mark(tag, "finally")
    assert server.marks(tag) == ["finally"]


@on_every_server
def test_a_lifetime_does_not_cut_a_stream_that_cannot_resume(server: Server, tag: str) -> None:
    path = f"/numbers?tag={tag}&count=30&interval=0.02&lifetime=0.1"
    with open_stream(server, path) as stream:
        assert [event.data for event in stream.rest()] == [str(n) for n in range(30)]
        assert stream.retries == []


@on_gevent
def test_a_generator_that_swallows_its_end_is_left_behind(server: Server, tag: str) -> None:
    """It may misbehave as it likes: nothing else is harmed, and it is interrupted once only."""
    with open_stream(server, f"/stubborn?tag={tag}&times=3&heartbeat=9999") as stream:
        assert stream.next().data == "first"
    until(lambda: server.marks(tag), "its end thrown into it")
    for n in range(20):
        assert json.loads(fetch(server, f"/pause?seconds=0.005&q={n}").body)["query"] == str(n)
    wake(server, tag)
    assert fetch(server, "/hello").status == 200
    until(lambda: len(server.marks(tag)) > 1, "its generator is over")
    assert server.marks(tag)[0].startswith("swallowed 0")


@on_gevent
def test_a_finally_that_blocks_is_waited_for_and_harms_nobody(server: Server, tag: str) -> None:
    with open_stream(server, f"/slow-finally?tag={tag}&heartbeat=9999") as stream:
        assert stream.next().data == "first"
    server.wait_for_mark(tag, "cleaning")
    for n in range(5):
        assert fetch(server, f"/hello?q={n}").status == 200
    assert server.marks(tag) == ["cleaning"]
    wake(server, tag)
    server.wait_for_mark(tag, "finally")


def test_the_sync_worker_is_warned_about(tmp_path: Path) -> None:
    with probe_server("gunicorn-sync", tmp_path) as server:
        with open_stream(server, "/numbers?count=3") as stream:
            assert [event.data for event in stream.rest()] == ["0", "1", "2"]
        with open_stream(server, "/numbers?count=3") as stream:
            assert len(stream.rest()) == 3
        warnings = [
            line for line in server.log().splitlines() if "sync" in line and "timeout" in line
        ]
    assert len(warnings) == 1, "once, and it says what will go wrong"

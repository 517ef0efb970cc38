"""Headers wait for the first event, so that an early error is a proper response; not for ever."""

from __future__ import annotations

import json

import pytest

from tests.live.kit.clients import Stream, open_stream, wake
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.kinds import on_every_server
from tests.live.kit.servers import Server


@on_every_server
def test_headers_wait_for_the_first_event_but_not_long(server: Server, tag: str) -> None:
    """At most a second by default; then a heartbeat goes with them, and errors are in band."""
    with open_stream(server, f"/late?tag={tag}&heartbeat=9999") as stream:
        assert stream.head.status == 200
        assert stream.next_comments(1) == ["ping"]
        wake(server, tag)
        assert [event.data for event in stream.rest()] == ["late"]


@on_every_server
def test_headers_wait_as_long_as_asked(server: Server, tag: str) -> None:
    with Connection(server) as connection:
        connection.request(f"/late?tag={tag}&first_byte=9999&heartbeat=0.1")
        server.wait_for_mark(tag, "started")
        connection.socket.settimeout(0.5)
        with pytest.raises(TimeoutError):
            connection.socket.recv(1)
        connection.socket.settimeout(20)
        wake(server, tag)
        stream = Stream(connection)
        assert [event.data for event in stream.rest()] == ["late"]
        assert "ping" not in stream.comments[:1], "it does not begin with a heartbeat"


@on_every_server
def test_an_error_after_the_headers_but_before_the_first_event_is_in_band(
    server: Server, tag: str
) -> None:
    with open_stream(server, f"/late?tag={tag}&first_byte=0.05&error=too-late") as stream:
        assert stream.head.status == 200
        assert stream.next_comments(1) == ["ping"]
        wake(server, tag)
        (failure,) = stream.rest()
    assert failure.event == "failure"
    assert json.loads(failure.data or "")["error"]["message"] == "too-late"
    assert json.loads(failure.data or "")["error"]["code"] == "late"
    server.wait_for_mark(tag, "finally")


@on_every_server
def test_an_error_before_the_first_byte_is_the_apps_own_error_page(
    server: Server, tag: str
) -> None:
    answer = fetch(server, f"/error?tag={tag}")
    assert answer.status == 418
    assert json.loads(answer.body) == {"page": "the app's own", "kind": "ProbeError"}
    assert answer.headers["content-type"] == "application/json"
    server.wait_for_mark(tag, "finally")


@on_every_server
def test_a_failure_before_the_first_byte_is_a_json_error(server: Server, tag: str) -> None:
    answer = fetch(server, f"/error?tag={tag}&failure")
    assert answer.status == 429
    assert answer.headers["retry-after"] == "7"
    assert json.loads(answer.body) == {
        "error": {
            "message": "too much of it",
            "type": "rate_limit_error",
            "param": "after",
            "code": "slow_down",
        }
    }
    server.wait_for_mark(tag, "finally")


@on_every_server
def test_after_an_early_error_the_connection_can_be_used_again(server: Server) -> None:
    with Connection(server) as connection:
        for path, status in (("/error", 418), ("/hello", 200), ("/error?failure", 429)):
            connection.request(path)
            head = connection.head()
            assert head.status == status
            connection.body(head)
            if head.headers.get("connection", "").lower() == "close":
                assert connection.at_end()
                return

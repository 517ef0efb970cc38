"""HTTP as clients speak it, on each kind of server."""

from __future__ import annotations

import json

import pytest

from tests.live.kit.clients import Stream, open_stream, wake
from tests.live.kit.connection import Connection
from tests.live.kit.kinds import GEVENT, SERVERS, on_every_server, on_gevent
from tests.live.kit.servers import Server
from tests.segments import without_data

NUMBERS = [str(n) for n in range(10)]
# werkzeug's server answers HTTP/1.0 with chunks, whatever the application does.
on_servers_with_http_1_0 = pytest.mark.parametrize(
    "server", [kind for kind in SERVERS if kind != "flask"], indirect=True
)
# ... and closes each connection after one response.
on_servers_with_keep_alive = on_servers_with_http_1_0


@on_every_server
def test_headers_of_a_stream(server: Server) -> None:
    with open_stream(server, "/numbers") as stream:
        head = stream.head
        assert [event.data for event in stream.rest()] == NUMBERS
    assert (head.version, head.status) == ("HTTP/1.1", 200)
    assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert head.headers["cache-control"] == "no-store, no-transform"
    assert head.headers["x-accel-buffering"] == "no"
    assert head.headers["transfer-encoding"].lower() == "chunked"
    assert "content-length" not in head.headers


@pytest.mark.parametrize("server", [*GEVENT, "gunicorn-gthread"], indirect=True)
def test_streams_and_other_requests_take_turns_on_one_connection(server: Server, tag: str) -> None:
    with Connection(server) as connection:
        for n in range(20):
            connection.request(f"/numbers?tag={tag}-{n}&interval=0.001")
            stream = Stream(connection)
            assert stream.head.headers["connection"] == "keep-alive"
            assert [event.data for event in stream.rest()] == NUMBERS
            connection.request(f"/hello?q={n}")
            assert json.loads(connection.body(connection.head()))["query"] == str(n)
            server.wait_for_mark(f"{tag}-{n}", "finally")


@on_gevent
@pytest.mark.parametrize("ends", ["by itself", "by an error"])
def test_what_was_sent_early_is_answered_after_the_stream(
    server: Server, ends: str, tag: str
) -> None:
    """In order and complete: what came with the stream's request, and what came while it ran."""
    path = {"by itself": f"/silent?tag={tag}&wakes=1", "by an error": f"/late?tag={tag}&error=x"}
    with Connection(server) as connection:
        hello = [f"GET /hello?q={n} HTTP/1.1\r\nHost: x\r\n\r\n" for n in range(4)]
        body = "b" * 100_000
        late = f"GET /hello?q=4 HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        first = f"GET {path[ends]} HTTP/1.1\r\nHost: x\r\n\r\n{hello[0]}{hello[1][:20]}"
        connection.socket.sendall(first.encode())
        server.wait_for_mark(tag, "started")
        for piece in (hello[1][20:], hello[2], hello[3], late):
            connection.socket.sendall(piece.encode())
        if ends == "by itself":
            stream = Stream(connection)
            assert stream.next().data == "first"
            wake(server, tag)
            assert [event.data for event in stream.rest()] == ["woken 1"]
        else:
            wake(server, tag)
            head = connection.head()
            assert head.status == 503
            connection.body(head)
        for n in range(5):
            answer = json.loads(connection.body(connection.head()))
            assert answer["query"] == str(n)


@on_gevent
def test_the_end_of_the_connection_comes_with_the_last_bytes(server: Server, tag: str) -> None:
    """Where the client has asked for it, and only then."""
    path = f"/silent?tag={tag}&wakes=1"
    with open_stream(server, path, headers={"Connection": "close"}) as stream:
        assert stream.head.headers["connection"] == "close"
        assert stream.next().data == "first"
        before = without_data(stream.connection.socket)
        wake(server, tag)
        assert [event.data for event in stream.rest()] == ["woken 1"]
        assert stream.connection.at_end()
        assert without_data(stream.connection.socket) == before, "the FIN came by itself"


@on_every_server
def test_head_gets_headers_and_never_runs_the_generator(server: Server, tag: str) -> None:
    with Connection(server) as connection:
        connection.request(f"/silent?tag={tag}", method="HEAD")
        head = connection.head()
        assert head.status == 200
        assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert head.headers["cache-control"] == "no-store, no-transform"
        if head.headers.get("connection", "").lower() == "close":
            # waitress ends even this response with the empty chunk.
            assert connection.rest() in (b"", b"0\r\n\r\n"), "no body"
        else:
            connection.request("/hello?q=after")
            assert connection.head().status == 200, "no body before the next response"
    assert server.marks(tag) == []


@on_servers_with_http_1_0
def test_http_1_0_gets_a_stream_that_ends_by_close(server: Server) -> None:
    with open_stream(server, "/numbers", version="1.0") as stream:
        assert stream.head.status == 200
        assert "transfer-encoding" not in stream.head.headers
        assert "content-length" not in stream.head.headers
        assert [event.data for event in stream.rest()] == NUMBERS


@on_servers_with_http_1_0
def test_http_1_0_keep_alive_is_closed_all_the_same(server: Server) -> None:
    headers = {"Connection": "keep-alive"}
    with open_stream(server, "/numbers", version="1.0", headers=headers) as stream:
        assert "transfer-encoding" not in stream.head.headers
        assert [event.data for event in stream.rest()] == NUMBERS
        assert stream.connection.at_end()


@on_servers_with_keep_alive
def test_a_stream_on_a_connection_that_was_used_before(server: Server) -> None:
    with Connection(server) as connection:
        for n in range(3):
            connection.request(f"/hello?q={n}")
            head = connection.head()
            assert json.loads(connection.body(head)) == {"message": "hello", "query": str(n)}
        connection.request("/numbers")
        assert [event.data for event in Stream(connection).rest()] == NUMBERS


@on_every_server
def test_a_new_client_gets_no_retry_line(server: Server) -> None:
    with open_stream(server, "/numbers?ids") as stream:
        events = stream.rest()
        assert stream.retries == []
    assert [(event.id, event.data) for event in events] == [(n, n) for n in NUMBERS]


@on_every_server
def test_a_client_that_comes_back_keeps_its_reconnection_time(server: Server) -> None:
    """The application has said one once, at the first connection, and that counts."""
    with open_stream(server, "/numbers?ids", headers={"Last-Event-ID": "6"}) as stream:
        assert [event.id for event in stream.rest()] == ["7", "8", "9"]
        assert stream.retries == []

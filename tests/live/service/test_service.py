"""The service as its users meet it: the routes that anybody may ask."""

from __future__ import annotations

import contextlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.live.kit.clients import curl, open_stream
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.events import Sent
from tests.live.kit.servers import Server
from tests.live.kit.services import production, service
from tests.live.kit.waiting import until

COUNTED = "".join(f"id: {n}\ndata: {n}\n\n" for n in range(10))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_the_counter(development: Server, method: str) -> None:
    """One event a chunk, as each is made."""
    with open_stream(development, "/sse/v1", method=method) as stream:
        head = stream.head
        assert stream.rest() == [Sent(id=str(n), data=str(n)) for n in range(10)]
        assert stream.connection.chunks == 10
    assert head.status == 200
    assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert head.headers["transfer-encoding"].lower() == "chunked"


@pytest.mark.parametrize(
    "options",
    [
        ("-X", "POST"),
        (),
        # As Apifox writes it.
        (
            *("--location", "--request", "POST"),
            *("--header", "User-Agent: Apifox/1.0.0 (https://apifox.com)"),
            *("--header", "Accept: */*"),
            *("--header", "Host: localhost:8000"),
            *("--header", "Connection: keep-alive"),
        ),
    ],
    ids=["POST", "GET", "Apifox"],
)
def test_curl_as_people_know_it(development: Server, options: tuple[str, ...]) -> None:
    done = curl(development, "/sse/v1", *options)
    assert (done.returncode, done.stdout) == (0, COUNTED), done.stderr


def test_the_counters_parameters(development: Server) -> None:
    with open_stream(development, "/sse/v1?count=3&interval=0") as stream:
        assert [event.data for event in stream.rest()] == ["0", "1", "2"]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = fetch(
        development, "/sse/v1", method="POST", headers=form, body=b"count=2&interval=0.01"
    ).body
    assert body == b"id: 0\ndata: 0\n\nid: 1\ndata: 1\n\n"
    kind = {"Content-Type": "application/json"}
    body = fetch(
        development, "/sse/v1", method="POST", headers=kind, body=b'{"count": 1, "interval": 0}'
    ).body
    assert body == b"id: 0\ndata: 0\n\n"


def test_the_counter_resumes(development: Server) -> None:
    last = {"Last-Event-ID": "6"}
    with open_stream(development, "/sse/v1?interval=0.01", headers=last) as stream:
        assert stream.rest() == [Sent(id=n, data=n) for n in ("7", "8", "9")]
    with open_stream(development, "/sse/v1?interval=0.01&last_event_id=7") as stream:
        assert [event.data for event in stream.rest()] == ["8", "9"]
    with open_stream(development, "/sse/v1?interval=0.01&last_event_id=earliest") as stream:
        assert len(stream.rest()) == 10


@pytest.mark.parametrize(
    ("path", "last"), [("/sse/v1", "9"), ("/sse/v1", "10"), ("/sse/v1?count=0", "")]
)
def test_204_when_nothing_is_left(development: Server, path: str, last: str) -> None:
    headers = {"Last-Event-ID": last} if last else {}
    with Connection(development) as connection:
        connection.request(path, headers={**headers, "Connection": "close"})
        assert connection.head().status == 204
        assert connection.at_end(), "a 204 has no body"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_no_sse(development: Server, method: str) -> None:
    answer = fetch(development, "/sse/no_sse", method=method)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(answer.body) == {"message": "Hello World"}


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health(development: Server, path: str) -> None:
    answer = fetch(development, path)
    assert answer.status == 200
    assert json.loads(answer.body)["status"]


def test_head(development: Server) -> None:
    for path in ("/sse/v1", "/sse/openai_out"):
        with Connection(development) as connection:
            connection.request(path, method="HEAD", headers={"Connection": "close"})
            head = connection.head()
            assert head.status == 200
            assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
            assert connection.at_end()


@pytest.mark.parametrize("form", ["chunks", "text"])
def test_the_demo_model_says_what_it_is(development: Server, form: str) -> None:
    with open_stream(
        development, f"/sse/openai_out?format={form}&user_message=hello", method="POST"
    ) as stream:
        *pieces, last = stream.rest()
    if form == "text":
        assert last.event == "done"
        assert json.loads(last.data or "") == {"finish_reason": "stop"}
        text = "".join(piece.data or "" for piece in pieces)
    else:
        assert last.data == "[DONE]"
        chunks = [json.loads(piece.data or "") for piece in pieces]
        assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
        text = "".join(
            choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]
        )
    assert "demo" in text.lower()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Production with WEB_CONCURRENCY=2 and a quick heartbeat."""
    settings = {"WEB_CONCURRENCY": "2", "SSEFLASK_HEARTBEAT": "0.2"}
    with production(tmp_path_factory.mktemp("two"), settings) as server:
        yield server


def test_production_honours_web_concurrency(two_workers: Server) -> None:
    assert len(two_workers.workers()) == 2


def test_production_honours_the_heartbeat(two_workers: Server) -> None:
    with open_stream(two_workers, "/sse/v1?count=2&interval=3") as stream:
        assert stream.next().data == "0"
        assert stream.next_comments(3) == ["ping"] * 3
        assert stream.next().data == "1"
        assert stream.rest() == []


def test_production_raises_the_descriptor_limit(two_workers: Server) -> None:
    for worker in two_workers.workers():
        soft, hard = worker.rlimit(psutil.RLIMIT_NOFILE)
        assert soft == hard


def test_ctrl_c_ends_the_service_without_a_murmur(tmp_path: Path) -> None:
    with service(tmp_path) as server:
        with open_stream(server, "/sse/v1?count=1000000&interval=0.05") as stream:
            assert stream.data(3) == ["0", "1", "2"]
            server.interrupt()
            rest = stream.rest()
            assert len(stream.retries) == 1
        assert [event.data for event in rest] == [str(n) for n in range(3, 3 + len(rest))]
        server.wait_until_ended(20)
        assert "Traceback" not in server.log()


def test_sigterm_ends_two_workers_properly(tmp_path: Path) -> None:
    with production(tmp_path, {"WEB_CONCURRENCY": "2"}) as server:
        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(open_stream(server, "/sse/v1?count=1000000&interval=0.1"))
                for _ in range(20)
            ]
            for stream in streams:
                assert stream.next().data == "0"
            server.send_signal(signal.SIGTERM)
            for stream in streams:
                numbers = [event.data for event in stream.rest()]
                assert numbers == [str(n) for n in range(1, len(numbers) + 1)]
                assert len(stream.retries) == 1
        assert server.wait_until_ended() == 0
        until(lambda: not server.members(), "every process is gone")

"""What every stream is promised, with what others put around an application in between."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.kit.clients import open_stream
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.downloads import downloads
from tests.live.kit.servers import GUNICORN, WORKER, Server, free_port, running
from tests.live.kit.waiting import until

APP = "tests.live.streams.probe.middleware:app"
OURS = ["-k", WORKER]
PLAIN = ["-c", "python:sseflask.gunicorn_conf", "-k", "gevent", "-w", "1"]

#: They pass the body on as it is, each in its own way.
AROUND = ["otel", "otel_around", "compress", "prometheus", "timing", "proxyfix", "blocking"]
EVERYWHERE = [(OURS, "sentry"), *((OURS, name) for name in AROUND), (PLAIN, "sentry")]

Start = Callable[[list[str], str], Server]


def command(port: int, worker: list[str]) -> list[str]:
    options = ["--bind", f"127.0.0.1:{port}", "--access-logfile", "-", "--graceful-timeout", "4"]
    return [*GUNICORN, *worker, *options, APP]


def environment_of(name: str) -> dict[str, str]:
    return {"PROBE_MIDDLEWARE": "sentry" if name == "sentry" else "all"}


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """A server with this middleware, once for the module."""
    started: dict[str, Server] = {}
    with contextlib.ExitStack() as stack:

        def get(worker: list[str], name: str) -> Server:
            changes = environment_of(name)
            kind = f"gunicorn-{worker[-1]}-{changes['PROBE_MIDDLEWARE']}"
            if kind not in started:
                port, directory = free_port(), tmp_path_factory.mktemp("middleware")
                started[kind] = stack.enter_context(
                    running(kind, command(port, worker), port, directory, changes)
                )
            return started[kind]

        yield get
        for server in started.values():
            server.assert_log_is_clean()
            for complaint in ("ended span", "Failed to detach", "wraps start_response"):
                assert complaint not in server.log()


@pytest.fixture
def mounted(request: pytest.FixtureRequest, start: Start) -> tuple[Server, str]:
    worker, name = request.param
    return start(worker, name), f"/{name}"


everywhere = pytest.mark.parametrize(
    "mounted", EVERYWHERE, indirect=True, ids=[f"{name}-{how[1]}" for how, name in EVERYWHERE]
)
Mounted = tuple[Server, str]


def notes(server: Server, name: str, tag: str) -> list[dict[str, Any]]:
    """What has been exported about one test's requests."""
    found = [json.loads(line) for line in server.marks(name)]
    return [each for each in found if f"tag={tag}" in (each["query"] or "")]


@everywhere
def test_heartbeats_and_leaving_at_once(mounted: Mounted, tag: str) -> None:
    server, mount = mounted
    with open_stream(server, f"{mount}/silent?tag={tag}&heartbeat=0.2&wakes=9") as stream:
        assert stream.next().data == "first"
        assert stream.next_comments(2) == ["ping"] * 2
        fetch(server, f"{mount}/wake?tag={tag}", method="POST")
        assert stream.next().data == "woken 1"
    server.wait_for_mark(tag, "finally")
    with open_stream(server, f"{mount}/silent?tag={tag}-2&heartbeat=9999") as stream:
        assert stream.next().data == "first"
    server.wait_for_mark(f"{tag}-2", "finally")


@everywhere
def test_leaving_before_the_first_event(mounted: Mounted, tag: str) -> None:
    server, mount = mounted
    with open_stream(server, f"{mount}/late?tag={tag}&heartbeat=9999&first_byte=0.05") as stream:
        assert stream.head.status == 200
        assert stream.next_comments(1) == ["ping"]
    server.wait_for_mark(tag, "finally")
    with Connection(server) as connection:
        connection.request(f"{mount}/late?tag={tag}-2&heartbeat=9999&first_byte=9999")
        server.wait_for_mark(f"{tag}-2", "started")
    server.wait_for_mark(f"{tag}-2", "finally")


@everywhere
def test_bursts_are_sent_at_once_and_slow_clients_are_bounded(mounted: Mounted, tag: str) -> None:
    server, mount = mounted
    with open_stream(server, f"{mount}/burst?count=2000") as stream:
        assert [event.data for event in stream.rest()] == [f"{n} " for n in range(2000)]
        assert stream.connection.chunks < 200
    path = f"{mount}/flood?tag={tag}&heartbeat=0.3"
    with open_stream(server, path, receive_buffer=4096):
        server.wait_for_mark(tag, "finally")


@everywhere
@pytest.mark.parametrize("plain", ["", "&plain"], ids=["response", "upgraded"])
def test_errors(mounted: Mounted, tag: str, plain: str) -> None:
    """In band after the first event, the right status before it; each tool gets it once."""
    server, mount = mounted
    with open_stream(server, f"{mount}/error?tag={tag}&after=2{plain}") as stream:
        *events, failure = stream.rest()
    assert [event.data for event in events] == ["0", "1"]
    assert failure.event == "failure"
    assert fetch(server, f"{mount}/error?tag={tag}-early&after=0{plain}").status == 418
    for status in (403, 404, 500):
        refused = fetch(server, f"{mount}/refused/{status}?tag={tag}-{status}{plain}")
        assert refused.status == status
    if mount == "/sentry":
        until(lambda: len(notes(server, "sentry", tag)) >= 6, "five transactions and an error")
        (reported,) = [each for each in notes(server, "sentry", tag) if each["type"] == "error"]
        assert reported["raised"] == ["secret detail"]
        assert f"tag={tag}&" in reported["query"], "not of the handled ones"
        assert fetch(server, f"{mount}/refused/0?tag={tag}-crash{plain}").status == 500
        until(lambda: len(notes(server, "sentry", f"{tag}-crash")) >= 2, "that and its transaction")
        crash = notes(server, "sentry", f"{tag}-crash")
        assert sorted(each["type"] for each in crash) == ["error", "transaction"]


def test_spans_have_the_status_that_was_sent(start: Start, tag: str) -> None:
    server = start(OURS, "otel")
    asked: dict[str, tuple[str, int, str]] = {}
    for n, (plain, (path, status, outcome)) in enumerate(
        itertools.product(
            ("", "&plain"),
            [
                ("/error?after=0", 418, "UNSET"),
                ("/refused/403?", 403, "UNSET"),
                ("/refused/404?", 404, "UNSET"),
                ("/refused/500?", 500, "ERROR"),
                ("/refused/503?", 503, "ERROR"),
                ("/numbers?count=2", 200, "UNSET"),
            ],
        )
    ):
        asked[f"{tag}-{n}-"] = (path, status, outcome)
        query = f"{path}&tag={tag}-{n}-{plain}"
        assert fetch(server, f"/otel{query}").status == status
    for each, (path, status, outcome) in asked.items():
        until(lambda each=each: notes(server, "spans", each), f"the span of {path}")  # type: ignore[misc]
        (span,) = notes(server, "spans", each)
        assert (span["status"], span["outcome"]) == (status, outcome), path


def test_a_span_ends_with_its_stream_and_has_its_error(start: Start, tag: str) -> None:
    server = start(OURS, "otel")
    with open_stream(server, f"/otel/silent?tag={tag}&heartbeat=9999") as stream:
        assert stream.next().data == "first"
        assert notes(server, "spans", tag) == []
    until(lambda: notes(server, "spans", tag), "it ends when the client leaves")
    with open_stream(server, f"/otel/error?after=1&tag={tag}-error") as stream:
        assert stream.next().data == "0"
        assert stream.next().event == "failure"
    until(lambda: notes(server, "spans", f"{tag}-error"), "it ends")
    (span,) = notes(server, "spans", f"{tag}-error")
    assert (span["status"], span["outcome"]) == (200, "ERROR")
    assert span["events"] == ["exception"]


@everywhere
def test_what_middleware_adds_to_the_headers_is_sent(mounted: Mounted) -> None:
    server, mount = mounted
    head = fetch(server, f"{mount}/numbers?count=1").headers
    added = {"/timing": "server-timing", "/blocking": "x-path", "/compress": "vary"}
    name = added.get(mount)
    assert name is None or name in head


SUBSCRIBED = [(OURS, name) for name in ["sentry", *AROUND]]


@pytest.mark.parametrize("mounted", SUBSCRIBED, indirect=True, ids=[name for _, name in SUBSCRIBED])
def test_subscribers_are_detached(mounted: Mounted, tag: str) -> None:
    server, mount = mounted

    def greenlets() -> int:
        return int(json.loads(fetch(server, f"{mount}/stats").body)["greenlets"])

    before = greenlets()
    path = f"{mount}/subscribe?tag={tag}"
    streams = [open_stream(server, path) for _ in range(10)]
    try:
        until(lambda: greenlets() <= before + 2, "ten subscribers without a greenlet")
        fetch(server, f"{mount}/publish", method="POST", body=b"news")
        assert [stream.next().data for stream in streams] == ["news"] * 10
        if mount.startswith("/otel"):
            until(lambda: len(notes(server, "spans", tag)) == 10, "the spans have ended")
            assert {span["status"] for span in notes(server, "spans", tag)} == {200}
        if mount == "/timing":
            assert len([line for line in server.marks("timing") if tag in line]) == 10
    finally:
        for stream in streams:
            stream.connection.close()
    until(lambda: server.log().count(f"tag={tag} ") >= 10, "the lines of the access log")
    assert server.log().count(f"tag={tag} ") == 10


@pytest.mark.parametrize("name", ["sentry", "others"])
def test_sigterm(tmp_path: Path, name: str) -> None:
    mounts = ["/sentry"] if name == "sentry" else [f"/{each}" for each in AROUND]
    port = free_port()
    with running(
        name, command(port, OURS), port, tmp_path, environment_of(name), "/hello"
    ) as server:
        paths = [
            f"{mount}{path}"
            for mount in mounts
            for path in ("/silent?ids&heartbeat=9999", "/silent?heartbeat=9999")
        ]
        with downloads(server, *paths) as streams:
            subscribers = [open_stream(server, f"{mount}/subscribe") for mount in mounts]
            server.send_signal(signal.SIGTERM)
            for resumable, silent in zip(streams[::2], streams[1::2], strict=True):
                resumable.assert_sent_away()
                silent.assert_failed_in_band()
            for subscriber in subscribers:
                assert subscriber.rest() == []
                assert len(subscriber.retries) == 1
                subscriber.connection.close()
        assert server.wait_until_ended() == 0
    server.assert_log_is_clean()
    for stream in streams:
        assert server.marks(stream.tag)[-1] == "finally"


@pytest.mark.parametrize("path", ["numbers?count=3", "numbers?count=3&interval=0.3&first_byte=0.1"])
def test_what_changes_the_body_changes_all_of_it(start: Start, path: str) -> None:
    server = start(OURS, "others")
    answer = fetch(server, f"/zipped/{path}")
    assert answer.headers["content-encoding"] == "gzip"
    assert gzip.decompress(answer.body) == b"data: 0\n\ndata: 1\n\ndata: 2\n\n"
    answer = fetch(server, f"/holding/{path}")
    assert answer.body == b"DATA: 0\n\nDATA: 1\n\nDATA: 2\n\n"
    assert server.log().count("zipping.<locals>.started holds back or changes") == 1
    for mount in ("/zipped", "/holding"):
        assert fetch(server, f"{mount}/refused/404?").status == 404
    assert fetch(server, "/zipped/burst?count=0").body == b""


@pytest.mark.parametrize("mount", ["/zipped", "/holding"])
def test_what_changes_the_body_changes_that_of_subscriptions(start: Start, mount: str) -> None:
    server = start(OURS, "others")

    def publish(text: bytes) -> None:
        assert fetch(server, f"{mount}/publish", method="POST", body=text).status == 200

    publish(b"before")
    got = b""
    with Connection(server) as connection:
        connection.request(f"{mount}/subscribe?last_event_id=earliest")
        for piece in connection.pieces(connection.head()):
            got += gzip.decompress(piece) if mount == "/zipped" else piece
            if got.lower().endswith(b"data: before\n\n"):
                publish(b"after")
            elif got.lower().endswith(b"data: after\n\n"):
                break
    assert got.lower().count(b"data: ") == 2


def test_a_wrapped_start_response_that_hides_the_connection_is_logged_once(tmp_path: Path) -> None:
    """gunicorn's own worker without our configuration does not hand the connection over."""
    port = free_port()
    plain = ["-k", "gevent"]
    changes = environment_of("others")
    with running("plain", command(port, plain), port, tmp_path, changes) as server:
        for _ in range(2):
            with open_stream(server, "/timing/numbers?count=2") as stream:
                assert stream.data(2) == ["0", "1"]
        assert server.log().count("timed.<locals>.started wraps start_response") == 1
        assert "StreamWorker" in server.log()


def test_the_scheme_behind_a_proxy(start: Start) -> None:
    server = start(OURS, "others")
    headers = {"X-Forwarded-Proto": "https"}
    assert json.loads(fetch(server, "/proxyfix/hello", headers=headers).body) == {
        "scheme": "https",
        "root": "/proxyfix",
    }

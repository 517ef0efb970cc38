"""Many streams at once, and many one after the other."""

from __future__ import annotations

import contextlib
import json
import resource
from collections.abc import Iterator

import pytest

from tests.live.kit.clients import Stream, open_stream, wake
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.kinds import GEVENT, PORTABLE, on_every_server
from tests.live.kit.servers import Server
from tests.live.kit.waiting import until

CASES = [(kind, 2000) for kind in GEVENT] + [(kind, 50) for kind in PORTABLE]


@pytest.fixture
def _enough_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < 4096:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_enough_descriptors")
@pytest.mark.parametrize(("server", "count"), CASES, indirect=["server"])
def test_concurrent_streams(server: Server, count: int, tag: str) -> None:
    """All are open together, each gets each event, and ordinary requests still get answers."""
    before = stats(server)
    with contextlib.ExitStack() as stack:
        connections = [stack.enter_context(Connection(server)) for _ in range(count)]
        for connection in connections:
            connection.request(f"/silent?tag={tag}&wakes=2&heartbeat=9999")
        streams = [Stream(connection) for connection in connections]
        assert [stream.next().data for stream in streams] == ["first"] * count
        assert server.marks(tag) == ["started"] * count, "all at once, none has ended"
        for n in (1, 2):
            assert fetch(server, f"/hello?q={n}").status == 200
            wake(server, tag)
            assert [stream.next().data for stream in streams] == [f"woken {n}"] * count
        assert [stream.rest() for stream in streams] == [[]] * count
    until(lambda: server.marks(tag).count("finally") == count, "every finally run")
    wait_until_as_before(server, before)


def stats(server: Server) -> dict[str, int]:
    held: dict[str, int] = json.loads(fetch(server, "/stats").body)
    return held


def wait_until_as_before(server: Server, before: dict[str, int]) -> None:
    """Threads of a server's own pool may have been started; nothing else may be left."""
    pool = 80 if server.kind in ("gunicorn-gthread", "waitress") else 0
    spare = {"descriptors": 4, "greenlets": 4, "threads": 4 + pool, "generators": 0}

    def excess() -> dict[str, int]:
        now = stats(server)
        return {
            name: now[name] - before[name]
            for name in spare
            if now[name] - before[name] > spare[name]
        }

    last: list[dict[str, int]] = []

    def nothing_left() -> bool:
        last[:] = [excess()]
        return not last[0]

    try:
        until(nothing_left, "nothing left of the streams", pause=0.1)
    except AssertionError as error:
        raise AssertionError(f"{error}: too many {last[0]} on {server.kind}") from None


@on_every_server
def test_a_thousand_short_connections_leave_nothing_behind(server: Server) -> None:
    """Read to the end, left early, reset, refused early, asked for by HEAD: in turn."""
    fetch(server, "/short")
    before = stats(server)
    for n in range(200):
        with open_stream(server, "/short") as stream:
            assert [event.data for event in stream.rest()] == ["0", "1", "2"]
        with open_stream(server, "/numbers?count=3&interval=0.001") as stream:
            assert stream.next().data == "0"
        with open_stream(server, "/numbers?count=3&interval=0.001") as stream:
            assert stream.next().data == "0"
            stream.connection.reset()
        assert fetch(server, "/error?failure").status == 429
        with Connection(server) as connection:
            connection.request("/short", method="HEAD", headers={"Connection": "close"})
            assert connection.head().status == 200
        assert server.process.poll() is None, f"after {5 * n}"
    wait_until_as_before(server, before)


@pytest.mark.parametrize(
    ("server", "around", "objects"),
    [
        (
            "gunicorn-worker",
            ["wsgi", "answer", "handle_request", "_handle"],
            ["ClientConnection", "ClientSocket", "PlainRequest", "_ConnectionGreenlet"],
        ),
        ("gunicorn-gevent", ["wsgi", "counted"], []),
    ],
    indirect=["server"],
)
def test_what_a_waiting_stream_keeps(
    server: Server, tag: str, around: list[str], objects: list[str]
) -> None:
    """18 KiB: a call more on its stack is half a KiB, an object's dictionary as much or more.

    With a dictionary are the application's own response, as Flask's, gunicorn's request, and
    gevent's greenlet.
    """
    with open_stream(server, f"/silent?tag={tag}") as stream:
        assert stream.next().data == "first"
        with open_stream(server, f"/silent?tag={tag}-other") as other:
            assert other.next().data == "first"
            kept = json.loads(fetch(server, f"/waiting?tag={tag}").body)
    ours = ["send", "_serve", "_run", "begin", "__call__"]
    assert kept["calls"] == [*ours, *around]
    theirs = ["EventSourceResponse"]
    parts = ["ItemSender", "SocketReader", "SocketWriter"]
    times = ["StreamGreenlet", "StreamTimer"]
    ours = ["Connection", "ServerResponse", "Stream", *parts, *times]
    assert kept["objects"] == sorted([*ours, *theirs, *objects])
    assert set(kept["dictionaries"]) == {*theirs, *objects} - {"ClientConnection", "ClientSocket"}

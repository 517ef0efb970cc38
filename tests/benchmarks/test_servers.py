"""Each stack of the benchmarks, really started: every route answers as the scenarios expect."""

from __future__ import annotations

import array
import fcntl
import runpy
import select
import socket
import termios
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import servers
from benchmarks.client.http import ResponseReader
from benchmarks.client.ids import RunIds
from benchmarks.client.load import Load, Stream
from benchmarks.client.order import FloodCheck, OrderCheck
from benchmarks.frames import WIDTH
from benchmarks.memory import memory
from benchmarks.scenarios.relay import Delays, run_ids
from benchmarks.server_process import Running, answers, free_port, running, wait_until
from benchmarks.servers.bare_c import build
from benchmarks.stack import ROUTES
from benchmarks.upstream import Upstream
from tests.benchmarks.conftest import PATIENCE, cores

FLOOD = 12_345
CHUNKS = 5
VALUES: dict[str, dict[str, object]] = {
    "flood": {"count": FLOOD},
    "tick": {"rate": 50, "count": 5},
    "silent": {"mark": 1},
    "counter": {"count": 3, "interval": 0.02},
}
SILENT = {"open", "silent"}


CHECKS: dict[str, Callable[[Upstream, RunIds | None], OrderCheck]] = {
    "flood": lambda *_: FloodCheck(FLOOD),
    "tick": lambda *_: OrderCheck(5),
    "relay": lambda upstream, ids: Delays(upstream).check(ids),
    "silent": lambda *_: OrderCheck(1),
    "open": lambda *_: OrderCheck(1),
    "counter": lambda *_: OrderCheck(3),
}


def ask(server: Running, route: str, upstream: Upstream) -> Stream:
    check = CHECKS[route](upstream, run_ids(server))
    return Stream(server.request(route, **VALUES.get(route, {})), check)


def test_each_route_is_tried() -> None:
    assert set(CHECKS) == set(ROUTES)


@pytest.mark.parametrize("server", servers.names(), indirect=True)
def test_every_route_gives_its_events(server: Running, upstream: Upstream) -> None:
    asked = [route for route in server.stack.routes if route in ROUTES]
    with Load(server.port, [upstream]) as load:
        streams = {route: ask(server, route, upstream) for route in asked}
        load.add(streams.values())
        if relay := streams.get("relay"):
            assert load.run(lambda: relay.check.events >= CHUNKS, PATIENCE)
        upstream.finish()
        load.run(lambda: all(map(finished, streams.values())), PATIENCE)
    found = {
        route: (stream.response.status, stream.check.complete, faults(route, stream))
        for route, stream in streams.items()
    }
    assert memory(server) > 0
    assert found == dict.fromkeys(asked, (200, True, []))


def finished(stream: Stream) -> bool:
    silent = b"GET /open " in stream.request or b"GET /silent" in stream.request
    return bool(stream.ended_at) or (silent and stream.check.complete)


def faults(route: str, stream: Stream) -> list[str]:
    """What is wrong with a stream; silent ones have to be open still."""
    kinds = [kind for kind, _ in stream.faults()]
    if route not in SILENT:
        return kinds
    return [kind for kind in kinds if kind != "stalled"] + ["ended"] * bool(stream.ended_at)


@pytest.mark.parametrize("name", ["bare_c", "nchan"])
@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_what_is_no_python_leaves_no_process_and_no_file(
    name: str, how: str, tmp_path: Path
) -> None:
    environment = {"TMPDIR": str(tmp_path)}
    with running(servers.load(name), cores(), environment) as server:
        if how == "terminate":
            server.terminate()
            # Whichever of nginx's processes is left would have the port open.
            assert wait_until(lambda: server.exited and not answers(server.port), PATIENCE)
    assert wait_until(lambda: not answers(server.port), PATIENCE)
    assert wait_until(lambda: not any(tmp_path.iterdir()), PATIENCE)


def test_the_c_server_compiles_without_a_warning(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert build(tmp_path).exists()
    assert capfd.readouterr().err == ""


def test_the_c_server_refuses_what_it_does_not_serve() -> None:
    refused = {
        b"/nothing": 404,
        b"/tick?rate=0&count=3": 404,
        b"/tick?rate=20": 404,
        b"/relay": 502,
    }
    environment = {"OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}/v1"}
    stack = servers.load("bare_c")
    with running(stack, cores(), environment) as server, Load(server.port) as load:
        request = server.request("open")
        streams = [Stream(request.replace(b"/open", path), OrderCheck(0)) for path in refused]
        load.add(streams)
        assert load.run(load.all_ended, PATIENCE)
    assert [stream.response.status for stream in streams] == list(refused.values())


def test_the_c_server_waits_for_a_reader_and_for_the_end_of_a_request() -> None:
    with running(servers.load("bare_c"), cores(), {}) as server:
        count = 1_000_000
        request = server.request("flood", count=count)
        response = ResponseReader()
        check = FloodCheck(count)
        with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE) as connection:
            for byte in request:
                connection.send(bytes([byte]))
            # Both buffers are full when nothing more comes in.
            before = -1
            while (held := pending(connection)) > before:
                before = held
                select.select([], [], [], 0.05)
            assert 0 < held < count * WIDTH
            while not response.ended:
                check.feed(response.feed(connection.recv(1 << 18)))
        assert check.complete
        assert check.faults() == []


def pending(connection: socket.socket) -> int:
    """How many bytes a socket has received that nobody has read."""
    answer = array.array("i", [0])
    fcntl.ioctl(connection.fileno(), termios.FIONREAD, answer)
    return answer[0]


@pytest.mark.parametrize(("name", "message"), [("bare_c", "no C compiler"), ("nchan", "no nginx")])
def test_what_is_not_installed_is_an_import_error(
    name: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(ImportError, match=message):
        runpy.run_path(str(Path(servers.__file__).with_name(f"{name}.py")))

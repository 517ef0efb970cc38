"""Behind a real nginx with its default buffering."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.live.kit.clients import curl_in_background, open_stream, wake
from tests.live.kit.fronts import NGINX
from tests.live.kit.kinds import GEVENT, SERVERS
from tests.live.kit.servers import Server, free_port, running
from tests.live.kit.tools import tool

CONFIGURATION = (
    NGINX
    % """
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{behind};
            proxy_read_timeout 5s;
        }}
    }}
"""
)


@contextlib.contextmanager
def nginx(behind: Server, directory: Path) -> Iterator[Server]:
    program, port = tool("nginx"), free_port()
    configuration = directory / "nginx.conf"
    configuration.write_text(CONFIGURATION.format(port=port, behind=behind.port))
    command = [program, "-p", str(directory), "-e", "stderr", "-c", str(configuration)]
    with running("nginx", command, port, directory) as server:
        yield server


@pytest.fixture
def proxied(
    request: pytest.FixtureRequest, start_server: Callable[[str], Server], tmp_path: Path
) -> Iterator[tuple[Server, Server]]:
    """nginx, and the server behind it."""
    server = start_server(request.param)
    with nginx(server, tmp_path) as proxy:
        yield proxy, server


through_nginx = pytest.mark.parametrize("proxied", SERVERS, indirect=True)


@through_nginx
def test_events_arrive_one_by_one(proxied: tuple[Server, Server], tag: str) -> None:
    """Each is made only after the one before has arrived: nothing may be held back."""
    proxy, server = proxied
    with open_stream(proxy, f"/silent?tag={tag}&wakes=5") as stream:
        assert stream.head.headers["server"].startswith("nginx")
        assert stream.next().data == "first"
        for n in range(1, 6):
            wake(server, tag)
            assert stream.next().data == f"woken {n}"
        assert stream.rest() == []


@pytest.mark.parametrize("proxied", ["gunicorn-worker"], indirect=True)
def test_heartbeats_keep_a_silent_stream_up(proxied: tuple[Server, Server], tag: str) -> None:
    """Silent for 6 s, where nginx gives up after 5 s; it does so without heartbeats."""
    proxy, server = proxied
    without = f"/silent?tag={tag}-without&heartbeat=9999"
    with (
        curl_in_background(proxy, without) as given_up,
        open_stream(proxy, f"/silent?tag={tag}&wakes=1&heartbeat=2") as stream,
    ):
        assert stream.next().data == "first"
        assert stream.next_comments(3) == ["ping"] * 3
        wake(server, tag)
        assert stream.next().data == "woken 1"
        assert stream.rest() == []
        body, _ = given_up.communicate(timeout=20)
    assert body == b"data: first\n\n"
    assert given_up.returncode == 18, "its body was cut short"
    server.wait_for_mark(f"{tag}-without", "finally")


@pytest.mark.parametrize("proxied", GEVENT, indirect=True)
def test_leaving_is_noticed_through_the_proxy(proxied: tuple[Server, Server], tag: str) -> None:
    proxy, server = proxied
    with open_stream(proxy, f"/silent?tag={tag}&heartbeat=9999") as stream:
        assert stream.next().data == "first"
    server.wait_for_mark(tag, "finally")


@through_nginx
def test_a_large_stream_is_whole(proxied: tuple[Server, Server]) -> None:
    proxy, _ = proxied
    with open_stream(proxy, "/burst?count=1000&size=1000") as stream:
        assert [event.data for event in stream.rest()] == [f"{n} {'x' * 1000}" for n in range(1000)]

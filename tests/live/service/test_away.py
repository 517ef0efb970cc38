"""Readers behind a proxy, while the service itself is away."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.kit.browser import chromium
from tests.live.kit.collector import collector
from tests.live.kit.fronts import NGINX
from tests.live.kit.publishing import Publisher, publish
from tests.live.kit.servers import ROOT, Server, free_port, running
from tests.live.kit.services import service
from tests.live.kit.tools import tool

#: Seconds for which the service is away, and events a second meanwhile.
AWAY, RATE = {"nginx": 10.0, "caddy": 3.0, "haproxy": 3.0}, 50
PROXIES = ROOT / "docs" / "proxies"
PAGES = ROOT / "tests/live/kit/pages"
MODULE = ROOT / "sseflask" / "static" / "sse.js"


#: How the documented configuration of each proxy is made one of the test, and how it is started.
PROXY = {
    "nginx": (
        {
            "listen 80;": "listen 127.0.0.1:{port};",
            "location / {": "location /pages/ {{ proxy_pass {pages}; }}\n  location / {{",
        },
        ("nginx", "-p", "{directory}", "-e", "stderr", "-c"),
    ),
    "caddy": (
        {
            "{$SSEFLASK_SITE::80} {": "http://127.0.0.1:{port} {{\n"
            "\treverse_proxy /pages/* {pages}",
            "# Caddy": "{{\n\tadmin off\n\tauto_https off\n}}\n# Caddy",
        },
        ("caddy", "run", "--adapter", "caddyfile", "--config"),
    ),
    "haproxy": (
        {
            "bind :80": "bind 127.0.0.1:{port}\n  use_backend pages if {{ path_beg /pages/ }}",
            "stream away\n": "stream away !{{ path_beg /pages/ }}\n",
            "\nbackend sseflask": "\nbackend pages\n  server pages {authority}\n\nbackend sseflask",
        },
        ("haproxy", "-db", "-f"),
    ),
}
FILES = {"nginx": "nginx.conf", "caddy": "Caddyfile", "haproxy": "haproxy.cfg"}


@contextlib.contextmanager
def proxy(name: str, behind: int, pages: str, directory: Path) -> Iterator[Server]:
    """With its documented configuration, and the test's pages beside the service."""
    port = free_port()
    values = {
        "port": port,
        "pages": pages,
        "authority": pages.removeprefix("http://"),
        "directory": directory,
    }
    documented = (PROXIES / FILES[name]).read_text()
    replaced, (program, *options) = PROXY[name]
    for before, after in {**replaced, "127.0.0.1:8000": f"127.0.0.1:{behind}"}.items():
        assert documented.count(before) == 1, before
        documented = documented.replace(before, after.format(**values))
    configuration = directory / FILES[name]
    configuration.write_text(NGINX.format() % documented if name == "nginx" else documented)
    command = [tool(program), *(each.format(**values) for each in options), str(configuration)]
    changes = {"XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
    page = "/pages/away.html"
    with running(name, command, port, directory, changes, ready=page) as server:
        yield server


@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", PROXY)
def test_a_browsers_readers_come_back(name: str, tmp_path: Path) -> None:
    port = free_port()
    settings = {"SSEFLASK_HISTORY_EVENTS": "100000", "SSEFLASK_PUBLIC_CHANNELS": "away"}
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(contextlib.ExitStack())
        first.enter_context(service(tmp_path, port=port, settings=settings))
        front_directory, browser_directory = tmp_path / "proxy", tmp_path / "browser"
        front_directory.mkdir()
        browser_directory.mkdir()
        seen = stack.enter_context(collector(away=PAGES / "away.html", sse=MODULE))
        front = stack.enter_context(proxy(name, port, seen.url, front_directory))
        address = f"{front.url}/pages/away.html?channel=away"
        stack.enter_context(chromium(browser_directory, address))
        seen.wait("/pages/ready")
        publisher = stack.enter_context(Publisher(port, "away", "event", per_second=RATE))
        first.close()  # SIGTERM, as at a deploy
        time.sleep(AWAY[name])  # how long it is away is what this is about
        with service(tmp_path, port=port, settings=settings):
            time.sleep(2)
            publisher.stop()
            publish(port, "away", "last")
            found = json.loads(seen.wait("/pages/found"))
    published = [*publisher.data(), "last"]
    assert found["eventSource"] == published
    assert found["module"] == published
    assert (found["closed"], found["gaps"]) == (0, 0)
    assert found["opened"] > 1
    assert found["again"] > 1

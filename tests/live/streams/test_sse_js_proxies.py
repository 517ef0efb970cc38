"""The client module behind proxies that gather, are slow, close what is idle, or speak HTTP/2."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import trustme
from playwright.sync_api import Page

from tests.live.kit.browser import READ, chromium_page
from tests.live.kit.connection import fetch
from tests.live.kit.fronts import NGINX
from tests.live.kit.interrupted import STORIES
from tests.live.kit.servers import Server, free_port, running
from tests.live.kit.tools import node, tool
from tests.scripted_upstream import Exchange, upstream

#: What each of these does with whatever the service sends.
_PROXY = (
    NGINX
    % """
  upstream service {{ server 127.0.0.1:{behind}; keepalive 16; }}
  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_next_upstream off;
  server {{
    listen 127.0.0.1:{port};
    location / {{ proxy_pass http://service; }}
    location /gathering/ {{
      proxy_pass http://service/;
      proxy_buffering on;
      proxy_ignore_headers X-Accel-Buffering;
    }}
    location /dripping/ {{
      proxy_pass http://127.0.0.1:{dripping}/;
      proxy_buffering off;
    }}
    location /impatient/ {{
      proxy_pass http://service/;
      proxy_read_timeout 1s;
    }}
  }}
  server {{
    listen 127.0.0.1:{secure} ssl http2;
    ssl_certificate certificate.pem;
    ssl_certificate_key key.pem;
    location / {{ proxy_pass http://service; }}
  }}
"""
)
_CADDY = """
{{
  admin off
  auto_https off
}}
https://127.0.0.1:{secure} {{
  bind 127.0.0.1
  tls {directory}/certificate.pem {directory}/key.pem
  reverse_proxy 127.0.0.1:{behind}
}}
http://127.0.0.1:{port} {{
  bind 127.0.0.1
  reverse_proxy 127.0.0.1:{behind}
}}
"""
_START = {
    "nginx": (_PROXY, ("-p", "{directory}", "-e", "stderr", "-c")),
    "caddy": (_CADDY, ("run", "--adapter", "caddyfile", "--config")),
}


@contextlib.contextmanager
def proxy(
    name: str, behind: Server, directory: Path, dripping: int = 0
) -> Iterator[tuple[str, str]]:
    """The addresses of a proxy, without and with TLS."""
    program, port, secure = tool(name), free_port(), free_port()
    layout, options = _START[name]
    made = trustme.CA().issue_cert("127.0.0.1")
    made.private_key_pem.write_to_path(str(directory / "key.pem"))
    for number, pem in enumerate(made.cert_chain_pems):
        pem.write_to_path(str(directory / "certificate.pem"), append=number > 0)
    values = {
        "port": port,
        "secure": secure,
        "behind": behind.port,
        "dripping": dripping,
        "directory": directory,
    }
    configuration = directory / name
    configuration.write_text(layout.format(**values))
    command = [program, *(each.format(**values) for each in options), str(configuration)]
    changes = {"XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
    with running(name, command, port, directory, changes, "/healthz") as server:
        yield server.url, f"https://127.0.0.1:{secure}"


STORY = STORIES["every kind of line"]


def drip(exchange: Exchange) -> None:
    """One after the other, each byte in a chunk and a packet of its own."""
    if "last-event-id" in exchange.headers:
        exchange.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        return
    sent = STORY.answers[0]
    exchange.begin()
    for at in range(len(sent)):
        exchange.chunk(sent[at : at + 1])
        time.sleep(0.002)  # or the proxy gathers them
    exchange.end()


@pytest.fixture(scope="module")
def nginx(
    tmp_path_factory: pytest.TempPathFactory, development: Server
) -> Iterator[tuple[str, str]]:
    directory = tmp_path_factory.mktemp("nginx")
    with upstream(drip) as server:
        dripping = urlsplit(server.url).port or 0
        with proxy("nginx", development, directory, dripping) as addresses:
            yield addresses


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium_page() as opened:
        yield opened


Read = Callable[..., list[list[Any]]]


@pytest.fixture(params=["node", "chromium"])
def read(request: pytest.FixtureRequest, nginx: tuple[str, str]) -> Read:
    """Reads one stream behind nginx. Returns what the module reports."""
    if request.param == "node":

        def in_node(path: str, **options: Any) -> list[list[Any]]:
            lines = node("sse.mjs", nginx[0] + path, json.dumps(options)).stdout.splitlines()
            return [json.loads(line) for line in lines]

        return in_node

    page: Page = request.getfixturevalue("page")

    def in_chromium(path: str, **options: Any) -> list[list[Any]]:
        page.goto(f"{nginx[0]}/healthz")
        url, module = nginx[0] + path, "/static/sse.js"
        (reported,) = page.evaluate(READ, [{"module": module, "url": url, "options": options}])
        return list(reported)

    return in_chromium


def numbers(reported: list[list[Any]]) -> list[str]:
    return [line[3] for line in reported if line[0] == "event"]


QUESTION = {
    "method": "POST",
    "headers": {"Content-Type": "application/json"},
    "body": json.dumps({"user_message": "hello", "format": "text"}),
}


@pytest.mark.parametrize("way", ["gathering", "impatient"])
def test_a_stream(read: Read, way: str) -> None:
    count, interval = {"gathering": (30, 0.01), "impatient": (3, 1.3)}[way]
    reported = read(f"/{way}/sse/v1?count={count}&interval={interval}")
    assert numbers(reported) == [str(number) for number in range(count)]
    assert reported[-1] == ["ended", "done"]
    opened = sum(line[0] == "open" for line in reported)
    assert opened == 1 if way == "gathering" else opened >= count


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_bytes_that_drip(read: Read, method: str) -> None:
    reported = read("/dripping/", method=method)
    assert [line[1:] for line in reported if line[0] == "event"] == STORY.events
    assert reported[-1] == ["ended", "done"]


def test_an_answer_to_a_post(read: Read) -> None:
    reported = read("/gathering/sse/openai_out", **QUESTION)
    assert "You said: hello" in "".join(numbers(reported))
    assert reported[-1] == ["ended", "done"]
    assert sum(line[0] == "open" for line in reported) == 1


@pytest.mark.parametrize("name", ["nginx", "caddy"])
def test_http2(
    name: str,
    page: Page,
    development: Server,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    """More streams at once than a browser has connections, all over one."""
    with contextlib.ExitStack() as stack:
        if name == "nginx":
            secure = request.getfixturevalue("nginx")[1]
        else:
            secure = stack.enter_context(proxy(name, development, tmp_path))[1]
        page.goto(f"{secure}/healthz")
        given = {"module": "/static/sse.js"}
        counter = {**given, "url": "/sse/v1?count=5&interval=0.3", "options": {}}
        asked = {**given, "url": "/sse/openai_out", "options": QUESTION}
        *counted, answered = page.evaluate(READ, [counter] * 12 + [asked])
        spoken = page.evaluate(
            "() => [...new Set(performance.getEntriesByType('resource')"
            ".filter(({ name }) => name.includes('/sse/')).map((each) => each.nextHopProtocol))]"
        )
        page.goto("about:blank")
    assert spoken == ["h2"]
    for reported in counted:
        assert numbers(reported) == ["0", "1", "2", "3", "4"]
        assert reported[-1] == ["ended", "done"]
    assert "You said: hello" in "".join(numbers(answered))


def test_what_the_proxies_pass_on(nginx: tuple[str, str]) -> None:
    answer = fetch(int(nginx[0].rpartition(":")[2]), "/healthz", headers={"X-Request-Id": "a-1"})
    assert answer.headers["x-request-id"] == "a-1"

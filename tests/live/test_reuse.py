"""Clients and proxies that use a stream's connection for their next request, at once."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import aiohttp
import httpx
import openai
import pytest
import requests
from openai import AsyncOpenAI

from tests.live.conftest import GEVENT, node, tool
from tests.live.servers import Server, free_port, running

#: Nginx, HAProxy and Apache, told to keep their connections to the server; Caddy does by itself.
NGINX = """
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    upstream behind {{ server 127.0.0.1:{behind}; keepalive 16; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://behind;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream off;
        }}
    }}
}}
"""
HAPROXY = """
global
    maxconn 512
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    http-reuse always
    retries 0
frontend web
    bind 127.0.0.1:{port}
    default_backend behind
backend behind
    server one 127.0.0.1:{behind}
"""
CADDY = """
{{
    admin off
    auto_https off
}}
http://127.0.0.1:{port} {{
    reverse_proxy 127.0.0.1:{behind}
}}
"""
APACHE = """
ServerRoot "{directory}"
PidFile apache.pid
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
ErrorLog /dev/stderr
LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so
LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so
LoadModule proxy_module /usr/lib/apache2/modules/mod_proxy.so
LoadModule proxy_http_module /usr/lib/apache2/modules/mod_proxy_http.so
ProxyPass "/" "http://127.0.0.1:{behind}/" keepalive=On flushpackets=on retry=0
"""
PROXIES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "nginx": ("nginx", NGINX, ("-p", "{directory}", "-e", "stderr", "-c", "{file}")),
    "haproxy": ("haproxy", HAPROXY, ("-db", "-f", "{file}")),
    "caddy": ("caddy", CADDY, ("run", "--adapter", "caddyfile", "--config", "{file}")),
    "apache": ("apache2", APACHE, ("-DFOREGROUND", "-f", "{file}")),
}
#: Ends at once, with three events.
PATH = "/numbers?count=3&interval=0"


@contextlib.contextmanager
def proxy_before(kind: str, behind: Server, directory: Path) -> Iterator[Server]:
    program, configuration, arguments = PROXIES[kind]
    port, file = free_port(), directory / "proxy.conf"
    values = {"port": port, "behind": behind.port, "directory": directory, "file": file}
    file.write_text(configuration.format(**values))
    command = [tool(program), *(each.format(**values) for each in arguments)]
    changes = {"XDG_DATA_HOME": str(directory), "XDG_CONFIG_HOME": str(directory)}
    with running(kind, command, port, directory, changes) as server:
        yield server


@pytest.fixture(scope="module", params=GEVENT)
def reused(request: pytest.FixtureRequest, start_server: Callable[[str], Server]) -> Server:
    return start_server(request.param)


def assert_whole(text: str) -> None:
    assert text == "".join(f"data: {n}\n\n" for n in range(3))


def test_http_client(reused: Server) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", reused.port, timeout=10)
    connection.connect()
    ours = connection.sock.getsockname()
    for n in range(300):
        connection.request("GET", PATH if n % 3 else "/hello")
        response = connection.getresponse()
        text = response.read().decode()
        assert response.status == 200
        if n % 3:
            assert_whole(text)
    assert connection.sock.getsockname() == ours, "one connection for all"
    connection.close()


def test_requests_and_httpx(reused: Server) -> None:
    with requests.Session() as session, httpx.Client() as client:
        for _ in range(100):
            assert_whole(session.get(reused.url + PATH, timeout=10).text)
            assert_whole(client.get(reused.url + PATH).text)


@pytest.mark.parametrize("client", ["agent", "fetch"])
def test_node(reused: Server, client: str) -> None:
    done = node("reuse.mjs", reused.url + PATH, "3", "200", client)
    told = json.loads(done.stdout)
    assert told["errors"] == []
    if client == "agent":
        assert told["connections"] == 4


def test_aiohttp(reused: Server) -> None:
    async def ask(session: aiohttp.ClientSession) -> None:
        for _ in range(50):
            async with session.get(reused.url + PATH) as response:
                assert_whole(await response.text())

    async def several() -> None:
        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(ask(session) for _ in range(4)))

    asyncio.run(several())


def test_openai_with_aiohttp(development: Server) -> None:
    """Completions, whose viewers have no greenlet when they end."""

    async def several() -> None:
        client = AsyncOpenAI(
            base_url=f"{development.url}/v1",
            api_key="none",
            http_client=openai.DefaultAioHttpClient(),
            max_retries=0,
        )
        async with client:
            for _ in range(3):
                await asyncio.gather(*(ask(client) for _ in range(6)))

    async def ask(client: AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(
            model="demo", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        texts = [choice.delta.content or "" async for chunk in stream for choice in chunk.choices]
        assert "".join(texts)

    asyncio.run(several())


@pytest.mark.parametrize("kind", PROXIES)
def test_behind_a_proxy(reused: Server, kind: str, tmp_path: Path) -> None:
    """No 502, though a proxy does not repeat a POST that met a closed connection."""
    with proxy_before(kind, reused, tmp_path) as proxy, requests.Session() as session:
        for n in range(150):
            method = "POST" if n % 2 else "GET"
            answer = session.request(method, f"{proxy.url}/burst?count=3&size=10", timeout=10)
            assert answer.status_code == 200, answer.text
            assert answer.text.count("data: ") == 3

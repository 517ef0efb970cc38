"""Clients and proxies that use a stream's connection for their next request, at once."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable
from pathlib import Path

import aiohttp
import httpx
import openai
import pytest
import requests
from openai import AsyncOpenAI

from tests.live.kit.fronts import FRONTS, front
from tests.live.kit.kinds import GEVENT
from tests.live.kit.servers import Server
from tests.live.kit.tools import node

#: Ends at once, with three events.
PATH = "/numbers?count=3&interval=0"


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
    result = json.loads(done.stdout)
    assert result["errors"] == []
    if client == "agent":
        assert result["connections"] == 4


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


@pytest.mark.parametrize("name", FRONTS)
def test_behind_a_proxy(reused: Server, name: str, tmp_path: Path) -> None:
    """No 502, though a proxy does not repeat a POST that met a closed connection."""
    with front(name, reused, tmp_path) as proxy, requests.Session() as session:
        for n in range(150):
            method = "POST" if n % 2 else "GET"
            answer = session.request(method, f"{proxy.url}/burst?count=3&size=10", timeout=10)
            assert answer.status_code == 200, answer.text
            assert answer.text.count("data: ") == 3

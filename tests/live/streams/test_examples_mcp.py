"""`examples/mcp_server.py`: a client of the MCP SDK loses its connection, and its server."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import ClientSession, MCPError
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import ClientMessageMetadata
from mcp.types import CallToolRequest, CallToolRequestParams, CallToolResult, TextContent

from tests.live.kit.connection import fetch
from tests.live.kit.examples import example
from tests.live.kit.proxy import Proxy
from tests.live.kit.redis_server import redis_server
from tests.live.kit.servers import Server

HEADERS = {"Accept": "application/json, text/event-stream"}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """The settings of a store that all processes share."""
    return {
        "FLASK_SSEFLASK_CHANNEL_LOG": str(tmp_path / "channels.sqlite3"),
        "FLASK_SSEFLASK_RUN_LOG": str(tmp_path / "runs.sqlite3"),
    }


@pytest.fixture(params=["sqlite", "redis"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, files: dict[str, str]
) -> Iterator[dict[str, str]]:
    """The same, in each backend."""
    if request.param == "sqlite":
        yield files
    else:
        with redis_server(tmp_path / "redis") as redis:
            yield {"FLASK_SSEFLASK_STORE": redis.url}


@contextlib.contextmanager
def process(directory: Path, store: dict[str, str]) -> Iterator[Server]:
    with example("mcp_server", "uvicorn", directory, changes=store) as server:
        yield server
    assert "ERROR" not in server.log(), server.log()


@dataclass
class Called:
    """A tool's call through the SDK's client, and what the client is told of it."""

    port: int
    to: int
    numbers: list[float] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    answer: str = ""

    async def call(self) -> None:
        url = f"http://127.0.0.1:{self.port}/mcp"
        async with (
            streamable_http_client(url, terminate_on_close=False) as streams,
            ClientSession(*streams) as session,
        ):
            await session.initialize()
            # As call_tool() sends it, which would ask for a list of tools afterwards.
            parameters = CallToolRequestParams(name="count", arguments={"to": self.to})
            try:
                result = await session.send_request(
                    CallToolRequest(params=parameters),
                    CallToolResult,
                    progress_callback=self._told,
                    metadata=ClientMessageMetadata(on_resumption_token_update=self._noted),
                )
            except MCPError as error:
                self.answer = str(error)
            else:
                (content,) = result.content
                assert isinstance(content, TextContent)
                self.answer = content.text

    async def _told(self, progress: float, total: float | None, message: str | None) -> None:
        assert (total, message) == (self.to, None)
        self.numbers.append(progress)
        self.heard(progress)

    async def _noted(self, id: str) -> None:
        self.ids.append(id)

    def heard(self, number: float) -> None:
        """Called with each number."""


class Moved(Called):
    """One whose next connections are to another process, once it has begun."""

    def __init__(self, proxy: Proxy, server: Server, to: int) -> None:
        super().__init__(proxy.port, to)
        self._proxy, self._server = proxy, server

    def heard(self, number: float) -> None:
        if number == 2:
            self._proxy.target = self._server.port


def replayed(server: Server, last_event_id: str) -> list[dict[str, Any]]:
    """The messages after that event, to the end of their stream."""
    headers = {**HEADERS, "Last-Event-ID": last_event_id}
    lines = fetch(server, "/mcp", headers=headers).body.decode().splitlines()
    data = [line.removeprefix("data: ") for line in lines if line.startswith("data: ")]
    return [json.loads(each) for each in data if each]


def cut_at(port: int, number: int) -> Proxy:
    """The tool's stream breaks behind this number; whichever connection it is on."""
    return Proxy(port, cut_after=[b'"progress":%d' % number] * 3)


def test_two_clients_lose_nothing(tmp_path: Path, store: dict[str, str]) -> None:
    """Each is told each number once, in order, though the tools run in the first process.

    Both number their requests alike. What they were told is in the log when that process is gone.
    """
    with process(tmp_path / "two", store) as two:
        with (
            process(tmp_path / "one", store) as one,
            cut_at(one.port, 5) as proxy,
            cut_at(one.port, 8) as other,
        ):
            clients = [Moved(proxy, two, to=20), Moved(other, two, to=17)]

            async def call() -> None:
                async with anyio.create_task_group() as tasks:
                    for client in clients:
                        tasks.start_soon(client.call)

            anyio.run(call)
            assert proxy.broken
            assert other.broken
        for client in clients:
            assert client.numbers == list(range(1, client.to + 1))
            assert client.answer == f"counted to {client.to}"
        assert '"POST /mcp' not in two.log()
        first, second = clients
        assert not {id.partition("/")[0] for id in first.ids} & {
            id.partition("/")[0] for id in second.ids
        }
        for _ in range(2):
            rest = replayed(two, first.ids[-3])
            assert [message.get("params", {}).get("progress") for message in rest] == [20, None]
            assert rest[-1]["result"]["content"][0]["text"] == "counted to 20"
        assert len(replayed(two, second.ids[0])) == 17 + 1

        refusals = {
            "1": "There is no such stream.",
            # Patterns would read the streams of others.
            "mcp.**/earliest": "There is no such stream.",
            "mcp.*.*/earliest": "There is no such stream.",
            f"mcp.x.{'0' * 32}/": "There is no such stream.",
            f"mcp.x.{'0' * 32}/earliest": "The server that ran this has ended.",
            first.ids[0].partition("/")[0] + "/of-another-log": "Events are missing.",
        }
        for wrong, words in refusals.items():
            (refused,) = replayed(two, wrong)
            assert refused["error"]["message"] == words


def test_a_tool_dies_with_its_process(tmp_path: Path, files: dict[str, str]) -> None:
    """Its client is told within ten seconds; it would wait for ever."""
    with process(tmp_path / "two", files) as two, contextlib.ExitStack() as stack:
        one = stack.enter_context(process(tmp_path / "one", files))
        with Proxy(one.port) as proxy:

            class Killed(Called):
                def heard(self, number: float) -> None:
                    if number == 3:
                        proxy.target = two.port
                        one.kill()

            called = Killed(proxy.port, to=1000)
            began = time.monotonic()
            anyio.run(called.call)
            assert time.monotonic() - began < 15
    assert called.numbers == list(range(1, len(called.numbers) + 1))
    assert len(called.numbers) >= 3
    assert called.answer == "The server that ran this has ended."

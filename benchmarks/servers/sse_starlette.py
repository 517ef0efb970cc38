"""sse-starlette's EventSourceResponse; uvicorn with uvloop and httptools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from benchmarks.frames import FRAMES, PERIOD
from benchmarks.marks import leave_mark
from benchmarks.stack import ROUTES, Stack, uvicorn

STACK = Stack(
    name="sse_starlette",
    title="sse-starlette EventSourceResponse, uvicorn",
    family="asgi",
    command=uvicorn("benchmarks.servers.sse_starlette:app"),
    packages=("sse-starlette", "starlette", "uvicorn", "uvloop", "httptools"),
    routes={name: path for name, path in ROUTES.items() if name != "relay"},
)


async def flood(request: Request) -> EventSourceResponse:
    count = int(request.query_params["count"])

    async def events() -> AsyncIterator[bytes]:
        for number in range(count):
            yield FRAMES[number % PERIOD]

    return EventSourceResponse(events())


async def tick(request: Request) -> EventSourceResponse:
    count = int(request.query_params["count"])
    rate = float(request.query_params["rate"])

    async def events() -> AsyncIterator[dict[str, str]]:
        for number in range(count):
            await asyncio.sleep(1 / rate)
            yield {"data": str(number)}

    return EventSourceResponse(events())


async def silent(request: Request) -> EventSourceResponse:
    mark = request.query_params["mark"]

    async def events() -> AsyncIterator[dict[str, str]]:
        try:
            yield {"data": "0"}
            await asyncio.sleep(3600)
        finally:
            leave_mark(mark)

    return EventSourceResponse(events())


async def open_stream(_request: Request) -> EventSourceResponse:
    async def events() -> AsyncIterator[dict[str, str]]:
        yield {"data": "0"}
        await asyncio.sleep(3600)

    return EventSourceResponse(events())


async def counter(request: Request) -> EventSourceResponse:
    count = int(request.query_params["count"])
    interval = float(request.query_params["interval"])

    async def events() -> AsyncIterator[dict[str, str]]:
        for number in range(count):
            yield {"id": str(number), "data": str(number)}
            await asyncio.sleep(interval)

    return EventSourceResponse(events())


app = Starlette(
    routes=[
        Route("/flood", flood),
        Route("/tick", tick),
        Route("/silent", silent),
        Route("/open", open_stream),
        Route("/counter", counter),
    ]
)

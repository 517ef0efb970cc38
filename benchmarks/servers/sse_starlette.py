"""sse-starlette's EventSourceResponse; uvicorn with uvloop and httptools."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from benchmarks.finally_marks import leave_mark
from benchmarks.frames import FRAMES, PERIOD
from benchmarks.stack import CHANNEL_ROUTES, ROUTES, Stack, uvicorn

STACK = Stack(
    name="sse_starlette",
    title="sse-starlette EventSourceResponse, uvicorn",
    family="asgi",
    command=uvicorn("benchmarks.servers.sse_starlette:app"),
    packages=("sse-starlette", "starlette", "uvicorn", "uvloop", "httptools"),
    routes={name: path for name, path in ROUTES.items() if name != "relay"}
    | {name: CHANNEL_ROUTES[name] for name in ("subscribe", "publish")},
)

channels: defaultdict[str, set[asyncio.Queue[str]]] = defaultdict(set)


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


async def subscribe(request: Request) -> EventSourceResponse:
    subscribers = channels[request.path_params["channel"]]

    async def events() -> AsyncIterator[dict[str, str]]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        subscribers.add(queue)
        try:
            while True:
                yield {"data": await queue.get()}
        finally:
            subscribers.discard(queue)

    return EventSourceResponse(events())


async def publish(request: Request) -> Response:
    data = (await request.body()).decode()
    for queue in channels[request.path_params["channel"]]:
        queue.put_nowait(data)
    return Response(status_code=201)


app = Starlette(
    routes=[
        Route("/flood", flood),
        Route("/tick", tick),
        Route("/silent", silent),
        Route("/open", open_stream),
        Route("/counter", counter),
        Route("/subscribe/{channel}", subscribe),
        Route("/publish/{channel}", publish, methods=["POST"]),
    ]
)

"""Starlette's StreamingResponse with async generators; uvicorn with uvloop and httptools."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from benchmarks.finally_marks import leave_mark
from benchmarks.frames import FRAMES, PERIOD
from benchmarks.stack import CHANNEL_ROUTES, ROUTES, Stack, uvicorn

STACK = Stack(
    name="starlette_uvicorn",
    title="Starlette StreamingResponse, uvicorn",
    family="asgi",
    command=uvicorn("benchmarks.servers.starlette_uvicorn:app"),
    packages=("starlette", "uvicorn", "uvloop", "httptools"),
    routes={name: path for name, path in ROUTES.items() if name != "relay"}
    | {name: CHANNEL_ROUTES[name] for name in ("subscribe", "publish", "health")},
)

channels: defaultdict[str, set[asyncio.Queue[bytes]]] = defaultdict(set)


async def flood(request: Request) -> StreamingResponse:
    count = int(request.query_params["count"])

    async def events() -> AsyncIterator[bytes]:
        for number in range(count):
            yield FRAMES[number % PERIOD]

    return StreamingResponse(events(), media_type="text/event-stream")


async def tick(request: Request) -> StreamingResponse:
    count = int(request.query_params["count"])
    rate = float(request.query_params["rate"])

    async def events() -> AsyncIterator[str]:
        for number in range(count):
            await asyncio.sleep(1 / rate)
            yield f"data: {number}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def silent(request: Request) -> StreamingResponse:
    mark = request.query_params["mark"]

    async def events() -> AsyncIterator[str]:
        try:
            yield "data: 0\n\n"
            await asyncio.sleep(3600)
        finally:
            leave_mark(mark)

    return StreamingResponse(events(), media_type="text/event-stream")


async def open_stream(_request: Request) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        yield "data: 0\n\n"
        await asyncio.sleep(3600)

    return StreamingResponse(events(), media_type="text/event-stream")


async def counter(request: Request) -> StreamingResponse:
    count = int(request.query_params["count"])
    interval = float(request.query_params["interval"])

    async def events() -> AsyncIterator[str]:
        for number in range(count):
            yield f"id: {number}\ndata: {number}\n\n"
            await asyncio.sleep(interval)

    return StreamingResponse(events(), media_type="text/event-stream")


async def subscribe(request: Request) -> StreamingResponse:
    subscribers = channels[request.path_params["channel"]]

    async def events() -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        subscribers.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            subscribers.discard(queue)

    return StreamingResponse(events(), media_type="text/event-stream")


async def publish(request: Request) -> Response:
    frame = b"data: " + await request.body() + b"\n\n"
    for queue in channels[request.path_params["channel"]]:
        queue.put_nowait(frame)
    return Response(status_code=201)


async def health(_request: Request) -> Response:
    return Response("ok")


app = Starlette(
    routes=[
        Route("/flood", flood),
        Route("/tick", tick),
        Route("/silent", silent),
        Route("/open", open_stream),
        Route("/counter", counter),
        Route("/subscribe/{channel}", subscribe),
        Route("/publish/{channel}", publish, methods=["POST"]),
        Route("/healthz", health),
    ]
)

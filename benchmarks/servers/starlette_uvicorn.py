"""Starlette's StreamingResponse with async generators; uvicorn with uvloop and httptools."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

from benchmarks.frames import FRAMES, PERIOD
from benchmarks.marks import leave_mark
from benchmarks.stack import ROUTES, Stack, uvicorn

STACK = Stack(
    name="starlette_uvicorn",
    title="Starlette StreamingResponse, uvicorn",
    family="asgi",
    command=uvicorn("benchmarks.servers.starlette_uvicorn:app"),
    packages=("starlette", "uvicorn", "uvloop", "httptools"),
    routes={name: path for name, path in ROUTES.items() if name != "relay"},
)


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


app = Starlette(
    routes=[
        Route("/flood", flood),
        Route("/tick", tick),
        Route("/silent", silent),
        Route("/open", open_stream),
        Route("/counter", counter),
    ]
)

"""FastAPI: StreamingResponse and AsyncOpenAI's typed chunks; uvicorn with uvloop, httptools."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI

from benchmarks.finally_marks import leave_mark
from benchmarks.frames import FRAMES, PERIOD
from benchmarks.stack import Stack, uvicorn

STACK = Stack(
    name="fastapi_uvicorn",
    title="FastAPI StreamingResponse, uvicorn",
    family="asgi",
    command=uvicorn("benchmarks.servers.fastapi_uvicorn:app"),
    packages=("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "openai"),
)

app = FastAPI()
client = AsyncOpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)


@app.get("/flood")
async def flood(count: int) -> StreamingResponse:
    async def events() -> AsyncIterator[bytes]:
        for number in range(count):
            yield FRAMES[number % PERIOD]

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/tick")
async def tick(rate: float, count: int) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        for number in range(count):
            await asyncio.sleep(1 / rate)
            yield f"data: {number}\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/relay")
async def relay() -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        stream = await client.chat.completions.create(
            model="scripted",
            messages=[{"role": "user", "content": "你好"}],
            stream=True,
        )
        async for chunk in stream:
            yield f"data: {chunk.model_dump_json()}\n\n"
        yield "data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/silent")
async def silent(mark: str) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        try:
            yield "data: 0\n\n"
            await asyncio.sleep(3600)
        finally:
            leave_mark(mark)

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/open")
async def open_stream() -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        yield "data: 0\n\n"
        await asyncio.sleep(3600)

    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/counter")
async def counter(count: int, interval: float) -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        for number in range(count):
            yield f"id: {number}\ndata: {number}\n\n"
            await asyncio.sleep(interval)

    return StreamingResponse(events(), media_type="text/event-stream")

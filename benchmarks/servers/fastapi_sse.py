"""FastAPI's own `fastapi.sse`: path operations that yield; uvicorn with uvloop and httptools.

Where an event is only data the return type says what it is, so that pydantic's compiled part
encodes it: the documentation's advice for speed. fastapi.sse takes no ready-made frames, the
nearest are ready-made events.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import AsyncIterable

from fastapi import FastAPI, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent
from openai import AsyncOpenAI

from benchmarks.finally_marks import leave_mark
from benchmarks.frames import FRAMES, PERIOD
from benchmarks.stack import CHANNEL_ROUTES, ROUTES, Stack, uvicorn

STACK = Stack(
    name="fastapi_sse",
    title="FastAPI fastapi.sse, uvicorn",
    family="asgi",
    command=uvicorn("benchmarks.servers.fastapi_sse:app"),
    packages=("fastapi", "starlette", "pydantic", "uvicorn", "uvloop", "httptools", "openai"),
    routes={**ROUTES, **{name: CHANNEL_ROUTES[name] for name in ("subscribe", "publish")}},
)

EVENTS = tuple(
    ServerSentEvent(raw_data=frame.decode().removeprefix("data: ").rstrip()) for frame in FRAMES
)

channels: defaultdict[str, set[asyncio.Queue[ServerSentEvent]]] = defaultdict(set)

app = FastAPI()
client = AsyncOpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)


@app.get("/flood", response_class=EventSourceResponse)
async def flood(count: int) -> AsyncIterable[ServerSentEvent]:
    for number in range(count):
        yield EVENTS[number % PERIOD]


@app.get("/tick", response_class=EventSourceResponse)
async def tick(rate: float, count: int) -> AsyncIterable[int]:
    for number in range(count):
        await asyncio.sleep(1 / rate)
        yield number


@app.get("/relay", response_class=EventSourceResponse)
async def relay() -> AsyncIterable[ServerSentEvent]:
    stream = await client.chat.completions.create(
        model="scripted",
        messages=[{"role": "user", "content": "你好"}],
        stream=True,
    )
    async for chunk in stream:
        yield ServerSentEvent(data=chunk)
    yield ServerSentEvent(raw_data="[DONE]")


@app.get("/silent", response_class=EventSourceResponse)
async def silent(mark: str) -> AsyncIterable[int]:
    try:
        yield 0
        await asyncio.sleep(3600)
    finally:
        leave_mark(mark)


@app.get("/open", response_class=EventSourceResponse)
async def open_stream() -> AsyncIterable[int]:
    yield 0
    await asyncio.sleep(3600)


@app.get("/counter", response_class=EventSourceResponse)
async def counter(count: int, interval: float) -> AsyncIterable[ServerSentEvent]:
    for number in range(count):
        yield ServerSentEvent(data=number, id=str(number))
        await asyncio.sleep(interval)


@app.get("/subscribe/{channel}", response_class=EventSourceResponse)
async def subscribe(channel: str) -> AsyncIterable[ServerSentEvent]:
    queue: asyncio.Queue[ServerSentEvent] = asyncio.Queue()
    channels[channel].add(queue)
    try:
        while True:
            yield await queue.get()
    finally:
        channels[channel].discard(queue)


@app.post("/publish/{channel}", status_code=201)
async def publish(channel: str, request: Request) -> None:
    event = ServerSentEvent(raw_data=(await request.body()).decode())
    for queue in channels[channel]:
        queue.put_nowait(event)

"""FastAPI that relays the upstream's bytes: AsyncOpenAI's raw response instead of typed chunks."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from openai import AsyncOpenAI

from benchmarks.stack import ROUTES, Stack, uvicorn

STACK = Stack(
    name="fastapi_bytes",
    title="FastAPI passing bytes on, uvicorn",
    family="asgi",
    command=uvicorn("benchmarks.servers.fastapi_bytes:app"),
    packages=("fastapi", "starlette", "uvicorn", "uvloop", "httptools", "openai"),
    routes={"relay": ROUTES["relay"]},
)

app = FastAPI()
client = AsyncOpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL"),
    api_key=os.environ.get("OPENAI_API_KEY", "none"),
)


@app.get("/relay")
async def relay() -> StreamingResponse:
    async def events() -> AsyncIterator[bytes]:
        async with client.chat.completions.with_streaming_response.create(
            model="scripted",
            messages=[{"role": "user", "content": "你好"}],
            stream=True,
        ) as response:
            async for piece in response.iter_bytes():
                yield piece

    return StreamingResponse(events(), media_type="text/event-stream")

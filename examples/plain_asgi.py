"""The ASGI twin of `plain.py`: the same routes and bytes, from FastAPI.

Run it:

    uvicorn examples.plain_asgi:app

    curl -N -X POST http://127.0.0.1:8000/sse/v1
"""

import asyncio
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

app = FastAPI()


@app.api_route("/sse/v1", methods=["GET", "POST"])
async def counter() -> StreamingResponse:
    async def events() -> AsyncIterator[str]:
        for number in range(10):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0.1)

    return StreamingResponse(events(), media_type="text/event-stream")


@app.api_route("/sse/no_sse", methods=["GET", "POST"])
async def no_sse() -> dict[str, str]:
    return {"message": "Hello World"}

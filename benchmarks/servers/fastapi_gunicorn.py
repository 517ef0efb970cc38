"""The app of `fastapi_uvicorn` on gunicorn's own ASGI worker, with uvloop.

gunicorn's parser in C is taken where it is installed (`gunicorn[fast]`).
"""

from __future__ import annotations

from benchmarks.servers.fastapi_uvicorn import app
from benchmarks.stack import Stack, gunicorn

__all__ = ["STACK", "app"]

STACK = Stack(
    name="fastapi_gunicorn",
    title="FastAPI StreamingResponse, gunicorn -k asgi",
    family="asgi",
    command=gunicorn(
        "benchmarks.servers.fastapi_gunicorn:app", "-k", "asgi", "--asgi-loop", "uvloop"
    ),
    packages=("fastapi", "starlette", "gunicorn", "gunicorn_h1c", "uvloop", "openai"),
)

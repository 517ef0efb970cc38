"""Which stacks have which routes of channels and runs.

Each process that runs tests makes the list of them all: importing every stack for it would take
each of them two seconds.
"""

from __future__ import annotations

SUBSCRIBED = (
    *("bare_c", "bare_python", "fastapi_sse", "flask_gevent", "nchan", "nchan_workers"),
    *("sse_starlette", "sseflask_gevent", "sseflask_library_workers", "sseflask_redis"),
    *("sseflask_redis_machines", "sseflask_redis_stored", "sseflask_redis_worker"),
    *("sseflask_service", "sseflask_worker", "sseflask_workers", "starlette_uvicorn"),
)
ITEMS = ("sseflask_gevent", "sseflask_redis_worker", "sseflask_worker")
HAVING = {
    "subscribe": SUBSCRIBED,
    "resume": (
        *("nchan", "sseflask_gevent", "sseflask_redis", "sseflask_service", "sseflask_worker"),
    ),
    "publish": SUBSCRIBED,
    "publish_across": (
        *("nchan_workers", "sseflask_library_workers", "sseflask_redis_machines"),
        "sseflask_workers",
    ),
    "publish_array": ("sseflask_redis", "sseflask_service"),
    "publish_loop": ("sseflask_gevent", "sseflask_redis_worker", "sseflask_worker"),
    "health": (
        *("bare_c", "bare_python", "flask_gevent", "sseflask_gevent", "sseflask_redis"),
        *("sseflask_service", "sseflask_worker", "starlette_uvicorn"),
    ),
    "run": ("sseflask_redis", "sseflask_service"),
    "items": ITEMS,
    "stored_items": ITEMS,
    "view_items": ITEMS,
    "stored_open": ITEMS,
}

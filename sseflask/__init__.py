"""Server-Sent Events for Flask, from synchronous generators.

The names below are imported at their first use: gunicorn imports the worker class in its
arbiter, before gevent has patched the standard library, and Flask must not be imported there.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sseflask.channels.history import ChannelEvent, ChannelHistory
    from sseflask.completions.run_sources import openai_chunks, openai_response, text_chunks
    from sseflask.counters.stats import Stats, StreamStats, WorkerStats
    from sseflask.errors import ChannelError, ConfigError, EventError, Failure
    from sseflask.event import Comment, Event, MessageEvent
    from sseflask.extension import SSE
    from sseflask.readiness import Readiness
    from sseflask.response import EventSourceResponse
    from sseflask.runs.item_run import RunHandle
    from sseflask.runs.run_result import RunEvent, RunResult
    from sseflask.web.cursor import last_event_id
    from sseflask.wire import Decoder, encode

__all__ = [
    "SSE",
    "ChannelError",
    "ChannelEvent",
    "ChannelHistory",
    "Comment",
    "ConfigError",
    "Decoder",
    "Event",
    "EventError",
    "EventSourceResponse",
    "Failure",
    "MessageEvent",
    "Readiness",
    "RunEvent",
    "RunHandle",
    "RunResult",
    "Stats",
    "StreamStats",
    "WorkerStats",
    "encode",
    "last_event_id",
    "openai_chunks",
    "openai_response",
    "text_chunks",
]

__version__ = "0.1.0"

_MODULES = {
    "channels.history": ("ChannelEvent", "ChannelHistory"),
    "completions.run_sources": ("openai_chunks", "openai_response", "text_chunks"),
    "counters.stats": ("Stats", "StreamStats", "WorkerStats"),
    "errors": ("ChannelError", "ConfigError", "EventError", "Failure"),
    "event": ("Comment", "Event", "MessageEvent"),
    "extension": ("SSE",),
    "readiness": ("Readiness",),
    "response": ("EventSourceResponse",),
    "runs.item_run": ("RunHandle",),
    "runs.run_result": ("RunEvent", "RunResult"),
    "web.cursor": ("last_event_id",),
    "wire": ("Decoder", "encode"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name in names:
            value = getattr(importlib.import_module(f"{__name__}.{module}"), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

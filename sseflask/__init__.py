"""Server-Sent Events for Flask: synchronous generators, done right.

The names below are imported at their first use: gunicorn imports the worker class in its
arbiter, before gevent has patched the standard library, and Flask must not come along.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sseflask.channels.history import ChannelEvent, ChannelHistory
    from sseflask.counters.stats import Stats, StreamStats, WorkerStats
    from sseflask.errors import ChannelError, ConfigError, EventError, Failure
    from sseflask.event import Comment, Event, MessageEvent
    from sseflask.extension import SSE
    from sseflask.readiness import Readiness
    from sseflask.response import EventSourceResponse
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
    "Stats",
    "StreamStats",
    "WorkerStats",
    "encode",
    "last_event_id",
]

__version__ = "0.1.0"

_HOMES = {
    "SSE": "extension",
    "ChannelError": "errors",
    "ChannelEvent": "channels.history",
    "ChannelHistory": "channels.history",
    "Comment": "event",
    "ConfigError": "errors",
    "Decoder": "wire",
    "Event": "event",
    "EventError": "errors",
    "EventSourceResponse": "response",
    "Failure": "errors",
    "MessageEvent": "event",
    "Readiness": "readiness",
    "Stats": "counters.stats",
    "StreamStats": "counters.stats",
    "WorkerStats": "counters.stats",
    "encode": "wire",
    "last_event_id": "web.cursor",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The defaults of what can be set, in one place: for the library, the service and gunicorn.

Imported by gunicorn's arbiter: the standard library alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: The path of a store that is in the memory of one process.
MEMORY = ":memory:"

#: Where the service listens unless ``PORT`` is set.
ADDRESS = "127.0.0.1:8000"

#: Seconds that streams have to end after SIGTERM. Platforms send SIGKILL after about 30 s.
GRACE = 25

#: Milliseconds over which the clients of a worker that shuts down come back.
RETRY_JITTER = 2500

#: What an application can set in ``app.config``. The service's settings have the same names.
LIBRARY: Mapping[str, Any] = {
    "SSEFLASK_HEARTBEAT": 15,
    "SSEFLASK_FIRST_BYTE": 1,
    "SSEFLASK_LIFETIME": 0,
    "SSEFLASK_RETRY": None,
    "SSEFLASK_RETRY_JITTER": RETRY_JITTER,
    "SSEFLASK_STORE": None,
    "SSEFLASK_CHANNEL_LOG": None,
    "SSEFLASK_HISTORY_EVENTS": 1000,
    "SSEFLASK_HISTORY_SECONDS": 86_400,
    "SSEFLASK_CHANNEL_LOG_BYTES": 1 << 30,
    "SSEFLASK_RUN_LOG": None,
    "SSEFLASK_RUN_LOG_BYTES": 1 << 30,
    "SSEFLASK_RUN_SECONDS": 86_400,
    "SSEFLASK_MAX_RUNS": 200,
    "SSEFLASK_MAX_RUN_BYTES": 64 << 20,
    "SSEFLASK_MAX_RUN_SECONDS": 3600,
}


def setting(config: Mapping[str, Any], name: str) -> Any:
    """The value of a setting in an application's configuration, or its default.

    Args:
        config: ``app.config``.
        name: a name in `LIBRARY`.
    """
    return config.get(name, LIBRARY[name])

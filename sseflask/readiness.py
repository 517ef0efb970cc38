"""Whether requests are to be sent here: what ``/readyz`` says, for the library as well."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from sseflask.channels.channels import Channels
from sseflask.store.api import Durability, Health

__all__ = ["Readiness", "is_draining", "readiness_of"]

_MEANING: Mapping[Durability, str] = {
    "memory": "History is in the memory of one worker and is gone with it: subscribers that come "
    "back are then told so with a gap event.",
    "ephemeral": "History is on a disk that is gone when this container or machine is restarted: "
    "subscribers that come back are then told so with a gap event. SSEFLASK_CHANNEL_LOG can name a "
    "file on another disk.",
    "disk": "History is in a file on this machine's disk and outlives restarts and deploys, unless "
    "the platform replaces the disk: subscribers that come back are then told so with a gap event.",
}


@dataclass(frozen=True, slots=True)
class Readiness:
    """What can be said of a worker and its channels.

    A log that fails is no reason to send requests elsewhere: publishers get 503 meanwhile, but all
    else goes on, and another worker of this machine would do no better.

    Args:
        ready: whether new requests may be sent here; not when the worker has been told to stop.
        log: whether the channels' log can be used now; ``busy`` if it does not say so at once.
        history: where the channels' events are kept: ``memory``, ``ephemeral`` or ``disk``.
        meaning: for how long they are there, in a sentence.
    """

    ready: bool
    log: Health
    history: Durability
    meaning: str


def is_draining() -> bool:
    """Whether this worker has been told to stop. Never blocks."""
    # Loaded by the worker, if it is one that drains; on other servers there is no gevent.
    drain = sys.modules.get("sseflask.transport.gunicorn.drain")
    return drain is not None and bool(drain.worker_drain.draining)


def readiness_of(channels: Channels) -> Readiness:
    """What can be said of now. Blocks for half a second at most."""
    kept = channels.durability()
    return Readiness(not is_draining(), channels.health(), kept, _MEANING[kept])

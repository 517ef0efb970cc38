"""Whether new requests may be sent here: for ``/readyz`` and for the library."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from sseflask.channels.channels import Channels
from sseflask.store.api import Durability, Health

__all__ = ["Readiness", "is_draining", "readiness_of"]

_MEANING: Mapping[Durability, str] = {
    "memory": "History is in the memory of one worker and is gone with it: subscribers that come "
    "back then get a gap event.",
    "ephemeral": "History is on a disk that is gone when this container or machine is restarted: "
    "subscribers that come back then get a gap event. SSEFLASK_CHANNEL_LOG can name a file on "
    "another disk.",
    "disk": "History is in a file on this machine's disk and outlives restarts and deploys, unless "
    "the platform replaces the disk: subscribers that come back then get a gap event.",
}

_MEANING_ON_SERVER: Mapping[Durability, str] = {
    "ephemeral": "History is in the memory of a Redis server, for all machines, and outlives "
    "deploys. When that server restarts, it may be gone, or its last moments: subscribers that "
    "come back then get a gap event.",
    "disk": "History is on a Redis server that writes each change to its disk, for all machines, "
    "and outlives deploys and that server's restarts. A power cut may take its last second: "
    "subscribers that come back then get a gap event.",
}


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of a worker and its channels.

    A store that fails is no reason to send requests elsewhere: publishers get 503, but everything
    else goes on, and other workers of this machine fail too.

    Args:
        ready: whether new requests may be sent here; not while the worker shuts down.
        log: the state of the channels' store; ``busy`` if it does not answer at once.
        history: where the channels' events are stored: ``memory``, ``ephemeral`` or ``disk``.
        meaning: how long they last, in a sentence.
    """

    ready: bool
    log: Health
    history: Durability
    meaning: str


def is_draining() -> bool:
    """Whether this worker shuts down. Never blocks."""
    # A worker that drains has imported it; on other servers there is no gevent.
    drain = sys.modules.get("sseflask.transport.gunicorn.drain")
    return drain is not None and bool(drain.worker_drain.draining)


def readiness_of(channels: Channels) -> Readiness:
    """The current state. Blocks for half a second at most."""
    store = channels.store
    history = store.durability()
    meaning = _MEANING_ON_SERVER if channels.on_server else _MEANING
    return Readiness(not is_draining(), store.health(), history, meaning[history])

"""Whether new requests may be sent here: for ``/readyz`` and for the library."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone

from sseflask.channels.channels import Channels
from sseflask.store.api import Durability, Health, Store

__all__ = ["Readiness", "StoreState", "is_draining", "readiness_of", "state_of"]

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
    else goes on, and other workers fail too, on a Redis server those of all machines.

    Args:
        ready: whether new requests may be sent here; not while the worker shuts down.
        log: the state of the channels' store: ``read_only`` if subscribing and reading work and
            publishing does not; ``busy`` if it does not answer at once.
        history: where the channels' events are stored: ``memory``, ``ephemeral`` or ``disk``.
        meaning: how long they last, in a sentence.
        reason: if ``log`` is ``read_only`` or ``unavailable``, what the Redis server says, without
            its address; empty if that is not known.
        since: since when it is so, in UTC, as far as this worker has noticed.
        warning: what the operator should change, though all works.
    """

    ready: bool
    log: Health
    history: Durability
    meaning: str
    reason: str = ""
    since: datetime | None = None
    warning: str = ""


@dataclass(frozen=True, slots=True)
class StoreState:
    """What a store can do now, and why no more; see `Readiness`."""

    log: Health
    reason: str = ""
    since: datetime | None = None
    warning: str = ""


def state_of(store: Store) -> StoreState:
    """The state of a store. Blocks for half a second at most."""
    log = store.health()
    problem = store.problem()
    warning = store.warning()
    if problem is None or log in ("available", "busy"):
        return StoreState(log, warning=warning)
    since = datetime.fromtimestamp(problem.since, timezone.utc)
    return StoreState(log, problem.reason, since, warning)


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
    state = state_of(store)
    return Readiness(
        not is_draining(),
        state.log,
        history,
        meaning[history],
        state.reason,
        state.since,
        state.warning,
    )

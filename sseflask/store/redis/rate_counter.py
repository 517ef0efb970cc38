"""Counts requests for all machines together, on a Redis server."""

from __future__ import annotations

from functools import partial

from sseflask.store.api import StoreError
from sseflask.store.redis.link import Link
from sseflask.store.redis.script import Script
from sseflask.store.redis.server import SHORT_PATIENCE, RedisServer

_COUNT = Script("count_request.lua")


class RedisRateCounter:
    """Fixed windows, each of which begins with its first request. Any thread or greenlet.

    Args:
        url: the server, see `RedisAddress`.
    """

    def __init__(self, url: str) -> None:
        self._server = RedisServer.open(url)

    def count(self, name: str, amount: int, seconds: int) -> float | None:
        """Count a request, and say how long to wait until the next is allowed.

        Args:
            name: what is counted, and for whom.
            amount: how many requests a window allows.
            seconds: the length of a window.

        Returns:
            0.0 if this one is allowed, else the seconds until the window is over; ``None`` if the
            server is away, or does not answer within half a second.
        """
        key = self._server.key("rate", name)
        count = partial(_count, key=key, amount=amount, seconds=seconds)
        try:
            return self._server.call(count, SHORT_PATIENCE) / 1000
        except StoreError:  # logged by the server; the caller counts by itself
            return None

    def close(self) -> None:
        """Leave the server. Never blocks."""
        self._server.close()


def _count(link: Link, key: bytes, amount: int, seconds: int) -> int:
    # Repeated after a lost connection, a request counts twice: better than not at all.
    milliseconds: int = link.run(_COUNT, [key], [amount, seconds * 1000])
    return milliseconds

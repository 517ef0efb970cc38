"""A connection whose items are a source, which can go on without a greenlet."""

from __future__ import annotations

import math
import random
import time
from typing import Any

from sseflask.transport.connection import Connection, Stop
from sseflask.transport.detached.group import DetachedStream, Group
from sseflask.transport.source import Source

__all__ = ["Subscriber"]

#: What part of its lifetime a detached stream gets.
_LIFETIME_SPREAD = (0.8, 1.0)


class Subscriber(Connection):
    """One subscriber on a socket of gunicorn's gevent worker.

    Under our own worker class it gives its greenlet back when nothing is left but to wait.
    Elsewhere it keeps the greenlet.
    """

    __slots__ = ("_adopt", "_group", "_member", "_source")

    def __init__(self, source: Source, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._source = self._outlet.counter = source
        self._adopt = self._server.adopt if self.stream.detachable else None
        self._group: Group | None = None
        self._member: DetachedStream | None = None

    def begin(self) -> None:
        super().begin()
        if self._adopt is not None and self._member is not None:
            self._server.adopted = True
            self._adopt(self._member, self._ends_at(self._member), self._server, self.environ)

    def _begin_items(self) -> bool:
        if self._ending():
            raise Stop  # while it can still be another response
        left = self._begun + self.stream.first_byte - time.monotonic()
        self._items = self._source.first(max(0.0, left))
        self._pump()
        self._start_at_once()
        if self._adopt is not None:
            self._group = self._catch_up()
            self._ran_out = self._group is None
            return False
        self._items = self._source.frames()
        return True

    def _start_at_once(self) -> None:
        """Send the headers: nobody knows when the next event comes."""
        self._start()
        self._outlet.buffer += self._opening
        self._opening = b""
        self._flusher.add(self._outlet, time.monotonic())

    def _catch_up(self) -> Group | None:
        """Send what is there already, until a group can do the rest, or there is none."""
        source, outlet = self._source, self._outlet
        while True:
            self._items = source.history()
            self._pump()
            outlet.flush()
            if outlet.unsent is not None:
                self._park(lambda: outlet.wait_until_sent(or_until=self._ending))
            if self._ending():
                raise Stop
            if source.ended:
                return None
            if outlet.unsent is None:
                group = source.join(outlet.chunked, self.stream.heartbeat)
                if group is not None:
                    return group

    def _handed_over(self) -> bool:
        if self._group is None:
            return False
        outlet, listener = self._outlet, None
        unread = b""
        if outlet.reusable and not self._server.has_proxy_line:
            visit = getattr(self.environ["gunicorn.socket"], "visit", None)
            listener = visit and visit.listener
            unread = outlet.input()
        self._member = member = DetachedStream(
            outlet.detach(), self._group, self._begun, outlet.body_sent, outlet.counted
        )
        member.told, self._accounted = self._told, False
        member.listener, member.unread = listener, unread
        member.retry_jitter = self.stream.retry_jitter
        return True

    def _ends_at(self, member: DetachedStream) -> float:
        stream, ends_at = self.stream, math.inf
        if stream.lifetime:
            # Not all at once that came at once, as after a deploy.
            ends_at = self._begun + stream.lifetime * random.uniform(*_LIFETIME_SPREAD)
        if stream.expires_at is not None:
            expiry = time.monotonic() + stream.expires_at - time.time()
            member.expires = expiry < ends_at
            ends_at = min(ends_at, expiry)
        return ends_at

    def _close_items(self) -> None:
        if self._rotated and not self._closed:
            self._source.will_reconnect()
        super()._close_items()

    def _resumable(self) -> bool:
        return self._source.resumable

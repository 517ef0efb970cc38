"""Groups the appends of a process: those that wait are stored by one script."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from sseflask.loop.callbacks import Done
from sseflask.store.api import Append, StoreError, stored_entries
from sseflask.store.redis.event_news import EventNews
from sseflask.store.redis.event_scripts import EventScripts, Stored, TooEarly, Unknown
from sseflask.store.redis.link import Link

log = logging.getLogger("sseflask")

#: What one script stores at most, unless one append alone is more: about the microseconds of the
#: server, which does nothing else meanwhile, and bytes.
_GROUP, _GROUP_BYTES = 3000, 1 << 20
_EVENT, _APPEND, _CHANNEL = 3, 7, 15

#: Attempts to store something on a server that has forgotten what it was told just before.
_ATTEMPTS = 3

#: Seconds between two attempts while other processes have to look at a new server first.
_PAUSE = 0.02


class EventWriter:
    """One greenlet or thread that stores appends. `add` and `close` are for the main loop."""

    def __init__(
        self, scripts: EventScripts, news: EventNews, open: Callable[[Link], None]
    ) -> None:
        self._scripts = scripts
        self._news = news
        self._open = open
        self._waiting: deque[tuple[Append, Done]] = deque()
        self._wake = threading.Event()
        self._closing = False
        self._left: Done | None = None

    def add(self, append: Append, done: Done) -> None:
        """Store an append; ``done`` is called with what becomes of it. Never blocks."""
        self._waiting.append((append, done))
        self._wake.set()

    def close(self, left: Done) -> None:
        """End, after what was added before; ``left`` is called then. Never blocks."""
        self._closing, self._left = True, left
        self._wake.set()

    def run(self, link: Link) -> None:
        """Store appends until it is closed."""
        while not self._closing or self._waiting:
            self._wake.wait()
            self._wake.clear()
            while self._waiting:
                self._store(link, self._take())
        with suppress(StoreError):  # others find out
            self._scripts.leave(link)
        link.close()
        if self._left is not None:
            self._left(None, None)

    def _take(self) -> list[tuple[Append, Done]]:
        group: list[tuple[Append, Done]] = []
        channels: set[str] = set()
        cost = size = 0
        while self._waiting:
            append = self._waiting[0][0]
            cost += _APPEND + _EVENT * len(append.frames)
            if append.channel not in channels:
                channels.add(append.channel)
                cost += _CHANNEL
            size += sum(map(len, append.frames))
            if group and (cost > _GROUP or size > _GROUP_BYTES):
                break
            group.append(self._waiting.popleft())
        return group

    def _store(self, link: Link, group: Sequence[tuple[Append, Done]]) -> None:
        nonce = secrets.token_hex(8)
        appends = [append for append, _ in group]
        try:
            stored = self._append(link, appends, nonce)
        except Exception as error:
            if not isinstance(error, StoreError):
                log.exception("storing events failed")
            for _, done in group:
                done(None, error)
            return
        entries = stored_entries(appends, stored.results)
        self._news.take_own(stored.before, stored.last, nonce, entries)
        # If others have stored something just before, the tail brings both.
        self._news.when_at(stored.behind, partial(_answer, group, stored.results))

    def _append(self, link: Link, appends: Sequence[Append], nonce: str) -> Stored:
        attempts = 0
        while True:
            try:
                return self._scripts.append(link, appends, nonce)
            except TooEarly:
                time.sleep(_PAUSE)  # gevent's, if it has replaced it
            except Unknown:
                attempts += 1
                if attempts == _ATTEMPTS:
                    raise StoreError(
                        "the Redis server forgets what was stored just before"
                    ) from None
                self._open(link)


def _answer(
    group: Sequence[tuple[Append, Done]],
    results: Sequence[object],
    _result: object,
    _error: Exception | None,
) -> None:
    for (_, done), result in zip(group, results, strict=True):
        done(result, None)

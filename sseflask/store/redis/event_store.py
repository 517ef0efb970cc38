"""The events of channels on a Redis server, for the processes of any number of machines."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from sseflask.loop.callbacks import Done, Timeout, wait_for_callback
from sseflask.store.api import (
    Append,
    Appended,
    Durability,
    EventLimits,
    EventListener,
    Extent,
    Health,
    History,
    HistoryQuery,
    KeyReused,
    Position,
    Problem,
    StoreBusy,
    StoreError,
)
from sseflask.store.joint import Asked, Joint
from sseflask.store.names import Pattern
from sseflask.store.redis.event_news import EventNews
from sseflask.store.redis.event_reading import read
from sseflask.store.redis.event_scripts import EventScripts, Unknown
from sseflask.store.redis.event_tail import FIRST_ENTRIES, EventTail, Place, next_count
from sseflask.store.redis.event_writer import EventWriter
from sseflask.store.redis.link import Link, ServerInfo
from sseflask.store.redis.server import PATIENCE, SHORT_PATIENCE, RedisServer
from sseflask.store.tail import NoticeKind

log = logging.getLogger("sseflask")

#: Milliseconds to wait for the next entry of the tail.
_BLOCK = 1000

#: Seconds between two looks at where the events are, while there are new ones all the time.
_LOOK_SECONDS = 1.0

#: Seconds that other processes have for their answer, and the longest pause between two looks at
#: what they have answered.
_ANSWER_SECONDS, _PAUSE = 1.0, 0.05

#: Seconds to wait for news up to a place whose number is known, and for the end of what was begun.
_NEWS_SECONDS, _LAST_SECONDS = 1.0, 2.0

#: Seconds after which following is tried again.
_AGAIN_SECONDS, _REFUSED_SECONDS = 0.05, 0.5

Result = TypeVar("Result")


class RedisEventStore:
    """An `EventStore`; the protocol describes its methods.

    One greenlet or thread writes in groups, see `EventWriter`. Another one follows the tail, and
    gives the news to the listener; what this process has stored itself is given at once if it is
    next. Queries are answered by the server's own, see `RedisServer.submit`; equal ones once.
    """

    def __init__(self, url: str, limits: EventLimits) -> None:
        self._url = url
        self._limits = limits
        self._tail = EventTail()
        self._closed = False
        self._reported = ""  # why following is refused, as the log has it
        self._refused = False
        self._positions = Joint[None](self._ask_for_position)
        self._readings = Joint[HistoryQuery](self._ask_for_history)

    def follow(self, listener: EventListener) -> None:
        self._server = server = RedisServer.open(self._url)
        self._scripts = EventScripts(server, self._limits, self._tail)
        self._news = EventNews(listener, self._tail, self._answer)
        self._writer = EventWriter(self._scripts, self._news, self._open)
        server.add_check(self._check)
        server.start(self._writer.run, server.link())
        self._link = server.link()
        server.start(self._follow_tail, self._link)

    def append(self, append: Append) -> Appended | KeyReused:
        result: Appended | KeyReused = self._wait(partial(self._submit, append), PATIENCE)
        return result

    def history(self, query: HistoryQuery) -> History:
        history: History = self._wait(partial(self._readings.add, query), PATIENCE)
        return history

    @property
    def shared(self) -> bool:
        return True

    def position(self, patience: float | None = None) -> Position:
        self._server.raise_if_away()
        place: Place = self._wait(
            partial(self._positions.add, None), PATIENCE if patience is None else patience
        )
        self._wait_for_news(place)
        return Position(place.epoch, place.newest)

    def close_subscriptions(self, patterns: Sequence[Pattern]) -> None:
        self._send("close", patterns)

    def count_subscriptions(self, pattern: Pattern) -> int:
        notice, there = self._send("count", [pattern])
        until, pause = time.monotonic() + _ANSWER_SECONDS, 0.001
        while True:
            answers = self._call(partial(self._answers, notice))
            if not there - answers.keys() or time.monotonic() >= until:
                return sum(answers.values())
            time.sleep(pause)  # gevent's, if it has replaced it
            pause = min(2 * pause, _PAUSE)

    def health(self) -> Health:
        return "unavailable" if self._closed else self._server.health()

    def problem(self) -> Problem | None:
        return self._server.problem()

    def warning(self) -> str:
        return self._server.warning()

    def durability(self) -> Durability:
        return self._server.durability()

    def extent(self) -> Extent:
        oldest = self._call(self._scripts.oldest, SHORT_PATIENCE)
        return Extent(self._server.used_bytes(), oldest)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        with suppress(Timeout):
            wait_for_callback(partial(self._server.in_loop, self._writer.close), _LAST_SECONDS)
        self._server.in_loop(self._link.end)
        self._server.remove_check(self._check)
        self._server.close()

    # -- calls -------------------------------------------------------------------------------------

    def _wait(self, start: Callable[[Done], None], patience: float) -> Any:
        if self._closed:
            raise StoreError("the channel log is closed")
        try:
            return wait_for_callback(start, patience)
        except Timeout:
            raise StoreBusy(f"the channel log did not answer within {patience:g} s") from None

    def _call(self, function: Callable[[Link], Result], patience: float = PATIENCE) -> Result:
        if self._closed:
            raise StoreError("the channel log is closed")
        return self._server.call(function, patience)

    def _submit(self, append: Append, done: Done) -> None:
        self._server.raise_if_away()
        self._server.in_loop(self._writer.add, append, done)

    def _ask_for_history(self, asked: Asked[HistoryQuery]) -> None:
        self._server.submit(partial(self._history, asked), asked.answer)

    def _history(self, asked: Asked[HistoryQuery], link: Link) -> History:
        asked.begin()
        return self._opened(link, partial(read, link, self._scripts.meta, asked.question))

    def _ask_for_position(self, asked: Asked[None]) -> None:
        self._server.submit(partial(self._position, asked), asked.answer)

    def _position(self, asked: Asked[None], link: Link) -> Place:
        asked.begin()
        return self._look(link)

    def _look(self, link: Link) -> Place:
        return self._opened(link, partial(self._scripts.look, link))

    def _send(self, kind: NoticeKind, patterns: Sequence[Pattern]) -> tuple[int, set[bytes]]:
        place, there = self._call(partial(self._store_notices, kind, list(map(str, patterns))))
        self._wait_for_news(place)
        return place.notices, there

    def _store_notices(
        self, kind: NoticeKind, bodies: Sequence[str], link: Link
    ) -> tuple[Place, set[bytes]]:
        return self._opened(link, partial(self._scripts.send, link, kind, bodies))

    def _wait_for_news(self, place: Place) -> None:
        """Wait until the listener has been given what was stored up to a place."""
        if self._news.has(place):
            return
        with suppress(Timeout):
            wait_for_callback(
                partial(self._server.in_loop, self._news.when_at, place), _NEWS_SECONDS
            )

    def _answer(self, notice: int, number: int) -> None:
        """Store how many subscriptions this process has. Any thread; never blocks."""
        self._server.submit(partial(self._store_answer, notice, number), _log_lost_answers)

    def _store_answer(self, notice: int, number: int, link: Link) -> None:
        self._scripts.answer(link, notice, number)

    def _answers(self, notice: int, link: Link) -> dict[bytes, int]:
        return self._scripts.answers(link, notice)

    # -- following ---------------------------------------------------------------------------------

    def _check(self, link: Link, _info: ServerInfo) -> None:
        self._open(link)

    def _open(self, link: Link) -> None:
        """See what the server has, before anything else is done there."""
        self._news.open(self._scripts.open(link))

    def _opened(self, link: Link, function: Callable[[], Result]) -> Result:
        """Call what asks the server; once more if that has been flushed meanwhile."""
        try:
            return function()
        except Unknown:
            self._open(link)
        try:
            return function()
        except Unknown:
            raise StoreError("the Redis server forgets what was stored just before") from None

    def _follow_tail(self, link: Link) -> None:
        tail = self._tail
        empty: str | None = None  # where nothing was found, though there should have been something
        looked, count = 0.0, FIRST_ENTRIES
        while not self._closed:
            try:
                link.connect()
                # Connecting again may turn the tail back; the command then has the place before it.
                turns = tail.turns
                rows = link.command(
                    "XREAD", "COUNT", count, "BLOCK", 1 if empty else _BLOCK,
                    "STREAMS", self._scripts.key("tail"), tail.cursor,
                )  # fmt: skip
                if rows:
                    empty = None
                    count = next_count(count, rows[0][1])
                    self._news.take(turns, rows[0][1])
                    if time.monotonic() < looked + _LOOK_SECONDS:
                        continue
                # Also while there is always something new, as this says that the process is there.
                looked = time.monotonic()
                place = self._look(link)
                self._report("")
                self._try_commands(link)
                if tail.has(place):
                    empty = None
                elif empty == tail.cursor:
                    # Redis has thrown the tail away, or it was trimmed.
                    self._news.skip(turns, place)
                    empty = None
                else:
                    empty = tail.cursor
            except StoreError as error:
                refused = self._server.available
                if refused:
                    self._try_commands(link)
                if self._server.wait_until_available(_AGAIN_SECONDS) and not self._closed:
                    if refused:
                        self._report(str(error))
                    time.sleep(_REFUSED_SECONDS if self._reported else _AGAIN_SECONDS)
            except Exception:
                log.exception("following the channel log failed")
                link.close()
                time.sleep(_AGAIN_SECONDS)
        link.close()

    def _try_commands(self, link: Link) -> None:
        """Notice what is refused, and since when, also while nobody publishes."""
        with suppress(StoreError):  # noted by the server, and no reason to follow no more
            link.try_commands()

    def _report(self, problem: str) -> None:
        """Log once that a server which is there refuses, or no longer does."""
        if not self._server.available:
            return
        if problem and not self._refused:
            self._refused = True  # the first time it may just have been away
            return
        self._refused = bool(problem)
        if problem == self._reported:
            return
        self._reported = problem
        log.warning("%s", problem or "the channel log can be followed again")


def _log_lost_answers(_result: object, error: Exception | None) -> None:
    if error is not None:
        log.warning("a count of subscribers was not answered: %s", error)

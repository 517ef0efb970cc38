"""A store of runs on a Redis server."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TypeVar

from sseflask.loop.callbacks import Done
from sseflask.store.api import Durability, Extent, Health, KeyReused, Problem, StoreError
from sseflask.store.append_queue import AppendQueue
from sseflask.store.redis.followed_runs import FollowedRuns
from sseflask.store.redis.link import Link, ServerInfo
from sseflask.store.redis.link_calls import LinkCalls, guard
from sseflask.store.redis.run_news import RunNews
from sseflask.store.redis.run_scripts import RunScripts
from sseflask.store.redis.run_upkeep import RunUpkeep
from sseflask.store.redis.server import PATIENCE, SHORT_PATIENCE, RedisServer
from sseflask.store.run_api import (
    Claim,
    Ending,
    Endings,
    Run,
    RunAppend,
    RunFrames,
    RunKey,
    RunLimits,
    RunListener,
    TooMany,
)

log = logging.getLogger("sseflask")

#: Seconds between two signs of life.
_BEAT_SECONDS = 1.0

#: Milliseconds that one wait for news takes at most: shorter than a command may take.
_WAIT_MILLISECONDS = 2000

#: Number of entries after which the inbox is emptied, without waiting for the next sign of life.
_MANY_ENTRIES = 500

#: Number of runs that one call ends.
_ENDS = 50

#: Seconds for which the end of a process waits for what was begun before.
_LAST_SECONDS = 2.0

Result = TypeVar("Result")


class RedisRunStore:
    """A `RunStore`, which says what the methods do. The key of a run is its id.

    Four greenlets of the main thread's loop (or threads) have a connection each. One stores what
    is appended. One reads the inbox, in which the server puts what becomes of runs of other
    processes. One gives signs of life: with a slow server these must not wait for anything else.
    One does in order what depends on the order, or what nobody waits for. Other calls are made by
    greenlets or threads of `RedisServer.call`.
    """

    def __init__(self, url: str, limits: RunLimits, endings: Endings) -> None:
        self._url = url
        self._limits = limits
        self._endings = endings
        self._queue = AppendQueue(self._store_appends, _call, self._stored, self._given_up)
        self._beats_early = self._is_kept_up = self._closed = False
        self._reported = ""
        self._ending = threading.Event()

    # -- for any thread or greenlet, see `RunStore` ------------------------------------------------

    def follow(self, listener: RunListener, *, inherits: bool = True) -> None:
        server, limits = RedisServer.open(self._url), self._limits
        self._server = server
        self._scripts = RunScripts(server, limits, self._endings.interrupted)
        self._runs = FollowedRuns(listener)
        self._news = RunNews(
            self._scripts, self._runs, self._endings.interrupted, inherits=inherits
        )
        self._jobs, self._appends = LinkCalls(server, 1), LinkCalls(server, 1)
        self._upkeep = RunUpkeep(
            self._scripts, self._runs, self._news, self._jobs, limits, self._endings
        )
        self._reader = server.link()
        server.add_check(self._check)
        server.start(self._read)
        server.start(self._live)

    def claim(self, claim: Claim) -> tuple[Run, bool] | KeyReused | TooMany:
        return self._call(partial(self._claim, claim))

    def withdraw(self, claim: Claim) -> None:
        self._upkeep.withdrawn.append(claim)
        self._jobs.try_soon(self._upkeep.withdraw)

    def find(self, id: str, subject: str) -> Run | None:
        found = self._call(partial(self._scripts.find, run=id, subject=subject))
        return None if found is None else found.run

    def frames(self, run: RunKey, after: int, limit: int) -> list[tuple[int, bytes]]:
        return self._call(partial(self._scripts.frames, run=run, after=after, limit=limit))

    def attach(self, run: RunKey) -> Run | None:
        self._raise_if_closed()
        return self._jobs.call(partial(self._attach, run), PATIENCE)

    def detach(self, run: RunKey) -> None:
        self._upkeep.detached.add(run)
        # To be done after an `attach` that was called before, though its caller was not answered.
        self._jobs.try_soon(partial(self._detach, run))

    def attached_elsewhere(
        self, runs: Collection[RunKey], done: Callable[[set[RunKey]], object]
    ) -> None:
        self._jobs.try_soon(partial(self._find_attached, runs, done))

    def append(self, append: RunAppend) -> None:
        self._queue.add(append)

    def wait_for_room(self, run: RunKey) -> None:
        self._queue.wait_for_room(run)

    def end(self, run: RunKey, ending: Ending) -> Run | None:
        return self._call(partial(self._news.end, run=run, ending=ending))

    def end_soon(self, run: RunKey, ending: Ending, *, unless_attached: bool = False) -> None:
        self._jobs.try_soon(
            partial(self._news.end, run=run, ending=ending, unless_attached=unless_attached)
        )

    def inherit_no_more(self) -> None:
        self._news.inherits = False

    def leave(self) -> None:
        self.inherit_no_more()
        # Not what is begun from now on.
        self._jobs.try_soon(partial(self._leave, [*self._runs.own]))

    def health(self) -> Health:
        return self._server.health()

    def problem(self) -> Problem | None:
        return self._server.problem()

    def warning(self) -> str:
        return self._server.warning()

    def durability(self) -> Durability:
        return self._server.durability()

    def extent(self) -> Extent:
        self._raise_if_closed()
        return self._server.call(self._scripts.extent, SHORT_PATIENCE)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._jobs.close(_LAST_SECONDS)
            self._server.in_loop(self._appends.end)
            self._server.in_loop(self._ending.set)
            self._server.in_loop(self._reader.end)
            self._server.remove_check(self._check)
            self._server.close()

    def _call(self, function: Callable[[Link], Result]) -> Result:
        self._raise_if_closed()
        if self._upkeep.detached:
            self._jobs.call(_nothing, PATIENCE)  # what this process has left, it has left by then
        return self._server.call(function)

    def _raise_if_closed(self) -> None:
        if self._closed:
            raise StoreError("the run log is closed")

    def _check(self, _link: Link, _info: ServerInfo) -> None:
        if len(self._runs):
            self._news.start_again()

    # -- calls -------------------------------------------------------------------------------------

    def _claim(self, claim: Claim, link: Link) -> tuple[Run, bool] | KeyReused | TooMany:
        result = self._news.known(link, lambda: self._scripts.claim(link, claim))
        if isinstance(result, tuple) and not result[1]:
            self._runs.write(result[0].key)
        return result

    def _attach(self, run: RunKey, link: Link) -> Run | None:
        self._upkeep.detached.discard(run)
        return self._news.attach(link, run)

    def _detach(self, run: RunKey, link: Link) -> None:
        self._upkeep.detached.add(run)
        self._upkeep.detach(link)

    def _find_attached(
        self, runs: Collection[RunKey], done: Callable[[set[RunKey]], object], link: Link
    ) -> None:
        self._beats_early = True
        guard(done, self._scripts.attached_elsewhere(link, runs))

    def _leave(self, own: Sequence[RunKey], link: Link) -> None:
        for at in range(0, len(own), _ENDS):
            self._news.leave(link, own[at : at + _ENDS])

    # -- what is appended --------------------------------------------------------------------------

    def _store_appends(self, appends: Sequence[RunAppend], done: Done) -> None:
        store = partial(self._scripts.append, appends=appends)
        self._appends.submit(store, partial(self._appended, done))

    def _appended(
        self, done: Done, result: tuple[list[RunAppend], list[Run]] | None, error: Exception | None
    ) -> None:
        """Some appends are stored, or not. The queue goes on when it is called back."""
        refused, ended = result or ([], [])
        guard(done, refused, error)
        for run in ended:
            self._runs.end(run, here=True)
        if refused:
            interrupted = self._endings.interrupted
            self._upkeep.to_end.update((append.run, interrupted) for append in refused)
            self._jobs.try_soon(self._upkeep.end)
        self._upkeep.make_room_soon()

    def _stored(self, batch: Sequence[RunFrames]) -> None:
        self._runs.deliver(batch)

    def _given_up(self, appends: Sequence[RunAppend], error: Exception) -> None:
        for append in appends:
            self._upkeep.to_end[append.run] = self._endings.unavailable
            self._runs.lose(append.run, StoreError(str(error)))

    # -- what others write -------------------------------------------------------------------------

    def _read(self) -> None:
        """Pass on what comes into the inbox."""
        link, unread = self._reader, 0
        while not self._closed:
            try:
                entries = self._scripts.entries(link, _WAIT_MILLISECONDS)
                if self._news.take(link, entries) and self._beats_early:
                    self._beat()
                unread += len(entries)
                if unread > _MANY_ENTRIES:
                    unread = 0
                    self._scripts.empty_inbox(link)
            except StoreError:
                # What was read and not passed on is missed by the next look at these runs.
                if not self._closed and self._server.wait_until_available(1.0):
                    time.sleep(0.1)
            except Exception:
                log.exception("reading the run log failed")
                time.sleep(1.0)
        link.close()

    # -- every second ------------------------------------------------------------------------------

    def _live(self) -> None:
        """Give signs of life, and have done every second what is to be done then."""
        link = self._server.link()
        more = False
        while not self._ending.wait(0.0 if more else _BEAT_SECONDS):
            try:
                more = self._news.tick(link)
            except Exception as error:
                more = False
                self._report(error)
            else:
                if not self._is_kept_up:
                    self._is_kept_up = True
                    self._jobs.submit(self._upkeep.do, self._kept_up)
            self._beat()
        link.close()

    def _kept_up(self, _result: object, error: Exception | None) -> None:
        self._is_kept_up = False
        self._report(error)

    def _report(self, error: Exception | None) -> None:
        """Log once that what is done every second fails, or works again."""
        if error is not None and not isinstance(error, StoreError):
            log.error("looking after the run log failed", exc_info=error)
        message = "" if error is None else str(error)
        # Of a server that is away `RedisServer` says enough.
        if message != self._reported and self._server.available and not self._closed:
            log.warning("%s", message or "the run log works again")
            self._reported = message

    def _beat(self) -> None:
        self._beats_early = False
        self._runs.beat()


def _call(function: Callable[..., object], *arguments: object) -> None:
    function(*arguments)


def _nothing(_link: Link) -> None:
    pass

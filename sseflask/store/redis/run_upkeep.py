"""What a process still has to do about runs: tried again every second until it is done."""

from __future__ import annotations

import logging
import time

from sseflask.store.redis.followed_runs import FollowedRuns
from sseflask.store.redis.link import Link
from sseflask.store.redis.link_calls import LinkCalls
from sseflask.store.redis.run_news import RunNews
from sseflask.store.redis.run_scripts import RunScripts
from sseflask.store.redis.server import PATIENCE
from sseflask.store.run_api import Claim, Ending, Endings, RunKey, RunLimits

log = logging.getLogger("sseflask")

#: Seconds between two rounds of deleting runs whose time is over.
_TRIM_SECONDS = 10.0

#: Seconds after which a run that this process is said to write, but does not know, is ended: by
#: then no answer to its claim can come.
_STRAY_SECONDS = PATIENCE + 5.0


class RunUpkeep:
    """Any thread may add to what is to be done. The jobs do it, in order.

    Attributes:
        detached: runs that this process follows no longer.
        withdrawn: claims whose runs have to end.
        to_end: runs that have to end, as what was appended to them was refused or given up.
    """

    def __init__(
        self,
        scripts: RunScripts,
        runs: FollowedRuns,
        news: RunNews,
        jobs: LinkCalls,
        limits: RunLimits,
        endings: Endings,
    ) -> None:
        self._scripts = scripts
        self._runs = runs
        self._news = news
        self._jobs = jobs
        self._max_bytes = limits.max_bytes
        self._endings = endings
        self.detached: set[RunKey] = set()
        self.withdrawn: list[Claim] = []
        self.to_end: dict[RunKey, Ending] = {}
        self._strays: dict[RunKey, float] = {}
        self._trim_at = 0.0
        self._made_room_at = 0

    def do(self, link: Link) -> None:
        """All of it."""
        self._news.attach_again(link)
        self.detach(link)
        self.withdraw(link)
        self.end(link)
        self._end_strays(link)
        if time.monotonic() >= self._trim_at:
            self._trim_at = time.monotonic() + _TRIM_SECONDS
            self._make_room(link)

    def detach(self, link: Link) -> None:
        for run in list(self.detached):
            if not self._runs.is_own(run):
                self._runs.forget(run)
                self._scripts.detach(link, run)
            self.detached.discard(run)

    def withdraw(self, link: Link) -> None:
        while self.withdrawn:
            claim = self.withdrawn[0]
            self._news.end(link, claim.id, self._endings.interrupted, withdrawn=True)
            self.withdrawn.pop(0)

    def end(self, link: Link) -> None:
        for run, ending in list(self.to_end.items()):
            found = self._news.end(link, run, ending, unless_passed_on=True)
            if found is None:
                self._runs.lose(run, None)
            elif found.ended is None:
                self._runs.pass_on(run)
            del self.to_end[run]

    def _end_strays(self, link: Link) -> None:
        """Leave runs that this process is said to write but does not write.

        Their claims were given up, or their ends were lost with a server, or this process was not
        told that it has inherited them. Such an end is repeated, if the server has all frames
        before it.
        """
        if self._news.written <= len(self._runs.own):
            self._strays.clear()
            return
        now, own = time.monotonic(), self._runs.own
        strays = self._scripts.written(link) - own
        self._strays = {run: self._strays.get(run, now) for run in strays}
        for run, since in list(self._strays.items()):
            known = self._runs.own_end(run)
            if known is not None:
                found = self._scripts.find(link, run)
                whole = found is not None and found.run.last == known[0]
                again = Ending(known[1], frees_key=True) if whole else self._endings.interrupted
                self._news.end(link, run, again)
            elif now > since + _STRAY_SECONDS and not self._news.leave(link, [run]):
                self._news.end(link, run, self._endings.interrupted)

    def make_room_soon(self) -> None:
        """Make room as soon as waiting jobs are done, if much was stored since that was done."""
        used = self._scripts.used
        step = min(1 << 20, self._max_bytes / 64)
        if used > self._max_bytes * 3 / 4 and abs(used - self._made_room_at) >= step:
            self._made_room_at = used
            self._jobs.try_soon(self._make_room)

    def _make_room(self, link: Link) -> None:
        room = self._scripts.make_room(link)
        if room.largest is not None:
            log.warning("the run log is full of what is running: the largest run has to end")
            self._news.end(link, room.largest, self._endings.full)
        if room.deleted or room.largest is not None:
            self._jobs.try_soon(self._make_room)

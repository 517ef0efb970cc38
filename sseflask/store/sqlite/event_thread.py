"""The thread of the channels' log: appends in groups, passes the tail on, and reads in between."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from sseflask.store.api import (
    Append,
    Appended,
    Entry,
    HistoryQuery,
    KeyReused,
    Log,
    Notice,
    NoticeKind,
    StoreError,
)
from sseflask.store.names import Pattern
from sseflask.store.sqlite.reads import Readings
from sseflask.store.sqlite.thread import Done, StoreThread
from sseflask.store.sqlite.wakeup import WakeupSocket

__all__ = ["LogThread"]

log = logging.getLogger("sseflask")

#: Events written in one transaction at most, and read from the tail at once.
_GROUP, _PAGE = 500, 1000

#: Bytes written in one transaction at most, unless one append alone has more.
_GROUP_BYTES = 1 << 20


class LogThread(StoreThread[Log]):
    """A `StoreThread` that is started at once, and calls back with what the log's tail brings.

    Args:
        make: makes the log, not yet open; called once, in the thread.
        deliver: gets the tail's entries, each once and in order.
        restarted: called when the log is another one than before, also at the start: with its
            epoch and its highest number, before anything above that is delivered.
        skipped: called when events were forgotten before they could be read, as after a stop of
            the whole process: with the last number before them and their last number at most, and
            before what follows is delivered.
        closed: called with what subscriptions of are to end, after all that was published before
            and before what is published later.
        count: called with the name or pattern whose subscriptions are to be counted, and what
            takes the number; from any thread.
        wakeup: rings when another process has written; the thread closes it.
    """

    def __init__(
        self,
        make: Callable[[], Log],
        deliver: Callable[[Sequence[Entry]], None],
        restarted: Callable[[str, int], None],
        skipped: Callable[[int, int], None],
        closed: Callable[[Sequence[Pattern]], None],
        count: Callable[[Pattern, Callable[[int], None]], None],
        wakeup: WakeupSocket,
    ) -> None:
        super().__init__("channel log", make, wakeup)
        self._deliver = deliver
        self._restarted = restarted
        self._skipped = skipped
        self._closed = closed
        self._count = count
        self._epoch = ""
        self._tail = 0
        self._noticed = 0
        self._readings = Readings()
        self.start()

    @property
    def epoch(self) -> str:
        """The epoch of what is delivered. Exact in the thread, as in what gets a result."""
        return self._epoch

    @property
    def tail(self) -> int:
        """The highest number that has been delivered. Exact in the thread, as in a `call`."""
        return self._tail

    def append(self, append: Append, done: Done) -> None:
        """Have events stored; ``done`` gets `Appended` or `KeyReused`. Never blocks.

        What waits at the same time is written as one group. Events are delivered here before
        ``done`` is called.
        """
        self._hand_over(append, done)

    def history(self, query: HistoryQuery, done: Done) -> None:
        """Have something read; ``done`` gets a `History`. Never blocks.

        All that was stored before this call is in it. Appends go first. Equal queries that wait at
        the same time get the same `History`.
        """
        self._hand_over(query, done)

    def newest(self, done: Done) -> None:
        """Have the log asked how far it is; ``done`` gets its epoch and its newest number.

        All up to there has been delivered before ``done`` is called. Never blocks.
        """

        def look(store: Log) -> tuple[str, int]:
            newest = store.newest()
            if newest != self._tail:
                # From here on it is no change any more that has not been read.
                self._try("reading", lambda: self._read(store))
            return self._epoch, newest

        self.submit(look, done)

    def notify(self, kind: NoticeKind, bodies: Sequence[str], done: Done) -> None:
        """Tell something to all processes, this one as well. Never blocks.

        ``done`` gets the number of the last notice, and the names of the processes that were there
        when it was stored.
        """

        def tell(store: Log) -> tuple[int, set[str]]:
            number = store.notify(kind, bodies)
            there = {self._wakeup.name, *self._wakeup.wake_others()}
            self._try("reading", lambda: self._read(store))
            return number, there

        self.submit(tell, done)

    # -- the thread ------------------------------------------------------------------------------

    def _serve(self, store: Log) -> int:
        """See `StoreThread`: one call, or some appends that make a group."""
        taken, group = 0, list[tuple[Append, Done]]()
        events = size = 0
        while self._calls:
            call, done = self._calls[0]
            if isinstance(call, HistoryQuery):
                self._readings.add(call, done)
            elif isinstance(call, Append):
                events += len(call.frames)
                size += sum(map(len, call.frames))
                if group and (events > _GROUP or size > _GROUP_BYTES):
                    break
                group.append((call, done))
            else:
                break
            self._calls.popleft()
            taken += 1
        if group:
            self._write(store, group)
        return taken or super()._serve(store)

    def _step_due(self) -> float | None:
        """See `StoreThread`."""
        return self._readings.due

    def _step(self, store: Log) -> None:
        """See `StoreThread`: a step of somebody's reading."""
        if self._open:
            self._readings.step(store)
        else:
            self._readings.refuse(self._error)

    def _ending(self) -> None:
        """See `StoreThread`."""
        self._readings.refuse(StoreError(f"the {self.name} is closed"))

    def _write(self, store: Log, group: Sequence[tuple[Append, Done]]) -> None:
        results: Sequence[Appended | KeyReused | None] = [None] * len(group)
        failed: Exception | None = None
        if not self._open:
            failed = self._error
        else:
            try:
                results = store.append([append for append, _ in group])
            except StoreError as error:
                self._report("writing", error)
                failed = error
            except Exception as error:
                if len(group) > 1:  # one of them is at fault, not the store
                    for one in group:
                        self._write(store, [one])
                    return
                failed = error
            else:
                self._report("writing", None)
                self._pass_on(store, group, results)
        for (_, done), result in zip(group, results, strict=True):
            self._guard(done, result, failed)

    def _pass_on(
        self,
        store: Log,
        group: Sequence[tuple[Append, Done]],
        results: Sequence[Appended | KeyReused | None],
    ) -> None:
        fresh = [
            (result, append)
            for result, (append, _) in zip(results, group, strict=True)
            if isinstance(result, Appended) and not result.repeated
        ]
        if not fresh:
            return
        self._guard(self._wakeup.wake_others)
        if fresh[0][0].first == self._tail + 1 and store.last_notice == self._noticed:
            self._tail = fresh[-1][0].last
            entries = [
                Entry(number, append.channel, frame)
                for result, append in fresh
                for number, frame in enumerate(append.frames, result.first)
            ]
            self._guard(self._deliver, entries)
        else:
            self._try("reading", lambda: self._read(store))

    def _opened(self, store: Log) -> None:
        self._readings.restart()
        newest = store.newest()
        if store.epoch == self._epoch and newest < self._tail:
            # An older copy was put back: what it counts on from here has been seen before.
            log.warning("the channel log has gone back; it gets a new epoch")
            store.renew()
        if store.epoch != self._epoch or store.last_notice < self._noticed:
            self._noticed = store.last_notice
        if store.epoch != self._epoch:
            self._tail = newest
            self._epoch = store.epoch
            self._guard(self._restarted, self._epoch, self._tail)

    def _read(self, store: Log) -> None:
        newest = store.newest()
        notices = self._new_notices(store)
        self._take_note(notices, self._tail)
        while self._tail < newest:
            before = self._tail
            page = store.since(before, min(_PAGE, newest - before))
            # Numbers have no holes: what a page lacks is forgotten. Where it is the last one, so
            # is what it lacks up to the number that was the newest before it was read.
            last = page[-1].number if page else newest
            entries: Sequence[Entry] = page
            if last > newest:
                # There may be notices before these, which have not been read yet.
                last, entries = newest, page[: _upto(page, newest)]
            elif page.complete:
                last = newest
            self._tail = last
            if last - before > len(entries):
                self._guard(self._skipped, before, last)
            self._deliver_between(notices, entries)
            self._take_note(notices, last)

    def _deliver_between(self, notices: deque[Notice], entries: Sequence[Entry]) -> None:
        """Deliver events, with the notices where they belong."""
        while notices and entries and notices[0].after < entries[-1].number:
            upto = _upto(entries, notices[0].after)
            if upto:
                self._guard(self._deliver, entries[:upto])
            self._take_note(notices, notices[0].after)
            entries = entries[upto:]
        if entries:
            self._guard(self._deliver, entries)

    def _new_notices(self, store: Log) -> deque[Notice]:
        if store.last_notice == self._noticed:
            return deque()
        notices = deque(store.notices(self._noticed))
        first = notices[0].number if notices else store.last_notice + 1
        if first > self._noticed + 1:
            # This process stood still meanwhile. Who is sent away without need comes back.
            log.warning("notices in the channel log were missed; all subscribers are sent away")
            self._noticed = first - 1
            self._guard(self._closed, [Pattern.parse("**")])
        return notices

    def _take_note(self, notices: deque[Notice], upto: int) -> None:
        """Do what was to be done by the time that an event had a number."""
        while notices and notices[0].after <= upto:
            notice = notices.popleft()
            self._noticed = notice.number
            self._guard(self._act_on, notice)

    def _act_on(self, notice: Notice) -> None:
        pattern = Pattern.parse(notice.body)
        if notice.kind == "close":
            self._closed([pattern])
        elif notice.kind == "count":
            self._count(pattern, partial(self._answer, notice.number))

    def _answer(self, notice: int, number: int) -> None:
        def done(_result: Any, error: Exception | None) -> None:
            if error is not None:
                log.warning("a count of subscribers was not answered: %s", error)

        self.submit(lambda store: store.answer(notice, self._wakeup.name, number), done)


def _upto(entries: Sequence[Entry], number: int) -> int:
    """How many entries there are up to a number."""
    return bisect_right(entries, number, key=lambda entry: entry.number)

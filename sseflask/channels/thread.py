"""The thread of the channels' log: appends in groups, and passes the log's tail on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sseflask.channels.log import Append, Appended, Entry, KeyReused, Log, LogError
from sseflask.channels.store_thread import Done, StoreThread
from sseflask.channels.wake import Bell

__all__ = ["LogThread"]

log = logging.getLogger("sseflask")

#: Events written in one transaction at most, and read from the tail at once.
_GROUP, _PAGE = 500, 1000


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
        bell: rings when another process has written; the thread closes it.
    """

    def __init__(
        self,
        make: Callable[[], Log],
        deliver: Callable[[Sequence[Entry]], None],
        restarted: Callable[[str, int], None],
        skipped: Callable[[int, int], None],
        bell: Bell,
    ) -> None:
        super().__init__("channel log", make, bell)
        self._deliver = deliver
        self._restarted = restarted
        self._skipped = skipped
        self._epoch = ""
        self._tail = 0
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

    # -- the thread ------------------------------------------------------------------------------

    def _serve(self, store: Log) -> int:
        """See `StoreThread`: one call, or some appends that make a group."""
        if not isinstance(self._calls[0][0], Append):
            return super()._serve(store)
        group = [self._calls.popleft()]
        events = len(group[0][0].frames)
        while self._calls and isinstance(following := self._calls[0][0], Append):
            events += len(following.frames)
            if events > _GROUP:
                break
            group.append(self._calls.popleft())
        self._write(store, group)
        return len(group)

    def _write(self, store: Log, group: Sequence[tuple[Append, Done]]) -> None:
        results: Sequence[Appended | KeyReused | None] = [None] * len(group)
        failed: Exception | None = None
        if not self._open:
            failed = self._error
        else:
            try:
                results = store.append([append for append, _ in group])
            except LogError as error:
                self._tell("writing", error)
                failed = error
            except Exception as error:
                if len(group) > 1:  # one of them is at fault, not the store
                    for one in group:
                        self._write(store, [one])
                    return
                failed = error
            else:
                self._tell("writing", None)
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
        self._guard(self._bell.ring_others)
        if fresh[0][0].first == self._tail + 1:
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
        newest = store.newest()
        if store.epoch == self._epoch and newest < self._tail:
            # An older copy was put back: what it counts on from here has been seen before.
            log.warning("the channel log has gone back; it gets a new epoch")
            store.renew()
        if store.epoch != self._epoch:
            self._tail = newest
            self._epoch = store.epoch
            self._guard(self._restarted, self._epoch, self._tail)

    def _read(self, store: Log) -> None:
        newest = store.newest()
        while self._tail < newest:
            before = self._tail
            page = store.since(before, _PAGE)
            # Numbers have no holes: what a page lacks is forgotten. Where it is the last one, so
            # is what it lacks up to the number that was the newest before it was read.
            last = page[-1].number if page else newest
            if page.complete:
                last = max(last, newest)
            self._tail = last
            if last - before > len(page):
                self._guard(self._skipped, before, last)
            if page:
                self._guard(self._deliver, page)

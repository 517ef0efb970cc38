"""The thread of the channels' log: appends in groups, passes the tail on, and reads in between."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from sseflask.channels.log import Append, Appended, Entry, KeyReused, Log, LogError
from sseflask.channels.readings import Asked, Readings
from sseflask.channels.store_thread import Done, StoreThread
from sseflask.channels.wake import Bell

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

    def history(self, asked: Asked, done: Done) -> None:
        """Have something read; ``done`` gets a `History`. Never blocks.

        Appends go first. Whoever asks for the same at the same time gets the same `History`.
        """
        self._hand_over(asked, done)

    # -- the thread ------------------------------------------------------------------------------

    def _serve(self, store: Log) -> int:
        """See `StoreThread`: one call, or some appends that make a group."""
        taken, group = 0, list[tuple[Append, Done]]()
        events = size = 0
        while self._calls:
            call, done = self._calls[0]
            if isinstance(call, Asked):
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

    def _more(self) -> float | None:
        """See `StoreThread`."""
        return self._readings.due

    def _go_on(self, store: Log) -> None:
        """See `StoreThread`: a step of somebody's reading."""
        if self._open:
            self._readings.step(store)
        else:
            self._readings.refuse(self._error)

    def _run(self) -> None:
        try:
            super()._run()
        finally:
            self._readings.refuse(LogError(f"the {self.name} is closed"))

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
        self._readings.restart()
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

"""The events of channels in an SQLite file, for all processes of one machine."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from sseflask.loop import native
from sseflask.loop.callbacks import Done
from sseflask.store.api import (
    Append,
    Appended,
    Entry,
    EventLimits,
    EventListener,
    History,
    HistoryQuery,
    KeyReused,
    Position,
    StoreError,
    stored_entries,
)
from sseflask.store.joint import Asked, Joint
from sseflask.store.names import Pattern
from sseflask.store.sqlite.event_database import EventDatabase
from sseflask.store.sqlite.event_post import Post, decode, encode
from sseflask.store.sqlite.event_readings import Readings
from sseflask.store.sqlite.thread import PATIENCE, StoreThread
from sseflask.store.sqlite.wakeup import LOOK, MESSAGE_BYTES
from sseflask.store.tail import News, NoticeKind, Tail, give

log = logging.getLogger("sseflask")

#: Number of events that one transaction writes at most, and that are read from the end at once.
_GROUP, _PAGE = 500, 1000

#: Bytes written in one transaction at most, unless one append alone has more.
_GROUP_BYTES = 1 << 20

#: Seconds that other processes have for their answer, and the longest pause between two looks at
#: what they have answered.
_ANSWER_SECONDS, _PAUSE = 1.0, 0.05


class SqliteEventStore(StoreThread[EventDatabase]):
    """An `EventStore`; the protocol describes its methods. `StoreThread` describes its thread.

    Methods that begin with ``_`` and get a database run in the thread.

    The thread writes in groups, gives the news to the listener, and answers queries in between.
    What other processes store they send here too: the event loop takes it, if it is what comes
    next. If not, the thread reads the file.
    """

    def __init__(
        self,
        path: str,
        limits: EventLimits,
        database: Callable[[str, EventLimits], EventDatabase] = EventDatabase,
    ) -> None:
        super().__init__("event store", path, partial(database, path, limits))
        self._tail = Tail()
        self._tail_lock = native.lock()
        self._reads_file = False
        self._readings = Readings()
        self._unwatch: Callable[[], None] | None = None
        self._positions = Joint[None](self._ask_for_position)

    def follow(self, listener: EventListener) -> None:
        self._listener = listener
        self._unwatch = self._loop.watch(self._wakeup.watched, self._take_messages)
        if self._unwatch is not None:
            self._wakeup.leave_to_loop()
        self.start()

    def append(self, append: Append) -> Appended | KeyReused:
        result: Appended | KeyReused = self._wait_for(append)
        return result

    def history(self, query: HistoryQuery) -> History:
        history: History = self._wait_for(query)
        return history

    @property
    def shared(self) -> bool:
        return self._wakeup.has_others

    def position(self, patience: float | None = None) -> Position:
        database = self._database
        known = None if database is None else database.known_position()
        if known is not None:
            return known
        position: Position = self._wait(
            partial(self._positions.add, None), PATIENCE if patience is None else patience
        )
        return position

    def _ask_for_position(self, asked: Asked[None]) -> None:
        self.call_soon(asked.answer, self._answer_position, asked)

    def close_subscriptions(self, patterns: Sequence[Pattern]) -> None:
        self.call(self._send_notices, "close", patterns)

    def count_subscriptions(self, pattern: Pattern) -> int:
        notice, asked = self.call(self._send_notices, "count", [pattern])
        until, pause = time.monotonic() + _ANSWER_SECONDS, 0.001
        while True:
            answers, alive = self.call(self._answers, notice, asked)
            if not (asked & alive) - answers.keys() or time.monotonic() >= until:
                break
            time.sleep(pause)  # gevent's, if it has replaced it
            pause = min(2 * pause, _PAUSE)
        self.call_soon(_log_lost_answers, self._forget_answers, notice)
        return sum(answers.values())

    # -- in the thread: calls ----------------------------------------------------------------------

    def _serve(self, database: EventDatabase) -> int:
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
            self._write(database, group)
        return taken or super()._serve(database)

    def _write(self, database: EventDatabase, group: Sequence[tuple[Append, Done]]) -> None:
        results: Sequence[Appended | KeyReused | None] = [None] * len(group)
        failed: Exception | None = None
        if not self._open:
            failed = self._error
        else:
            appends = [append for append, _ in group]
            try:
                results = stored = database.append(appends)
            except StoreError as error:
                self._report("writing", error)
                failed = error
            except Exception as error:
                if len(group) > 1:  # one of them is at fault, not the store
                    for one in group:
                        self._write(database, [one])
                    return
                failed = error
            else:
                self._report("writing", None)
                self._give_own(database, stored_entries(appends, stored))
        for (_, done), result in zip(group, results, strict=True):
            self._guard(done, result, failed)

    def _give_own(self, database: EventDatabase, entries: Sequence[Entry]) -> None:
        """Give the other processes what was stored here, and then the listener of this one."""
        if not entries:
            return
        self._guard(self._post, database, entries)
        if not self._take(entries, database.last_notice):
            self._try("reading", self._read, database)

    def _post(self, database: EventDatabase, entries: Sequence[Entry]) -> None:
        if self._wakeup.has_others:
            small = sum(len(entry.frame) for entry in entries) < MESSAGE_BYTES
            self._wakeup.wake_others(
                encode(database.epoch, database.last_notice, entries) if small else LOOK
            )
            # Where processes share a core, the others go first: otherwise what this one sends to
            # its own clients, and its answer to the publisher, would delay theirs.
            os.sched_yield()

    def _answer_position(self, database: EventDatabase, asked: Asked[None]) -> Position:
        asked.begin()
        newest = database.newest()
        if newest != self._tail.position or database.last_notice != self._tail.noticed:
            # What is read here is no change any more, see `EventDatabase.changed`.
            self._try("reading", self._read, database)
        else:
            self._notify(database.note_given, database.found)
        return Position(self._tail.epoch, newest)

    def _send_notices(
        self, database: EventDatabase, kind: NoticeKind, patterns: Iterable[Pattern]
    ) -> tuple[int, set[str]]:
        """Store notices. Returns the last one's number, and the names of the processes there."""
        number = database.notices.send(kind, [str(pattern) for pattern in patterns])
        there = {self._wakeup.name, *self._wakeup.wake_others()}
        self._try("reading", self._read, database)
        return number, there

    def _answers(
        self, database: EventDatabase, notice: int, asked: set[str]
    ) -> tuple[dict[str, int], set[str]]:
        """The answers to a count; if some lack, also the names of the processes there."""
        answers = database.notices.answers(notice)
        if answers.keys() >= asked:
            return answers, set()
        return answers, {self._wakeup.name, *self._wakeup.wake_others()}

    def _forget_answers(self, database: EventDatabase, notice: int) -> None:
        database.notices.forget_answers(notice)

    def _store_answer(self, database: EventDatabase, notice: int, number: int) -> None:
        database.notices.answer(notice, self._wakeup.name, number)

    def _step_due(self) -> float | None:
        return self._readings.due

    def _step(self, database: EventDatabase) -> None:
        if self._open:
            self._readings.step(database)
        else:
            self._readings.refuse(self._error)

    def _ending(self) -> None:
        if self._unwatch is not None:
            self._notify(self._stop_watching)
        self._readings.refuse(StoreError(f"the {self.name} is closed"))

    # -- in the thread: news -----------------------------------------------------------------------

    def _opened(self, database: EventDatabase) -> None:
        self._readings.restart()
        with self._alone():
            newest = database.newest()
            if self._tail.has_gone_back(database.epoch, newest):
                log.warning("the event store has gone back; it gets a new epoch")
                database.renew()
            if self._tail.open(database.epoch, newest, database.last_notice):
                self._notify(self._listener.started, database.epoch, newest)

    def _read(self, database: EventDatabase) -> None:
        with self._alone():
            tail, newest = self._tail, database.newest()
            if database.last_notice != tail.noticed:
                notices = database.notices.after(tail.noticed)
                self._give(tail.take_notices(notices, database.last_notice))
            while tail.position < newest:
                page = database.since(tail.position, min(_PAGE, newest - tail.position))
                self._give(tail.take_page(page, newest))
            self._notify(database.note_given, database.found)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Have the tail alone. What is sent meanwhile is read at the next look. In the thread."""
        with self._tail_lock:
            self._reads_file = True
        try:
            yield
        finally:
            self._reads_file = False

    def _give(self, news: Iterable[News]) -> None:
        for each in news:
            self._notify(give, self._listener, each, time.monotonic(), self._answer)

    # -- news, in the event loop; in the thread if there is none -----------------------------------

    def _take_messages(self) -> None:
        messages, look = self._wakeup.messages()
        for message in messages:
            post = decode(message)
            look |= post is None or not self._take_post(post)
        if look:
            self.look_soon()
        self._loop.run_pending()

    def _take_post(self, post: Post) -> bool:
        """Give the listener what another process has stored. Returns whether it is known now."""
        if post.epoch != self._tail.epoch:
            return False
        return self._take(post.entries, post.last_notice) or (
            post.entries[-1].number <= self._tail.position
        )

    def _take(self, entries: Sequence[Entry], last_notice: int) -> bool:
        """Give the listener what is stored, if it is what comes next."""
        with self._tail_lock:
            taken = not self._reads_file and self._tail.take_own(entries, last_notice)
            if taken:
                # Within the lock, so that the listener is called in the tail's order.
                self._notify(self._listener.events, entries, time.monotonic())
        return taken

    def _stop_watching(self) -> None:
        if self._unwatch is not None:
            self._unwatch()
            self._wakeup.close_watched()

    def _answer(self, notice: int, number: int) -> None:
        """Store how many subscriptions this process has. Any thread; never blocks."""
        self.call_soon(_log_lost_answers, self._store_answer, notice, number)


def _log_lost_answers(_result: object, error: Exception | None) -> None:
    if error is not None:
        log.warning("a count of subscribers was not answered, or not cleared up: %s", error)

"""The channels of one application: publish, subscribe, and what runs for them in each process."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from sseflask.channels.disk import Kept, kept
from sseflask.channels.frames import Cursor
from sseflask.channels.hub import Hub
from sseflask.channels.log import Append, Appended, Entry, History, KeyReused, Log, LogError
from sseflask.channels.names import Pattern
from sseflask.channels.process import SHORT_PATIENCE, PerProcess, Running
from sseflask.channels.readings import Asked
from sseflask.channels.sqlite import SqliteLog
from sseflask.channels.subscription import Subscription
from sseflask.channels.thread import LogThread
from sseflask.channels.wake import Bell
from sseflask.transport.handoff import Done, Mailbox, cooperative

__all__ = ["Channels"]

#: Seconds for which an event is kept though its channel has too many: the other workers' tails come
#: to it in milliseconds, unless something holds them up.
_YOUNG_SECONDS = 5.0


class _Running(Running[Log]):
    """The log's thread of this process, and the hub it feeds."""

    def __init__(self, make: Callable[[], Log], path: str | None) -> None:
        self.hub = Hub()
        feed = _ThroughLoop(self.hub) if cooperative() else _Direct(self.hub)
        self._bell = Bell(path)
        self.thread = LogThread(make, feed.deliver, feed.restarted, feed.skipped, self._bell)
        super().__init__(self.thread)

    def now(self) -> Cursor:
        """Behind everything that has been published, by whomever; as far as can be said shortly."""
        here = self.hub.cursor
        if self._bell.has_others:
            with contextlib.suppress(LogError):
                # What others have stored may not have come to the hub yet.
                newest = self.call(lambda log: log.newest(), SHORT_PATIENCE)
                return Cursor(here.epoch, max(here.number, newest))
        return here

    def newest(self) -> int:
        """See `Log`."""
        newest: int = self.call(lambda log: log.newest())
        return newest

    def history(self, asked: Asked) -> History:
        """See `LogThread.history`; raises as `call` does."""
        history: History = self.wait(lambda done: self.thread.history(asked, done))
        return history

    def append(self, append: Append) -> tuple[Appended | KeyReused, str]:
        """What became of it, and the epoch of its numbers."""

        def start(done: Done) -> None:
            self.thread.append(
                append, lambda result, error: done((result, self.thread.epoch), error)
            )

        result: tuple[Appended | KeyReused, str] = self.wait(start)
        return result


class _Direct:
    """Feeds a hub from the log's thread itself: where threads are threads."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def deliver(self, entries: Sequence[Entry]) -> None:
        self._hub.take_in(entries)

    def restarted(self, epoch: str, position: int) -> None:
        self._hub.restart(epoch, position)

    def skipped(self, _before: int, last: int) -> None:
        self._hub.skip(last)


class _ThroughLoop:
    """Feeds a hub from the event loop, and sends to those of its subscribers that are detached."""

    def __init__(self, hub: Hub) -> None:
        from sseflask.transport.detached import Detached

        self._hub = hub
        self._detached = Detached.current()
        self._mailbox = Mailbox.current()
        self._arrived: deque[Sequence[Entry] | Callable[[], None]] = deque()
        self._planned = False

    # The log's thread.

    def deliver(self, entries: Sequence[Entry]) -> None:
        self._arrive(entries)

    def restarted(self, epoch: str, position: int) -> None:
        self._arrive(lambda: self._detached.send_away(self._hub.restart(epoch, position)))

    def skipped(self, _before: int, last: int) -> None:
        self._arrive(lambda: self._detached.send_away(self._hub.skip(last)))

    def _arrive(self, what: Sequence[Entry] | Callable[[], None]) -> None:
        self._mailbox.post(self._plan, what)

    # The loop.

    def _plan(self, what: Sequence[Entry] | Callable[[], None]) -> None:
        self._arrived.append(what)
        if not self._hub.epoch:
            self._pass_on()  # nobody is there yet, and somebody waits for the log to be open
        elif not self._planned:
            self._planned = True
            self._detached.jobs.add(self._pass_on)

    def _pass_on(self) -> None:
        self._planned = False
        arrived = self._arrived
        while arrived:
            what = arrived.popleft()
            if callable(what):
                what()
                continue
            entries = list(what)
            # What has come meanwhile is sent with it.
            while arrived and not callable(arrived[0]):
                entries += arrived.popleft()  # type: ignore[arg-type]  # looked at before
            self._detached.send(self._hub.take_in(entries))


class Ids(list[str]):
    """The ids of published events.

    Attributes:
        repeated: they had been published before, with the same key.
    """

    def __init__(self, ids: Iterable[str], repeated: bool) -> None:
        super().__init__(ids)
        self.repeated = repeated


class Channels:
    """Publishes and subscribes. Any thread or greenlet; nothing runs before the first use.

    Args:
        path: gives the log's file at the first use; ``":memory:"`` for a log of this process.
        keep: how many events of a channel are kept at least.
        seconds: the age at which events are forgotten.
        most: bytes that the log's file may have.
    """

    def __init__(self, path: Callable[[], str], *, keep: int, seconds: float, most: int) -> None:
        self._path = path
        self._keep = keep
        self._seconds = seconds
        self._most = most
        self._running = PerProcess(self._run)

    def publish(
        self, channel: str, frames: Sequence[bytes], *, key: str | None = None, digest: bytes = b""
    ) -> Ids | KeyReused:
        """Store events of one channel, all or none, and have them delivered.

        Blocks until they are stored.

        Args:
            channel: a checked name.
            frames: what `sseflask.channels.frames.stored` gave for each; at least one.
            key: makes a repetition a no-op; scoped by the caller.
            digest: stands for the content.

        Returns:
            their ids, or `KeyReused` where the key belongs to other content.

        Raises:
            LogError: the store can't do it now; nothing has been stored, unless it did not answer.
        """
        running = self._running.get()
        done, epoch = running.append(Append(channel, tuple(frames), key, digest))
        if isinstance(done, KeyReused):
            return done
        return Ids((f"{epoch}-{n}" for n in range(done.first, done.last + 1)), done.repeated)

    def subscribe(
        self, patterns: Sequence[Pattern], last_event_id: str | None, *, announce: bool = False
    ) -> Subscription:
        """Begin a subscription; one that is never advanced leaves nothing behind.

        Blocks until the log has been opened, the first time.

        Args:
            patterns: names and patterns.
            last_event_id: where the client was, ``earliest``, or ``None`` for what comes from here.
            announce: tell a client that presents no id where it begins.

        Raises:
            LogError: the log has never been open, and can't be opened now.
        """
        running = self._running.get()
        if not running.hub.epoch:
            running.call(lambda _log: None)
        start = running.now() if last_event_id is None else running.hub.cursor
        opening = f"id: {start}\n\n".encode() if announce and last_event_id is None else b""
        return Subscription(running.hub, running, patterns, start, last_event_id, opening)

    def condition(self) -> Literal["available", "unavailable", "busy"]:
        """See `PerProcess.condition`."""
        return self._running.condition()

    def kept(self) -> Kept:
        """For how long history is there."""
        return kept(self._path())

    def close(self) -> None:
        """End what runs for it in this process; the next use starts it again. Blocks shortly."""
        self._running.close()

    def _run(self) -> _Running:
        path = self._path()
        return _Running(
            lambda: SqliteLog(
                path,
                keep=self._keep,
                seconds=self._seconds,
                young=_YOUNG_SECONDS,
                most=self._most,
            ),
            None if path == ":memory:" else path,
        )

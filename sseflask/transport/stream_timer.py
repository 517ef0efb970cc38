"""The timer of one connection: does what is due, as `sseflask.transport.timing` says."""

from __future__ import annotations

import time
from contextvars import Context

import gevent
from gevent.event import Event as Signal

from sseflask.errors import Failure
from sseflask.transport import event_loop
from sseflask.transport.event_loop import Watcher
from sseflask.transport.failures import token_expired
from sseflask.transport.item_sender import ItemSender
from sseflask.transport.timing import Due, StreamClock


class StreamTimer(StreamClock):
    """Does what is due for a stream, from now on."""

    __slots__ = ("_sender", "_timer")

    def __init__(self, sender: ItemSender) -> None:
        super().__init__(sender.stream)
        self._sender = sender
        self._timer: Watcher | None = None

    def set(self) -> None:
        """Set the timer for what is due next."""
        now = time.monotonic()
        self.close()
        self._timer = event_loop.start_timer(self._due(now)[0] - now, self)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.close()

    def _due(self, now: float) -> tuple[float, Due]:
        sender, writer = self._sender, self._sender.writer
        started = sender.started or sender.late_start is not None
        behind = writer.unsent is not None
        return self.next(now, writer.last_progress, started=started, behind=behind)

    def __call__(self) -> None:
        """The timer has fired. It has no bound method, which each stream would keep."""
        if self._sender.greenlet.client_left or self._sender.diverted:
            return
        if self._sender.writer.unsent is not None:
            self._sender.writer.note_progress()
        now = time.monotonic()
        due_at, due = self._due(now)
        if now >= due_at:
            self.done(due)
            self._do(due)
        self.set()

    def _do(self, due: Due) -> None:
        sender = self._sender
        if due == "first_byte":
            self._begin_late()
        elif due == "heartbeat":
            sender.writer.heartbeat()
        elif due == "slow":
            sender.slow = True
            sender.writer.abort()
        elif due == "lifetime":
            sender.rotate(with_others=False)
        else:
            sender.fail(token_expired())

    def _begin_late(self) -> None:
        """The first event is late, and the items block: begin the response meanwhile.

        In a greenlet of its own, with the contexts of the stream's: middleware has wrapped
        ``start_response``, reads contexts and may block.
        """
        sender = self._sender
        over = sender.late_start = Signal()

        def begin() -> None:
            try:
                sender.start_now()
            except Exception as error:
                sender.start_error = error
                sender.fail(Failure("The response's headers can't be sent."))
            else:
                if not sender.diverted:
                    sender.writer.heartbeat()
            finally:
                over.set()

        context = sender.greenlet.greenlet.gr_context or Context()
        gevent.spawn(context.copy().run, begin)

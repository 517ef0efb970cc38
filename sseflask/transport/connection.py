"""The transport that owns the socket: gunicorn's gevent workers, HTTP/1, no TLS.

The response's headers go through gunicorn; its body is written to the socket from the
request's own greenlet, buffered, and flushed when the event loop is about to wait. Watchers on
the socket notice the client's leaving while the application's generator is silent.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable, Iterator
from contextvars import Context
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event as Signal

from sseflask.counters.counts import COUNTS, Reason
from sseflask.errors import Failure
from sseflask.logs.once import name_of, warn_once
from sseflask.loop.time_slice import yield_to_loop
from sseflask.transport import accounting as account
from sseflask.transport.body import Body, EarlyError
from sseflask.transport.failures import half_closed, shutting_down, token_expired
from sseflask.transport.flusher import SLICE, Flusher
from sseflask.transport.gunicorn.drain import streams
from sseflask.transport.portable import InlineBody, ThreadedBody
from sseflask.transport.request_body import read_request_body
from sseflask.transport.socket_writer import Outlet
from sseflask.transport.sockets import LINGER_SECONDS
from sseflask.transport.stream import Stream, as_exception, can_resume_after, rotation_notice
from sseflask.wire import ends_event, tail_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from sseflask.transport.gunicorn.response import ServerResponse

log = logging.getLogger("sseflask")

#: Bytes a stream may buffer before its generator waits for the client.
_BUFFER = 65536


#: What the failures of a stream mean that are none of its own.
_REASONS: dict[str | None, Reason] = {
    token_expired().code: "expired",
    shutting_down().code: "drain",
}


class _Kill(GeneratorExit):
    """Thrown into a generator that is to end while it blocks; private, so that nobody else throws
    it. A GeneratorExit, so that a generator sees the same as when it is closed at a yield."""


class Stop(Exception):
    """Raised by the stream itself, between two items: it is to end."""


class Diverted(Exception):
    """Raised between two items: middleware keeps the response, so all has to pass through it."""


class Connection(Body):
    """One stream on a socket of gunicorn's gevent worker.

    A stream whose items are advanced in the view's contexts runs to its end in `begin`, any other
    goes on when the server asks for the next piece. There are never any pieces for the server.

    Everything here runs in the worker's main thread: in the request's greenlet, in the hub
    (watchers and timers), or in a greenlet that calls `rotate` or `fail`.
    """

    # An instance with a dictionary of more than 30 attributes takes a kilobyte more.
    __slots__ = (
        "_accounted",
        "_armed",
        "_begun",
        "_body_complete",
        "_closed",
        "_diverted",
        "_failure",
        "_flusher",
        "_goes_on",
        "_greenlet",
        "_instead",
        "_item",
        "_items",
        "_limit",
        "_loop",
        "_opening",
        "_outlet",
        "_parked",
        "_ran_out",
        "_reason",
        "_rotated",
        "_rotating",
        "_server",
        "_stalled",
        "_start_error",
        "_started",
        "_starting",
        "_timer",
        "_told",
        "_with_others",
    )

    def __init__(
        self,
        stream: Stream,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        server: ServerResponse,
    ) -> None:
        super().__init__(stream, environ, start_response)
        self._greenlet = gevent.getcurrent()
        self._loop = gevent.get_hub().loop
        self._flusher = Flusher.current()
        self._server = server
        self._outlet = Outlet(
            environ["gunicorn.socket"], server, self._on_left, COUNTS.streams[stream.kind]
        )
        self._timer: Any = None
        self._begun = 0.0
        self._body_complete = False
        self._goes_on = False
        self._closed = False
        self._started = False
        self._starting: Signal | None = None
        self._opening = stream.opening
        self._diverted = False
        self._instead: InlineBody | ThreadedBody | None = None

        # Where the application is. Armed: somewhere inside the loop over its items; parked: in
        # a wait of ours.
        self._items: Iterator[Any] | None = None
        self._item: Any = None
        self._armed = False
        self._parked = False
        self._limit = _BUFFER

        # How it is to end.
        self._ran_out = False
        self._rotating = False
        self._rotated = False
        self._with_others = False
        self._stalled = False
        self._start_error: Exception | None = None
        self._failure: Failure | None = None

        # Its account: whether it is open, what its end is logged with, why it ends.
        self._accounted = False
        self._told: account.Told | None = None
        self._reason: Reason = "left"

    # -- the request's greenlet ---------------------------------------------------------------

    # No more calls than these, and no generator: what a stream that waits has on its stack is
    # kept for it, and copied whenever it goes on.

    def begin(self) -> None:
        self._run(self._begin_items if not self.stream.keeps_view else self._run_items, True)

    def __next__(self) -> bytes:
        if self._goes_on:
            self._run(self._run_items, False)
        if self._instead is not None:
            return next(self._instead)
        raise StopIteration

    def close(self) -> None:
        """The server is done; a stream that never ran still has to close its items."""
        if self._goes_on:
            self._goes_on = False
            self._release()
        self._item = self._items = None  # they may be large, and the collector takes its time
        if self._instead is not None:
            self._instead.close()
        else:
            self._close_items()

    def _run(self, run: Callable[[], bool | None], first: bool) -> None:
        """Run the stream, or that part of it that comes before the end of the view's contexts."""
        self._goes_on = False
        try:
            if first:
                self._open()
            self._goes_on = self._serve(run)
            if self._goes_on or self._handed_over():
                return
            if not self._started:
                self._serve(self._start)  # for a client that has left too: gunicorn logs the status
            self._finish()
        except EarlyError:
            self._outlet.buffer.clear()
            self._server.reset()
            if not self._body_complete:
                self._server.close_afterwards()  # the rest of the body may be long in coming
            raise
        except Diverted:
            self._divert()
        finally:
            if not self._goes_on:
                self._release()

    def _open(self) -> None:
        self._begun = time.monotonic()
        self._flusher.begin(self._begun)
        self._body_complete = read_request_body(self.environ, self._server)
        self._outlet.open(self.stream.heartbeat, watch_input=self._body_complete)
        self._set_timer()
        streams.register(self)

    def _release(self) -> None:
        """Leave the connection to the server."""
        if self._body_complete and self._instead is None:
            self._server.set_unread_body(io.BytesIO())  # gunicorn would read it once more
        streams.unregister(self)
        if self._timer is not None:
            self._timer.close()
        if self._accounted:
            self._end_account()
        self._outlet.give_input_back()
        self._outlet.close()

    def _end_account(self) -> None:
        self._accounted = False
        outlet, seconds = self._outlet, time.monotonic() - self._begun
        account.ended(
            self.stream.kind, self._reason, self._told, seconds, outlet.counted, outlet.body_sent
        )

    def _serve(self, run: Callable[[], bool | None]) -> bool:
        """Advance the items; whether there are more, otherwise they are closed."""
        more: bool | None = False
        try:
            try:
                more = run()
            except (Stop, _Kill):
                pass  # asked to end, and done with it
            except Diverted:
                more = True
                raise
            finally:
                if not more:
                    self._close_items()
        except gevent.GreenletExit:  # the worker is killing this greenlet
            self._reason = "drain"
            self._outlet.flush()
            self._outlet.shut_down()
            raise
        except Diverted:
            raise
        except BaseException as raised:
            error = as_exception(raised)
            if not self._started and not self._outlet.left:
                raise EarlyError(error) from raised
            self._failure = self.stream.report(error)
        if self._failure is not None and not self._started and not self._outlet.left:
            raise EarlyError(self._start_error or self._failure)
        return bool(more)

    def _divert(self) -> None:
        """Go on as on any other server: middleware holds ``start_response`` back, or changes what
        is sent."""
        warn_once(
            f"{name_of(self.start_response)} holds back or changes the headers of event streams, "
            "which therefore pass through it piece by piece: clients that leave are noticed late, "
            "and streams are cut when the worker stops."
        )
        items = self.stream.items if self.stream.source else self._items
        stream = replace(self.stream, items=() if items is None or self._closed else items)
        kind = InlineBody if stream.frames_only else ThreadedBody
        self._instead = kind(stream, self.environ, self.start_response)
        piece = bytes(self._outlet.buffer)
        self._instead.go_on(piece, account.Account(self.stream.kind, self._told))
        self._accounted = False

    def _close_items(self) -> None:
        if not self._closed:
            self._closed = True
            self.stream.close()

    def _begin_items(self) -> bool:
        """Send the first of them; whether there may be more."""
        more = self._pump(first_only=True)
        self._ran_out = not more
        return more

    def _run_items(self) -> None:
        self._pump()
        self._ran_out = True

    def _handed_over(self) -> bool:
        """Whether the stream goes on without this greenlet."""
        return False

    def _pump(self, first_only: bool = False) -> bool:
        """The hot path: advance the items and buffer their frames.

        Returns whether it stopped after the first one.
        """
        encode, flusher, clock = self.stream.encode, self._flusher, time.monotonic
        outlet = self._outlet
        buffer = outlet.buffer
        idle_until = 0.0
        if self._items is None:
            self._items = iter(self.stream.items)
        items = self._items
        if self._ending():
            raise Stop
        self._armed = True
        try:
            for item in items:
                self._item = item
                frame = item if item.__class__ is bytes else encode(item)
                if buffer:
                    buffer += frame
                    outlet.events += 1
                    if len(buffer) >= self._limit or clock() >= flusher.deadline:
                        self._give_way()
                elif frame:
                    buffer += frame
                    outlet.events += 1
                    self._schedule()
                    if first_only:
                        return True
                elif clock() >= idle_until or not self._limit:
                    # Empty pieces are nothing to send, but must not keep the loop to themselves.
                    self._give_way()
                    idle_until = clock() + SLICE
        finally:
            self._armed = False
        return False

    def _schedule(self) -> None:
        """The buffer was empty: have it flushed before the loop waits."""
        fresh = not self._started
        if fresh or self._diverted:
            self._start()
        if self._opening:
            self._outlet.buffer[:0] = self._opening
            self._opening = b""
        moment = time.monotonic()
        flusher = self._flusher
        flusher.note(moment, self.environ)
        flusher.add(self._outlet, moment)
        if len(self._outlet.buffer) >= self._limit:
            self._give_way()
        elif moment >= flusher.deadline:
            if fresh and moment < self._begun + SLICE:
                # Others have held the loop, in a storm of requests; this generator has not.
                flusher.flush()
            else:
                self._give_way()

    def _give_way(self) -> None:
        """The buffer is full, events have waited long enough, or the stream is asked to end."""
        flusher = self._flusher
        flusher.note(time.monotonic(), self.environ)
        flusher.flush()
        if self._rotating and self._resumable():
            self._rotated = True
        if self._ending():
            raise Stop
        if len(self._outlet.buffer) >= _BUFFER:
            self._park(lambda: self._outlet.wait_until_sent(or_until=self._ending))
        else:
            self._park(yield_to_loop)
        if self._ending():
            raise Stop

    def _park(self, wait: Callable[[], object]) -> None:
        """Suspend in our own code, where a kill is noted and never thrown."""
        self._parked = True
        try:
            wait()
        finally:
            self._parked = False

    def _finish(self) -> None:
        """Send the last bytes and the last chunk, then let the client close first."""
        failure, rotated, outlet = self._failure, self._rotated, self._outlet
        last = b""
        if failure is not None:
            outlet.flush()
        outlet.wait_until_sent()
        self._reason = self._why()
        if self._stalled:
            log.info(
                "a client of %r took nothing for two heartbeats; its stream was cut",
                self.environ.get("PATH_INFO", ""),
            )
        if outlet.left:
            if outlet.half_closed:
                self._say_goodbye()
            return
        if failure is not None:
            if not ends_event(outlet.tail):
                # An event is half sent. Any more text would complete it with wrong data, so
                # the only honest end is a body without its last chunk.
                log.warning(
                    "the stream of %r failed inside an event; its body was cut there",
                    self.environ.get("PATH_INFO", ""),
                )
                return
            last = self.stream.failure_frame(failure)
            outlet.counter.events += 1
        elif rotated and self._with_others:
            last = rotation_notice(self.stream.retry_jitter)
        outlet.end(last)
        self._timer.stop()
        if outlet.reusable and (not streams.draining or outlet.next_request_within(LINGER_SECONDS)):
            outlet.keep()
        else:
            outlet.linger()

    def _why(self) -> Reason:
        """The reason of its end, before the last bytes are sent."""
        if self._stalled or self._outlet.timed_out:
            return "slow"
        if self._outlet.left:
            return "left"
        if self._failure is not None:
            return _REASONS.get(self._failure.code, "failed")
        if self._rotated:
            return "drain" if self._with_others else "lifetime"
        source = self.stream.source
        return "done" if source is None else source.reason

    def _say_goodbye(self) -> None:
        """A client that has only closed its side gets a proper end of what it was sent."""
        outlet = self._outlet
        tail = tail_of(outlet.tail, outlet.buffer)
        if self._ran_out or self._resumable():
            last = b""
        else:
            last = self.stream.failure_frame(self._failure or half_closed())
        if not last or ends_event(tail):
            outlet.say_goodbye(last)

    def _start(self) -> None:
        """Begin the response, unless that has been done when its time was over."""
        if self._starting is not None:
            self._park(self._starting.wait)
            if not self._started:
                raise Stop  # it could not be begun
        elif not self._started:
            self._begin_response()
        if self._diverted:
            raise Diverted

    def _begin_response(self) -> None:
        self.start_response(self.stream.status, self.stream.all_headers)
        self._started = True
        if self._server.describes_stream(self.stream.status):
            self._outlet.take_over()
        else:
            self._diverted = True
        self._told, self._accounted = account.opened(self.stream.kind, self.environ), True
        if self.stream.first_byte > self.stream.heartbeat:
            self._set_timer()  # it would be late for the first heartbeat

    def _begin_in_time(self) -> None:
        """The first-byte limit is over, and the items block: begin the response meanwhile.

        In a greenlet of its own, with the contexts of the stream's: middleware has wrapped
        ``start_response``, reads contexts and may block.
        """
        assert self._starting is not None
        try:
            self._begin_response()
        except Exception as error:
            self._start_error = error
            self.fail(Failure("The response's headers can't be sent."))
        else:
            if not self._diverted and not self._outlet.left:
                self._outlet.heartbeat()
            self._set_timer()
        finally:
            self._starting.set()

    # -- the hub ---------------------------------------------------------------------------------

    def _on_timer(self) -> None:
        """All times of a stream: the first byte, heartbeats, a stalled client, rotation, expiry."""
        moment = time.monotonic()
        stream, outlet = self.stream, self._outlet
        if outlet.left or self._diverted:
            return
        if not self._started:
            if self._starting is None and moment >= self._begun + stream.first_byte:
                self._starting = Signal()
                context: Context = (self._greenlet.gr_context or Context()).copy()
                gevent.spawn(context.run, self._begin_in_time)
        elif moment >= outlet.last_progress + outlet.patience:
            if outlet.unsent is None:
                outlet.heartbeat()
            elif not outlet.still_takes():
                self._stalled = True
                outlet.abort()
        if stream.lifetime and moment >= self._begun + stream.lifetime:
            self.rotate(with_others=False)
        if stream.expires_at is not None and time.time() >= stream.expires_at:
            self.fail(token_expired())
        self._set_timer()

    def _set_timer(self) -> None:
        moment = time.monotonic()
        stream, outlet = self.stream, self._outlet
        if self._started or self._starting is not None:
            due = outlet.last_progress + outlet.patience
        else:
            due = self._begun + stream.first_byte
        if stream.lifetime and not self._rotating:
            due = min(due, self._begun + stream.lifetime)
        if stream.expires_at is not None and not self._ending():
            due = min(due, moment + stream.expires_at - time.time())
        if self._timer is not None:
            self._timer.close()
        self._timer = self._loop.timer(max(0.001, due - moment))
        self._timer.start(self._on_timer)

    # -- ways to end it, from anywhere, never blocking -----------------------------------------

    def rotate(self, *, with_others: bool = True) -> None:
        """Send the client away as soon as it can resume where it is. Never blocks.

        Args:
            with_others: all others are sent away too, so it has to say when it comes back.
        """
        self._with_others = self._with_others or with_others
        if self._rotating:
            return
        self._rotating = True
        self._limit = 0
        if self._resumable():
            self._rotated = True
            self._throw_soon()

    def _resumable(self) -> bool:
        """Whether the client can go on elsewhere from just here."""
        return can_resume_after(self._item)

    def fail(self, failure: Failure) -> None:
        """End with an error: in band, or as the response while that is possible. Never blocks."""
        if not self._ending():
            self._failure = failure
            self._throw_soon()

    def _on_left(self) -> None:
        self._throw_soon()

    def _ending(self) -> bool:
        return self._outlet.left or self._rotated or self._failure is not None

    def _throw_soon(self) -> None:
        self._limit = 0
        self._outlet.wake_up()
        if self._armed:
            # From the hub, and not before what is already due has run; it looks again then.
            self._loop.run_callback(self._throw)

    def _throw(self) -> None:
        # Only into the application's code, and only once: thrown later it would hit whatever
        # the greenlet does next, the connection's next request for one.
        if self._armed and not self._parked and self._ending():
            self._armed = False
            self._greenlet.throw(_Kill)

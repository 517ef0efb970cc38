"""The transport for any WSGI server: a helper thread runs the items, so that heartbeats can be
sent while they block."""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sseflask.counters.counts import Reason
from sseflask.transport.accounting import Account, opened
from sseflask.transport.body import Body, EarlyError
from sseflask.transport.failures import token_expired
from sseflask.transport.source import Source
from sseflask.transport.stream import Stream, as_exception, can_resume_after, frame_bytes
from sseflask.wire import HEARTBEAT, ends_event, ends_line, tail_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_AHEAD = 8
#: The helper threads of streams that were closed.
_closed: set[threading.Thread] = set()


def join_threads(timeout: float) -> list[str]:
    """Wait until the helper threads of all closed streams have ended.

    Args:
        timeout: seconds to wait in all.

    Returns:
        the names of those that still run.
    """
    deadline = time.monotonic() + timeout
    for thread in list(_closed):
        thread.join(max(0.0, deadline - time.monotonic()))
        if not thread.is_alive():
            _closed.discard(thread)
    return [thread.name for thread in list(_closed)]


class _Handover:
    """A short queue from the thread that runs the items to the one that serves the response."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frames: deque[tuple[bytes, bool]] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._abandoned = False

    def put(self, frame: bytes, resumable: bool) -> bool:
        """Blocks while the queue is full; false when nobody wants the frame any more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._frames) < _AHEAD or self._abandoned)
            if self._abandoned:
                return False
            self._frames.append((frame, resumable))
            self._changed.notify_all()
            return True

    def end(self, error: Exception | None) -> bool:
        """Nothing more comes; false when nobody will ask for the error."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()
            return not self._abandoned

    def get(self, timeout: float) -> tuple[bytes, bool] | None:
        """The next frame, or ``None`` after ``timeout`` seconds.

        Raises:
            StopIteration: the items have ended.
            Exception: what they raised.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._frames or self._ended, timeout):
                return None
            if self._frames:
                frame = self._frames.popleft()
                self._changed.notify_all()
                return frame
        if self._error is not None:
            raise self._error
        raise StopIteration

    def abandon(self) -> None:
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()


class ThreadedBody(Body):
    """Heartbeats and the first-byte limit on any server, for the price of a thread a stream.

    The items are advanced, and closed, in the helper thread alone. A client's leaving is
    noticed by the server at its next write; the items are closed at their next yield.
    """

    def __init__(
        self, stream: Stream, environ: WSGIEnvironment, start_response: StartResponse
    ) -> None:
        super().__init__(stream, environ, start_response)
        # A source can be waited for with a time limit, so it needs no thread.
        self._handover: _Handover | Source = stream.source or _Handover()
        self._thread: threading.Thread | None = None
        self._began = 0.0
        self._tail = b""
        self._resumable = False
        self._last: bytes | None = None
        self._opening = stream.opening
        self._first_piece: bytes | None = None
        self._account: Account | None = None
        self.events = self._counted = 0
        self._reason: Reason = "left"

    def begin(self) -> None:
        self._began = time.monotonic()
        if isinstance(self._handover, Source):
            self._first_piece = self._first_of(self._handover)
        else:
            self._launch(self._handover)
            self._first_piece = self._first()

    def go_on(self, piece: bytes, account: Account) -> None:
        """Take over a stream that has been begun elsewhere; ``piece`` is still to be sent."""
        self._began = time.monotonic()
        self._account = account
        self._opening = b""
        self._first_piece = self._note(piece, False) if piece else None
        if not isinstance(self._handover, Source):
            self._launch(self._handover)

    def __next__(self) -> bytes:
        piece = self._next_piece()
        if self._account is not None:
            events = (self.stream.source or self).events
            self._account.add(events - self._counted, len(piece))
            self._counted = events
        return piece

    def _next_piece(self) -> bytes:
        if self._first_piece is not None:
            piece, self._first_piece = self._first_piece, None
            return piece
        if self._last is not None:
            raise StopIteration
        wait, then = self._wait()
        if then is not None and wait <= 0:
            return then()
        try:
            got = self._handover.get(wait)
        except StopIteration:
            source = self.stream.source
            self._reason = "done" if source is None else source.reason
            raise
        except Exception as error:
            return self._fail(error)
        if got is not None:
            return self._note(*got)
        return then() if then else self._heartbeat()

    def _first(self) -> bytes | None:
        """The first piece of the body: a heartbeat after the first-byte limit, as headers must go,
        and ``None`` where there is none at all."""
        try:
            got = self._handover.get(self.stream.first_byte)
        except StopIteration:
            self._start()
            return None
        except Exception as error:
            raise EarlyError(error) from error
        self._start()
        return HEARTBEAT if got is None else self._note(*got)

    def _start(self) -> None:
        self.start_response(self.stream.status, self.stream.all_headers)
        kind = self.stream.kind
        self._account = Account(kind, opened(kind, self.environ))

    def _wait(self) -> tuple[float, Callable[[], bytes] | None]:
        """How long to wait for the next frame, in seconds, and what to do then."""
        wait: float = self.stream.heartbeat
        then: Callable[[], bytes] | None = None
        if self.stream.expires_at is not None:
            left = self.stream.expires_at - time.time()
            if left < wait:
                wait, then = left, self._expire
        if self.stream.lifetime and self._resumable:
            left = self._began + self.stream.lifetime - time.monotonic()
            if left < wait:
                wait, then = left, self._rotate
        return max(0.0, wait), then

    def _note(self, frame: bytes, resumable: bool) -> bytes:
        self.events += 1
        frame, self._opening = self._opening + frame, b""
        self._tail = tail_of(self._tail, frame)
        self._resumable = resumable
        return frame

    def _heartbeat(self) -> bytes:
        return HEARTBEAT if ends_line(self._tail) else b""

    def _fail(self, error: Exception) -> bytes:
        self._reason = "failed"
        failure = self.stream.report(error)
        if not ends_event(self._tail):
            # An event is half sent: no way to speak in band, so the server has to cut the body.
            self._handover.abandon()
            raise error
        counter = self.stream.source or self
        counter.events += 1
        return self._end_with(self.stream.failure_frame(failure))

    def _expire(self) -> bytes:
        piece = self._fail(token_expired())
        self._reason = "expired"
        return piece

    def _rotate(self) -> bytes:
        self._reason = "lifetime"
        if isinstance(self._handover, Source):
            self._handover.will_reconnect()
        return self._end_with(b"")

    def _end_with(self, last: bytes) -> bytes:
        self._handover.abandon()
        self._last = last
        return last

    def _first_of(self, source: Source) -> bytes:
        """The first piece of a source's body; the server sends the headers with a piece only."""
        self._resumable = source.resumable
        try:
            first = next(source.first(self.stream.first_byte), None)
        except Exception as error:
            raise EarlyError(error) from error
        self._start()
        if first is not None:
            return self._note(first, source.resumable)
        opening, self._opening = self._opening or HEARTBEAT, b""
        return opening

    def _launch(self, handover: _Handover) -> None:
        context = contextvars.copy_context()
        thread = threading.Thread(
            target=context.run,
            args=(self._produce, handover),
            name="sseflask-stream",
            daemon=True,
        )
        self._thread = thread
        thread.start()

    def _produce(self, handover: _Handover) -> None:
        stream = self.stream
        error: Exception | None = None
        try:
            with stream.context():
                try:
                    for item in stream.items:
                        frame = frame_bytes(item, stream.encode)
                        if frame and not handover.put(frame, can_resume_after(item)):
                            break
                finally:
                    stream.close()
        except BaseException as raised:
            error = as_exception(raised)
        finally:
            if not handover.end(error) and error is not None:
                stream.report(error)
            _closed.discard(threading.current_thread())

    def close(self) -> None:
        """Tell the helper thread to stop; does not wait for it."""
        self._handover.abandon()
        if self._account is not None:
            self._account.end(self._reason)
        if self._thread is None:
            self.stream.close()
        elif self._thread.is_alive():
            _closed.add(self._thread)


class InlineBody(Body):
    """An upgraded plain response on any server: its own thread, its own pace, no heartbeat."""

    def __init__(
        self, stream: Stream, environ: WSGIEnvironment, start_response: StartResponse
    ) -> None:
        super().__init__(stream, environ, start_response)
        self._items: Iterator[bytes] = iter(stream.items)
        self._first_piece: bytes | None = None
        self._ended = False
        self._tail = b""
        self._account: Account | None = None
        self._reason: Reason = "left"

    def begin(self) -> None:
        try:
            self._first_piece = frame_bytes(next(self._items), self.stream.encode)
        except StopIteration:
            self._ended = True
        except BaseException as raised:
            raise EarlyError(_own_error(raised)) from raised
        self.start_response(self.stream.status, self.stream.all_headers)
        kind = self.stream.kind
        self._account = Account(kind, opened(kind, self.environ))

    def go_on(self, piece: bytes, account: Account) -> None:
        """Take over a stream that has been begun elsewhere; ``piece`` is still to be sent."""
        self._first_piece = piece or None
        self._account = account

    def __next__(self) -> bytes:
        frame = self._next_piece()
        if self._account is not None and frame:
            self._account.add(1, len(frame))
        return frame

    def _next_piece(self) -> bytes:
        frame, self._first_piece = self._first_piece, None
        if self._ended:
            if self._reason == "left":
                self._reason = "done"
            raise StopIteration
        if frame is None:
            try:
                frame = frame_bytes(next(self._items), self.stream.encode)
            except StopIteration:
                self._reason = "done"
                raise
            except BaseException as raised:
                error = _own_error(raised)
                self._ended, self._reason = True, "failed"
                failure = self.stream.report(error)
                if not ends_event(self._tail):
                    raise
                return self.stream.failure_frame(failure)
        self._tail = tail_of(self._tail, frame)
        return frame

    def close(self) -> None:
        if self._account is not None:
            self._account.end(self._reason)
        self.stream.close()


def _own_error(raised: BaseException) -> Exception:
    """What the application's items raised; raised again where it is the server that is ending.

    Signals reach the main thread alone, and a greenlet is killed by an exception of greenlet's.
    """
    if not isinstance(raised, Exception):
        greenlet = sys.modules.get("greenlet")
        killed = greenlet is not None and isinstance(raised, greenlet.GreenletExit)
        if killed or threading.current_thread() is threading.main_thread():
            raise raised
    return as_exception(raised)

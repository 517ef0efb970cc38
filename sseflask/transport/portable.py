"""The transport for any WSGI server: the server asks for each piece, and sends it."""

from __future__ import annotations

import contextvars
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from sseflask.counters.counts import COUNTS, LOCK, Reason
from sseflask.transport import accounting
from sseflask.transport.failures import token_expired
from sseflask.transport.source import Source
from sseflask.transport.stream import (
    Body,
    EarlyError,
    Stream,
    as_exception,
    can_resume_after,
    frame_bytes,
)
from sseflask.transport.timing import Due, StreamClock, heartbeat_bytes
from sseflask.wire import HEARTBEAT, ends_event, tail_of

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


#: How many frames the thread is ahead of the client at most.
_AHEAD = 8

#: The threads of streams that were closed.
_closed: set[threading.Thread] = set()


def join_threads(timeout: float) -> list[str]:
    """Wait until the threads of all closed streams have ended; the names of those that have not."""
    deadline = time.monotonic() + timeout
    for thread in list(_closed):
        thread.join(max(0.0, deadline - time.monotonic()))
        if not thread.is_alive():
            _closed.discard(thread)
    return [thread.name for thread in list(_closed)]


class ThreadedItems:
    """A short queue from the thread that runs the items to the one that serves the response."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._changed = threading.Condition()
        self._frames: deque[tuple[bytes, bool]] = deque()
        self._ended = False
        self._error: Exception | None = None
        self._abandoned = False
        self._thread: threading.Thread | None = None

    def get(self, timeout: float) -> tuple[bytes, bool] | None:
        """Give the next frame and whether the client can resume after it; ``None`` if it is late.

        Raises:
            StopIteration: the items have ended.
            Exception: what they raised.
        """
        if self._thread is None:
            self._thread = threading.Thread(
                target=contextvars.copy_context().run,
                args=(self._run,),
                name="sseflask-stream",
                daemon=True,
            )
            self._thread.start()
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
        """Nobody wants more: the items are closed at their next yield. Never blocks."""
        with self._changed:
            self._abandoned = True
            self._changed.notify_all()

    def close(self) -> bool:
        """Let the thread close the stream when it gets there; false if there is no thread."""
        if self._thread is None:
            return False
        if self._thread.is_alive():
            _closed.add(self._thread)
        return True

    def _run(self) -> None:
        error: Exception | None = None
        try:
            with self._stream.context():
                try:
                    self._advance()
                finally:
                    self._stream.response.close()
        except BaseException as raised:
            error = as_exception(raised)
        finally:
            with self._changed:
                self._ended, self._error = True, error
                self._changed.notify_all()
                abandoned = self._abandoned
            if abandoned and error is not None:
                self._stream.report(error)  # no `get` will raise it
            _closed.discard(threading.current_thread())

    def _advance(self) -> None:
        for item in self._stream.items:
            frame = frame_bytes(item, self._stream.encode)
            if not frame:
                continue
            with self._changed:
                self._changed.wait_for(lambda: len(self._frames) < _AHEAD or self._abandoned)
                if self._abandoned:
                    break
                self._frames.append((frame, can_resume_after(item)))
                self._changed.notify_all()


class InlineItems:
    """The pieces of an upgraded plain response: in the server's own thread, at their own pace."""

    def __init__(self, stream: Stream) -> None:
        self._encode = stream.encode
        self._items = iter(stream.items)

    def get(self, timeout: float) -> tuple[bytes, bool]:  # noqa: ARG002  # nothing else can be done
        """Give the next piece; blocks as long as that takes."""
        try:
            return frame_bytes(next(self._items), self._encode), False
        except Exception:
            raise
        except BaseException as raised:
            if _ends_server(raised):
                raise
            raise as_exception(raised) from raised

    def abandon(self) -> None:
        """They are closed with the stream."""


def _ends_server(raised: BaseException) -> bool:
    """Whether an exception may be one that ends the server, and not the application's own.

    Signals reach the main thread alone, and a greenlet is killed by an exception of greenlet's.
    """
    greenlet = sys.modules.get("greenlet")
    killed = greenlet is not None and isinstance(raised, greenlet.GreenletExit)
    return killed or threading.current_thread() is threading.main_thread()


class PortableBody(Body):
    """Heartbeats and the first-byte limit on any server, for the price of a thread a stream.

    An upgraded plain response keeps to the server's thread and has neither. The server notices that
    a client has left at its next write; the items are closed at their next yield.

    Attributes:
        events: how many events were given to the server, unless the source counts them.
    """

    def __init__(
        self, stream: Stream, environ: WSGIEnvironment, start_response: StartResponse
    ) -> None:
        super().__init__(stream, environ, start_response)
        self._frames: Source | ThreadedItems | InlineItems
        if stream.source is not None:
            self._frames = stream.source  # which can be waited for without a thread
        else:
            self._frames = InlineItems(stream) if stream.frames_only else ThreadedItems(stream)
        self._clock = StreamClock(stream)
        self._opening = stream.opening
        self._first_piece: bytes | None = None
        self._tail = b""
        self._resumable = False
        self._ended = False
        self._reason: Reason = "left"
        self._open = False
        self._log_fields: accounting.LogFields | None = None
        self.events = self._counted = self._sent = 0

    def begin(self) -> None:
        source, seconds = self.stream.source, self.stream.first_byte
        try:
            if source is None:
                first = self._frames.get(seconds)
            else:
                frames = next(source.first(seconds), None)
                first = None if frames is None else (frames, source.resumable)
        except StopIteration:
            self._start()
            return
        except Exception as error:
            raise EarlyError(error) from error
        self._start()
        # The server sends the headers with a piece only.
        if first is not None:
            self._first_piece = self._take(*first)
        elif source is None:
            self._first_piece = HEARTBEAT
        else:
            self._resumable = source.resumable
            self._first_piece, self._opening = self._opening or HEARTBEAT, b""

    def _start(self) -> None:
        self.start_response(self.stream.status, self.stream.all_headers)
        self._log_fields, self._open = accounting.opened(self.stream.kind, self.environ), True

    def go_on(self, piece: bytes, log_fields: accounting.LogFields | None) -> None:
        """Take over a stream that has been begun elsewhere, with a piece still to be sent."""
        self._log_fields, self._open = log_fields, True
        self._opening = b""
        self._first_piece = self._take(piece, False) if piece else None

    def __next__(self) -> bytes:
        piece = self._next_piece()
        events, counts = (self.stream.source or self).events, COUNTS.streams[self.stream.kind]
        with LOCK:
            counts.events += events - self._counted
            counts.bytes += len(piece)
        self._counted = events
        self._sent += len(piece)
        return piece

    def close(self) -> None:
        with LOCK:
            counted, self._open = self._open, False
        if counted:
            seconds = time.monotonic() - self._clock.began
            kind, fields = self.stream.kind, self._log_fields
            accounting.ended(kind, self._reason, fields, seconds, self._counted, self._sent)
        self._frames.abandon()
        if not isinstance(self._frames, ThreadedItems) or not self._frames.close():
            self.stream.response.close()

    def _next_piece(self) -> bytes:
        if self._first_piece is not None:
            piece, self._first_piece = self._first_piece, None
            return piece
        if self._ended:
            raise StopIteration
        now = time.monotonic()
        due_at, due = self._clock.next(now, now, resumable=self._resumable)
        try:
            got = self._frames.get(due_at - now) if due_at > now else None
        except StopIteration:
            self._reason = "done" if self.stream.source is None else self.stream.source.reason
            raise
        except Exception as error:
            return self._fail(error)
        return self._do(due) if got is None else self._take(*got)

    def _take(self, frame: bytes, resumable: bool) -> bytes:
        self.events += bool(frame)
        frame, self._opening = self._opening + frame, b""
        self._tail = tail_of(self._tail, frame)
        self._resumable = resumable
        return frame

    def _do(self, due: Due) -> bytes:
        """Give what is sent for what is due, see `sseflask.transport.timing`."""
        if due == "heartbeat":
            return heartbeat_bytes(self._tail)
        if due == "expiry":
            piece = self._fail(token_expired())
            self._reason = "expired"
            return piece
        self._reason = "lifetime"
        if self.stream.source is not None:
            self.stream.source.will_reconnect()
        return self._end(b"")

    def _fail(self, error: Exception) -> bytes:
        self._reason = "failed"
        failure = self.stream.report(error)
        if not ends_event(self._tail):
            # An event is half sent: no way to speak in band, so the server has to cut the body.
            self._end(b"")
            raise error
        counter = self.stream.source or self
        counter.events += 1
        return self._end(self.stream.failure_frame(failure))

    def _end(self, last: bytes) -> bytes:
        self._ended = True
        self._frames.abandon()
        return last

"""The items of a stream, advanced in a thread of their own: one can wait for them for a time."""

from __future__ import annotations

import contextvars
import threading
import time
from collections import deque

from sseflask.transport.stream import Stream, as_exception, can_resume_after, frame_bytes

#: How many frames the thread is ahead of the client at most.
_AHEAD = 8

#: The threads of streams that were closed.
_closed: set[threading.Thread] = set()


def join_threads(timeout: float) -> list[str]:
    """Wait until the threads of all closed streams have ended.

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
        """Give the next frame and whether the client can resume after it. Blocks.

        Returns:
            ``None`` after ``timeout`` seconds.

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
                    self._stream.close()
        except BaseException as raised:
            error = as_exception(raised)
        finally:
            if not self._end(error) and error is not None:
                self._stream.report(error)
            _closed.discard(threading.current_thread())

    def _advance(self) -> None:
        for item in self._stream.items:
            frame = frame_bytes(item, self._stream.encode)
            if frame and not self._put(frame, can_resume_after(item)):
                break

    def _put(self, frame: bytes, resumable: bool) -> bool:
        """Blocks while the queue is full; false if the frame is no longer wanted."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._frames) < _AHEAD or self._abandoned)
            if self._abandoned:
                return False
            self._frames.append((frame, resumable))
            self._changed.notify_all()
            return True

    def _end(self, error: Exception | None) -> bool:
        """Nothing more comes; false if the error will not be asked for."""
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()
            return not self._abandoned

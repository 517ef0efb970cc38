"""When something is due for a stream, and what is sent then: one place for all transports.

All times are the monotonic clock's, in seconds.

| due | when | what happens |
|---|---|---|
| first_byte | the first event is late | the headers are sent without it |
| heartbeat | nothing was sent for `heartbeat` seconds | a heartbeat is sent |
| slow | the client took nothing for two heartbeats | it is cut |
| lifetime | the stream has run for `lifetime` seconds | it ends, to be resumed |
| expiry | the client's token has expired | it ends with a failure |

A `Connection` and a `PortableBody` have a `StreamClock` each. A stream that is detached gets its
end from it, and shares heartbeats with its group: `sseflask.transport.detached.deadlines`.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Literal

from sseflask.counters.counts import Reason
from sseflask.errors import Failure
from sseflask.transport.failures import token_expired
from sseflask.transport.stream import Stream
from sseflask.wire import HEARTBEAT, ends_line

Due = Literal["first_byte", "heartbeat", "slow", "lifetime", "expiry"]

#: What part of its lifetime a detached stream gets. Streams that begin together, as after a deploy,
#: do not end together.
_LIFETIME_SPREAD = (0.8, 1.0)


def heartbeat_at(last_sent: float, heartbeat: float) -> float:
    """When the next heartbeat is due of a stream, or of a group, that was sent something last.

    The same arguments must give the same time: it is asked for again when that has come.
    """
    return last_sent + heartbeat


def heartbeat_bytes(tail: bytes) -> bytes:
    """A heartbeat, or nothing in the middle of a line, for a body that ends with ``tail``."""
    return HEARTBEAT if ends_line(tail) else b""


def slow_after(heartbeat: float) -> float:
    """For how many seconds a client may take nothing of what waits for it."""
    return 2 * heartbeat


def slow_at(last_progress: float, heartbeat: float) -> float:
    """When a client is too slow that took something last at ``last_progress``.

    It is cut by `StreamTimer._cut_if_slow`, or if it is detached after `SlowStreams.stalled`.
    """
    return last_progress + slow_after(heartbeat)


def last_frame(due: Due, failure_frame: Callable[[Failure], bytes]) -> tuple[bytes, Reason]:
    """The last bytes of a stream's body at its lifetime or expiry, and why it ends."""
    if due == "expiry":
        return failure_frame(token_expired()), "expired"
    return b"", "lifetime"


class StreamClock:
    """The times of one stream, which begins now. Not thread-safe."""

    __slots__ = ("_expires_at", "_heartbeat", "_lifetime", "began", "first_byte_at")

    def __init__(self, stream: Stream) -> None:
        self.began = time.monotonic()
        self.first_byte_at = self.began + stream.first_byte
        self._heartbeat = stream.heartbeat
        self._lifetime = stream.lifetime or math.inf
        self._expires_at = stream.expires_at

    def next(
        self,
        now: float,
        last_sent: float,
        *,
        started: bool = True,
        behind: bool = False,
        resumable: bool = True,
    ) -> tuple[float, Due]:
        """What is due next, and when, which may be over.

        Args:
            now: the time.
            last_sent: when the client took something last.
            started: whether the headers have been sent.
            behind: whether something waits to be taken by the client.
            resumable: whether the stream may end at its lifetime now.
        """
        due: tuple[float, Due]
        if behind:
            due = slow_at(last_sent, self._heartbeat), "slow"
        else:
            due = heartbeat_at(last_sent, self._heartbeat), "heartbeat"
        if not started:
            # A heartbeat too: the headers may be sent any time, and it is due after them.
            due = min(due, (self.first_byte_at, "first_byte"))
        if resumable:
            due = min(due, (self.began + self._lifetime, "lifetime"))
        return min(due, (self._expiry(now), "expiry"))

    def end(self, now: float) -> tuple[float, Due]:
        """When a stream that is detached now ends, and for what; infinite for never."""
        lifetime = self._lifetime * random.uniform(*_LIFETIME_SPREAD)
        due: tuple[float, Due] = self.began + lifetime, "lifetime"
        return min(due, (self._expiry(now), "expiry"))

    def done(self, due: Due) -> None:
        """The lifetime or the expiry has been seen to: `next` gives it no more."""
        if due == "lifetime":
            self._lifetime = math.inf
        elif due == "expiry":
            self._expires_at = None

    def _expiry(self, now: float) -> float:
        # Of the wall clock, which may be set meanwhile.
        return math.inf if self._expires_at is None else now + self._expires_at - time.time()

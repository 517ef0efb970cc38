"""When something is due for a stream, and what happens then: one place for all transports.

All times are the monotonic clock's, in seconds.

| due | when | what happens |
|---|---|---|
| first_byte | the first event is late | the headers are sent without it |
| heartbeat | nothing was sent for `heartbeat` seconds | a heartbeat is sent |
| look | every half heartbeat, if bytes wait | what the client has taken is looked at |
| slow | the client took nothing for two heartbeats (`slow_after`) | it is cut |
| lifetime | the stream has run for `lifetime` seconds | it ends, to be resumed |
| expiry | the client's token has expired | it ends with a failure |

`StreamTimer` is a `StreamClock` with a timer, and `PortableBody` has a `StreamClock`. A stream that
is detached gets its end from its clock, and shares heartbeats with its group: `Deadlines`.

Not here: how far behind a client may be in bytes (`stream_table`), TCP_USER_TIMEOUT
(`SocketWriter.start_user_timeout`), and slow clients of portable bodies: the server or
`ClientConnection` cuts them.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
import time
from typing import Literal

from sseflask.transport.detached.group import DetachedStream, Group
from sseflask.transport.stream import Stream
from sseflask.wire import HEARTBEAT, ends_line

Due = Literal["first_byte", "heartbeat", "look", "slow", "lifetime", "expiry"]

#: The least and the largest part of its lifetime that a detached stream gets, at random: streams
#: that begin together, as after a deploy, must not end together.
_LIFETIME_SPREAD = (0.8, 1.0)

#: Streams that end within the same part of a second are kept together: this many parts.
_MOMENTS = 10


def heartbeat_at(last_sent: float, heartbeat: float) -> float:
    """When the next heartbeat of a stream or group is due.

    The same arguments must give the same time: it is computed again when that time has come. A
    jitter belongs here, not in `Stream.heartbeat`: streams with equal values share a group. It
    needs a seed of the stream or group as one more argument: many have the same ``last_sent``.
    Callers are `StreamClock.next`, `Deadlines._push` and `Deadlines.silent`.
    """
    return last_sent + heartbeat


def heartbeat_bytes(tail: bytes) -> bytes:
    """A heartbeat, or nothing in the middle of a line, for a body that ends with ``tail``."""
    return HEARTBEAT if ends_line(tail) else b""


def slow_after(heartbeat: float) -> float:
    """How many seconds a client may take nothing although bytes wait for it.

    What it has taken is checked twice a heartbeat (`check_interval`), the first time within one. So
    it is cut after three heartbeats at the latest.
    """
    return 2 * heartbeat


def slow_at(last_progress: float, heartbeat: float) -> float:
    """When a client that last took something at ``last_progress`` is too slow.

    `StreamTimer` cuts it then; `DetachedStreams._on_timer` does so if it is detached.
    """
    return last_progress + slow_after(heartbeat)


def check_interval(heartbeat: float) -> float:
    """Seconds between two checks of what a slow client has taken.

    They are needed because the kernel reports room only when there is a lot of it.
    """
    return heartbeat / 2


class StreamClock:
    """The times of one stream, which begins now. Not thread-safe."""

    __slots__ = ("_expires_at", "_first_byte", "_heartbeat", "_lifetime", "began")

    def __init__(self, stream: Stream) -> None:
        self.began = time.monotonic()
        self._first_byte = stream.first_byte
        self._heartbeat = stream.heartbeat
        self._lifetime = stream.lifetime or math.inf
        self._expires_at = stream.expires_at

    @property
    def first_byte_at(self) -> float:
        return self.began + self._first_byte

    def next(
        self,
        now: float,
        last_progress: float,
        *,
        started: bool = True,
        behind: bool = False,
        resumable: bool = True,
    ) -> tuple[float, Due]:
        """What is due next, and when, which may be in the past.

        Args:
            last_progress: when bytes last went out, or a heartbeat was due.
            behind: whether bytes wait for the client, so that no heartbeat is sent.
        """
        due: tuple[float, Due]
        if behind:
            look: tuple[float, Due] = now + check_interval(self._heartbeat), "look"
            due = min(look, (slow_at(last_progress, self._heartbeat), "slow"))
        else:
            due = heartbeat_at(last_progress, self._heartbeat), "heartbeat"
        if not started:
            # The heartbeat stays: the headers may be sent at any moment, and then it counts.
            due = min(due, (self.first_byte_at, "first_byte"))
        if resumable:
            due = min(due, (self.began + self._lifetime, "lifetime"))
        return min(due, (self._expiry(now), "expiry"))

    def end(self, now: float) -> tuple[float, Due]:
        """When a stream that is detached now ends, and why; infinite for never."""
        lifetime = self._lifetime * random.uniform(*_LIFETIME_SPREAD)
        due: tuple[float, Due] = self.began + lifetime, "lifetime"
        return min(due, (self._expiry(now), "expiry"))

    def done(self, due: Due) -> None:
        """The lifetime or the expiry has been handled: `next` does not return it again."""
        if due == "lifetime":
            self._lifetime = math.inf
        elif due == "expiry":
            self._expires_at = None

    def _expiry(self, now: float) -> float:
        # A time of the wall clock, which may be set meanwhile.
        return math.inf if self._expires_at is None else now + self._expires_at - time.time()


class Deadlines:
    """What is due for detached streams, without a timer for each.

    Heartbeats are due for a group. Ends are due for all streams of one moment.
    """

    def __init__(self) -> None:
        self._heartbeats: list[tuple[float, int, Group]] = []
        self._order = itertools.count()
        self._ends: dict[int, set[DetachedStream]] = {}
        self._moments: list[int] = []

    def add(self, group: Group, now: float) -> None:
        """Schedule the heartbeats of a group: `silent` gives it from now on. Harmless to repeat."""
        if not group.scheduled:
            group.scheduled = True
            group.last_sent = now
            self._push(group)

    def _push(self, group: Group) -> None:
        due = heartbeat_at(group.last_sent, group.heartbeat)
        heapq.heappush(self._heartbeats, (due, next(self._order), group))

    def end_at(self, stream: DetachedStream, due: float) -> None:
        """Let `over` give a stream at this time, or up to a tenth of a second later."""
        moment = stream.due = math.ceil(due * _MOMENTS)
        streams = self._ends.get(moment)
        if streams is None:
            streams = self._ends[moment] = set()
            heapq.heappush(self._moments, moment)
        streams.add(stream)

    def forget(self, stream: DetachedStream) -> None:
        streams = self._ends.get(stream.due)
        if streams is not None:
            streams.discard(stream)
            if not streams:
                del self._ends[stream.due]
        stream.due = 0

    def silent(self, now: float) -> list[Group]:
        """Give the groups whose heartbeat is due; the caller sends it."""
        found = []
        while self._heartbeats and self._heartbeats[0][0] <= now:
            group = heapq.heappop(self._heartbeats)[2]
            if not group.streams:
                group.scheduled = False  # until a stream joins again
                continue
            # Looked at only now: an event costs nothing here.
            if heartbeat_at(group.last_sent, group.heartbeat) <= now:
                group.last_sent = now
                found.append(group)
            self._push(group)
        return found

    def over(self, now: float) -> list[DetachedStream]:
        """Give the streams whose end is due, each once."""
        found: list[DetachedStream] = []
        while self._moments and self._moments[0] <= now * _MOMENTS:
            for stream in self._ends.pop(heapq.heappop(self._moments), ()):
                stream.due = 0
                found.append(stream)
        return found

    def next(self) -> float:
        """When to ask again; infinite if nothing is planned."""
        while self._moments and self._moments[0] not in self._ends:
            heapq.heappop(self._moments)
        return min(
            self._heartbeats[0][0] if self._heartbeats else math.inf,
            self._moments[0] / _MOMENTS if self._moments else math.inf,
        )

"""Many streams read by one thread: non-blocking sockets on one epoll object.

The thread never sleeps, it asks the kernel again and again. On loopback a `send` to a process
that sleeps on an idle core also pays for waking that core (measured in a virtual machine: 13 to
18 µs instead of 4); no client at the other end of a network costs a server that, and it differs
from one moment to the next.

In each round it gives way to what waits for its core: a Redis server, if there is no third core.
"""

from __future__ import annotations

import errno
import math
import os
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Protocol

from benchmarks.client.fault import Fault
from benchmarks.client.http import BadResponse, ResponseReader
from benchmarks.client.order import OrderCheck

_READ_SIZE = 256 * 1024
_PATIENCE = 10.0

WAIT = 0.0
"""Seconds for which a round waits for something to read, for the reason above. Tests of the
benchmarks, which look at faults and not at figures, set it."""


class Stream:
    """One request and what has come of it; times are monotonic seconds, `left_at` nanoseconds, 0
    for not yet.

    `cut` is set when the connection ended without a proper last chunk.
    """

    __slots__ = (
        "_socket",
        "check",
        "cut",
        "ended_at",
        "error",
        "first_at",
        "left_at",
        "request",
        "response",
    )

    def __init__(self, request: bytes, check: OrderCheck) -> None:
        self.request = request
        self.check = check
        self.response = ResponseReader()
        self.first_at = 0.0
        self.ended_at = 0.0
        self.left_at = 0
        self.cut = False
        self.error = ""
        self._socket: socket.socket | None = None

    @property
    def descriptor(self) -> int:
        """The descriptor of the open connection."""
        assert self._socket is not None
        return self._socket.fileno()

    @property
    def local_port(self) -> int:
        """The port of this side of the open connection."""
        assert self._socket is not None
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def began(self) -> bool:
        """Whether an event has come, or the end without any."""
        return bool(self.first_at or self.ended_at)

    def connect(self, port: int) -> bool:
        """Connect and send the request; give whether that went well."""
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), timeout=_PATIENCE)
            self._socket.send(self.request)
            self._socket.setblocking(False)
        except OSError as error:
            self._end(cut=True, error=f"on connecting: {_name(error)}")
            return False
        return True

    def read(self) -> bool:
        """Take what has come; give whether the stream is still open."""
        assert self._socket is not None
        try:
            data = self._socket.recv(_READ_SIZE)
        except BlockingIOError:
            return True
        except OSError as error:
            self._end(cut=True, error=_name(error))
            return False
        if not data:
            self._end(cut=self.response.framed or not self.response.status)
            return False
        try:
            body = self.response.feed(data)
        except BadResponse as error:
            self._end(cut=True, error=str(error))
            return False
        if body:
            self.check.feed(body)
            if not self.first_at and self.check.events:
                self.first_at = time.monotonic()
        if self.response.ended:
            self._end(cut=False)
            return False
        return True

    def leave(self) -> None:
        """Close the connection from this side; `left_at` is when, in monotonic nanoseconds."""
        assert self._socket is not None
        self.left_at = time.monotonic_ns()
        self._socket.close()

    def _end(self, *, cut: bool, error: str = "") -> None:
        self.cut = cut
        self.error = error
        self.ended_at = time.monotonic()
        self.close()

    def close(self) -> None:
        """Close the connection; a stream that has not ended by then stays one that has not."""
        if self._socket is not None:
            self._socket.close()

    def faults(self) -> list[Fault]:
        """Say what was wrong with this stream, also that it has not come to its end."""
        kinds = (
            (f"status {self.response.status}", self.response.status not in (0, 200)),
            (self.error, bool(self.error)),
            ("cut short", self.cut),
            ("stalled", not self.ended_at),
            ("ended too early", bool(self.ended_at) and not self.cut and self.check.lacking() > 0),
        )
        return [*self.check.faults(), *(Fault(kind, 1) for kind, seen in kinds if seen)]


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, str(error))


class Beside(Protocol):
    """What else goes on in the load client's thread."""

    def step(self) -> None:
        """Do what is due; called in every round, must not block."""

    def finish(self) -> None:
        """What was to be measured has been: let streams come to their end."""


class Load:
    """Opens streams at a given pace and reads them all. One thread; only the `run`s wait.

    `at_once`: how many streams are opened, and read, before those beside have a turn (-1: all, and
    as many as epoll gives, about 1,000, which take some milliseconds).
    """

    def __init__(self, port: int, beside: Sequence[Beside] = (), at_once: int = -1) -> None:
        self._port = port
        self._beside = beside
        self._at_once = at_once
        self._epoll = select.epoll()
        self._open: dict[int, Stream] = {}
        self._waiting: deque[Stream] = deque()
        self._next_open = 0.0
        self._pause = 0.0
        self._last_event = 0.0
        self.streams: list[Stream] = []

    def __enter__(self) -> Load:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for stream in self._open.values():
            stream.close()
        self._epoll.close()

    def add(self, streams: Iterable[Stream], per_second: float = 1000) -> None:
        """Have these streams opened one by one from the next `run` on, at this pace at most."""
        added = list(streams)
        self.streams += added
        self._waiting.extend(added)
        self._pause = 1 / per_second
        self._next_open = time.monotonic()

    def run(self, until: Callable[[], bool], seconds: float = math.inf) -> bool:
        """Read until the condition holds, looked at after each round; give whether it does.

        Blocks for at most `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not until():
            now = time.monotonic()
            if now > deadline:
                return False
            if self._waiting:
                self._connect(now)
            for other in self._beside:
                other.step()
            os.sched_yield()
            for descriptor, _ in self._epoll.poll(WAIT, self._at_once):
                # Left in this very round, by the condition, or closed with a round's earlier event.
                stream = self._open.get(descriptor)
                if stream is None:
                    continue
                before = stream.check.events
                if not stream.read():
                    del self._open[descriptor]
                if stream.check.events != before:
                    self._last_event = now
        return True

    def run_for(self, seconds: float) -> None:
        """Read for a time."""
        self.run(lambda: False, seconds)

    def all_ended(self) -> bool:
        """Whether no stream is open or still to be opened."""
        return not self._open and not self._waiting

    def run_to_end(self, patience: float) -> None:
        """Read until all streams have ended, or none has had an event for `patience` seconds."""
        self._last_event = time.monotonic()
        self.run(lambda: self.all_ended() or self._quiet(patience))

    def run_until_all_began(self, patience: float) -> bool:
        """Read until each stream has had an event; give whether they all have.

        Gives up when for `patience` seconds none of those that had not has had one.
        """
        behind = list(self.streams)
        last = time.monotonic()

        def settled() -> bool:
            nonlocal behind, last
            while behind and behind[-1].began:
                behind.pop()
            if behind and (self._waiting or time.monotonic() - last > patience):
                # All are looked at now and then only: this is asked in every round.
                left = [stream for stream in behind if not stream.began]
                if not self._waiting and len(left) == len(behind):
                    return True
                behind, last = left, time.monotonic()
            return not behind

        self.run(settled)
        return not behind

    def _quiet(self, seconds: float) -> bool:
        return time.monotonic() - self._last_event > seconds

    def leave(self, stream: Stream) -> None:
        """Close one stream from this side."""
        self._open = {key: value for key, value in self._open.items() if value is not stream}
        stream.leave()

    def events(self) -> int:
        """Give the number of events that have come on all streams."""
        return sum(stream.check.events for stream in self.streams)

    def faults(self) -> list[str]:
        """Say what was wrong, each kind once with how often and on how many streams."""
        amounts: Counter[str] = Counter()
        streams: Counter[str] = Counter()
        for stream in self.streams:
            for kind, amount in stream.faults():
                amounts[kind] += amount
                streams[kind] += 1
        return [
            f"{kind}: {amount} on {streams[kind]} of {len(self.streams)} streams"
            for kind, amount in amounts.most_common()
        ]

    def _connect(self, now: float) -> None:
        opened = 0
        while self._waiting and self._next_open <= now and opened != self._at_once:
            opened += 1
            stream = self._waiting.popleft()
            self._next_open += self._pause
            if stream.connect(self._port):
                self._open[stream.descriptor] = stream
                self._epoll.register(stream.descriptor, select.EPOLLIN)

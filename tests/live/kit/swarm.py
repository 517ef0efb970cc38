"""Many subscribers in one thread: hundreds are read as they come, break off and come back."""

from __future__ import annotations

import heapq
import itertools
import random
import selectors
import time
from collections.abc import Callable, Sequence

import psutil

from tests.live.kit.background import Background
from tests.live.kit.sockets import inode, owned
from tests.live.kit.subscribers import Subscriber
from tests.live.kit.waiting import until


class Swarm(Background):
    """Reads all subscribers in a thread of its own, until the block is left.

    Args:
        port: where the server listens; of several ports each connection takes one at random.
        subscribers: those that connect at once.
        coming_back: whether a subscriber whose stream has ended resumes it; not after a 204, as
            the standard demands.
        host: the server's address.
    """

    def __init__(
        self,
        port: int | Sequence[int],
        subscribers: Sequence[Subscriber] = (),
        *,
        coming_back: bool = True,
        host: str = "127.0.0.1",
    ) -> None:
        self.host = host
        self.ports = [port] if isinstance(port, int) else list(port)
        self.subscribers = list(subscribers)
        self.coming_back = coming_back
        self._random = random.Random(1)
        self._selector = selectors.DefaultSelector()
        self._order = itertools.count()
        self._due = [(0.0, next(self._order), each) for each in self.subscribers]
        self._calls: list[Callable[[], None]] = []

    def stop(self) -> None:
        """End all connections."""
        try:
            super().stop()
        finally:
            for subscriber in self.subscribers:
                subscriber.close()
            self._selector.close()

    def add(self, *subscribers: Subscriber) -> None:
        """Further subscribers, from now on."""

        self.subscribers += subscribers

        def connect() -> None:
            for subscriber in subscribers:
                heapq.heappush(self._due, (0.0, next(self._order), subscriber))

        self._calls.append(connect)

    def leave(self, *subscribers: Subscriber) -> None:
        """Let these close their connections, for good."""

        def close() -> None:
            for subscriber in subscribers:
                if subscriber.socket is not None:
                    self._selector.unregister(subscriber.socket)
                subscriber.close()
                self._due = [entry for entry in self._due if entry[2] is not subscriber]
                heapq.heapify(self._due)

        self._calls.append(close)

    def served_by(self, worker: psutil.Process) -> list[Subscriber]:
        """The subscribers whose connection this process has accepted."""
        theirs = owned(worker)
        ends = [(each, *each.ports()) for each in self.subscribers]
        return [each for each, port, server in ends if port and inode(server, port) in theirs]

    def wait_until_connected(self, times: int = 1) -> None:
        """Wait until each has got this many responses' heads."""
        self.wait_for(lambda each: each.connected >= times, f"connected {times} times")

    def wait_for(
        self, condition: Callable[[Subscriber], bool], what: str, seconds: float = 40.0
    ) -> None:
        """Wait until the condition holds for every subscriber."""

        def missing() -> bool:
            self.check()
            return all(condition(each) for each in list(self.subscribers))

        try:
            until(missing, what, seconds=seconds)
        except AssertionError as error:
            late = [each for each in self.subscribers if not condition(each)]
            raise AssertionError(
                f"{error}: {len(late)} of {len(self.subscribers)}; the first: {late[0].summary()}"
                if late
                else str(error)
            ) from None

    def run(self) -> None:
        """Read."""
        while self.going_on:
            while self._calls:
                self._calls.pop(0)()
            self._connect_the_due()
            pause = 0.02 if not self._due else min(self._due[0][0] - time.monotonic(), 0.02)
            for key, _ in self._selector.select(max(pause, 0)):
                self._read(key.data)

    def _connect_the_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            subscriber = heapq.heappop(self._due)[2]
            try:
                connection = subscriber.connect((self.host, self._random.choice(self.ports)))
            except OSError:
                subscriber.close()
                self._later(subscriber)
            else:
                self._selector.register(connection, selectors.EVENT_READ, subscriber)

    def _later(self, subscriber: Subscriber) -> None:
        due = time.monotonic() + self._random.uniform(0.01, 0.2)
        heapq.heappush(self._due, (due, next(self._order), subscriber))

    def _read(self, subscriber: Subscriber) -> None:
        assert subscriber.socket is not None
        try:
            piece = subscriber.socket.recv(262144)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        breaks_off = bool(piece) and self._random.random() < subscriber.breaking
        if breaks_off:
            piece = piece[: self._random.randint(0, len(piece))]
        if piece:
            subscriber.feed(piece)
        if piece and not breaks_off and not subscriber.over:
            return
        self._selector.unregister(subscriber.socket)
        if breaks_off:
            subscriber.broken_off += 1
            subscriber.close()
        else:
            subscriber.end()
        if self.coming_back and 204 not in subscriber.refused:
            self._later(subscriber)

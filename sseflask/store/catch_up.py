"""Readers of stored frames, which then get those that come: none twice, none left out.

Within a process a feed delivers the frames, once they are stored, to readers' queues and to
detached streams. All channels have one feed, and each run that goes on has one.
"""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

from sseflask.counters.counts import COUNTS, LOCK
from sseflask.errors import Failure
from sseflask.loop.callbacks import wait_for_event
from sseflask.store.api import StoreError, store_unavailable
from sseflask.transport.detached.group import Group
from sseflask.transport.failures import failure_frame
from sseflask.transport.source import Source

#: Frames and bytes that a queue may hold. A reader that falls further behind reads from the store.
QUEUE, QUEUE_BYTES = 1000, 256 * 1024

Key = TypeVar("Key", bound=Hashable)

Frame = tuple[int, bytes]
"""A frame with its number."""


class CatchUp(Source, Generic[Key]):
    """A reader of one feed; readers with equal keys get the same frames.

    First it enters the feed. The feed's position at that moment is the reader's base: frames up to
    it are read from the store, page by page, and later ones are taken from the reader's queue. If
    the queue grows too long it is thrown away, and the feed's position then is the new base. When
    nothing is left in the store and the queue, the reader waits or joins a group.

    One greenlet or thread advances it. Others call `put`, `wake` and `abandon`. The feed's lock
    guards the queue and the base, see `Feed`.
    """

    store_name = "event store"  # as failures have it
    ended = False
    view: Any = None  # goes on in a group that this reader joins, see `Audience`

    def __init__(self, lock: Any, key: Key) -> None:
        self.key = key
        self._lock = lock
        self._feed: Feed[Key] | None = None
        self._at = 0
        self._base = 0
        self._queue: list[Frame] = []
        self._queued_bytes = 0
        self._abandoned = False
        self._woken = False
        self._changed: threading.Event | None = None  # made when it waits for the first time

    @property
    def failure_frame(self) -> Callable[[Failure], bytes]:
        """Encodes a failure of a stream in a group; does not keep the reader."""
        return failure_frame

    def get(self, timeout: float | None) -> tuple[bytes, bool] | None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while (frames := self._next()) is None:
            if self._abandoned:
                raise StopIteration
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                return None
            self._wait(left)
        return frames, self.resumable

    def join(self, chunked: bool, heartbeat: float) -> Group | None:
        with self._lock:
            if self._abandoned or self._feed is None or self._next_step() is not None:
                return None
            self._abandoned = True
            return self._feed.join(self, chunked, heartbeat)

    def abandon(self) -> None:
        with self._lock:
            if not self._abandoned:
                self._abandoned = True
                if self._feed is not None:
                    self._feed.leave(self)
                self.wake()

    # -- called by the feed, which holds the lock --------------------------------------------------

    def put(self, frames: Sequence[Frame], position: int) -> None:
        """Take the next frames, up to a position of the feed."""
        self._queue += frames
        self._queued_bytes += sum(len(frame) for _, frame in frames)
        if len(self._queue) > QUEUE or self._queued_bytes > QUEUE_BYTES:
            self.read_up_to(position)
        self.wake()

    def read_up_to(self, base: int) -> None:
        """Throw the queue away: frames up to ``base`` are read from the store instead."""
        self._empty_queue()
        self._base = base
        self.wake()

    def wake(self) -> None:
        """Let the reader look again whether there is something for it."""
        self._woken = True
        if self._changed is not None:
            self._changed.set()

    def _empty_queue(self) -> None:
        self._queue = []
        self._queued_bytes = 0

    # -- what comes next ---------------------------------------------------------------------------

    @abstractmethod
    def _next_step(self) -> Callable[[], bytes] | None:
        """Find what to do next; ``None`` if only new frames are left to come.

        The lock is held here, but not during the step. The step gives bytes or nothing. It may
        block, and may raise `StoreError`.
        """

    @abstractmethod
    def _encode(self, frames: Sequence[Frame]) -> bytes:
        """Encode frames that come after those that were encoded before."""

    def _enter_feed(self, feed: Feed[Key]) -> None:
        """Enter a feed, unless abandoned. The lock is held."""
        if not self._abandoned:
            self._feed, self._base = feed, feed.position
            feed.enter(self)

    def _next(self) -> bytes | None:
        """Give the next frames; ``None`` if only new ones are left to come. May block."""
        while True:
            with self._lock:
                step = None if self._abandoned else self._next_step()
                if step is None:
                    self._woken = False
                    return None
            try:
                frames = step()
            except StoreError as error:
                raise store_unavailable(self.store_name) from error
            if frames:
                return frames

    def _from_queue(self) -> bytes:
        with self._lock:
            queue = self._queue
            self._empty_queue()
        if not queue:
            return b""  # the queue was thrown away since `_next_step` saw it
        at, self._at = self._at, max(self._at, queue[-1][0])
        return self._encode([frame for frame in queue if frame[0] > at])

    def _wait(self, timeout: float | None) -> None:
        """Block until it is woken, at most ``timeout`` seconds; not if it was woken meanwhile."""
        with self._lock:
            if self._woken or self._abandoned:
                return
            if self._changed is None:
                self._changed = threading.Event()
            changed = self._changed
            changed.clear()
        wait_for_event(changed, timeout)

    def _end(self) -> None:
        self.ended = True
        self.abandon()

    def _count_replayed(self, events: int) -> None:
        with LOCK:
            COUNTS.streams[self.kind].replayed += events

    def _count_resumed(self) -> None:
        with LOCK:
            COUNTS.streams[self.kind].resumed += 1


class Batch(list[tuple[Group, bytes]]):
    """The bytes that groups are to be sent."""

    ended: tuple[Group, ...] = ()  # their streams end after these bytes


class Audience(Generic[Key]):
    """The streams that get the same frames: those of one key. Its feed's lock guards it."""

    __slots__ = ("groups", "key", "readers", "view")

    def __init__(self, key: Key) -> None:
        self.key = key
        # The streams with a greenlet or thread of their own. Most streams are detached, so that
        # most audiences need no set.
        self.readers: set[CatchUp[Key]] | None = None
        self.groups: tuple[Group, ...] = ()  # the detached streams
        # Makes the bytes of the groups, if they don't get the frames as they are.
        self.view: Any = None


class Feed(Generic[Key]):
    """The audiences of one sequence of numbered frames.

    The lock guards the feed, its audiences, and the queues of its readers. It is reentrant, for any
    thread. It is a native lock (see `sseflask.loop`), which the greenlets of a thread share. So
    code that holds it never blocks, never lets another greenlet run, and never calls into the
    application. Several feeds may have the same one.
    """

    def __init__(self, lock: Any, position: int = 0) -> None:
        self.lock = lock
        self.position = position  # the number of the last frame that has been delivered
        self._audiences: dict[Key, Audience[Key]] = {}

    def enter(self, reader: CatchUp[Key]) -> None:
        """Put all frames after `position` into a reader's queue from here on."""
        with self.lock:
            audience = self._audience(reader.key)
            if audience.readers is None:
                audience.readers = set()
            audience.readers.add(reader)

    def leave(self, reader: CatchUp[Key]) -> None:
        """Put nothing more into a reader's queue. May be repeated."""
        with self.lock:
            audience = self._audiences.get(reader.key)
            if audience is not None and audience.readers and reader in audience.readers:
                audience.readers.remove(reader)
                self._drop_if_empty(audience)

    def join(self, reader: CatchUp[Key], chunked: bool, heartbeat: float) -> Group:
        """Let a reader that has given all frames up to `position` go on as a stream of a group."""
        with self.lock:
            audience = self._audience(reader.key)
            if not audience.groups:
                audience.view = reader.view
            wanted = (chunked, heartbeat, reader.resumable)
            for group in audience.groups:
                if (group.chunked, group.heartbeat, group.resumable) == wanted:
                    break
            else:
                group = Group(
                    chunked,
                    heartbeat,
                    partial(self._on_empty_group, audience),
                    resumable=reader.resumable,
                    failure_frame=reader.failure_frame,
                    kind=reader.kind,
                )
                audience.groups = (*audience.groups, group)
            # After that, so that the audience is not empty in between.
            self.leave(reader)
            return group

    def _on_empty_group(self, audience: Audience[Key], empty: Group) -> None:
        with self.lock:
            audience.groups = tuple(group for group in audience.groups if group is not empty)
            self._drop_if_empty(audience)

    def _audience(self, key: Key) -> Audience[Key]:
        audience = self._audiences.get(key)
        if audience is None:
            audience = self._audiences[key] = Audience(key)
            self._added(audience)
        return audience

    def _drop_if_empty(self, audience: Audience[Key]) -> None:
        if audience.readers or audience.groups:
            return
        audience.readers = None
        if self._audiences.get(audience.key) is audience:
            del self._audiences[audience.key]
            self._removed(audience)

    def _added(self, audience: Audience[Key]) -> None:
        """Called with each new audience; the lock is held."""

    def _removed(self, audience: Audience[Key]) -> None:
        """Called with each audience that has become empty; the lock is held."""

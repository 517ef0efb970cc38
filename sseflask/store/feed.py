"""The delivery of stored frames within a process: to readers' queues and to detached streams.

No I/O. All channels have one feed, and each run that goes on has one.
"""

from __future__ import annotations

from collections.abc import Hashable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from sseflask.transport.detached.group import Group

if TYPE_CHECKING:
    from sseflask.store.catch_up import CatchUp

Key = TypeVar("Key", bound=Hashable)


class Batch(list[tuple[Group, bytes]]):
    """The bytes that groups are to be sent.

    Attributes:
        ended: the groups whose streams end after these bytes.
    """

    ended: tuple[Group, ...] = ()


class Audience(Generic[Key]):
    """The streams that get the same frames: those of one key. Its feed's lock guards it.

    Attributes:
        readers: the streams with a greenlet or thread of their own; ``None`` if there are none, as
            most streams are detached.
        groups: the detached streams.
        view: turns frames into the bytes of the groups, if they don't get the frames as they are.
    """

    __slots__ = ("groups", "key", "readers", "view")

    def __init__(self, key: Key) -> None:
        self.key = key
        self.readers: set[CatchUp[Key]] | None = None
        self.groups: tuple[Group, ...] = ()
        self.view: Any = None


class Feed(Generic[Key]):
    """The audiences of one sequence of numbered frames.

    The lock guards the feed, its audiences, and the queues of its readers. Any thread may take it,
    also while it holds it. It is a native lock (see `sseflask.loop`), which the greenlets of a
    thread share. So code that holds it never blocks, never lets another greenlet run, and never
    calls into the application. Several feeds may have the same one.

    Attributes:
        position: the number of the last frame that has been delivered.
    """

    def __init__(self, lock: Any, position: int = 0) -> None:
        self.lock = lock
        self.position = position
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
        """Let a reader go on as a stream of a group, which gets all frames after `position`.

        The reader, which has given all frames up to `position`, leaves.
        """
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

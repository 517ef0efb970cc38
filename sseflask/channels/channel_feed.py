"""Delivers the events of channels to the subscribers of this process. No I/O."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from sseflask.channels.event_frames import Cursor, Types, event_type, frame
from sseflask.channels.recent_answers import RecentAnswers
from sseflask.loop import native
from sseflask.store.api import Entry
from sseflask.store.catch_up import Audience, Batch, Feed, Frame
from sseflask.store.names import Pattern, PatternIndex
from sseflask.transport.detached.group import Group

#: Number of closed patterns that are remembered: a subscription may be made before a close, and
#: enter the feed after it.
_CLOSES = 1000


class Selection(NamedTuple):
    """What a subscription asks for: sorted patterns, each once; the types that end it."""

    patterns: tuple[Pattern, ...]
    until: Types


def _within(patterns: Iterable[Pattern], outer: Pattern) -> bool:
    """Whether at least one of the patterns is covered by ``outer``."""
    return any(outer.covers(pattern) for pattern in patterns)


class ChannelFeed(Feed[Selection]):
    """The feed of all channels. Any thread may call any method; only `wait_for` blocks.

    Attributes:
        epoch: the store's, empty until the store has been opened.
        closes: how often `close` has been called.
        answers: what subscriptions have read from the store.
    """

    def __init__(self) -> None:
        super().__init__(native.rlock())
        self.epoch = ""
        self.closes = 0
        self.answers = RecentAnswers()  # of the store; the lock guards them
        self._closed: deque[Pattern] = deque(maxlen=_CLOSES)
        self._moved = threading.Condition(self.lock)
        self._awaited = 0
        self._named: dict[str, list[Audience[Selection]]] = {}
        self._wild: PatternIndex[Audience[Selection]] = PatternIndex()
        self._with_wildcards: set[Audience[Selection]] = set()

    @property
    def cursor(self) -> Cursor:
        """The place from which a subscriber gets new events only."""
        with self.lock:
            return Cursor(self.epoch, self.position)

    def wait_for(self, number: int, seconds: float) -> bool:
        """Block at most ``seconds`` until `position` is at ``number``. Returns whether it is."""
        with self.lock:
            self._awaited += 1
            try:
                return self._moved.wait_for(lambda: self.position >= number, seconds)
            finally:
                self._awaited -= 1

    # -- the index of the audiences ----------------------------------------------------------------

    def _added(self, audience: Audience[Selection]) -> None:
        for pattern in audience.key.patterns:
            if pattern.is_name:
                self._named.setdefault(pattern.prefix, []).append(audience)
            else:
                self._wild.add(pattern, audience)
                self._with_wildcards.add(audience)

    def _removed(self, audience: Audience[Selection]) -> None:
        self._with_wildcards.discard(audience)
        for pattern in audience.key.patterns:
            if pattern.is_name:
                audiences = self._named[pattern.prefix]
                audiences.remove(audience)
                if not audiences:
                    del self._named[pattern.prefix]
            else:
                self._wild.remove(pattern, audience)

    def _audiences_of(self, channel: str) -> Iterable[Audience[Selection]]:
        """The audiences that get a channel's events; each once."""
        named = self._named.get(channel, ())
        if not self._wild:
            return named
        return dict.fromkeys((*named, *self._wild.find(channel)))

    def _audiences_within(self, pattern: Pattern) -> Iterable[Audience[Selection]]:
        """The audiences with a name or pattern that another pattern covers; each once."""
        if pattern.is_everything:
            return list(self._audiences.values())
        if pattern.is_name:
            return list(self._named.get(pattern.prefix, ()))
        # Ten thousand people may have a channel each, and the event loop stands still meanwhile.
        matches = pattern.expression.fullmatch
        found = {each for name, named in self._named.items() if matches(name) for each in named}
        found.update(each for each in self._with_wildcards if _within(each.key.patterns, pattern))
        return found

    # -- closing subscriptions ---------------------------------------------------------------------

    def close(self, pattern: Pattern) -> list[Group]:
        """End the subscriptions with a name or pattern that this one covers.

        They still get what is in their queues, and nothing that comes later. The streams of the
        groups that it returns are to be ended.
        """
        with self.lock:
            self.closes += 1
            self._closed.append(pattern)
            groups: list[Group] = []
            for audience in self._audiences_within(pattern):
                for subscription in audience.readers or ():
                    subscription.close_after_queue()  # type: ignore[attr-defined]  # all its readers are subscriptions
                audience.readers = None
                groups += audience.groups
                self._drop_if_empty(audience)
            return groups

    def count(self, pattern: Pattern) -> int:
        """Count the subscriptions that `close` would end."""
        with self.lock:
            return sum(
                len(audience.readers or ()) + sum(group.count for group in audience.groups)
                for audience in self._audiences_within(pattern)
            )

    def closed_since(self, closes: int, patterns: Iterable[Pattern]) -> bool:
        """Whether one of the patterns was closed since `closes` had this value. Hold the lock."""
        new = self.closes - closes
        if new > len(self._closed):
            return True  # more than are remembered
        recent = islice(self._closed, len(self._closed) - new, None) if new else ()
        return any(_within(patterns, closed) for closed in recent)

    # -- what comes from the store -----------------------------------------------------------------

    def deliver(self, entries: Sequence[Entry]) -> Batch:
        """Put the next events into queues, and give the bytes for groups."""
        with self.lock:
            found: dict[Audience[Selection], list[Frame]] = {}
            ending: dict[Audience[Selection], int] = {}
            for entry in entries:
                if entry.number <= self.position:
                    continue  # it was skipped: all readers find it in the store
                framed = None
                for audience in self._audiences_of(entry.channel):
                    if framed is None:
                        framed = (entry.number, frame(self.epoch, entry))
                    frames = found.setdefault(audience, [])
                    until = audience.key.until
                    if until and event_type(entry.frame) in until:
                        frames.append((entry.number, frame(self.epoch, entry, is_last=True)))
                        ending.setdefault(audience, len(frames))
                    else:
                        frames.append(framed)
            self.position = max(self.position, entries[-1].number)
            if self._awaited:
                self._moved.notify_all()
            batch = Batch()
            # If each person has a channel beside a common one, there are as many audiences as
            # people. The bytes that all of them get are made once.
            bodies: dict[tuple[int, ...], bytes] = {}
            for audience, frames in found.items():
                for reader in audience.readers or ():
                    reader.put(frames, self.position)
                if not audience.groups:
                    continue
                if audience in ending:
                    body = b"".join(framed for _, framed in frames[: ending[audience]])
                    batch += ((group, body) for group in audience.groups)
                    batch.ended += audience.groups
                    # A stream that joins from here on begins after that event.
                    audience.groups = ()
                    self._drop_if_empty(audience)
                    continue
                numbers = tuple(number for number, _ in frames)
                shared = bodies.get(numbers)
                if shared is None:
                    shared = bodies[numbers] = b"".join(framed for _, framed in frames)
                batch += ((group, shared) for group in audience.groups)
            return batch

    def restart(self, epoch: str, position: int) -> list[Group]:
        """Begin with another epoch of the store; see `skip`."""
        with self.lock:
            self.epoch = epoch
            return self.skip(position)

    def skip(self, last: int) -> list[Group]:
        """Go on after an event, because some before it could not be delivered.

        Readers find those in the store. The clients of the groups that it returns have to resume.
        """
        with self.lock:
            self.position = last
            for audience in self._audiences.values():
                for reader in audience.readers or ():
                    reader.read_up_to(last)
            return [group for audience in self._audiences.values() for group in audience.groups]

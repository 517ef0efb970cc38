"""Who subscribes to what in this process, and what they are to get. No I/O, never blocks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from sseflask.channels.event_frames import Cursor, Types, event_type, frame, last_frame
from sseflask.store.api import Entry
from sseflask.store.names import Pattern
from sseflask.store.pattern_index import PatternIndex
from sseflask.transport.detached.group import Group

if TYPE_CHECKING:
    from sseflask.channels.subscription import Subscription

__all__ = ["Batch", "Hub"]

#: Closes that are remembered for those who subscribed before them and have not come yet.
_CLOSES = 1000


class Batch(list[tuple[Group, bytes]]):
    """What detached streams are to be sent.

    Attributes:
        ended: the groups whose streams end after that.
    """

    ended: tuple[Group, ...] = ()


class _Audience:
    """The subscribers of the same names and patterns, until the same types of events."""

    __slots__ = ("groups", "patterns", "until", "waiting")

    def __init__(self, patterns: tuple[Pattern, ...], until: Types) -> None:
        self.patterns = patterns
        self.until = until
        self.waiting: set[Subscription] | None = None  # made when needed: most are detached
        self.groups: tuple[Group, ...] = ()

    @property
    def empty(self) -> bool:
        return not self.waiting and not self.groups


def _names(patterns: Iterable[Pattern], by: Pattern) -> bool:
    """Whether one of them means nothing but channels of another pattern."""
    return any(by.covers(pattern) for pattern in patterns)


class Hub:
    """Passes the log's tail on. Everything that takes `lock` may be called by any thread.

    Attributes:
        lock: guards all of it; nobody blocks while holding it.
        epoch: the log's, empty until it has been opened.
        position: the number up to which everything has been passed on.
        closes: how often something has been closed.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.epoch = ""
        self.position = 0
        self.closes = 0
        self._closed: deque[Pattern] = deque(maxlen=_CLOSES)
        self._moved = threading.Condition(self.lock)
        self._awaited = 0
        self._audiences: dict[tuple[tuple[Pattern, ...], Types], _Audience] = {}
        self._named: dict[str, list[_Audience]] = {}
        self._wild: PatternIndex[_Audience] = PatternIndex()
        self._with_wildcards: set[_Audience] = set()

    @property
    def cursor(self) -> Cursor:
        """Where a subscriber begins that wants nothing but what comes."""
        with self.lock:
            return Cursor(self.epoch, self.position)

    # -- subscribers -------------------------------------------------------------------------------

    def enter(self, subscription: Subscription) -> None:
        """Put everything from `position` on into a subscription's queue.

        Unless it has been closed since it was made, which it is told at once.
        """
        with self.lock:
            if self._closed_since(subscription):
                subscription.shut()
                return
            audience = self._audience(subscription.patterns, subscription.until)
            if audience.waiting is None:
                audience.waiting = set()
            audience.waiting.add(subscription)

    def leave(self, subscription: Subscription) -> None:
        """Put nothing more into its queue; harmless when it has left."""
        with self.lock:
            audience = self._audiences.get((subscription.patterns, subscription.until))
            if audience is not None and audience.waiting is not None:
                audience.waiting.discard(subscription)
                if not audience.waiting:
                    audience.waiting = None
                self._drop_if_empty(audience)

    def join(self, subscription: Subscription, chunked: bool, heartbeat: float) -> Group:
        """Leave a subscription's stream to a group, which gets everything from `position` on."""
        with self.lock:
            audience = self._audience(subscription.patterns, subscription.until)
            for group in audience.groups:
                if group.chunked == chunked and group.heartbeat == heartbeat:
                    break
            else:
                group = Group(chunked, heartbeat, lambda empty: self._dissolve(audience, empty))
                audience.groups = (*audience.groups, group)
            self.leave(subscription)
            return group

    def _dissolve(self, audience: _Audience, group: Group) -> None:
        with self.lock:
            audience.groups = tuple(each for each in audience.groups if each is not group)
            self._drop_if_empty(audience)

    def _audience(self, patterns: tuple[Pattern, ...], until: Types) -> _Audience:
        audience = self._audiences.get((patterns, until))
        if audience is None:
            audience = self._audiences[patterns, until] = _Audience(patterns, until)
            for pattern in patterns:
                if pattern.is_name:
                    self._named.setdefault(pattern.prefix, []).append(audience)
                else:
                    self._wild.add(pattern, audience)
                    self._with_wildcards.add(audience)
        return audience

    def _drop_if_empty(self, audience: _Audience) -> None:
        key = (audience.patterns, audience.until)
        if not audience.empty or self._audiences.get(key) is not audience:
            return
        del self._audiences[key]
        self._with_wildcards.discard(audience)
        for pattern in audience.patterns:
            if pattern.is_name:
                those = self._named[pattern.prefix]
                those.remove(audience)
                if not those:
                    del self._named[pattern.prefix]
            else:
                self._wild.remove(pattern, audience)

    # -- those who subscribe to something, whatever it is ------------------------------------------

    def close(self, patterns: Sequence[Pattern]) -> list[Group]:
        """End the subscriptions that have one of these; give the groups that are to be sent away.

        They have been passed on all up to `position`, and get nothing that comes later.
        """
        with self.lock:
            self.closes += len(patterns)
            self._closed.extend(patterns)
            groups: list[Group] = []
            for audience in dict.fromkeys(
                audience for pattern in patterns for audience in self._who_named(pattern)
            ):
                for subscription in audience.waiting or ():
                    subscription.shut()
                audience.waiting = None
                groups += audience.groups
                self._drop_if_empty(audience)
            return groups

    def count(self, pattern: Pattern) -> int:
        """How many subscriptions `close` would end."""
        number = 0
        with self.lock:
            for audience in self._who_named(pattern):
                if audience.waiting:
                    number += len(audience.waiting)
                for group in audience.groups:
                    number += group.count
        return number

    def _who_named(self, pattern: Pattern) -> Iterable[_Audience]:
        """Those with a name or pattern of which this one has every channel; each once."""
        if pattern.is_everything:
            return list(self._audiences.values())
        if pattern.is_name:
            return list(self._named.get(pattern.prefix, ()))
        # There may be a name for each of ten thousand people, and the loop stands still meanwhile.
        is_meant = pattern.expression.fullmatch
        found = {each for name, those in self._named.items() if is_meant(name) for each in those}
        found.update(each for each in self._with_wildcards if _names(each.patterns, pattern))
        return found

    def _closed_since(self, subscription: Subscription) -> bool:
        new = self.closes - subscription.closes
        if new > len(self._closed):
            return True  # nobody knows any more
        recent = islice(self._closed, len(self._closed) - new, None)
        return any(_names(subscription.patterns, pattern) for pattern in recent)

    # -- the log's tail ----------------------------------------------------------------------------

    def take_in(self, entries: Sequence[Entry]) -> Batch:
        """Pass on what the tail has brought; give what is to be sent to groups."""
        with self.lock:
            found: dict[_Audience, list[tuple[int, bytes]]] = {}
            ends: dict[_Audience, dict[int, bytes]] = {}
            for entry in entries:
                if entry.number <= self.position:
                    continue  # behind what was skipped: everybody has gone back to the log for it
                framed = None
                for audience in self._listening(entry.channel):
                    if framed is None:
                        framed = (entry.number, frame(self.epoch, entry))
                    found.setdefault(audience, []).append(framed)
                    if audience.until and event_type(entry.frame) in audience.until:
                        last = last_frame(self.epoch, entry)
                        ends.setdefault(audience, {})[entry.number] = last
            self.position = max(self.position, entries[-1].number)
            if self._awaited:
                self._moved.notify_all()
            batch = Batch()
            # Audiences are as many as people where everybody has a channel of their own beside a
            # common one: what they all get is there once.
            bodies: dict[tuple[int, ...], bytes] = {}
            for audience, frames in found.items():
                its_ends = ends.get(audience)
                for subscription in audience.waiting or ():
                    subscription.put(frames, self.position, its_ends)
                if not audience.groups:
                    continue
                if its_ends is not None:
                    self._finish(audience, frames, its_ends, batch)
                    continue
                numbers = tuple(number for number, _ in frames)
                body = bodies.get(numbers)
                if body is None:
                    body = bodies[numbers] = b"".join(framed for _, framed in frames)
                batch += ((group, body) for group in audience.groups)
            return batch

    def _finish(
        self,
        audience: _Audience,
        frames: Sequence[tuple[int, bytes]],
        ends: Mapping[int, bytes],
        batch: Batch,
    ) -> None:
        """Have the groups of an audience sent all up to the first end, which is theirs."""
        pieces = []
        for number, framed in frames:
            pieces.append(ends.get(number, framed))
            if number in ends:
                break
        body = b"".join(pieces)
        batch += ((group, body) for group in audience.groups)
        batch.ended += audience.groups
        # Who comes from here on has not had that end, and gets what follows it.
        audience.groups = ()
        self._drop_if_empty(audience)

    def _listening(self, channel: str) -> Iterable[_Audience]:
        named = self._named.get(channel, ())
        if not self._wild:
            return named
        # Somebody may have asked for a name and for a pattern that has it.
        return dict.fromkeys((*named, *self._wild.find(channel)))

    def restart(self, epoch: str, position: int) -> list[Group]:
        """The log is another one from here on; give the groups whose clients have to resume."""
        with self.lock:
            fresh = not self.epoch
            self.epoch, self.position = epoch, position
            return [] if fresh else self._reread()

    def skip(self, last: int) -> list[Group]:
        """Events were forgotten before they could be passed on; give the groups as above."""
        with self.lock:
            self.position = last
            return self._reread()

    def _reread(self) -> list[Group]:
        """Who reads for itself finds out what it lacks; so does a client that resumes."""
        for audience in self._audiences.values():
            for subscription in audience.waiting or ():
                subscription.reread()
        return [group for audience in self._audiences.values() for group in audience.groups]

    def wait_for(self, number: int, seconds: float) -> bool:
        """Block until `position` has come to a number, at most some seconds; whether it has."""
        with self.lock:
            self._awaited += 1
            try:
                return self._moved.wait_for(lambda: self.position >= number, seconds)
            finally:
                self._awaited -= 1

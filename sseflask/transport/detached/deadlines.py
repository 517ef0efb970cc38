"""What is due for detached streams, without a timer for each."""

from __future__ import annotations

import heapq
import itertools
import math

from sseflask.transport.detached.group import DetachedStream, Group
from sseflask.transport.timing import heartbeat_at

#: Streams that end within the same part of a second are kept together: this many parts.
_MOMENTS = 10


class Deadlines:
    """Heartbeats by group, ends by the moment. All times are the monotonic clock's, in seconds."""

    def __init__(self) -> None:
        self._heartbeats: list[tuple[float, int, Group]] = []
        self._order = itertools.count()
        self._ends: dict[int, set[DetachedStream]] = {}
        self._moments: list[int] = []

    def watch(self, group: Group, now: float) -> None:
        """Have `silent` give a group; harmless to repeat."""
        if not group.watched:
            group.watched = True
            group.last_sent = now
            self._push(group)

    def _push(self, group: Group) -> None:
        due = heartbeat_at(group.last_sent, group.heartbeat)
        heapq.heappush(self._heartbeats, (due, next(self._order), group))

    def end_at(self, stream: DetachedStream, due: float) -> None:
        """Have `over` give a stream when its time has come, or up to a tenth later."""
        moment = stream.due = math.ceil(due * _MOMENTS)
        streams = self._ends.get(moment)
        if streams is None:
            streams = self._ends[moment] = set()
            heapq.heappush(self._moments, moment)
        streams.add(stream)

    def forget(self, stream: DetachedStream) -> None:
        """The stream has ended before."""
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
                group.watched = False  # until a stream joins again
                continue
            # Looked at only now: an event costs nothing here.
            if heartbeat_at(group.last_sent, group.heartbeat) <= now:
                group.last_sent = now
                found.append(group)
            self._push(group)
        return found

    def over(self, now: float) -> list[DetachedStream]:
        """Give the streams whose time is over, each once."""
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

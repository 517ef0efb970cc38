"""What is due for detached streams and when, without a timer for each."""

from __future__ import annotations

import heapq
import itertools
import math

from sseflask.transport.detached.group import Group, Member

__all__ = ["Agenda"]

#: Members that end within the same part of a second are kept together: this many parts.
_MOMENTS = 10


class Agenda:
    """Heartbeats by group, ends by the moment. All times are the monotonic clock's, in seconds."""

    def __init__(self) -> None:
        self._heartbeats: list[tuple[float, int, Group]] = []
        self._order = itertools.count()
        self._ends: dict[int, set[Member]] = {}
        self._moments: list[int] = []

    def watch(self, group: Group, now: float) -> None:
        """Have heartbeats of a group told by `silent`; harmless to repeat."""
        if not group.watched:
            group.watched = True
            group.last_sent = now
            self._push(group)

    def _push(self, group: Group) -> None:
        due = group.last_sent + group.heartbeat
        heapq.heappush(self._heartbeats, (due, next(self._order), group))

    def end_at(self, member: Member, due: float) -> None:
        """Have a member told by `over` when its time has come, or up to a tenth later."""
        moment = math.ceil(due * _MOMENTS)
        member.due = moment
        members = self._ends.get(moment)
        if members is None:
            members = self._ends[moment] = set()
            heapq.heappush(self._moments, moment)
        members.add(member)

    def forget(self, member: Member) -> None:
        """The member has ended otherwise."""
        if member.due:
            members = self._ends.get(member.due)
            if members is not None:
                members.discard(member)
                if not members:
                    del self._ends[member.due]
            member.due = 0

    def silent(self, now: float) -> list[Group]:
        """Give the groups whose heartbeat is due; who asks sends it."""
        found = []
        while self._heartbeats and self._heartbeats[0][0] <= now:
            group = heapq.heappop(self._heartbeats)[2]
            if not group.members:
                group.watched = False  # until somebody joins again
                continue
            # Looked at only now: an event costs nothing here.
            if group.last_sent + group.heartbeat <= now:
                group.last_sent = now
                found.append(group)
            self._push(group)
        return found

    def over(self, now: float) -> list[Member]:
        """Give the members whose time is over, each once."""
        found: list[Member] = []
        while self._moments and self._moments[0] <= now * _MOMENTS:
            for member in self._ends.pop(heapq.heappop(self._moments), ()):
                member.due = 0
                found.append(member)
        return found

    def next(self) -> float:
        """When to ask again; infinite where nothing is planned."""
        while self._moments and self._moments[0] not in self._ends:
            heapq.heappop(self._moments)
        return min(
            self._heartbeats[0][0] if self._heartbeats else math.inf,
            self._moments[0] / _MOMENTS if self._moments else math.inf,
        )

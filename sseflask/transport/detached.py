"""Streams that only wait: a socket and a small record each, no greenlet, no timer.

All their sockets are in one epoll object, edge-triggered, which the event loop watches like any
other descriptor: a client's leaving is noticed at once and costs nothing until then. Everything is
written by one greenlet, job by job; only what a socket did not take is written when it can be.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import time
from collections.abc import Callable, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import gevent
import gevent.monkey
from gevent.event import Event as Signal

from sseflask.transport.agenda import Agenda
from sseflask.transport.backlogs import WATCH, Backlogs
from sseflask.transport.closing import Closing, send_last
from sseflask.transport.fan_out import SLICE, FanOut
from sseflask.transport.flush import let_loop_run
from sseflask.transport.group import Backlog, Group, Member
from sseflask.transport.idle import Idle
from sseflask.transport.jobs import Jobs
from sseflask.transport.stream import half_closed, rotation_notice, token_expired
from sseflask.wire import HEARTBEAT

__all__ = ["Detached"]

log = logging.getLogger("sseflask")

#: Seconds after which nobody asks whether a stream has ended.
_FOR_EVER = 1e9

_READ = 1  # libev's EV_READ
_GONE = select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_EVENTS_AT_ONCE = 1024

_of_hubs: WeakKeyDictionary[Any, Detached] = WeakKeyDictionary()


class Detached:
    """The detached streams of one event loop. Belongs to its thread.

    Attributes:
        jobs: the one greenlet that may write to members.
        on_end: called with each member whose stream has ended, and the bytes of its body.
        on_close: called for each socket that is closed.
        idle: connections whose stream has ended.
    """

    def __init__(self) -> None:
        self.jobs = Jobs()
        self.on_end: Callable[[Member, int], object] = _nobody_asks
        self.on_close: Callable[[], object] = _nobody_asks
        self._members: dict[int, Member] = {}
        self._closing = Closing(self._on_closed)
        self._fan_out = FanOut(self._fall_behind, self._gone)
        self._agenda = Agenda()
        self._empty = Signal()
        self._empty.set()
        self._loop = gevent.get_hub().loop
        # gevent hides it, as it blocks; it is never waited for here.
        self._epoll = gevent.monkey.get_original("select", "epoll")()
        self._backlogs = Backlogs(self._epoll)
        self.idle = Idle(self._epoll, self._closing)
        self._watcher = self._loop.io(self._epoll.fileno(), _READ)
        self._watcher.start(self._on_events)
        self._timer: Any = None
        self._timer_due = math.inf

    @classmethod
    def current(cls) -> Detached:
        """Those of the calling thread's event loop."""
        hub = gevent.get_hub()
        detached = _of_hubs.get(hub)
        if detached is None:
            detached = _of_hubs[hub] = cls()
        return detached

    def __len__(self) -> int:
        """How many connections there are, with those that have no stream any more."""
        return self.count() + len(self.idle)

    def count(self) -> int:
        """How many streams there are, with those that wait for their client's close."""
        return len(self._members) + len(self._closing)

    # -- coming ----------------------------------------------------------------------------------

    def adopt(self, member: Member, ends_at: float) -> None:
        """Take over an open stream to which nothing is left to send.

        Args:
            member: its descriptor is closed here, in the end.
            ends_at: the monotonic time at which it has to end; infinite for never.
        """
        now = time.monotonic()
        group = member.group
        self._members[member.descriptor] = member
        self._empty.clear()
        group.add(member)
        self._agenda.watch(group, now)
        if ends_at < now + _FOR_EVER:
            self._agenda.end_at(member, ends_at)
        self._plan(now)
        try:
            # Reports at once what has happened before.
            self._epoll.register(member.descriptor, WATCH)
        except OSError as error:  # the system's limit on what may be watched
            log.warning("a subscriber can't be watched and is sent away: %s", error)
            self.jobs.add(lambda: self._end([member], _come_back))

    # -- sending: the greenlet of the jobs ---------------------------------------------------------

    def send(self, batch: Sequence[tuple[Group, bytes]]) -> None:
        """Send each group its piece of the body, and let the loop run every few hundred sockets.

        Only in a job. Who gets it is settled before this gives way for the first time.
        """
        now = time.monotonic()
        try:
            with self._closing.descriptors_kept():
                announced = []
                framed: dict[tuple[bool, int], bytes] = {}
                for group, body in batch:
                    key = (group.chunked, id(body))  # one body is for many groups
                    data = framed.get(key)
                    if data is None:
                        data = framed[key] = group.framed(body)
                    group.sent += len(body)
                    group.last_sent = now
                    for member in list(group.lagging or ()):
                        if not self._backlogs.add(member, data):
                            self._cut(member)
                    announced.append((data, group.descriptors[:]))
                for data, descriptors in announced:
                    self._fan_out.write(data, descriptors)
        except Exception:
            # Some have it and some have not: all of them find out what they lack.
            log.exception("delivering to subscribers failed; they are sent away to resume")
            self.send_away([group for group, _ in batch])

    def _fall_behind(self, descriptor: int, data: bytes, sent: int) -> None:
        member = self._members.get(descriptor)
        if member is None or member.index < 0:
            return  # it has ended or left since this was announced
        now = time.monotonic()
        member.group.fall_behind(member)
        self._keep_for(member, Backlog(data, sent, now))

    def _keep_for(self, member: Member, backlog: Backlog) -> None:
        try:
            self._backlogs.keep(member, backlog)
        except OSError:  # it could not be watched in the first place
            self._cut(member)
        self._plan(backlog.progress)

    def _beat(self, groups: Sequence[Group]) -> None:
        with self._closing.descriptors_kept():
            for group in groups:
                group.sent += len(HEARTBEAT)
                self._fan_out.write(group.framed(HEARTBEAT), group.descriptors[:])

    def _end(self, members: Sequence[Member], last: Callable[[Member], bytes]) -> None:
        """Send each its last bytes; the sockets are closed when the clients have closed theirs."""
        with self._closing.descriptors_kept():
            for count, member in enumerate(members, 1):
                ended = member.backlog is not None and member.backlog.last
                if self._members.get(member.descriptor) is member and not ended:
                    self._finish(member, last(member))
                if not count % SLICE:
                    let_loop_run()

    def _finish(self, member: Member, last: bytes) -> None:
        group, backlog = member.group, member.backlog
        data = group.ending(last)
        member.sent += group.sent + len(last)
        group.remove(member)
        self._agenda.forget(member)
        if backlog is None:
            try:
                kept = member.listener is not None
                sent = (os.write if kept else send_last)(member.descriptor, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._release(member)
                return
            if sent == len(data):
                self._conclude(member)
                return
            backlog = Backlog(data, sent, time.monotonic())
            backlog.last = True
            self._keep_for(member, backlog)
        else:
            backlog.add(data)
            backlog.last = True

    # -- the loop ----------------------------------------------------------------------------------

    def _on_events(self) -> None:
        for descriptor, events in self._epoll.poll(0, _EVENTS_AT_ONCE):
            if descriptor in self.idle:
                self.idle.happened(descriptor, events)
                self._note_empty()
            elif events & _GONE:
                if events & _GONE == select.EPOLLRDHUP:
                    self._say_goodbye(descriptor)
                self._gone(descriptor)
            elif events & select.EPOLLOUT:
                member = self._members.get(descriptor)
                if member is not None and member.backlog is not None:
                    self._catch_up(member, member.backlog)

    def _catch_up(self, member: Member, backlog: Backlog) -> None:
        try:
            written = self._backlogs.write(member, backlog)
        except OSError:
            self._release(member)
            return
        if written and backlog.last:
            self._conclude(member)
        elif written:
            member.group.add(member)
            self._agenda.watch(member.group, backlog.progress)

    def _gone(self, descriptor: int) -> None:
        member = self._members.get(descriptor)
        if member is not None:
            self._release(member)
        else:
            self._closing.client_closed(descriptor)

    def _say_goodbye(self, descriptor: int) -> None:
        """A client that may have closed its own side only gets a proper end of what it reads."""
        member = self._members.get(descriptor)
        if member is None or member.backlog is not None:
            return
        group = member.group
        last = b"" if group.resumable else group.failure_frame(half_closed())
        with contextlib.suppress(OSError):
            os.write(descriptor, group.ending(last))

    def _on_timer(self) -> None:
        self._timer_due = math.inf
        now = time.monotonic()
        silent = self._agenda.silent(now)
        if silent:
            self.jobs.add(lambda: self._beat(silent))
        over = self._agenda.over(now)
        if over:
            self.jobs.add(lambda: self._end(over, _last_words))
        for member in self._backlogs.stalled(now):
            self._cut(member)
        self._closing.close_overdue(now)
        self.idle.close_overdue(now)
        self._plan(now)

    def _plan(self, now: float) -> None:
        """See that the timer fires when the next thing is due."""
        due = min(
            self._agenda.next(), self._closing.next(), self._backlogs.next(), self.idle.next()
        )
        if due < self._timer_due:
            if self._timer is not None:
                self._timer.close()
            self._timer_due = due
            self._timer = self._loop.timer(max(0.001, due - now), ref=False)
            self._timer.start(self._on_timer)

    # -- going -------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Send away who can resume elsewhere. Never blocks."""
        self.idle.leave()

        def send_away() -> None:
            members = list(self._members.values())
            self._end([each for each in members if each.group.resumable], _come_back)

        self.jobs.add(send_away)

    def send_away(self, groups: Sequence[Group]) -> None:
        """Send the members of some groups away, to resume. Only in a job."""
        self._end(_all_of(groups), _come_back)

    def finish(self, groups: Sequence[Group]) -> None:
        """End the streams of all members: they have got the last bytes. Only in a job."""
        self._end(_all_of(groups), _nothing)

    def abort(self) -> None:
        """Cut those that are left. Never blocks."""
        for member in list(self._members.values()):
            self._cut(member)

    def wait_until_empty(self, seconds: float) -> bool:
        """Block until no stream is left, and say whether that is so."""
        return bool(self._empty.wait(seconds))

    def _conclude(self, member: Member) -> None:
        self._forget(member)
        if member.listener is None:
            self._closing.half_close(member.descriptor)
        else:
            self.idle.keep(member.descriptor, member.listener, member.unread)
        self._plan(time.monotonic())

    def _cut(self, member: Member) -> None:
        self._forget(member)
        self._closing.reset(member.descriptor)

    def _release(self, member: Member) -> None:
        self._forget(member)
        self._closing.close(member.descriptor)

    def _forget(self, member: Member) -> None:
        self._members.pop(member.descriptor, None)
        self._backlogs.forget(member)
        sent = member.sent
        if member.index >= 0 or (member.group.lagging and member in member.group.lagging):
            member.group.remove(member)
            sent += member.group.sent
        if member.backlog is not None:
            sent -= member.backlog.size
        self._agenda.forget(member)
        try:
            self.on_end(member, max(0, sent))
        except Exception:  # of what somebody has hung into the access log
            log.exception("the end of a subscription could not be logged")

    def _on_closed(self) -> None:
        self.on_close()
        self._note_empty()

    def _note_empty(self) -> None:
        if not len(self):
            self._empty.set()


def _nobody_asks(*_: object) -> None:
    pass


def _come_back(member: Member) -> bytes:
    member.group.sent_away = time.monotonic()
    return rotation_notice(member.retry_jitter)


def _nothing(member: Member) -> bytes:  # noqa: ARG001  # what is called for each member
    return b""


def _last_words(member: Member) -> bytes:
    if member.expires:
        return member.group.failure_frame(token_expired())
    # Its lifetime is over, at a moment of its own.
    member.group.sent_away = time.monotonic()
    return b""


def _all_of(groups: Sequence[Group]) -> list[Member]:
    return [each for group in groups for each in (*group.members, *(group.lagging or ()))]

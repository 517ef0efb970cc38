"""Resuming, by any number of clients at any moment, against a list as the oracle.

One thread plays all parts, so that what happens between any two steps of a subscription is for
Hypothesis to choose: the store grows, trims and is replaced, the tail comes late, clients leave and
come back, read from the store or from their queue, are detached, end at an event of some type, and
are closed.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from unittest import mock

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from sseflask.channels import subscription as limits
from sseflask.channels.channel_feed import ChannelFeed
from sseflask.channels.event_frames import Cursor, encode_event
from sseflask.channels.subscription import Subscription
from sseflask.event import MessageEvent
from sseflask.store import catch_up
from sseflask.store.api import Append, Appended, EventLimits, History, HistoryQuery
from sseflask.store.names import Pattern
from sseflask.store.sqlite.event_database import EventDatabase
from sseflask.transport.detached.group import DetachedStream, Group
from sseflask.wire import Decoder
from tests.unit.store.sqlite.databases import read, small_steps

CHANNELS = ("a", "b", "b.1", "b.2.x")
PATTERNS = ("a", "b", "b.1", "b.*", "b.**", "**", "b.2.x", "none")
KEEP = 5
ALL = 10**6
DONE = frozenset([b"done"])


@dataclass(frozen=True)
class Published:
    cursor: Cursor
    channel: str
    ends: bool

    @property
    def id(self) -> str:
        return str(self.cursor)


@dataclass(eq=False)
class Client:
    """A client, what it has, and what it may do without."""

    patterns: tuple[Pattern, ...]
    owed: set[str]
    """The ids of all that it is to get, and has not been told it can't."""
    until_done: bool = False
    over: bool = False
    """Whether it has had the event that ends its stream."""
    upto: int | None = None
    """The number up to which it may get something, once its stream has been closed."""
    entered: bool = False
    member: DetachedStream | None = None
    received: list[str] = field(default_factory=list)
    last_event_id: str = ""
    decoder: Decoder = field(default_factory=Decoder)
    subscription: Subscription | None = None
    group: Group | None = None

    def wants(self, channel: str) -> bool:
        return any(pattern.matches(channel) for pattern in self.patterns)


class Resuming(RuleBasedStateMachine):
    clients = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.small = ExitStack()
        self.small.enter_context(mock.patch.object(limits, "PAGE", 3))
        self.small.enter_context(mock.patch.object(catch_up, "QUEUE", 4))
        self.small.enter_context(small_steps())
        self.published: list[Published] = []
        self.everyone: list[Client] = []
        self.descriptors = itertools.count(3)
        self.channel_feed = ChannelFeed()
        self.store = self.open_store()
        self.fed = 0
        self.channel_feed.restart(self.store.epoch, 0)
        self.interruption: Callable[[], None] | None = None

    def open_store(self) -> EventDatabase:
        store = EventDatabase(":memory:", EventLimits(KEEP, 10**6))
        store.open()
        return store

    # What the store's thread does; something else may happen before its answer is seen.

    def history(self, query: HistoryQuery) -> History:
        """In steps, between which something else may happen."""
        steps = self.store.history(query)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                history: History = end.value
                break
            self.interrupt()
        self.interrupt()
        return history

    def interrupt(self) -> None:
        interruption, self.interruption = self.interruption, None
        if interruption is not None:
            interruption()

    def kept(self, pattern: Pattern) -> set[str]:
        entries = read(self.store, [pattern], 0, 2**62, ALL)
        return {str(Cursor(self.store.epoch, entry.number)) for entry in entries}

    # -- what is published, and when the tail comes ------------------------------------------------

    @rule(channel=st.sampled_from(CHANNELS), amount=st.integers(1, 4), done=st.integers(0, 8))
    def publish(self, channel: str, amount: int, done: int = 8) -> None:
        """Some events, one of which may be such as ends streams."""
        frames = tuple(
            encode_event(f"{channel} {n}", "done" if n == done else None) for n in range(amount)
        )
        (appended,) = self.store.append([Append(channel, frames)])
        assert isinstance(appended, Appended)
        for place, number in enumerate(range(appended.first, appended.last + 1)):
            event = Published(Cursor(self.store.epoch, number), channel, place == done)
            self.published.append(event)
            for client in self.everyone:
                if client.wants(channel) and not client.over:
                    client.owed.add(event.id)

    @rule(most=st.integers(1, 6))
    def feed(self, most: int) -> None:
        """The tail, as the store's thread reads it."""
        newest = self.store.newest()
        if self.fed >= newest:
            return
        before, entries = self.fed, self.store.since(self.fed, most)
        last = entries[-1].number if entries else newest
        if len(entries) < most:
            last = max(last, newest)
        self.fed = last
        if last - before > len(entries):
            self.end_groups(self.channel_feed.skip(last))
        if entries:
            batch = self.channel_feed.deliver(entries)
            for group, body in batch:
                for client in self.everyone:
                    if client.group is group:
                        self.receive(client, body)
            for client in self.everyone:
                assert client.over == (client.group in batch.ended) or client.group is None
                if client.group in batch.ended:
                    self.break_off(client)

    @rule()
    def replace_the_store(self) -> None:
        self.store.close()
        self.store = self.open_store()
        self.fed = 0
        self.end_groups(self.channel_feed.restart(self.store.epoch, 0))
        assert all(client.group is None for client in self.everyone)

    # -- clients -----------------------------------------------------------------------------------

    @rule(
        target=clients,
        names=st.sets(st.sampled_from(PATTERNS), min_size=1, max_size=3),
        until_done=st.booleans(),
    )
    def arrive(self, names: set[str], until_done: bool) -> Client:
        """A client that wants nothing but what comes from here."""
        start = self.channel_feed.cursor
        client = Client(tuple(Pattern.parse(name) for name in names), set(), until_done)
        client.owed = {
            event.id
            for event in self.published
            if client.wants(event.channel)
            and event.cursor.epoch == start.epoch
            and event.cursor.number > start.number
        }
        self.everyone.append(client)
        self.connect(client, None)
        return client

    @rule(
        target=clients,
        names=st.sets(st.sampled_from(PATTERNS), min_size=1, max_size=3),
        until_done=st.booleans(),
    )
    def arrive_for_all_there_is(self, names: set[str], until_done: bool) -> Client:
        client = Client(tuple(Pattern.parse(name) for name in names), set(), until_done)
        self.everyone.append(client)
        self.connect(client, "earliest")
        return client

    def connect(self, client: Client, presented: str | None) -> None:
        start = self.channel_feed.cursor
        client.decoder, client.upto, client.entered = Decoder(), None, False
        opening = b"" if presented else f"id: {start}\n\n".encode()
        until = DONE if client.until_done else frozenset[bytes]()
        client.subscription = Subscription(
            self.channel_feed, self, client.patterns, start, presented, opening, until
        )
        if presented is None:
            client.last_event_id = str(start)
        if presented == "earliest":
            # What is forgotten before it has read anything it was never promised.
            client.owed = set[str]().union(*map(self.kept, client.patterns))
            self.read(client, 1, None)

    @rule(client=clients)
    def come_back(self, client: Client) -> None:
        if client.subscription is None and client.group is None and not client.over:
            self.connect(client, client.last_event_id or "earliest")

    @rule(client=clients)
    def break_off(self, client: Client) -> None:
        if client.subscription is not None:
            client.subscription.close()
            client.subscription = None
        if client.group is not None:
            assert client.member is not None
            client.group.remove(client.member)
            client.group = client.member = None

    @rule(client=consumes(clients))
    def go_for_good(self, client: Client) -> None:
        self.break_off(client)
        self.everyone.remove(client)

    def end_groups(self, groups: list[Group]) -> None:
        for client in self.everyone:
            if client.group in groups:
                self.break_off(client)

    @rule(pattern=st.sampled_from(PATTERNS))
    def close(self, pattern: str) -> None:
        """Subscribers that are covered by this get what was passed on before."""
        closed = Pattern.parse(pattern)
        ended = [client for client in self.everyone if self.is_in(client, closed)]
        groups = self.channel_feed.close(closed)
        for client in ended:
            assert client.group is None or client.group in groups
            if client.upto is None:
                client.upto = self.channel_feed.position
        self.end_groups(groups)
        assert not any(client.group for client in ended)

    @staticmethod
    def is_in(client: Client, closed: Pattern) -> bool:
        there = client.subscription is not None or client.group is not None
        return there and any(closed.covers(pattern) for pattern in client.patterns)

    @rule(
        client=clients,
        pieces=st.integers(1, 3),
        meanwhile=st.none() | st.tuples(st.sampled_from(CHANNELS), st.integers(1, 8)),
        done=st.integers(0, 8),
        closed=st.none() | st.sampled_from(PATTERNS),
    )
    def read(
        self,
        client: Client,
        pieces: int,
        meanwhile: tuple[str, int] | None,
        done: int = 8,
        closed: str | None = None,
    ) -> None:
        """Advance a subscription; while it waits for the store more may be published and come."""
        if client.subscription is None:
            return

        def interrupt() -> None:
            assert meanwhile is not None
            self.publish(*meanwhile, done)
            self.feed(3)
            if closed is not None:
                self.close(closed)

        self.bring_the_tail_to(client)
        self.interruption = interrupt if meanwhile else None
        client.entered = True
        history = client.subscription.history()
        for _ in range(pieces):
            frames = next(history, None)
            if frames is None:
                break
            self.receive(client, frames)
        self.interruption = None
        self.see_the_end(client)

    def see_the_end(self, client: Client) -> bool:
        """Whether its stream has ended, which is then as it should be."""
        subscription = client.subscription
        if subscription is None or not subscription.ended:
            assert not client.over, "it has had its last event, and goes on"
            return False
        assert client.over or client.upto is not None
        assert list(subscription.history()) == []
        assert subscription.join(True, 15.0) is None
        self.break_off(client)
        return True

    @rule(client=clients)
    def detach(self, client: Client) -> None:
        if client.subscription is None:
            return
        self.bring_the_tail_to(client)
        client.entered = True
        for frames in client.subscription.history():
            self.receive(client, frames)
        if self.see_the_end(client):
            return
        assert client.upto is None, "it was closed, and goes on"
        group = client.subscription.join(True, 15.0)
        assert group is not None
        client.subscription.close()
        client.subscription, client.group = None, group
        client.member = DetachedStream(next(self.descriptors), group, 0.0, 0)
        group.add(client.member)

    def bring_the_tail_to(self, client: Client) -> None:
        """Otherwise a subscription would wait: its client may have seen more on another worker."""
        cursor = Cursor.parse(client.last_event_id)
        if cursor is not None and cursor.epoch == self.channel_feed.epoch:
            while self.channel_feed.position < cursor.number:
                self.feed(100)

    def receive(self, client: Client, frames: bytes) -> None:
        for event in client.decoder.feed(frames):
            if event.event == "gap":
                self.forgive(client, event)
            else:
                self.take(client, event.last_event_id)
        client.last_event_id = client.decoder.last_event_id or client.last_event_id

    def take(self, client: Client, id: str) -> None:
        assert not client.over, "something after the last event"
        id, end, _ = id.partition(".end")
        client.received.append(id)
        cursor = Cursor.parse(id)
        assert cursor is not None
        assert client.upto is None or cursor.number <= client.upto, "published after the close"
        if end:
            client.over = True
            ids = [event.id for event in self.published]
            client.owed.difference_update(ids[ids.index(id) + 1 :])

    def forgive(self, client: Client, event: MessageEvent) -> None:
        fields = json.loads(event.data)
        pattern = Pattern.parse(fields["channel"])
        assert pattern in client.patterns
        presented = Cursor.parse(fields["last_event_id"])
        assert presented is not None
        kept = self.kept(pattern)
        lost = {
            event.id
            for event in self.published
            if pattern.matches(event.channel) and event.id not in kept
        }
        if fields["reason"] == "trimmed":
            assert presented.epoch == self.store.epoch
            assert any(int(id.partition("-")[2]) > presented.number for id in lost), "no gap here"
        else:
            assert fields["reason"] == "epoch"
            assert presented.epoch != self.store.epoch
        client.owed -= lost

    # -- what must hold ----------------------------------------------------------------------------

    @invariant()
    def nothing_twice_and_all_in_order(self) -> None:
        order = {event.id: place for place, event in enumerate(self.published)}
        for client in self.everyone:
            places = [order[id] for id in client.received]
            assert places == sorted(set(places))
            assert all(client.wants(self.published[place].channel) for place in places)

    @invariant()
    def only_an_end_is_an_end(self) -> None:
        ends = {event.id for event in self.published if event.ends}
        for client in self.everyone:
            had = [id for id in client.received if id in ends]
            assert client.over == (client.until_done and bool(had))
            assert not client.over or had == client.received[-1:]

    @invariant()
    def all_are_counted(self) -> None:
        for pattern in map(Pattern.parse, PATTERNS):
            there = sum(
                self.is_in(client, pattern)
                and client.upto is None
                and (client.entered or client.group is not None)
                for client in self.everyone
            )
            assert self.channel_feed.count(pattern) == there

    def teardown(self) -> None:
        try:
            for client in self.everyone:
                self.come_back(client)
            self.interruption = None
            while self.fed < self.store.newest():
                self.feed(100)
            for client in self.everyone:
                self.come_back(client)  # those whose streams were ended
                if client.subscription is not None:
                    self.detach(client)
                if client.upto is not None and not client.over:  # those that had been closed
                    self.come_back(client)
                    self.detach(client)
                assert client.owed <= set(client.received), "lost, and not a word"
        finally:
            self.store.close()
            self.small.close()


TestResuming = Resuming.TestCase
TestResuming.settings = settings(max_examples=100, stateful_step_count=40)

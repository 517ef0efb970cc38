"""Two processes and a server that fails at random: what is acknowledged is delivered, or a gap is.

Every example has a prefix of its own on one server, which saves every change.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from typing import Any

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from sseflask.store.api import Append, Appended, EventStore, StoreError
from sseflask.store.names import Pattern
from tests import redis_server, state_machines
from tests.contract.event_stores import Listener, Place, opened, query
from tests.redis_server import RedisServerProcess

CHANNELS = ["a", "a.b", "c"]

#: Seconds in which the store can be used again after a fault.
BACK = 10.0


class Recorder(Listener):
    """Keeps epochs, events and what was skipped in one order."""

    def __init__(self) -> None:
        super().__init__()
        self.news: list[tuple[Any, ...]] = []

    def started(self, epoch: str, newest: int) -> None:
        super().started(epoch, newest)
        self.news.append(("epoch", epoch, newest))

    def events(self, entries: Any, since: float) -> None:
        self.news += (("event", entry.number, entry.frame) for entry in entries)
        super().events(entries, since)

    def skipped(self, last: int) -> None:
        self.news.append(("skipped", last))
        super().skipped(last)


class Machine(RuleBasedStateMachine):
    server: RedisServerProcess

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.stores: list[EventStore] = []

    @initialize()
    def begin(self) -> None:
        self.url = self.server.place()
        place = Place(self.url, shared=True)
        self.listeners: list[Recorder] = []
        for _ in range(2):
            store, listener = self.stack.enter_context(opened(place, keep=1000, listener=Recorder))
            assert isinstance(listener, Recorder)
            self.stores.append(store)
            self.listeners.append(listener)
            self.usable(store.position)
        self.acknowledged: list[tuple[str, int, bytes]] = []
        self.sent = 0

    def usable(self, call: Callable[[], Any]) -> Any:
        """Call it again until the store can be used."""
        end = time.monotonic() + BACK
        while True:
            try:
                return call()
            except StoreError:
                assert time.monotonic() < end, "the store does not come back"
                time.sleep(0.01)

    @rule(which=st.integers(0, 1), channel=st.sampled_from(CHANNELS), amount=st.integers(1, 4))
    def append(self, which: int, channel: str, amount: int) -> None:
        frames = tuple(b"%d" % (self.sent + place) for place in range(amount))
        self.sent += amount
        append = Append(channel, frames, key=str(self.sent))
        # The key makes it one, however often it is tried.
        result = self.usable(lambda: self.stores[which].append(append))
        assert isinstance(result, Appended)
        self.acknowledged += (
            (result.epoch, number, frame) for number, frame in enumerate(frames, result.first)
        )

    @rule()
    def kill_connections(self) -> None:
        self.server.command("CLIENT", "KILL", "TYPE", "normal")

    @rule()
    def forget_scripts(self) -> None:
        self.server.command("SCRIPT", "FLUSH")

    @rule()
    def restart(self) -> None:
        self.server.stop()
        self.server.start()

    @rule()
    def flush(self) -> None:
        self.server.command("FLUSHALL")

    @rule(kind=st.sampled_from(["tail", "last", "first", "times", "meta", "channel:a"]))
    def throw_away(self, kind: str) -> None:
        with closing(self.server.client()) as client:
            prefix = self.url.partition("prefix=")[2]
            for key in client.scan_iter(f"{{{prefix}}}:e:*{kind}"):
                client.delete(key)

    @rule(which=st.integers(0, 1))
    def close_subscriptions(self, which: int) -> None:
        self.usable(lambda: self.stores[which].close_subscriptions([Pattern.parse("x")]))

    @rule(which=st.integers(0, 1))
    def check_history(self, which: int) -> None:
        asked = query(*CHANNELS, limit=1000)
        history = self.usable(lambda: self.stores[which].history(asked))
        there = {(history.epoch, entry.number, entry.frame) for entry in history.entries}
        if not history.missing:
            current = {each for each in self.acknowledged if each[0] == history.epoch}
            assert current <= there, "not a word of it"

    def check(self, store: EventStore, recorder: Recorder) -> None:
        position = self.usable(store.position)
        end = time.monotonic() + BACK
        while not self.arrived(recorder, position.epoch):
            assert time.monotonic() < end, (position, recorder.news[-20:])
            time.sleep(0.01)
        epoch, at, skipped = "", 0, 0
        given: set[tuple[str, int, bytes]] = set()
        starts: dict[str, int] = {}
        for kind, *rest in recorder.news:
            if kind == "epoch":
                epoch, at = rest
                skipped = 0
                assert epoch not in starts, "an epoch comes once"
                starts[epoch] = at
            elif kind == "skipped":
                assert rest[0] > at
                at = skipped = rest[0]
            else:
                number, frame = rest
                assert number > at, "in order, and each once"
                at = number
                given.add((epoch, number, frame))
        known = {(each, number): frame for each, number, frame in self.acknowledged}
        for each, number, frame in given:
            assert known.get((each, number), frame) == frame, "no number for two events"
        for each, number, frame in self.acknowledged:
            if each == epoch and number > max(starts[epoch], skipped):
                assert (each, number, frame) in given, "it was acknowledged"

    def arrived(self, recorder: Recorder, epoch: str) -> bool:
        """Whether it was given the last event of an epoch, or was told that it won't be."""
        last = max((number for each, number, _ in self.acknowledged if each == epoch), default=0)
        news = recorder.news
        begun = [place for place, each in enumerate(news) if each[0] == "epoch"][-1]
        return news[begun][1] == epoch and any(
            (kind == "event" and rest[0] == last)
            or (kind == "skipped" and rest[0] >= last)
            or (kind == "epoch" and rest[1] >= last)
            for kind, *rest in news[begun:]
        )

    def teardown(self) -> None:
        try:
            for store, recorder in zip(self.stores, self.listeners, strict=True):
                self.check(store, recorder)
            orders = [
                [each[1:] for each in recorder.news if each[0] == "event"]
                for recorder in self.listeners
            ]
            both = set(orders[0]) & set(orders[1])
            assert [each for each in orders[0] if each in both] == [
                each for each in orders[1] if each in both
            ]
        finally:
            self.stack.close()


def test_a_server_that_fails_at_random(program: str) -> None:
    options = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
    with redis_server.running(program, *options) as server:
        state_machines.check(Machine, examples=12, steps=20, server=server)

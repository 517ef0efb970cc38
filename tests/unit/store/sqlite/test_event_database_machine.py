"""A store against a list: nothing is lost without a gap, and nothing comes twice."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from sseflask.store.api import Append, Appended, Entry, History, HistoryQuery, KeyReused, Missing
from sseflask.store.names import Pattern
from sseflask.store.sqlite.event_database import EventDatabase
from sseflask.store.sqlite.pattern_channels import Steps
from tests import state_machines
from tests.unit.store.sqlite.databases import (
    database_at,
    missing,
    read,
    remember_empty_channels,
    small_steps,
)
from tests.unit.store.sqlite.test_event_database import Places, files, memories

SECONDS = 100.0
CHANNELS = ["a", "a.b", "a.c", "b", "a.b.c", *(f"a.{number}" for number in range(6))]

channels = st.sampled_from(CHANNELS)
patterns = st.lists(
    st.sampled_from([*CHANNELS, "none", "*", "**", "a.*", "a.**", "*.b", "*.**"]).map(
        Pattern.parse
    ),
    min_size=1,
    max_size=3,
    unique=True,
)
appends = st.lists(
    st.tuples(channels, st.integers(1, 3), st.none() | st.integers(0, 5), st.integers(0, 3)),
    min_size=1,
    max_size=5,
)
remembered = st.none() | st.integers(0, 2)
# Fractions of what there is, so that they fall among the numbers in use.
shares = st.floats(0, 1.1)


class Machine(RuleBasedStateMachine):
    places: Places

    @initialize(keep=st.integers(1, 25), many=st.none() | st.integers(1, 4), remembered=remembered)
    def begin(self, keep: int, many: int | None, remembered: int | None) -> None:
        self.keep = keep
        self.forgetful = remembered is not None
        self.now = self.forward = 1_800_000_000.0
        self.everything: list[Entry] = []
        self.appended_at: list[float] = []
        self.keys: dict[str, tuple[bytes, Appended]] = {}
        self.stack = ExitStack()
        if many is not None:
            self.stack.enter_context(small_steps(many=many))
        if remembered is not None:
            self.stack.enter_context(remember_empty_channels(remembered))
        self.place = self.stack.enter_context(self.places())
        self.logs = [self.open() for _ in range(1 if self.place is None else 2)]
        self.epoch = self.logs[0].epoch
        self.reading: tuple[int, list[Pattern], int, int, int, Steps[History]] | None = None

    def open(self) -> EventDatabase:
        store = database_at(self.place, keep=self.keep, seconds=SECONDS, clock=lambda: self.now)
        self.stack.callback(store.close)
        store.open()
        return store

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    @rule(which=st.integers(0, 1), group=appends)
    def append(self, which: int, group: list[tuple[str, int, int | None, int]]) -> None:
        asked, expected = [], list[Appended | KeyReused]()
        for channel, amount, key, variant in group:
            newest = len(self.everything)
            frames = tuple(b"%d.%d" % (newest, index) for index in range(amount))
            name, digest = None if key is None else f"key {key}", b"%d" % variant
            asked.append(Append(channel, frames, name, digest))
            if name in self.keys:
                known, result = self.keys[name]
                same = Appended(result.first, result.last, repeated=True)
                expected.append(same if known == digest else KeyReused(name))
                continue
            result = Appended(newest + 1, newest + amount)
            expected.append(result)
            if name is not None:
                self.keys[name] = (digest, result)
            for number, frame in enumerate(frames, newest + 1):
                self.everything.append(Entry(number, channel, frame))
                self.appended_at.append(self.forward)
        assert self.logs[which % len(self.logs)].append(asked) == expected

    @rule(
        which=st.integers(0, 1),
        asked=patterns,
        share=shares,
        end=shares,
        limit=st.integers(1, 9),
    )
    def read(self, which: int, asked: list[Pattern], share: float, end: float, limit: int) -> None:
        store = self.logs[which % len(self.logs)]
        after, upto = (round(part * len(self.everything)) for part in (share, end))
        meant = [entry for entry in self.meant(asked, after) if entry.number <= upto]
        assert read(store, asked, after, upto, limit) == meant[:limit]
        self.check_missing(asked, after, missing(store, asked, after), self.lacking(asked, after))

    def meant(self, asked: list[Pattern], after: int) -> list[Entry]:
        return [
            entry
            for entry in self.logs[0].since(after, 1_000_000)
            if any(pattern.matches(entry.channel) for pattern in asked)
        ]

    def lacking(self, asked: list[Pattern], after: int) -> list[Missing]:
        numbers = {entry.number for entry in self.logs[0].since(0, 1_000_000)}
        found = []
        for pattern in asked:
            its = [entry for entry in self.everything if pattern.matches(entry.channel)]
            if any(entry.number > after and entry.number not in numbers for entry in its):
                left = [entry.number for entry in its if entry.number in numbers]
                ends = (left[0], left[-1]) if left else (None, None)
                found.append(Missing(pattern, *ends))
        return found

    def check_missing(
        self, asked: list[Pattern], after: int, gap: list[Missing], expected: list[Missing]
    ) -> None:
        if not self.forgetful:
            assert gap == expected
            return
        # Of channels that it does not remember it tells too much, but never too little.
        assert [missing for missing in gap if missing in expected] == expected
        assert [missing.pattern for missing in gap] == [
            pattern for pattern in asked if any(pattern == each.pattern for each in gap)
        ]
        if len(gap) > len(expected):
            numbers = {entry.number for entry in self.logs[0].since(0, 1_000_000)}
            assert any(n not in numbers for n in range(after + 1, len(self.everything) + 1))

    @rule(which=st.integers(0, 1), asked=patterns, share=shares, limit=st.integers(1, 9))
    def begin_reading(self, which: int, asked: list[Pattern], share: float, limit: int) -> None:
        """A reading in steps, between which anything may be done, also by another process."""
        after = round(share * len(self.everything))
        steps = self.logs[which % len(self.logs)].history(HistoryQuery(tuple(asked), after, limit))
        self.reading = (which, asked, after, limit, len(self.everything), steps)

    @precondition(lambda self: self.reading is not None)
    @rule(most=st.integers(1, 10))
    def go_on_reading(self, most: int) -> None:
        assert self.reading is not None
        _, asked, after, limit, published, steps = self.reading
        try:
            for _ in range(most):
                next(steps)
        except StopIteration as end:
            self.reading = None
            history = end.value
        else:
            return
        assert history.newest >= min(published, history.last)
        assert len(history.entries) <= limit
        there = {entry.number for entry in self.meant(asked, after)}
        found = {entry.number for entry in history.entries}
        assert all(self.everything[number - 1] in history.entries for number in found)
        assert {number for number in there if number <= history.last} <= found
        lost = {missing.pattern for missing in history.missing}
        for entry in self.everything[after : history.last]:
            if entry.number in found:
                continue
            for pattern in asked:
                # Trimmed before it was read, and reported; or else it is not what was asked.
                assert not pattern.matches(entry.channel) or pattern in lost

    @rule(which=st.integers(0, 1), share=shares, limit=st.integers(1, 9))
    def since(self, which: int, share: float, limit: int) -> None:
        store = self.logs[which % len(self.logs)]
        after = round(share * len(self.everything))
        there = store.since(0, 1_000_000)
        assert (
            store.since(after, limit) == [entry for entry in there if entry.number > after][:limit]
        )
        store.newest()
        assert not store.changed()

    @rule(seconds=st.sampled_from([1.0, 30.0, 99.0, 101.0, 1e8, -1.0, -50.0, -1e8]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        # A key may be forgotten after a day, and has to be known until then.
        self.forward += max(0.0, seconds)
        if seconds > 86_400:
            self.keys.clear()
            while any(store.trim() for store in self.logs):
                pass
            self.delete_old_keys()

    def delete_old_keys(self) -> None:
        """Let time pass that certainly is no jump: what is older than a day is forgotten."""
        for _ in range(2):
            self.now += 86_401
            self.forward += 86_401
            while any(store.trim() for store in self.logs):
                pass

    @rule(which=st.integers(0, 1))
    def trim(self, which: int) -> None:
        store = self.logs[which % len(self.logs)]
        before = len(store.since(0, 1_000_000))
        removed = store.trim()
        assert len(store.since(0, 1_000_000)) == before - removed

    @rule(which=st.integers(0, 1), rounds=st.integers(1, 3))
    def forget_everything(self, which: int, rounds: int) -> None:
        """So that channels come, are no longer remembered, and come again."""
        for _ in range(rounds):
            self.pass_time(101.0)
            self.append(which, [(CHANNELS[len(self.everything) % len(CHANNELS)], 1, None, 0)])
            self.trim(which)

    @precondition(lambda self: self.place is not None)
    @rule(which=st.integers(0, 1))
    def open_again(self, which: int) -> None:
        self.logs[which].close()
        self.logs[which] = self.open()
        if self.reading is not None and self.reading[0] == which:
            self.reading = None

    @invariant()
    def holds_what_it_has_to_hold(self) -> None:
        if not hasattr(self, "logs"):
            return
        there = self.logs[0].since(0, 1_000_000)
        assert all(store.since(0, 1_000_000) == there for store in self.logs)
        assert all(store.newest() == len(self.everything) for store in self.logs)
        assert all(store.epoch == self.epoch and not store.replaced() for store in self.logs)
        # Nothing that was not appended, nothing twice, in order.
        assert there == [self.everything[entry.number - 1] for entry in there]
        assert all(one.number < two.number for one, two in pairwise(there))
        numbers = {entry.number for entry in there}
        held = dict.fromkeys(CHANNELS, 0)
        for entry in reversed(self.everything):
            held[entry.channel] += 1
            young = self.forward - self.appended_at[entry.number - 1] <= SECONDS
            if young and held[entry.channel] <= self.keep:
                assert entry.number in numbers
            if held[entry.channel] > self.keep + self.keep // 10:
                assert entry.number not in numbers


@pytest.mark.parametrize("kind", [files, memories])
def test_against_a_list(kind: Places) -> None:
    state_machines.check(Machine, examples=100, steps=40, places=staticmethod(kind))

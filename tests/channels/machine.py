"""A log against a list: whatever is done to it, nothing is lost unsaid and nothing comes twice."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise
from typing import TYPE_CHECKING

import hypothesis
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from sseflask.channels.log import Append, Appended, Entry, KeyReused, Log, Missing
from sseflask.channels.names import Pattern

if TYPE_CHECKING:
    from tests.channels.contract import Stores

SECONDS = 100.0
CHANNELS = ["a", "a.b", "a.c", "b", "a.b.c"]

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
    st.tuples(channels, st.integers(1, 7), st.none() | st.integers(0, 5), st.integers(0, 3)),
    min_size=1,
    max_size=5,
)
# Fractions of what there is, so that they fall among the numbers in use.
shares = st.floats(0, 1.1)


def check_against_a_list(stores: Stores) -> None:
    """Run the machine, with a new store for each of its lives."""

    class Machine(RuleBasedStateMachine):
        @initialize(keep=st.integers(1, 25))
        def begin(self, keep: int) -> None:
            self.keep = keep
            self.now = self.forward = 1_800_000_000.0
            self.everything: list[Entry] = []
            self.appended_at: list[float] = []
            self.keys: dict[str, tuple[bytes, Appended]] = {}
            self.stack = ExitStack()
            self.store = self.stack.enter_context(stores())
            self.logs = [self.open() for _ in range(2 if self.store.shared else 1)]
            self.epoch = self.logs[0].epoch

        def open(self) -> Log:
            log = self.store.log(keep=self.keep, seconds=SECONDS, clock=lambda: self.now)
            self.stack.callback(log.close)
            log.open()
            return log

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
        def read(
            self, which: int, asked: list[Pattern], share: float, end: float, limit: int
        ) -> None:
            log = self.logs[which % len(self.logs)]
            after, upto = (round(part * len(self.everything)) for part in (share, end))
            there = log.since(0, 1_000_000)
            meant = [
                entry
                for entry in there
                if after < entry.number <= upto
                and any(pattern.matches(entry.channel) for pattern in asked)
            ]
            assert log.read(asked, after, upto, limit) == meant[:limit]
            numbers = {entry.number for entry in there}
            expected = []
            for pattern in asked:
                its = [entry for entry in self.everything if pattern.matches(entry.channel)]
                if any(entry.number > after and entry.number not in numbers for entry in its):
                    left = [entry.number for entry in its if entry.number in numbers]
                    ends = (left[0], left[-1]) if left else (None, None)
                    expected.append(Missing(pattern, *ends))
            assert log.missing(asked, after) == expected

        @rule(which=st.integers(0, 1), share=shares, limit=st.integers(1, 9))
        def since(self, which: int, share: float, limit: int) -> None:
            log = self.logs[which % len(self.logs)]
            after = round(share * len(self.everything))
            there = log.since(0, 1_000_000)
            assert (
                log.since(after, limit)
                == [entry for entry in there if entry.number > after][:limit]
            )
            assert not log.changed()

        @rule(seconds=st.sampled_from([1.0, 30.0, 99.0, 101.0, 1e8, -1.0, -50.0, -1e8]))
        def pass_time(self, seconds: float) -> None:
            self.now += seconds
            # A key may be forgotten after a day, and has to be known until then.
            self.forward += max(0.0, seconds)
            if seconds > 86_400:
                self.keys.clear()
                while any(log.trim() for log in self.logs):
                    pass
                self.forget_keys()

        def forget_keys(self) -> None:
            """Let time pass that certainly is no jump: what is older than a day is forgotten."""
            for _ in range(2):
                self.now += 86_401
                self.forward += 86_401
                while any(log.trim() for log in self.logs):
                    pass

        @rule(which=st.integers(0, 1))
        def trim(self, which: int) -> None:
            log = self.logs[which % len(self.logs)]
            before = len(log.since(0, 1_000_000))
            removed = log.trim()
            assert len(log.since(0, 1_000_000)) == before - removed

        @precondition(lambda self: self.store.shared)
        @rule(which=st.integers(0, 1))
        def open_again(self, which: int) -> None:
            self.logs[which].close()
            self.logs[which] = self.open()

        @invariant()
        def holds_what_it_has_to_hold(self) -> None:
            if not hasattr(self, "logs"):
                return
            there = self.logs[0].since(0, 1_000_000)
            assert all(log.since(0, 1_000_000) == there for log in self.logs)
            assert all(log.newest() == len(self.everything) for log in self.logs)
            assert all(log.epoch == self.epoch and not log.replaced() for log in self.logs)
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

    # The last hypothesis for Python 3.10 has no types here.
    run_state_machine_as_test(  # type: ignore[no-untyped-call,unused-ignore]
        Machine,
        settings=hypothesis.settings(
            hypothesis.settings(), max_examples=60, stateful_step_count=30, deadline=None
        ),
    )

"""An event store against a list: nothing is lost without a gap, and nothing comes twice."""

from __future__ import annotations

from contextlib import ExitStack
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from sseflask.store.api import Append, Appended, Entry, EventStore, HistoryQuery, KeyReused
from sseflask.store.names import Pattern
from tests import state_machines
from tests.contract.event_stores import BACKENDS, Listener, Places, opened

CHANNELS = ["a", "a.b", "a.c", "b", "a.b.c"]
PATTERNS = [Pattern.parse(text) for text in [*CHANNELS, "none", "*", "**", "a.*", "a.**", "*.b"]]


class Machine(RuleBasedStateMachine):
    """One store, or two of one place."""

    places: Places

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()

    @initialize(keep=st.integers(1, 25))
    def begin(self, keep: int) -> None:
        self.keep = keep
        self.place = self.stack.enter_context(self.places())
        self.everything: list[Entry] = []
        self.keys: dict[str, tuple[bytes, Appended]] = {}
        self.closes: list[tuple[str, int]] = []
        self.stores: list[tuple[EventStore, Listener]] = []
        self.ends: list[ExitStack] = []
        for _ in range(2 if self.place.shared else 1):
            self.start()

    def start(self, place: int | None = None) -> None:
        """Open a store, instead of another one or beside the others."""
        end = self.stack.enter_context(ExitStack())
        own = end.enter_context(opened(self.place, keep=self.keep))
        at = own[0].position()
        assert own[1].started_at == [at]
        assert at.number == len(self.everything)
        if place is None:
            self.stores.append(own)
            self.ends.append(end)
        else:
            self.stores[place], self.ends[place] = own, end

    def store(self, which: int) -> EventStore:
        return self.stores[which % len(self.stores)][0]

    @rule(
        which=st.integers(0, 1),
        channel=st.sampled_from(CHANNELS),
        amount=st.integers(1, 6),
        key=st.none() | st.sampled_from("kl"),
        digest=st.sampled_from([b"1", b"2"]),
    )
    def append(self, which: int, channel: str, amount: int, key: str | None, digest: bytes) -> None:
        newest = len(self.everything)
        frames = tuple(b"%d" % (newest + place) for place in range(amount))
        result = self.store(which).append(Append(channel, frames, key, digest))
        if key in self.keys:
            known, before = self.keys[key]
            same = Appended(before.first, before.last, repeated=True)
            assert result == (same if known == digest else KeyReused(key))
            return
        assert result == Appended(newest + 1, newest + amount)
        for number, frame in enumerate(frames, newest + 1):
            self.everything.append(Entry(number, channel, frame))
        if key is not None:
            self.keys[key] = digest, result

    @rule(
        which=st.integers(0, 1),
        asked=st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=3, unique=True),
        share=st.floats(0, 1.1),
        limit=st.integers(1, 9),
    )
    def read(self, which: int, asked: list[Pattern], share: float, limit: int) -> None:
        after = round(share * len(self.everything))
        history = self.store(which).history(HistoryQuery(tuple(asked), after, limit))
        assert history.newest == len(self.everything)
        assert len(history.entries) <= limit
        assert all(self.everything[entry.number - 1] == entry for entry in history.entries)
        assert all(one.number < two.number for one, two in pairwise(history.entries))
        assert history.last > after or history.last >= history.newest
        given = {entry.number for entry in history.entries}
        missing = {each.pattern for each in history.missing}
        kept = dict.fromkeys(CHANNELS, self.keep)
        for entry in reversed(self.everything):
            kept[entry.channel] -= 1
            meant = [pattern for pattern in asked if pattern.matches(entry.channel)]
            if not after < entry.number <= history.last or not meant:
                assert entry.number not in given
            elif entry.number not in given:
                assert kept[entry.channel] < 0, "it had to be kept"
                assert missing.issuperset(meant), "not a word of it"

    @rule(which=st.integers(0, 1), pattern=st.sampled_from(PATTERNS))
    def close_subscriptions(self, which: int, pattern: Pattern) -> None:
        self.store(which).close_subscriptions([pattern])
        self.closes.append((str(pattern), len(self.everything)))

    @precondition(lambda self: self.place.shared)
    @rule(which=st.integers(0, 1))
    def start_again(self, which: int) -> None:
        self.check(*self.stores[which])
        self.ends[which].close()
        self.start(which)

    def check(self, store: EventStore, listener: Listener) -> None:
        """A listener got everything since it began, or a notice of what it did not get."""
        ((_, start),) = listener.started_at
        at = store.position().number  # and so all has come
        assert at == len(self.everything)
        upto = start
        closes = [close for close in self.closes if close[1] > start]
        for each in listener.order:
            if isinstance(each, int):
                assert each > upto
                assert all(
                    self.everything[each - 1] == e for e in listener.entries if e.number == each
                )
                upto = each
            elif isinstance(each, tuple):
                assert each[1] > upto
        skipped = max((each[1] for each in listener.order if isinstance(each, tuple)), default=0)
        given = {each for each in listener.order if isinstance(each, int)}
        assert all(n in given or n <= skipped for n in range(start + 1, at + 1))
        # Each close after all events before it, and before all events after it.
        places = [place for place, each in enumerate(listener.order) if isinstance(each, str)]
        for place, (text, after) in zip(places[len(places) - len(closes) :], closes, strict=True):
            assert listener.order[place] == text
            before = [each for each in listener.order[:place] if isinstance(each, int)]
            behind = [each for each in listener.order[place:] if isinstance(each, int)]
            assert max(before, default=0) <= after < min(behind, default=after + 1)

    def teardown(self) -> None:
        try:
            for own in getattr(self, "stores", ()):
                self.check(*own)
        finally:
            self.stack.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_against_a_list(backend: str) -> None:
    state_machines.check(Machine, examples=50, steps=30, places=staticmethod(BACKENDS[backend]))

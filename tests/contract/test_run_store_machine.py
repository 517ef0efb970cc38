"""Run stores against a list: every process is given the same of each run, each frame once."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field

import hypothesis.strategies as st
import pytest
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
)

from sseflask.store.api import KeyReused
from sseflask.store.run_api import Ending, PassedOn, Run, RunStore, TooMany, size_of
from tests import state_machines
from tests.contract.run_stores import (
    BACKENDS,
    ENDINGS,
    Listener,
    Places,
    everything,
    frames_of,
    fresh,
    numbered,
    opened,
    put,
)

#: Running runs of an account at most.
MOST = 5

which = st.integers(0, 1)
place = st.integers(0, 9)
outcome = st.sampled_from([b"finished", b"stopped"])


@dataclass
class Expected:
    """A run as it has to be, and the frame after which each process follows it."""

    run: Run
    writer: int | None  # None while it waits for one
    key: str | None
    digest: bytes
    successor: bytes
    followed: dict[int, int]
    heirs: list[int] = field(default_factory=list)
    ended_by: int | None = None
    told: set[int] = field(default_factory=set)  # the processes that are to know of the end


class Machine(RuleBasedStateMachine):
    """One store, or two of one place."""

    places: Places

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()

    @initialize()
    def begin(self) -> None:
        self.place = self.stack.enter_context(self.places())
        self.runs: list[Expected] = []
        self.keys: dict[str, Expected] = {}
        self.left: set[int] = set()  # the processes that inherit nothing
        self.processes: list[tuple[RunStore, Listener]] = [
            self.stack.enter_context(opened(self.place))
            for _ in range(2 if self.place.shared else 1)
        ]

    def number(self, which: int) -> int:
        return which % len(self.processes)

    def store(self, which: int) -> RunStore:
        return self.processes[self.number(which)][0]

    def one(self, place: int) -> Expected:
        return self.runs[place % len(self.runs)]

    @property
    def running(self) -> int:
        return sum(each.run.ended is None for each in self.runs)

    def end_in_model(self, each: Expected, ending: Ending, by: int) -> None:
        run = each.run
        last = b"notes %d" % run.last if run.last else b""
        each.run = run._replace(ended=run.last + 1, outcome=ending.outcome, notes=last)
        each.ended_by = by
        each.told = {*each.followed, by}
        if ending.frees_key and not run.last and each.key is not None:
            del self.keys[each.key]

    def wait_for_end(self, each: Expected) -> None:
        for number in each.told:
            assert self.processes[number][1].wait_for_end(each.run) == each.run

    # -- what happens --------------------------------------------------------------------------

    @rule(
        which=which,
        key=st.none() | st.sampled_from("kl"),
        digest=st.sampled_from([b"1", b"2"]),
        successor=st.sampled_from([b"", b"go on"]),
    )
    def claim(self, which: int, key: str | None, digest: bytes, successor: bytes) -> None:
        claim = fresh(key, digest, most=MOST, successor=successor)
        result = self.store(which).claim(claim)
        known = None if key is None else self.keys.get(key)
        if known is not None:
            if known.digest == digest:
                assert result == (known.run, True)
            else:
                assert result == KeyReused(known.key or "")
        elif self.running >= MOST:
            assert result == TooMany(MOST)
        else:
            assert isinstance(result, tuple)
            run, repeated = result
            assert not repeated
            assert run == Run(run.key, claim.id, claim.label, 0)
            number = self.number(which)
            each = Expected(run, number, key, digest, successor, {number: 0})
            self.runs.append(each)
            if key is not None:
                self.keys[key] = each

    @precondition(lambda self: self.runs)
    @rule(place=place, amount=st.integers(0, 30), ending=st.none() | outcome)
    def append(self, place: int, amount: int, ending: bytes | None) -> None:
        each = self.one(place)
        if each.writer is None:
            return
        store, listener = self.processes[each.writer]
        goes_on, first = each.run.ended is None, each.run.last + 1
        put(store, each.run, first, amount, None if ending is None else Ending(ending))
        if not goes_on:
            return  # it is refused
        each.run = each.run._replace(last=each.run.last + amount)
        if ending is not None:
            self.end_in_model(each, Ending(ending), each.writer)
            self.wait_for_end(each)
        elif amount:
            listener.wait_for_frame(each.run, each.run.last)

    @precondition(lambda self: self.runs)
    @rule(which=which, place=place, ending=outcome, frees_key=st.booleans(), soon=st.booleans())
    def end(self, which: int, place: int, ending: bytes, frees_key: bool, soon: bool) -> None:
        each, how = self.one(place), Ending(ending, frees_key)
        goes_on = each.run.ended is None
        if goes_on:
            self.end_in_model(each, how, self.number(which))
        if not soon:
            assert self.store(which).end(each.run.key, how) == each.run
        elif goes_on:
            self.store(which).end_soon(each.run.key, how)
        if goes_on:
            self.wait_for_end(each)

    @precondition(lambda self: self.runs)
    @rule(which=which, place=place)
    def attach(self, which: int, place: int) -> None:
        each = self.one(place)
        assert self.store(which).attach(each.run.key) == each.run
        if each.run.ended is None:
            each.followed.setdefault(self.number(which), each.run.last)

    @precondition(lambda self: self.runs)
    @rule(which=which, place=place)
    def detach(self, which: int, place: int) -> None:
        each, number = self.one(place), self.number(which)
        if number == each.writer or each.run.ended is not None or number not in each.followed:
            return
        store, listener = self.processes[number]
        if each.run.last > each.followed[number]:
            listener.wait_for_frame(each.run, each.run.last)
        store.detach(each.run.key)
        store.find(each.run.id, "alice")  # so that it has
        self.check_frames(each, number)
        del each.followed[number]
        listener.seen.pop(each.run.key, None)

    @rule(which=which)
    def leave(self, which: int) -> None:
        number = self.number(which)
        self.left.add(number)
        self.store(which).leave()
        for each in self.runs:
            if each.writer != number or each.run.ended is not None:
                continue
            if each.successor:
                self.pass_on(each, number)
            else:
                self.end_in_model(each, ENDINGS.interrupted, number)
                self.wait_for_end(each)

    def pass_on(self, each: Expected, number: int) -> None:
        """A process has left a run: the other one goes on with it, or none."""
        listener = self.processes[number][1]
        listener.wait_until_passed_on(each.run)
        self.check_frames(each, number)
        del each.followed[number]
        listener.seen.pop(each.run.key, None)
        heirs = [heir for heir in range(len(self.processes)) if heir not in self.left]
        each.writer = heirs[0] if heirs else None
        if each.writer is None:
            return
        listener = self.processes[each.writer][1]
        last = each.run.last
        notes = b"notes %d" % last if last else b""
        expected = each.run._replace(notes=notes, size=size_of(frames_of(1, last)))
        assert listener.wait_for_inheritance(each.run) == expected
        each.followed.setdefault(each.writer, last)
        each.heirs.append(each.writer)

    @precondition(lambda self: self.runs)
    @rule(which=which, place=place, after=st.integers(0, 40), limit=st.integers(1, 20))
    def look(self, which: int, place: int, after: int, limit: int) -> None:
        each, store = self.one(place), self.store(which)
        assert store.find(each.run.id, "alice") == each.run
        assert store.find(each.run.id, "bob") is None
        there = numbered(1, each.run.last)[after : after + limit]
        assert store.frames(each.run.key, after, limit) == there

    # -- what has come of it -------------------------------------------------------------------

    def check_frames(self, each: Expected, number: int) -> None:
        seen = self.processes[number][1].seen.get(each.run.key, [])
        after = each.followed[number]
        assert seen == numbered(after + 1, each.run.last - after)

    def check(self, each: Expected) -> None:
        for number, after in each.followed.items():
            listener = self.processes[number][1]
            if each.run.ended is None and each.run.last > after:
                listener.wait_for_frame(each.run, each.run.last)
            self.check_frames(each, number)
        for number, (store, listener) in enumerate(self.processes):
            ends = [end for end in listener.ends if end[0].key == each.run.key]
            assert [run for run, _ in ends] == [each.run] * len(ends)
            assert [here for _, here in ends].count(True) == (each.ended_by == number)
            assert len(ends) >= (number in each.told)
            assert all(isinstance(error, PassedOn) for _, error in listener.gone)
            assert len(listener.inherited_as(each.run)) == each.heirs.count(number)
            assert everything(store, each.run) == numbered(1, each.run.last)

    def teardown(self) -> None:
        try:
            for each in getattr(self, "runs", ()):
                self.check(each)
        finally:
            self.stack.close()


@pytest.mark.parametrize("backend", BACKENDS)
def test_against_a_list(backend: str) -> None:
    state_machines.check(Machine, examples=30, steps=30, places=staticmethod(BACKENDS[backend]))

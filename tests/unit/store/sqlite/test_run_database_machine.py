"""A database of runs, used by several processes, against a model of a few dictionaries.

Each connection stands for a process. One that does nothing for a while, as time goes on, is one
that is paused: the others take it for dead.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.runs.outcome import OutcomeKind
from sseflask.store.api import KeyReused
from sseflask.store.run_api import Claim, StoreFull, TooMany
from sseflask.store.sqlite.run_database import RunDatabase
from tests import memory
from tests.clock import Clock
from tests.unit.store.sqlite.run_databases import (
    append_of,
    end,
    everything,
    frames_of,
    fresh,
    is_stored,
    numbers,
    opened,
    outcome_of,
    used_by,
)

SECONDS = 20.0
DEAD, AWAY, FRESH, READ = 5.0, 3.0, 2.0, 10.0
MOST = 4
#: Bytes of the store: some large appends more than its tables take.
LOG_BYTES = 250_000
LARGE = 60_000

KINDS: tuple[OutcomeKind, ...] = ("finished", "stopped", "cancelled")
which = st.integers(0, 2)
place = st.integers(0, 11)


@dataclass(eq=False)
class Process:
    """A process: when it was last heard of, and what for."""

    store: RunDatabase
    life: int
    """Grows each time that it has to begin anew."""
    known: bool = True
    beat: float = 0.0
    ticked: float = -1000.0


@dataclass(eq=False)
class Expected:
    """A run as it has to be."""

    number: int
    id: str
    subject: str
    key: str | None
    digest: bytes
    writer: tuple[Process, int]
    last: int = 0
    kind: str | None = None
    ended_at: float = 0.0
    watchers: set[Process] = field(default_factory=set)


class Logs(RuleBasedStateMachine):
    @initialize(amount=st.integers(2, 3))
    def begin(self, amount: int) -> None:
        self.stack = ExitStack()
        self.clock = Clock()
        self.path = Path(self.stack.enter_context(memory.directory()), "runs.db")
        self.runs: list[Expected] = []
        self.lives = 0
        self.processes = [self.process() for _ in range(amount)]

    def process(self) -> Process:
        store = self.stack.enter_context(
            opened(self.path, clock=self.clock, seconds=SECONDS, most_bytes=LOG_BYTES)
        )
        self.lives += 1
        return Process(store, self.lives, beat=self.clock.now)

    def teardown(self) -> None:
        if hasattr(self, "stack"):
            self.stack.close()

    def one(self, which: int) -> Process:
        return self.processes[which % len(self.processes)]

    def run(self, place: int) -> Expected | None:
        return self.runs[place % len(self.runs)] if self.runs else None

    # -- the model -----------------------------------------------------------------------------

    def enter(self, process: Process) -> None:
        process.beat = self.clock.now
        if not process.known:
            self.lives += 1
            process.life, process.known = self.lives, True

    def forget(self, process: Process) -> None:
        process.known = False
        for run in self.runs:
            run.watchers.discard(process)

    def may_write(self, process: Process, run: Expected) -> bool:
        return run.kind is None and process.known and run.writer == (process, process.life)

    def end_in_model(self, run: Expected, kind: str) -> None:
        run.kind, run.ended_at = kind, self.clock.now
        if kind == "failed" and not run.last:
            run.key = None  # a repetition is to begin anew
        run.watchers.clear()

    def expired(self, run: Expected) -> bool:
        return run.kind is not None and run.ended_at < self.clock.now - SECONDS

    # -- what happens --------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 1.0, 2.0, 2.9, 3.1, 5.1, 19.0, 21.0]))
    def time_goes_on(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(seconds=st.integers(1, 8), paused=which)
    def all_but_one_go_on(self, seconds: int, paused: int) -> None:
        for _ in range(seconds):
            self.clock.now += 1
            for place in range(len(self.processes)):
                if place != paused:
                    self.tick(place)

    @rule(which=which)
    def tick(self, which: int) -> None:
        process = self.one(which)
        self.enter(process)
        away, process.ticked = self.clock.now - process.ticked, self.clock.now
        expected: list[Expected] = []
        if away <= AWAY:
            for other in self.processes:
                if other.known and other.beat < self.clock.now - DEAD:
                    self.forget(other)
            alive = {(other, other.life) for other in self.processes if other.known}
            expected = [run for run in self.runs if run.kind is None and run.writer not in alive]
        ended = process.store.leases.tick()
        assert {run.key for run in ended} == {run.number for run in expected}
        for run in expected:
            self.end_in_model(run, "failed")

    @rule(
        which=which,
        key=st.none() | st.sampled_from("kl"),
        digest=st.sampled_from([b"1", b"1", b"2"]),
        account=st.sampled_from(["alice", "bob"]),
    )
    def claim(self, which: int, key: str | None, digest: bytes, account: str) -> None:
        claim = fresh(key, digest, subject=account, account=account, most=MOST)
        self.begin_run(which, claim)

    def begin_run(self, which: int, claim: Claim) -> None:
        process, key, digest, account = self.one(which), claim.key, claim.digest, claim.account
        while process.store.space.full and self.make_room(which):
            pass
        try:
            claimed = process.store.claim(claim)
        except StoreFull:
            assert process.store.space.full
            assert all(run.key != key or key is None or self.expired(run) for run in self.runs)
            for old in self.runs:
                if key is not None and old.key == key:
                    old.key = None
            return
        holders = [
            run for run in self.runs if key is not None and run.key == key and not self.expired(run)
        ]
        if holders:
            (holder,) = holders
            if holder.digest == digest:
                assert isinstance(claimed, tuple)
                assert (claimed[0].key, claimed[1]) == (holder.number, True)
            else:
                assert claimed == KeyReused(key or "")
            return
        running = sum(run.kind is None and run.subject == account for run in self.runs)
        if running >= MOST:
            assert claimed == TooMany(running)
            return
        if key is not None or not process.known or process.beat <= self.clock.now - FRESH:
            self.enter(process)
        assert isinstance(claimed, tuple)
        run, repeated = claimed
        assert not repeated
        assert all(run.key > before.number for before in self.runs)
        for before in self.runs:
            if before.key == key:
                before.key = None
        writer = (process, process.life)
        self.runs.append(Expected(run.key, claim.id, account, key, digest, writer))

    @rule(
        which=which,
        what=st.lists(
            st.tuples(
                place,
                st.sampled_from([0, 1, 2, 3, 70]),
                st.none() | st.sampled_from(KINDS),
            ),
            min_size=1,
            max_size=4,
            unique_by=lambda each: each[0],
        ),
    )
    def append(self, which: int, what: list[tuple[int, int, OutcomeKind | None]]) -> None:
        process = self.one(which)
        asked: dict[int, tuple[Expected, int, OutcomeKind | None]] = {}
        for at, amount, kind in what:
            run = self.run(at)
            if run is not None:
                asked[run.number] = (run, amount, kind)
        appends = [
            append_of(
                run.number,
                run.last + 1,
                frames_of(run.last + 1, amount),
                CompletionOutcome(kind) if kind else None,
                before=0,
            )
            for run, amount, kind in asked.values()
        ]
        refused, ended = process.store.append(appends)
        ends = {run.key: outcome_of(run).kind for run in ended}
        for append, (run, amount, kind) in zip(appends, asked.values(), strict=True):
            if not self.may_write(process, run):
                assert append in refused or not (amount or kind)
                assert run.number not in ends
                continue
            assert append not in refused or not (amount or kind)
            assert ends.get(run.number) == kind
            run.last += amount
            if kind:
                self.end_in_model(run, kind)

    @rule(which=which, at=place, kind=st.sampled_from(KINDS), unless_attached=st.booleans())
    def end(self, which: int, at: int, kind: OutcomeKind, unless_attached: bool) -> None:
        process, run = self.one(which), self.run(at)
        if run is None:
            return
        outcome = CompletionOutcome(kind)
        result = end(process.store, run.number, outcome, unless_attached=unless_attached)
        watched = any(
            other is not process and other.beat >= self.clock.now - DEAD for other in run.watchers
        )
        if run.kind is None and not (unless_attached and watched):
            self.end_in_model(run, kind)
        assert result is not None
        assert (result.ended is None) == (run.kind is None)

    @rule(which=which)
    def leave(self, which: int) -> None:
        process = self.one(which)
        left = process.store.leases.leave()
        expected = [run for run in self.runs if self.may_write(process, run)]
        assert {run.key for run in left} == {run.number for run in expected}
        for run in expected:
            self.end_in_model(run, "failed")

    @rule(which=which, at=place)
    def watch(self, which: int, at: int) -> None:
        process, run = self.one(which), self.run(at)
        if run is None:
            return
        result = process.store.leases.attach(run.number)
        assert result is not None
        assert result.last == run.last
        if run.kind is None:
            self.enter(process)
            if run.writer != (process, process.life):
                run.watchers.add(process)

    @rule(which=which, at=place)
    def unwatch(self, which: int, at: int) -> None:
        process, run = self.one(which), self.run(at)
        if run is not None:
            process.store.leases.detach(run.number)
            run.watchers.discard(process)

    @rule(which=which, at=place, amount=st.integers(1, 5))
    def grow(self, which: int, at: int, amount: int) -> None:
        process = self.one(which)
        self.begin_run(which, fresh(subject="bob", account="bob", most=MOST))
        own = [run for run in self.runs if self.may_write(process, run)]
        if own:
            run = own[at % len(own)]
            append = append_of(run.number, run.last + 1, [b"x" * LARGE] * amount, before=0)
            assert is_stored(process.store, append)
            run.last += amount

    @rule(which=which)
    def see_to_room(self, which: int) -> None:
        self.make_room(which)

    def make_room(self, which: int) -> bool:
        """Make room as the store's thread does. Returns whether a run had to end."""
        store = self.one(which).store
        while True:
            nearly_full = used_by(store) > LOG_BYTES * 7 / 8
            again = store.space.make()
            left = {run.key for run in store.follow([run.number for run in self.runs])}
            ended = sorted(
                (run for run in self.runs if run.kind is not None),
                key=lambda run: (run.ended_at, run.number),
            )
            gone = [run for run in self.runs if run.number not in left]
            assert again or not gone
            assert {run.number for run in gone} == {run.number for run in ended[: len(gone)]}
            for run in gone:
                self.runs.remove(run)
            if not again:
                break
            assert nearly_full
        still, overfull = used_by(store) > LOG_BYTES * 7 / 8, used_by(store) > LOG_BYTES * 63 / 64
        if still:
            kept = self.clock.now if overfull else self.clock.now - READ
            assert all(run.kind is None or run.ended_at >= kept for run in self.runs)
        assert store.space.full == (still and all(run.kind is None for run in self.runs))
        assert store.space.overfull == overfull
        if overfull:
            largest = store.space.largest()
            assert largest in {run.number for run in self.runs}
            assert largest is not None
            end(store, largest, CompletionOutcome("failed"))
            self.end_in_model(next(run for run in self.runs if run.number == largest), "failed")
            return True
        return False

    @rule(which=which)
    def trim(self, which: int) -> None:
        expired = [run for run in self.runs if self.expired(run)]
        # Frames may be left of what was forgotten to make room.
        assert self.one(which).store.trim() == len(expired) or not expired
        for run in expired:
            self.runs.remove(run)

    @rule(which=which)
    def open_again(self, which: int) -> None:
        process = self.one(which)
        process.store.close()
        process.store.open()
        self.enter(process)

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def all_see_what_is_expected(self) -> None:
        if not hasattr(self, "processes"):
            return
        for process in self.processes:
            found = {run.key: run for run in process.store.follow([r.number for r in self.runs])}
            for run in self.runs:
                there = found[run.number]
                assert there.last == run.last
                assert (there.ended is None) == (run.kind is None)
                if run.kind is not None:
                    assert there.ended == run.last + 1
                    assert outcome_of(there).kind == run.kind
                listed = process.store.find(run.id, run.subject)
                assert (listed is None) == self.expired(run)
                assert numbers(everything(process.store, there)) == list(range(1, run.last + 1))
            others = any(run.watchers - {process} for run in self.runs)
            assert process.store.leases.others_are_attached() == others


TestLogs = Logs.TestCase
TestLogs.settings = settings(max_examples=60, stateful_step_count=40)

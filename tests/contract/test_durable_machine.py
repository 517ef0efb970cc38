"""Durable generators against a list: every process says the same of each run, each item once.

The public calls of two processes, one of which is killed now and then: begin, attach, drop, resume,
stop, and what is forgotten.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import hypothesis.strategies as st
import pytest
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.contract.durable_runs import Here, Refused, There, sooner
from tests.contract.run_stores import BACKENDS, Places
from tests.live.kit.waiting import until

HERE, THERE = 0, 1
which = st.integers(0, 1)
index = st.integers(0, 9)
owners = st.sampled_from([None, "ann", "bob"])
#: Seconds for which a run is kept that is to be forgotten.
SHORT = 0.5


@dataclass
class Expected:
    """A run as it has to be."""

    id: str
    name: str
    owner: str | None
    key: str | None
    writer: int
    short: bool
    items: list[str] = field(default_factory=list)
    state: str = "running"
    end: tuple[str, Any] | None = None

    @property
    def data(self) -> list[tuple[str, str, str | None]]:
        """The events of its stream; the data of an end are compared elsewhere."""
        events: list[tuple[str, str, str | None]] = [
            (f"{self.id}.{n}", "message", item) for n, item in enumerate(self.items, 1)
        ]
        if self.end is not None:
            events.append((f"{self.id}.{len(self.items) + 1}", self.end[0], None))
        return events


class Machine(RuleBasedStateMachine):
    """Two processes of one place; one alone if they can't share it."""

    places: Places

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()

    @initialize()
    def begin_to_work(self) -> None:
        self.stack.enter_context(sooner())
        self.place = self.stack.enter_context(self.places())
        self.runs: list[Expected] = []
        self.forgotten: list[Expected] = []
        self.keys: dict[tuple[str | None, str], Expected] = {}
        #: Of runs that failed without an item: a repetition may begin another one.
        self.perhaps_free: dict[tuple[str | None, str], Expected] = {}
        self.made = 0
        self.here = Here(self.place.address)
        self.stack.callback(self.here.close)
        self.there: There | None = None

    def process(self, which: int) -> Here | There:
        if which == HERE or not self.place.shared:
            return self.here
        if self.there is None:
            self.there = There(self.place.address)
            self.stack.callback(self.there.close)
        return self.there

    def writer(self, each: Expected) -> Here | There:
        return self.process(each.writer)

    def one(self, index: int) -> Expected:
        return self.runs[index % len(self.runs)]

    def running(self) -> list[Expected]:
        return [each for each in self.runs if each.state == "running"]

    def end(self, each: Expected, state: str, event: str, told: Any) -> None:
        """It has ended; a short one is forgotten soon."""
        each.state, each.end = state, (event, told)
        if each.key is not None and state in ("failed", "interrupted") and not each.items:
            self.perhaps_free[each.owner, each.key] = self.keys.pop((each.owner, each.key))
        if not each.short:
            until(
                lambda: self.here.call("result", each.id, each.owner)[0] == state,
                f"{each} has ended",
                seconds=30,
            )
            return
        until(lambda: self.refused(self.here, each), f"{each} is forgotten", seconds=30, pause=0.1)
        self.runs.remove(each)
        self.forgotten.append(each)
        if each.key is not None:
            self.keys.pop((each.owner, each.key), None)
            self.perhaps_free.pop((each.owner, each.key), None)

    def refused(self, process: Here | There, each: Expected) -> bool:
        try:
            state, items = process.call("result", each.id, each.owner)
        except Refused as refused:
            return refused.args == (404,)
        assert state in ("running", each.state), "the end may be about to be stored"
        assert list(items) == each.items
        return False

    # -- what happens --------------------------------------------------------------------------

    @rule(
        which=which,
        owner=owners,
        key=st.none() | st.sampled_from("kl"),
        short=st.integers(0, 9).map(lambda n: n == 0),
    )
    def begin(self, which: int, owner: str | None, key: str | None, short: bool) -> None:
        self.made += 1
        process, name = self.process(which), f"g{self.made}"
        run = process.call("begin", name, owner, key, SHORT if short else None)
        known = None if key is None else self.keys.get((owner, key))
        before = None if key is None else self.perhaps_free.get((owner, key))
        if before is not None and run == before.id:
            known = before
        if known is not None:
            assert run == known.id
            assert process.call("events", name) == [], "its generator was not needed"
            return
        assert run not in [each.id for each in [*self.runs, *self.forgotten]]
        number = which if self.place.shared else HERE
        each = Expected(run, name, owner, key, number, short)
        self.runs.append(each)
        if key is not None:
            self.keys[owner, key] = each
            self.perhaps_free.pop((owner, key), None)

    @precondition(lambda self: self.running())
    @rule(index=index, texts=st.lists(st.text("abc \n", max_size=5), max_size=8))
    def say(self, index: int, texts: list[str]) -> None:
        running = self.running()
        each = running[index % len(running)]
        for text in texts:
            self.writer(each).call("hand", each.name, "item", text)
        each.items += texts
        until(
            lambda: len(self.here.call("result", each.id, each.owner)[1]) == len(each.items),
            f"{each} has its items",
            seconds=30,
        )

    @precondition(lambda self: self.running())
    @rule(index=index, value=st.none() | st.integers() | st.text("ab", max_size=3))
    def finish(self, index: int, value: Any) -> None:
        each = self.running()[index % len(self.running())]
        self.writer(each).call("hand", each.name, "return", value)
        self.end(each, "finished", "done", value)

    @precondition(lambda self: self.running())
    @rule(index=index)
    def fail(self, index: int) -> None:
        each = self.running()[index % len(self.running())]
        self.writer(each).call("hand", each.name, "raise", "it can't go on")
        self.end(each, "failed", "failure", "on_purpose")

    @precondition(lambda self: self.runs)
    @rule(which=which, index=index)
    def stop(self, which: int, index: int) -> None:
        """A generator in a thread is ended at its next yield: what it yields then is lost."""
        each, process = self.one(index), self.process(which)
        goes_on = each.state == "running"
        state = process.call("stop", each.id, each.owner)
        assert state == ("stopped" if goes_on else each.state)
        if goes_on:
            until(lambda: self.closed(each), "its `finally` has run")
            self.end(each, "stopped", "", None)

    def closed(self, each: Expected) -> bool:
        """Whether its generator is, which may have to come to another item before it is told."""
        self.writer(each).call("hand", each.name, "item", "in nobody's stream")
        events = self.writer(each).call("events", each.name)
        return "finally" in events or "started" not in events

    @precondition(lambda self: self.there is not None)
    @rule()
    def kill(self) -> None:
        assert self.there is not None
        self.there.kill()
        self.there = None
        for each in self.running():
            if each.writer == THERE:
                self.end(each, "interrupted", "failure", "interrupted")

    @precondition(lambda self: self.runs)
    @rule(which=which, index=index, after=st.none() | index, count=st.integers(0, 12))
    def attach_and_drop(self, which: int, index: int, after: int | None, count: int) -> None:
        """Read a part, or all of it if it has ended."""
        each = self.one(index)
        there = each.data
        last = None if after is None else f"{each.id}.{min(after, len(there))}"
        rest = there[0 if after is None else min(after, len(there)) :]
        if each.state == "running":
            count = min(count, len(rest))
        elif after is not None and not rest:
            assert self.process(which).call("read", each.id, each.owner, last, 1)[0] == 204
            return
        else:
            count = len(rest) + 1  # there is nothing behind its end
        status, events = self.process(which).call("read", each.id, each.owner, last, count)
        if self.may_be_an_error(each, status):
            return
        assert status == 200
        for (id, event, data), (own_id, own_event, own_data) in zip(
            events, rest[: len(events)], strict=True
        ):
            assert id == own_id
            assert own_event in (event, "")
            if own_data is not None:
                assert data == own_data
            else:
                self.check_end(each, event, data)
        assert len(events) == min(count, len(rest))

    def may_be_an_error(self, each: Expected, status: int) -> bool:
        """A run that came to nothing may be told by a status, as an error of any view is."""
        return (
            not each.items and each.state in ("failed", "interrupted", "stopped") and status >= 400
        )

    def check_end(self, each: Expected, event: str, data: str) -> None:
        assert each.end is not None
        said = json.loads(data)
        if each.state == "finished":
            assert (event, said) == ("done", {"status": "finished", "result": each.end[1]})
        elif each.state in ("failed", "interrupted"):
            assert (event, said["error"]["code"]) == ("failure", each.end[1])
        else:
            assert "stopped" in data

    @precondition(lambda self: self.runs)
    @rule(which=which, index=index, owner=owners)
    def look(self, which: int, index: int, owner: str | None) -> None:
        each, process = self.one(index), self.process(which)
        state, items = process.call("result", each.id, each.owner)
        assert (state, list(items)) == (each.state, each.items)
        if each.owner is not None and owner != each.owner:
            for method in ("result", "stop"):
                with pytest.raises(Refused, match="404"):
                    process.call(method, each.id, owner)
            assert process.call("read", each.id, owner, None, 1)[0] == 404

    @precondition(lambda self: self.forgotten)
    @rule(which=which, index=index)
    def look_at_a_forgotten_one(self, which: int, index: int) -> None:
        each = self.forgotten[index % len(self.forgotten)]
        process = self.process(which)
        assert self.refused(process, each)
        assert process.call("read", each.id, each.owner, None, 1)[0] == 404

    # -- what has come of it -------------------------------------------------------------------

    def teardown(self) -> None:
        try:
            for each in getattr(self, "runs", ()):
                if each.state == "running":
                    self.writer(each).call("hand", each.name, "return", None)
                    self.end(each, "finished", "done", None)
                for number in (HERE, THERE) if self.place.shared else (HERE,):
                    if each in self.runs:
                        self.attach_and_drop_all(each, number)
        finally:
            self.stack.close()

    def attach_and_drop_all(self, each: Expected, number: int) -> None:
        status, events = self.process(number).call("read", each.id, each.owner, None, 10_000)
        if self.may_be_an_error(each, status):
            return
        assert status == 200
        assert [id for id, _, _ in events] == [id for id, _, _ in each.data]
        assert [data for _, event, data in events if event == "message"] == each.items
        self.check_end(each, events[-1][1], events[-1][2])


@pytest.mark.timeout(300)
@pytest.mark.parametrize("backend", BACKENDS)
def test_against_a_list(backend: str) -> None:
    machine = type("Machine", (Machine,), {"places": staticmethod(BACKENDS[backend])})
    # The last hypothesis for Python 3.10 has no types here.
    run_state_machine_as_test(  # type: ignore[no-untyped-call,unused-ignore]
        machine,
        settings=hypothesis.settings(
            hypothesis.settings(),
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            # A failing example takes seconds: to make it smaller would take hours.
            phases=(hypothesis.Phase.reuse, hypothesis.Phase.generate),
        ),
    )

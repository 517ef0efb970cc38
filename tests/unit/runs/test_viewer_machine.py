"""Viewing runs, by any number of clients at any moment and any worker, against the store as oracle.

One thread plays all parts, so that what happens between any two steps of a viewer is for Hypothesis
to choose: frames come from its own process or another's, late or at once; runs end in any way;
clients leave and come back elsewhere, fall behind, and are detached.
"""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from sseflask.completions.dialects import CHAT
from sseflask.completions.formats import FORMATS
from sseflask.runs import viewer as limits
from sseflask.runs.outcome import Generated
from sseflask.runs.runs import Beginning, Started
from sseflask.runs.viewer import Viewer
from sseflask.runs.writer import Terms
from sseflask.store import catch_up
from sseflask.store.run_api import Run
from sseflask.transport.detached.group import Group
from sseflask.wire import Decoder
from tests import memory
from tests.clock import Clock
from tests.scripted_upstream import frame
from tests.unit.runs.stepped import Stepped, stepped
from tests.unit.store.sqlite.run_databases import (
    FINISHED,
    STOPPED,
    append_of,
    everything,
    now,
    opened,
    outcome_of,
)

PROCESSES = 2
KINDS = ("finished", "stopped", "cancelled")


def nothing() -> Generated:
    """Writers do what the machine says."""
    yield FINISHED


def said(number: int) -> bytes:
    """Frames of which some become no event, some become several, and some end in half a letter."""
    if number % 4 == 1:
        return frame(choices=[{"index": 0, "delta": {"role": "assistant"}}])
    if number % 4 == 2:
        delta = {"reasoning_content": f"r{number}", "content": f"t{number}"}
        return frame(choices=[{"index": 0, "delta": delta}])
    half = rf"t{number}\ud83d" if number % 4 == 3 else rf"\ude00t{number}"
    return frame("HALF").replace(b"HALF", half.encode())


@dataclass(eq=False)
class Written:
    """A run, and how far its writer is."""

    run: Run
    process: Stepped
    next: int = 1
    over: bool = False


@dataclass(eq=False)
class Client:
    """A client, and what it has got in all."""

    written: Written
    form: str
    start: int
    """The number after which it began."""
    received: bytes = b""
    decoder: Decoder = field(default_factory=Decoder)
    viewer: Viewer | None = None
    group: Group | None = None
    ended: bool = False

    @property
    def cursor(self) -> int:
        """The last number that it knows."""
        run, _, number = self.decoder.last_event_id.rpartition(".")
        assert run in ("", self.written.run.id)
        return int(number or self.start)


places = st.integers(0, PROCESSES - 1)
some_run = st.integers(0, 4)
forms = st.sampled_from(sorted(FORMATS))


class Viewing(RuleBasedStateMachine):
    clients = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        self.stack = ExitStack()
        self.stack.enter_context(mock.patch.object(limits, "PAGE", 3))
        self.stack.enter_context(mock.patch.object(catch_up, "QUEUE", 4))
        self.stack.enter_context(stepped())
        self.clock = Clock()
        path = Path(self.stack.enter_context(memory.directory()), "runs.db")
        self.store = self.stack.enter_context(opened(path, clock=self.clock))
        self.everyone: list[Client] = []
        self.all: list[Written] = []
        self.processes = [
            Stepped(path, self.clock, self.send, self.finish) for _ in range(PROCESSES)
        ]
        for process in self.processes:
            self.stack.callback(process.close)

    def send(self, group: Group, body: bytes) -> None:
        for client in self.everyone:
            if client.group is group:
                self.receive(client, body)

    def finish(self, group: Group) -> None:
        for client in self.everyone:
            if client.group is group:
                client.group, client.ended = None, True
        group.on_empty(group)

    def receive(self, client: Client, body: bytes) -> None:
        assert not client.ended, "more after the end"
        client.received += body
        client.decoder.feed(body)

    # -- runs ----------------------------------------------------------------------------------

    @initialize(target=clients, place=places, form=forms)
    def begin(self, place: int, form: str) -> Client:
        return self.started(place, form, math.inf)

    @rule(
        target=clients,
        place=places,
        form=forms,
        alone_seconds=st.sampled_from([0.0, math.inf, math.inf]),
    )
    def start(self, place: int, form: str, alone_seconds: float) -> Client:
        if sum(map(self.written_by, self.all)) >= 2:
            return self.everyone[-1]
        return self.started(place, form, alone_seconds)

    def started(self, place: int, form: str, alone_seconds: float) -> Client:
        process = self.processes[place]
        started = process.runs.start(
            lambda _: nothing(),
            Beginning(
                subject="alice",
                account="alice",
                label=CHAT,
                terms=Terms(
                    alone_seconds,
                    process.runs.bounds.max_run_bytes,
                    process.runs.bounds.run_seconds,
                ),
            ),
            FORMATS[form],
        )
        assert isinstance(started, Started)
        written = Written(started.run, process)
        self.all.append(written)
        client = Client(written, form, 0, viewer=started.viewer)
        self.everyone.append(client)
        return client

    def written_by(self, written: Written) -> bool:
        """Whether its writer has not heard of an end."""
        live = written.process.live_runs.get(written.run.key)
        return live is not None and live.writer is not None and not live.writer._cancelled

    @rule(at=some_run, amount=st.integers(1, 6), delivered=st.booleans())
    def write(self, at: int, amount: int, delivered: bool) -> None:
        going_on = [written for written in self.all if self.written_by(written)]
        if going_on:
            written = going_on[at % len(going_on)]
            self.write_frames(written, amount)
            if delivered:
                written.process.settle()

    def write_frames(self, written: Written, amount: int) -> None:
        if written.over or not self.written_by(written):
            return
        first = written.next
        written.next += amount
        frames = [said(number) for number in range(first, written.next)]
        written.process.store.append(append_of(written.run.key, first, frames))

    @rule(
        at=some_run,
        place=places,
        how=st.sampled_from(["not at all"] * 3 + ["by itself", "stopped", "standing still"]),
        frames=st.integers(0, 2),
    )
    def end(self, at: int, place: int, how: str, frames: int) -> None:
        """Rarely, as most of what is to be seen happens before."""
        if not self.all:
            return
        written = self.all[at % len(self.all)]
        if how == "by itself" and self.written_by(written) and not written.over:
            self.write_frames(written, frames)
            written.over = True
            end = append_of(written.run.key, written.next, [], FINISHED)
            written.process.store.append(end)
        elif how == "stopped":
            self.stop_run(written, place)
        elif how == "standing still":
            # Long enough for the other to take the process for dead.
            for _ in range(7):
                self.clock.now += 1
                self.processes[1 - place].store.tick()

    def stop_run(self, written: Written, place: int) -> None:
        assert self.processes[place].runs.stop(written.run) is not None

    # -- what comes when -----------------------------------------------------------------------

    @rule(
        place=places,
        what=st.sampled_from(["thread", "loop", "loop", "look", "tick"]),
        times=st.integers(1, 4),
    )
    def go_on(self, place: int, what: str, times: int) -> None:
        process = self.processes[place]
        for _ in range(times):
            if what == "thread":
                process.store.step()
            elif what == "loop":
                process.turn()
        if what == "look":
            process.store.look()
        elif what == "tick":
            process.store.tick()

    @rule(place=places)
    def all_of_it(self, place: int) -> None:
        """All that is to be done by one of them."""
        self.processes[place].settle()
        self.processes[place].store.look()
        self.processes[place].settle()

    # -- clients -------------------------------------------------------------------------------

    @rule(client=clients, target=clients, place=places, form=forms, share=st.floats(0, 1))
    def arrive(self, client: Client, place: int, form: str, share: float) -> Client:
        written = client.written
        process = self.processes[place]
        run = process.runs.find(written.run.id, "alice")
        assert run is not None
        start = round(run.last * share) if FORMATS[form].resumable else 0
        client = Client(written, form, start)
        client.viewer = process.runs.view(run, FORMATS[form], start)
        self.everyone.append(client)
        return client

    @rule(client=clients, place=places)
    def come_back(self, client: Client, place: int) -> None:
        if client.ended or client.viewer or client.group:
            return
        process, form = self.processes[place], FORMATS[client.form]
        run = process.runs.find(client.written.run.id, "alice")
        assert run is not None
        if not form.resumable:
            client.received = b""
            client.decoder = Decoder()
        client.viewer = process.runs.view(run, form, client.cursor)

    @rule(client=clients)
    def break_off(self, client: Client) -> None:
        if client.viewer is not None:
            client.viewer.close()
            client.viewer = None
        if client.group is not None:
            group, client.group = client.group, None
            if not any(other.group is group for other in self.everyone):
                group.on_empty(group)

    @rule(client=consumes(clients))
    def go_for_good(self, client: Client) -> None:
        self.break_off(client)
        if len(self.everyone) > 1 and client in self.everyone:
            self.everyone.remove(client)

    @rule(
        client=clients,
        way=st.sampled_from(["get", "history", "join", "join as it is"]),
        pieces=st.integers(1, 4),
        meanwhile=st.none()
        | st.tuples(st.sampled_from(["write", "end", "leave"]), st.integers(1, 6)),
        then=st.lists(st.integers(1, 6), max_size=3),
    )
    def read(
        self,
        client: Client,
        way: str,
        pieces: int,
        meanwhile: tuple[str, int] | None,
        then: list[int],
    ) -> None:
        """Advance a viewer; while it waits for the store more may come, and then."""
        if client.viewer is None:
            return
        running = client.viewer._reader
        assert isinstance(running, Stepped)

        def interrupt() -> None:
            assert meanwhile is not None
            what, amount = meanwhile
            written = client.written
            if what == "write":
                self.write_frames(written, amount)
                written.process.store.step()
                running.store.look()
            elif what == "end":
                written.process.store.end_soon(written.run.key, STOPPED.ending())
                self.go_on(self.processes.index(running), "loop", amount)
            else:
                self.break_off(client)

        running.interruption = interrupt if meanwhile else None
        if way == "get":
            for _ in range(pieces):
                if client.viewer is not None and not client.ended:
                    self.get(client, client.viewer)
        elif way != "join as it is":
            self.follow(client, client.viewer, pieces if way == "history" else 1000)
        for amount in then:
            self.write_frames(client.written, amount)
            for process in (client.written.process, running):
                process.settle()
                process.store.look()
                process.settle()
        if way.startswith("join") and client.viewer is not None:
            self.detach(client, client.viewer)
        running.interruption = None

    def get(self, client: Client, viewer: Viewer) -> None:
        try:
            got = viewer.get(0.0)
        except StopIteration:
            assert viewer.ended or client.viewer is None
            return
        if got is not None:
            assert got[1] == FORMATS[client.form].resumable
            self.take(client, viewer, got[0])

    def follow(self, client: Client, viewer: Viewer, pieces: int) -> None:
        history = viewer.history()
        for _ in range(pieces):
            body = next(history, None)
            if body is None:
                return
            self.take(client, viewer, body)

    def take(self, client: Client, viewer: Viewer, body: bytes) -> None:
        if client.viewer is viewer:  # else it has left meanwhile, and gets nothing
            self.receive(client, body)
            if viewer.ended:
                client.ended, client.viewer = True, None

    def detach(self, client: Client, viewer: Viewer) -> None:
        group = viewer.join(True, 15.0)
        if group is not None:
            client.viewer, client.group = None, group
            viewer.close()

    # -- what must hold ------------------------------------------------------------------------

    def expected(self, client: Client) -> bytes:
        """All that a client is to get, as far as the store knows."""
        run = now(self.store, client.written.run)
        view = FORMATS[client.form].view(run.id, run.label)
        bodies = [(number, view.take(number, each)) for number, each in everything(self.store, run)]
        if run.ended is not None:
            assert run.outcome is not None
            bodies.append((run.ended, view.end(run.ended, outcome_of(run))))
        return b"".join(body for number, body in bodies if number > client.start)

    @invariant()
    def nothing_twice_and_nothing_left_out(self) -> None:
        for client in self.everyone:
            expected = self.expected(client)
            assert expected.startswith(client.received)
            if client.ended:
                assert expected == client.received

    def all_goes_on(self) -> None:
        for _ in range(2):
            for process in self.processes:
                process.settle()
                process.store.look()
                process.settle()

    def teardown(self) -> None:
        try:
            for client in self.everyone:
                self.come_back(client, 0)
                self.read(client, "join", 1, None, [])
            self.all_goes_on()
            for written in self.all:
                self.stop_run(written, 1)
            self.all_goes_on()
            for client in self.everyone:
                self.read(client, "join", 1, None, [])
            self.all_goes_on()
            for client in self.everyone:
                assert client.ended, "it waits for ever"
            self.nothing_twice_and_nothing_left_out()
            for process in self.processes:
                assert process.live_runs._runs == {}
                assert process.store._followed == {}
                assert not process._arriving
        finally:
            self.stack.close()


TestViewing = Viewing.TestCase
TestViewing.settings = settings(max_examples=100, stateful_step_count=40)

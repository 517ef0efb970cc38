"""Runs from their start to their end where threads are threads, with a real log."""

from __future__ import annotations

import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sseflask.completions.completion_outcome import CompletionOutcome, with_usage_notes
from sseflask.completions.dialects import CHAT
from sseflask.completions.formats import FORMATS
from sseflask.errors import Failure
from sseflask.event import MessageEvent
from sseflask.runs.outcome import Generated, Outcome
from sseflask.runs.runs import Beginning, Runs, Started
from sseflask.runs.viewer import Viewer
from sseflask.runs.writer import Bounds, Terms
from sseflask.store.catch_up import QUEUE_BYTES
from sseflask.store.run_api import Run
from sseflask.store.sqlite.run_store import SqliteRunStore
from sseflask.wire import Decoder
from tests.live.kit.waiting import until
from tests.processes import report_of
from tests.scripted_upstream import frame
from tests.unit.store.sqlite.run_databases import (
    FINISHED,
    STOPPED,
    code_of,
    frames_of,
    opened,
    outcome_of,
)

SECONDS = 10.0


class Script:
    """An answer that says what a test tells it to."""

    def __init__(self) -> None:
        self.asked = 0
        self.items: queue.Queue[list[bytes] | Outcome | Failure] = queue.Queue()
        self.closed = threading.Event()

    def __call__(self) -> Generated:
        self.asked += 1
        return with_usage_notes(self._answer())

    def _answer(self) -> Generated:
        try:
            while True:
                what = self.items.get(timeout=SECONDS)
                if isinstance(what, Failure):
                    raise what
                yield what
                if isinstance(what, Outcome):
                    return
        finally:
            self.closed.set()

    def say(self, first: int, amount: int) -> None:
        self.items.put(frames_of(first, amount))

    def finish(self) -> None:
        self.items.put(FINISHED)


Make = Callable[..., Runs]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
def make(path: Path) -> Iterator[Make]:
    """Makes runs of one file, each as if in a process of its own."""
    made: list[Runs] = []

    def make(bounds: Bounds | None = None, max_running: int = 3) -> Runs:
        made.append(
            Runs(
                lambda: str(path),
                seconds=3600,
                max_running=max_running,
                outcome_of=CompletionOutcome.of,
                bounds=bounds,
            )
        )
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def runs(make: Make) -> Runs:
    return make()


@pytest.fixture
def script() -> Iterator[Script]:
    script = Script()
    yield script
    script.finish()  # so that no thread is left behind


def begin(
    runs: Runs,
    script: Callable[[], Generated],
    *,
    form: str = "chunks",
    alone_seconds: float = math.inf,
    key: str | None = None,
    digest: bytes = b"",
    announce: bool = False,
    early: bool = False,
) -> Started:
    return runs.start(
        lambda _: script(),
        Beginning(
            subject="alice",
            account="alice",
            label=CHAT,
            terms=Terms(alone_seconds, runs.bounds.max_run_bytes, runs.bounds.run_seconds),
            key=key,
            digest=digest,
        ),
        FORMATS[form],
        announce=announce,
        early=early,
    )


def refusal(runs: Runs, script: Script, key: str | None = None, digest: bytes = b"") -> str | None:
    """Why a run can't begin."""
    with pytest.raises(Failure) as raised:
        begin(runs, script, key=key, digest=digest)
    return raised.value.code


def read(viewer: Viewer, count: int) -> list[MessageEvent]:
    """So many events, as they come."""
    decoder, events = Decoder(), list[MessageEvent]()
    deadline = time.monotonic() + SECONDS
    while len(events) < count:
        assert time.monotonic() < deadline, f"only {events}"
        got = viewer.get(SECONDS)
        if got is not None:
            events += decoder.feed(got[0])
    return events


def to_the_end(viewer: Viewer) -> list[MessageEvent]:
    return Decoder().feed(b"".join(viewer.frames()))


def ids(run: Run, first: int, last: int) -> list[str]:
    return [f"{run.id}.{number}" for number in range(first, last + 1)]


def found(runs: Runs, run: Run) -> Run:
    there = runs.find(run.id, "alice")
    assert there is not None
    return there


def ended(runs: Runs, run: Run) -> Run:
    """A run, once it has ended."""
    until(lambda: found(runs, run).ended, "the run has ended")
    return found(runs, run)


def stopped(runs: Runs, run: Run) -> str:
    outcome = runs.stop(run)
    assert outcome is not None
    return outcome.kind


# -- what is seen ----------------------------------------------------------------------------------


def test_a_run_is_seen_as_it_comes_to_its_end(runs: Runs, script: Script) -> None:
    run, viewer, repeated = begin(runs, script)
    assert not repeated
    assert viewer.get(0.0) is None
    script.say(1, 2)
    assert [event.last_event_id for event in read(viewer, 2)] == ids(run, 1, 2)
    assert found(runs, run).last == 2
    script.say(3, 1)
    script.finish()
    events = to_the_end(viewer)
    assert [event.last_event_id for event in events] == ids(run, 3, 4)
    assert events[-1].data == "[DONE]"
    assert viewer.ended
    with pytest.raises(StopIteration):
        viewer.get(0.0)
    assert script.closed.wait(SECONDS)
    assert script.asked == 1


@pytest.mark.parametrize("form", sorted(FORMATS))
def test_from_any_number_at_any_worker_it_is_the_rest(
    make: Make, runs: Runs, script: Script, form: str
) -> None:
    run, viewer, _ = begin(runs, script, form=form)
    other = make()
    script.say(1, 5)
    while_it_runs = other.view(found(other, run), FORMATS[form])
    script.finish()
    everything = b"".join(viewer.frames())
    assert b"".join(while_it_runs.frames()) == everything
    expected = FORMATS[form].view(run.id, run.label)
    whole = [expected.take(number, each) for number, each in enumerate(frames_of(1, 5), 1)]
    stored = ended(runs, run)
    whole.append(expected.end(6, outcome_of(stored)))
    assert everything == b"".join(whole)
    for after in range(6):
        rest = whole[after:] if FORMATS[form].resumable else whole
        for each in (runs, other):
            viewer = each.view(found(each, run), FORMATS[form], after)
            assert b"".join(viewer.history()) == b"".join(rest)
            assert viewer.ended
    assert script.asked == 1


def test_viewers_at_another_worker_learn_at_once(make: Make, runs: Runs, script: Script) -> None:
    run, viewer, _ = begin(runs, script)
    other = make()
    there = other.view(found(other, run), FORMATS["chunks"])
    assert there.get(0.0) is None
    script.say(1, 3)
    assert [event.last_event_id for event in read(there, 3)] == ids(run, 1, 3)
    script.finish()
    assert [event.data for event in read(there, 1)] == ["[DONE]"]
    assert len(to_the_end(viewer)) == 4


def test_one_that_has_more_than_its_worker_waits_for_the_rest(
    make: Make, runs: Runs, script: Script
) -> None:
    run, viewer, _ = begin(runs, script, form="text")
    script.say(1, 4)
    assert len(read(viewer, 4)) == 4
    there = make().view(run, FORMATS["text"], 6)
    history = threading.Thread(target=list, args=[there.history()])
    history.start()
    script.say(5, 1)
    assert [event.data for event in read(viewer, 1)] == ["5 "]
    assert history.is_alive(), "a group would send it what it has"
    script.say(6, 1)
    history.join(SECONDS)
    assert not history.is_alive()
    script.say(7, 1)
    assert [event.data for event in read(there, 1)] == ["7 "]


def test_a_client_that_has_nothing_learns_where_it_is(runs: Runs, script: Script) -> None:
    run, viewer, _ = begin(runs, script, announce=True)
    assert list(viewer.first(0.0)) == []
    got = viewer.get(0.0)
    assert got is not None
    assert got[0] == b"id: %b.0\n\n" % run.id.encode()
    assert viewer.get(0.0) is None
    # Not who gets the first frame with the headers, nor who has something.
    script.say(1, 1)
    again = runs.view(run, FORMATS["chunks"], announce=True)
    (first,) = again.first(SECONDS)
    assert first.startswith(b"id: %b.1\n" % run.id.encode())
    assert again.get(0.0) is None
    resumed = runs.view(run, FORMATS["chunks"], 1, announce=True)
    assert resumed.get(0.0) is None


@pytest.mark.parametrize("way", ["frames", "history"])
def test_that_comes_first_on_every_transport(runs: Runs, script: Script, way: str) -> None:
    run, viewer, _ = begin(runs, script, announce=True)
    assert not viewer.resumable
    assert next(getattr(viewer, way)()) == b"id: %b.0\n\n" % run.id.encode()
    assert viewer.resumable


def test_the_first_frame_is_waited_for_unless_that_is_not_wanted(
    runs: Runs, script: Script
) -> None:
    _, viewer, _ = begin(runs, script, early=True)
    assert list(viewer.first(SECONDS)) == []
    other = runs.view(viewer.run, FORMATS["chunks"])
    threading.Timer(0.05, script.say, [1, 1]).start()
    assert len(list(other.first(SECONDS))) == 1
    script.items.put(Failure("broken"))
    assert len(to_the_end(viewer)) == 2


def test_a_run_that_failed_without_a_frame_is_an_error_response(
    make: Make, runs: Runs, script: Script
) -> None:
    run, viewer, _ = begin(runs, script)
    script.items.put(Failure("no such model", status=404, code="model_not_found"))
    for each in (viewer, make().view(ended(runs, run), FORMATS["text"])):
        with pytest.raises(Failure, match="no such model") as raised:
            list(each.first(SECONDS))
        assert raised.value.status == 404
        assert raised.value.headers["X-Run-Id"] == run.id
    early = runs.view(found(runs, run), FORMATS["text"], early=True)
    assert list(early.first(SECONDS)) == []
    (event,) = to_the_end(early)
    assert event.event == "failure"


def test_a_run_that_failed_after_a_frame_tells_it_in_band(runs: Runs, script: Script) -> None:
    run, viewer, _ = begin(runs, script, form="text")
    script.say(1, 1)
    (first,) = viewer.first(SECONDS)
    script.items.put(Failure("broken", code="broken"))
    events = Decoder().feed(first) + to_the_end(viewer)
    assert [event.event for event in events] == ["message", "failure"]
    again = runs.view(ended(runs, run), FORMATS["text"])
    assert b"".join(again.first(SECONDS)) == first
    assert code_of(found(runs, run)) == "broken"


def test_who_falls_behind_reads_from_the_store(runs: Runs, script: Script) -> None:
    run, viewer, _ = begin(runs, script)
    assert viewer.get(0.0) is None
    large = frame("x" * 10_000)
    for _ in range(10):
        script.items.put([large] * 20)
    script.finish()
    ended(runs, run)
    assert viewer._base > 0, "its queue was never too long"
    assert viewer._queued_bytes <= QUEUE_BYTES
    events = to_the_end(viewer)
    assert [event.last_event_id for event in events] == ids(run, 1, 201)
    assert {len(event.data) for event in events[:-1]} == {len(large) - len("data: \n\n")}


# -- keys and counts -------------------------------------------------------------------------------


def test_a_repeated_key_attaches_and_asks_nobody(make: Make, runs: Runs, script: Script) -> None:
    run, viewer, _ = begin(runs, script, key="k", digest=b"1")
    again = begin(make(), script, key="k", digest=b"1")
    assert (again.run.id, again.repeated) == (run.id, True)
    assert refusal(runs, script, key="k", digest=b"2") == "idempotency_key_reused"
    script.say(1, 1)
    script.finish()
    assert to_the_end(again.viewer) == to_the_end(viewer)
    assert to_the_end(begin(runs, script, key="k", digest=b"1").viewer)[-1].data == "[DONE]"
    assert script.asked == 1


def test_threads_that_race_with_one_key_ask_once(make: Make, runs: Runs, script: Script) -> None:
    other, gate = make(), threading.Barrier(12)
    got: list[list[MessageEvent]] = []

    def request(place: int) -> None:
        gate.wait(SECONDS)
        got.append(to_the_end(begin((runs, other)[place % 2], script, key="k").viewer))

    threads = [threading.Thread(target=request, args=(place,)) for place in range(12)]
    for thread in threads:
        thread.start()
    script.say(1, 3)
    script.finish()
    for thread in threads:
        thread.join(SECONDS)
    assert len(got) == 12
    assert all(events == got[0] for events in got)
    assert len(got[0]) == 4
    assert script.asked == 1


def test_there_may_be_so_many_at_once(make: Make, runs: Runs, script: Script) -> None:
    scripts = [Script() for _ in range(3)]
    other = make()
    started = [begin((runs, other)[n % 2], each) for n, each in enumerate(scripts)]
    assert refusal(runs, script) == refusal(other, script) == "too_many_runs"
    assert script.asked == 0
    for each in scripts:
        each.finish()
    ended(runs, started[0].run)
    begin(runs, script)


# -- stopping and leaving --------------------------------------------------------------------------


def test_it_is_stopped_from_any_worker_and_only_once(
    make: Make, runs: Runs, script: Script
) -> None:
    run, viewer, _ = begin(runs, script)
    script.say(1, 1)
    assert len(read(viewer, 1)) == 1
    other = make()
    outcome = other.stop(found(other, run))
    assert isinstance(outcome, CompletionOutcome)
    assert (outcome.kind, outcome.usage) == (
        "stopped",
        {"completion_tokens": 1, "partial": True},
    )
    (event,) = to_the_end(viewer)
    assert '"run_stopped"' in event.data
    script.say(2, 1)  # without gevent its writer finds out with the next frame
    assert script.closed.wait(SECONDS)
    assert runs.stop(run) == other.stop(run) == outcome
    assert found(runs, run).last == 1


def test_it_is_stopped_before_its_first_token(runs: Runs, script: Script) -> None:
    run, viewer, _ = begin(runs, script)
    assert stopped(runs, run) == "stopped"
    (event,) = to_the_end(viewer)
    assert event.last_event_id == f"{run.id}.1"


def test_one_that_has_ended_stays_as_it_is(runs: Runs, script: Script) -> None:
    run, viewer, _ = begin(runs, script)
    script.finish()
    to_the_end(viewer)
    assert stopped(runs, run) == "finished"


def test_when_the_last_has_left_it_is_cancelled_at_once(runs: Runs, script: Script) -> None:
    run, viewer, _ = begin(runs, script, alone_seconds=0.0)
    second = runs.view(run, FORMATS["text"])
    assert second.get(0.0) is None
    script.say(1, 1)
    assert len(read(viewer, 1)) == 1
    viewer.close()
    assert len(read(second, 1)) == 1
    assert found(runs, run).ended is None
    second.close()
    assert outcome_of(ended(runs, run)).kind == "cancelled"
    script.say(2, 1)
    assert script.closed.wait(SECONDS)


def test_it_is_not_cancelled_while_somebody_is_at_another_worker(
    make: Make, runs: Runs, script: Script
) -> None:
    run, viewer, _ = begin(runs, script, alone_seconds=0.0)
    there = make().view(run, FORMATS["chunks"])
    assert there.get(0.0) is None
    viewer.close()
    script.say(1, 2)
    assert len(read(there, 2)) == 2
    assert found(runs, run).ended is None
    there.close()
    assert outcome_of(ended(runs, run)).kind == "cancelled"


def test_after_a_while_alone_it_is_cancelled_unless_somebody_comes_back(
    runs: Runs, script: Script
) -> None:
    run, viewer, _ = begin(runs, script, alone_seconds=1.0)
    viewer.close()
    back = runs.view(run, FORMATS["chunks"])
    assert back.get(0.0) is None
    live = runs._process.get().live_runs.get(run.key)
    assert live is not None
    assert live.writer is not None
    assert live.writer.alone_since is None
    back.close()
    began = time.monotonic()
    assert outcome_of(ended(runs, run)).kind == "cancelled"
    assert time.monotonic() - began >= 0.9


def test_one_that_goes_on_alone_comes_to_its_own_end(runs: Runs, script: Script) -> None:
    run, viewer, _ = begin(runs, script)
    viewer.close()
    script.say(1, 2)
    script.finish()
    assert outcome_of(ended(runs, run)).kind == "finished"
    assert len(to_the_end(runs.view(found(runs, run), FORMATS["chunks"]))) == 3


def test_who_waits_is_woken_when_it_is_abandoned(runs: Runs, script: Script) -> None:
    _, viewer, _ = begin(runs, script)
    over = threading.Event()

    def iterate() -> None:
        for _ in viewer.frames():
            pass
        over.set()

    reader = threading.Thread(target=iterate)
    reader.start()
    assert not over.wait(0.05)
    viewer.abandon()
    viewer.abandon()
    assert over.wait(SECONDS)
    with pytest.raises(StopIteration):
        viewer.get(0.0)


# -- ends without a request ------------------------------------------------------------------------


def test_a_writer_whose_run_has_been_ended_is_cancelled(
    runs: Runs, script: Script, path: Path
) -> None:
    run, viewer, _ = begin(runs, script)
    script.say(1, 1)
    assert len(read(viewer, 1)) == 1
    with opened(path, clock=time.monotonic) as store:
        store.end(run.key, STOPPED.ending())
    script.say(2, 1)
    (event,) = to_the_end(viewer)
    script.say(3, 1)
    assert script.closed.wait(SECONDS)
    assert event.last_event_id == f"{run.id}.2"
    assert found(runs, run).last == 1


def test_closing_ends_what_is_written(make: Make, runs: Runs, script: Script) -> None:
    run, viewer, _ = begin(runs, script)
    other = make()
    there = other.view(run, FORMATS["chunks"])
    script.say(1, 1)
    assert len(read(there, 1)) == len(read(viewer, 1)) == 1
    runs.close()
    for each in (viewer, there):
        (event,) = to_the_end(each)
        assert '"interrupted"' in event.data
    assert code_of(ended(other, run)) == "interrupted"
    # It begins again with the next use.
    more = Script()
    more.finish()
    assert to_the_end(begin(runs, more).viewer)[-1].data == "[DONE]"


def test_a_run_that_goes_on_for_too_long_fails_and_can_be_read(make: Make, script: Script) -> None:
    """Whoever reads it, and whether or not anything comes of it."""
    runs = make(Bounds(run_seconds=0.5))
    run, viewer, _ = begin(runs, script, form="text")
    script.say(1, 2)
    *said, end = to_the_end(viewer)
    assert len(said) == 2
    assert '"run_too_long"' in end.data
    script.say(3, 1)  # without gevent a writer is woken by its next frame
    assert script.closed.wait(SECONDS)
    assert code_of(ended(make(), run)) == "run_too_long"
    assert len(to_the_end(runs.view(run, FORMATS["text"]))) == 3


def test_the_largest_of_a_full_store_fails_in_band_and_the_others_go_on(make: Make) -> None:
    runs = make(Bounds(store_bytes=1_000_000), max_running=100)
    scripts = [Script() for _ in range(6)]
    viewers = [begin(runs, script, form="events").viewer for script in scripts]
    for script, size in zip(
        scripts, [100_000, 150_000, 150_000, 240_000, 150_000, 150_000], strict=True
    ):
        script.items.put([frame("x" * size)])
    assert '"run_log_full"' in to_the_end(viewers[3])[-1].data
    scripts[3].say(2, 1)  # without gevent a writer is woken by its next frame
    assert scripts[3].closed.wait(SECONDS)
    for script in scripts:
        script.finish()
    ends = [to_the_end(viewer)[-1] for place, viewer in enumerate(viewers) if place != 3]
    assert {end.event for end in ends} == {"done"}


def test_each_end_is_in_the_servers_log_once(
    make: Make, runs: Runs, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sseflask")
    other, lines = make(), list[str]()
    run, viewer, _ = begin(runs, script)
    script.say(1, 2)
    assert len(read(viewer, 2)) == 2
    for each in (other, runs):
        each.stop(run)
    lines.append(
        f'run {run.id}: stopped after 2 frames, usage {{"completion_tokens": 2, "partial": true}}'
    )
    to_the_end(viewer)
    for what, line in (
        (Failure("no", code="broken"), "failed (broken) after 0 frames, usage null"),
        (FINISHED, "finished (stop) after 0 frames, usage null"),
    ):
        own = Script()
        own.items.put(what)
        run, viewer, _ = begin(runs, own, early=True)
        to_the_end(viewer)
        lines.append(f"run {run.id}: {line}")
    until(lambda: len(caplog.records) >= 3, "they are logged")
    assert [record.getMessage() for record in caplog.records] == lines


def test_an_upstream_writes_no_lines_into_our_log(
    runs: Runs, script: Script, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "sseflask")
    script.items.put(CompletionOutcome("finished", "stop\nrun 1: stopped" + "!" * 1000))
    to_the_end(begin(runs, script).viewer)
    until(lambda: caplog.records, "it is logged")
    (message,) = [record.getMessage() for record in caplog.records]
    assert r"(stop\nrun 1: stopped!!" in message
    assert len(message) < 300
    assert message.isprintable()


def test_a_store_that_can_not_be_opened_asks_nobody(tmp_path: Path, script: Script) -> None:
    (tmp_path / "file").write_text("in the way")
    runs = Runs(lambda: str(tmp_path / "file" / "runs.db"), seconds=1, max_running=1)
    assert refusal(runs, script) == "log_unavailable"
    with pytest.raises(Failure, match="not available"):
        runs.find("f" * 32, "alice")
    assert runs.store.health() == "unavailable"
    assert script.asked == 0
    runs.close()


def test_a_busy_store_is_told_from_one_that_fails(runs: Runs) -> None:
    assert runs.store.health() == "available"
    go_on = threading.Event()
    store = runs._process.get().store
    assert isinstance(store, SqliteRunStore)
    store.submit(lambda _database: go_on.wait(SECONDS), lambda *_: None)
    assert runs.store.health() == "busy"
    go_on.set()


def test_a_file_that_is_deleted_ends_its_runs(runs: Runs, script: Script, path: Path) -> None:
    run, viewer, _ = begin(runs, script, form="text")
    script.say(1, 1)
    assert len(read(viewer, 1)) == 1
    path.unlink()
    with pytest.raises(Failure) as raised:
        to_the_end(viewer)
    assert raised.value.code == "interrupted"
    script.say(2, 1)
    assert script.closed.wait(SECONDS)
    assert runs.find(run.id, "alice") is None


def test_a_child_process_has_a_store_of_its_own(runs: Runs, script: Script) -> None:
    """SQLite must not be open in a process that is copied: what the child stores would be lost."""
    run, viewer, _ = begin(runs, script)
    script.say(1, 1)
    assert len(read(viewer, 1)) == 1
    go_on, tell = os.pipe()
    child = os.fork()
    if not child:
        status = 1
        os.close(tell)  # so that it ends with its parent, however that ends
        try:
            own = Script()
            own.say(1, 2)
            own.finish()
            started = begin(runs, own, key="child")
            assert len(to_the_end(started.viewer)) == 3
            assert runs.find(run.id, "alice") is not None
            os.read(go_on, 1)  # until the parent has seen it
            runs.close()
            status = 0
        finally:
            os._exit(status)
    script.say(2, 1)
    assert len(read(viewer, 1)) == 1, "the parent still writes"
    until(lambda: _child_is_done(runs), "the child's run is there")
    again = begin(runs, script, key="child")
    assert again.repeated
    assert len(to_the_end(again.viewer)) == 3
    os.write(tell, b"x")
    assert os.waitpid(child, 0)[1] == 0
    os.close(go_on)
    os.close(tell)
    assert found(runs, run).ended is None, "the child has ended only its own"
    script.finish()
    assert to_the_end(viewer)[-1].data == "[DONE]"


def test_under_gevent_nothing_is_lost_and_a_silent_upstream_is_left(path: Path) -> None:
    report = report_of("tests.unit.runs.greenlets", path)
    assert report["switches"] == [], "with a native lock held"
    assert report["right"] == 80
    assert report["transactions"] <= 4000 / 5
    assert report["largest"] >= 40
    assert report["cancelled"]
    assert report["cleaned"]
    assert report["reused"]
    assert report["too_large"]
    assert report["interrupted"]
    assert report["left"] == 0
    assert report["logged"]


def _child_is_done(runs: Runs) -> bool:
    """Whether there is the child's run; asking for it by its key would begin it."""
    asked = "SELECT 1 FROM runs WHERE key = 'child' AND ended IS NOT NULL"
    store = runs._process.get().store
    assert isinstance(store, SqliteRunStore)
    row = store.call(lambda database: database._opened().execute(asked).fetchone())
    return row is not None

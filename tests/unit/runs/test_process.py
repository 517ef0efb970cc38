"""A process that inherits runs, while other things happen to them: where threads are threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any

import pytest

from sseflask.errors import Failure
from sseflask.runs.items import ITEM_FORMAT, ItemOutcome
from sseflask.runs.outcome import Generated, Outcome
from sseflask.runs.process import Generate, Read, RunProcess
from sseflask.runs.viewer import Viewer
from sseflask.runs.writer import Terms, Writer
from sseflask.store.catch_up import Frame
from sseflask.store.run_api import Ending, PassedOn, Run, RunAppend, RunFrames
from tests.live.kit.waiting import until

SECONDS = 10.0

RUN = Run(7, "r", "items", 3, size=100)


class Place:
    """A process, a store that keeps what it is told, and an heir that a test keeps waiting."""

    def __init__(self) -> None:
        self.appends: list[RunAppend] = []
        self.ends: list[Outcome] = []
        self.detached: list[int] = []
        self.error: BaseException | None = None
        self.attaching: Callable[[], None] | None = None
        self.asked, self.go_on, self.answered = (threading.Event() for _ in range(3))
        self.begun, self.finish = threading.Event(), threading.Event()
        store: Any = self
        self.process = RunProcess(store, ItemOutcome.of, self.heir)

    def heir(self, run: Run, successor: bytes, _read: Read) -> tuple[Terms, Generate]:
        assert (run, successor) == (RUN, b"how")
        self.asked.set()
        assert self.go_on.wait(SECONDS)
        if self.error is not None:
            raise self.error
        return Terms(alone_seconds=0.0), self.generate

    def generate(self, _writer: Writer) -> Generated:
        self.begun.set()
        yield [b"data: x\n\n"]
        assert self.finish.wait(SECONDS)
        yield ItemOutcome("finished")

    def inherit(self) -> None:
        self.process.inherited(RUN, b"how")
        assert self.asked.wait(SECONDS)

    def answer(self) -> None:
        """Let the heir answer, and wait until what follows is done."""
        self.go_on.set()
        until(lambda: not self.process._arriving, "it goes on, or not")

    # -- the store ---------------------------------------------------------------------------------

    def follow(self, listener: RunProcess, *, inherits: bool) -> None:
        assert listener is not None
        assert inherits

    def frames(self, run: int, after: int, limit: int) -> list[Frame]:
        assert run == RUN.key
        return [(n, b"data: before\n\n") for n in range(after + 1, RUN.last + 1)][:limit]

    def attach(self, run: int) -> Run:
        assert run == RUN.key
        if self.attaching is not None:
            self.attaching()
        return RUN

    def append(self, append: RunAppend) -> None:
        self.appends.append(append)

    def wait_for_room(self, run: int) -> None:
        assert run == RUN.key

    def detach(self, run: int) -> None:
        self.detached.append(run)

    def attached_elsewhere(self, runs: Collection[int], done: Callable[[set[int]], object]) -> None:
        assert [*runs] == [RUN.key]
        done(set())

    def end_soon(self, run: int, ending: Ending, *, unless_attached: bool = False) -> None:
        outcome = Outcome.of(RUN._replace(key=run, ended=4, outcome=ending.outcome))
        assert unless_attached == (outcome.kind == "cancelled")
        self.ends.append(outcome)

    def leave(self) -> None: ...

    def close(self) -> None: ...


@pytest.fixture
def place() -> Iterator[Place]:
    made = Place()
    yield made
    made.go_on.set()
    made.finish.set()
    made.process.close()


def test_it_goes_on_after_the_last_frame(place: Place) -> None:
    place.inherit()
    place.answer()
    assert place.begun.wait(SECONDS)
    until(lambda: place.appends, "it writes")
    assert (place.appends[0].first, place.appends[0].size) == (4, 100 + 9 + 48)
    (live,) = place.process.live_runs.written()
    assert (live.followed, live.position) == (True, 3)


def test_viewers_of_the_process_before_are_expected_back(place: Place) -> None:
    place.inherit()
    place.answer()
    assert place.begun.wait(SECONDS)
    place.process.beat()
    assert place.ends == []
    (live,) = place.process.live_runs.written()
    assert live.writer is not None
    assert live.writer.alone_since == live.expected_until > time.monotonic() + 5


def test_a_run_without_a_viewer_so_far_is_not_left_alone(place: Place) -> None:
    run = Run(8, "s", "items", 0)
    store: Any = place
    writer = Writer(run, store, Terms(alone_seconds=0.0))
    place.process.write(writer, place.generate(writer))
    assert not writer.overdue
    assert writer.alone_since is not None
    assert writer.alone_since > time.monotonic() + 5, "its first viewer has some seconds to come"


def test_a_run_is_not_cancelled_while_a_viewer_is_being_attached(place: Place) -> None:
    place.inherit()
    place.answer()
    until(lambda: place.process.live_runs.written(), "it is written here")
    (live,) = place.process.live_runs.written()
    assert live.writer is not None
    live.writer.alone_since = 0.0
    place.attaching = place.process.beat
    viewer = Viewer(place.process, RUN, ITEM_FORMAT, 3)
    viewer.attach()
    assert place.ends == []
    assert not live.writer.overdue


def test_a_viewer_that_comes_back_in_time(place: Place) -> None:
    """It was told to reconnect: the store's news are still for it, until it should be there."""
    place.process.attach(viewer := Viewer(place.process, RUN, ITEM_FORMAT, 3))
    viewer.will_reconnect()
    viewer.close()
    assert place.detached == []
    live = place.process.live_runs.get(RUN.key)
    assert live is not None
    live.expected_until = 0.0
    place.process.beat()
    assert (place.detached, place.process.live_runs.get(RUN.key)) == ([RUN.key], None)


@pytest.mark.parametrize("resumable", [True, False])
@pytest.mark.parametrize("detached", [True, False])
def test_viewers_of_a_run_that_another_process_goes_on_with(
    place: Place, resumable: bool, detached: bool
) -> None:
    """They come back and find it there; who does not come back is told why it ends."""
    viewer = Viewer(place.process, RUN, ITEM_FORMAT, 3, resumable=resumable)
    viewer.attach()
    live = place.process.live_runs.get(RUN.key)
    assert live is not None
    last = viewer.get(0)
    assert last is None
    group = viewer.join(False, 15.0) if detached else None
    live.expected_until = 0.0
    batch = live.pass_on()
    assert live.expected_until > time.monotonic() + 5
    if detached:
        ((told, body),) = batch
        assert (told, batch.ended) == (group, (group,))
        assert body.startswith(b"retry: ") == resumable
        assert (b"shutting_down" in body) == (not resumable)
    elif resumable:
        got = viewer.get(SECONDS)
        assert got is not None
        assert got[0].startswith(b"retry: ")
        assert viewer.ended
    else:
        with pytest.raises(Failure):
            viewer.get(SECONDS)


@pytest.mark.parametrize("meanwhile", ["stopped", "passed on", "forgotten"])
def test_what_is_over_before_it_goes_on_is_not_begun(place: Place, meanwhile: str) -> None:
    """Nobody would end it: the store has told of the end already."""
    place.inherit()
    if meanwhile == "stopped":
        ending = ItemOutcome("stopped").ending()
        place.process.ended(RUN._replace(ended=4, outcome=ending.outcome), here=False)
    else:
        place.process.lost(RUN.key, PassedOn("gone") if meanwhile == "passed on" else None)
    place.answer()
    assert not place.begun.is_set()
    assert place.process.live_runs.written() == []
    assert place.process.live_runs.get(RUN.key) is None
    assert place.process.wait_until_done(0)


@pytest.mark.parametrize("kind", [LookupError, SystemExit])
def test_nobody_can_go_on(
    place: Place, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    place.error = kind("there is no function any more")
    place.inherit()
    place.answer()
    (end,) = place.ends
    assert end.failure is not None
    assert end.failure.code == "interrupted"
    assert "no function any more" in caplog.text


def test_it_is_not_dropped_while_it_takes_long_to_go_on(place: Place) -> None:
    """A module is imported, the last item is read; no viewer comes back."""
    place.inherit()
    live = place.process.live_runs.get(RUN.key)
    assert live is not None
    live.expected_until = 0.0
    place.process.beat()
    assert (place.detached, place.process.live_runs.get(RUN.key)) == ([], live)
    place.answer()
    assert place.begun.wait(SECONDS)
    until(lambda: place.ends, "it has no viewers for longer than it may")
    assert (place.ends[0].kind, place.detached) == ("cancelled", [])


def test_viewers_that_came_before_its_writer(place: Place) -> None:
    """They get what it writes, and it is not cancelled under them."""
    place.inherit()
    viewer = Viewer(place.process, RUN, ITEM_FORMAT, 3)
    viewer.attach()
    live = place.process.live_runs.get(RUN.key)
    assert live is not None
    live.expected_until = 0.0
    place.answer()
    assert place.begun.wait(SECONDS)
    assert live.writer is not None
    assert live.writer.alone_since is None
    place.process.beat()
    assert place.ends == []
    place.process.frames([RunFrames(RUN.key, 4, [b"data: x\n\n"])])
    assert viewer.get(SECONDS) == (b"id: r.4\ndata: x\n\n", True)
    viewer.close()
    assert [end.kind for end in place.ends] == ["cancelled"]


def test_who_has_nothing_yet_of_such_a_run_is_told_where_it_is(place: Place) -> None:
    """Without an id it would begin another run."""
    begun = RUN._replace(last=0)
    place.process.live_runs.add(begun).followed = True
    viewer = Viewer(place.process, begun, ITEM_FORMAT)
    live = place.process.live_runs.get(RUN.key)
    assert live is not None
    with live.lock:
        viewer.attached(live, begun)
    assert viewer.get(0) is None
    live.pass_on()
    got = viewer.get(SECONDS)
    assert got is not None
    assert got[0].startswith(b"id: r.0\n\nretry: ")
    assert viewer.ended

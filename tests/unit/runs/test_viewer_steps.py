"""What a viewer does next, step by step: its process and its store are a few values."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from sseflask.errors import Failure
from sseflask.runs.format_api import Format
from sseflask.runs.live_runs import LiveRun, LiveRuns
from sseflask.runs.outcome import Outcome
from sseflask.runs.viewer import Viewer
from sseflask.store.catch_up import Frame
from sseflask.store.run_api import Run, RunFrames, RunKey
from sseflask.transport.detached.group import DetachedStream
from sseflask.wire import HEARTBEAT

FINISHED = Outcome("finished")


class Numbers:
    """A view that gives the numbers of frames, and knows which it was given."""

    def __init__(self, _run: str, _label: str) -> None:
        self.seen: list[int] = []

    def take(self, number: int, _frame: bytes, /) -> bytes:
        self.seen.append(number)
        return b"" if number % 5 == 0 else b"%d." % number

    def end(self, number: int, outcome: Outcome, /) -> bytes:
        return b"%d %b" % (number, outcome.kind.encode())


ALL, STATELESS = Format(Numbers), Format(Numbers, stateless=True)


class Process:
    """A run of which some frames are stored, and fewer may be delivered here."""

    def __init__(self, stored: int, position: int | None = None) -> None:
        self.left: list[LiveRun] = []
        self.live_runs = LiveRuns(self.left.append)
        self.run = Run("key", "id", "", stored if position is None else position)
        self.stored = stored
        self.reads: list[tuple[int, int]] = []
        self.live_runs.add(self.run)

    def attach(self, viewer: Viewer) -> None:
        with self.live_runs.lock:
            viewer.attached(self.live_runs.get("key"), self.run)

    def read(self, run: RunKey, after: int, limit: int) -> list[Frame]:
        assert run == "key"
        self.reads.append((after, limit))
        return [(number, b"") for number in range(after + 1, min(self.stored, after + limit) + 1)]

    def outcome_of(self, run: Run) -> Outcome:
        assert run.outcome == b"finished"
        return FINISHED

    def deliver(self, first: int, last: int) -> bytes:
        """Deliver some frames; give what groups are sent."""
        batch = self.live_runs.deliver([RunFrames("key", first, [b""] * (last + 1 - first))])
        return b"|".join(body for _, body in batch)


class Waiting(Viewer):
    """A viewer for which something happens instead of each wait."""

    meanwhile: list[Callable[[], object]]

    def _wait(self, timeout: float | None) -> None:  # noqa: ARG002  # none of it
        self.meanwhile.pop(0)()


def viewed(
    process: Process, format: Format = ALL, after: int = 0, *meanwhile: Callable[[], object]
) -> Waiting:
    viewer = Waiting(process, process.run, format, after)
    viewer.meanwhile = list(meanwhile)
    return viewer


def seen(viewer: Viewer) -> list[int]:
    assert isinstance(viewer.view, Numbers)
    return viewer.view.seen


@pytest.mark.parametrize(("format", "first"), [(ALL, 1), (STATELESS, 3)])
def test_a_view_is_given_what_it_needs_and_the_client_what_it_lacks(
    format: Format, first: int
) -> None:
    process = Process(stored=4)
    viewer = viewed(process, format, 3)
    assert list(viewer.history()) == [b"4."]
    assert process.deliver(5, 7) == b""
    assert list(viewer.history()) == [b"6.7."]
    assert seen(viewer) == list(range(first, 8))
    assert len(process.reads) == 1


@pytest.mark.parametrize("format", [ALL, STATELESS])
def test_a_client_that_has_more_than_was_delivered_here_joins_no_group_before(
    format: Format,
) -> None:
    process = Process(stored=9, position=2)
    viewer = viewed(process, format, 7, lambda: process.deliver(3, 6))

    def nearly() -> None:
        assert viewer.join(True, 15.0) is None
        process.deliver(7, 8)

    viewer.meanwhile.append(nearly)
    assert list(viewer.history()) == [b"8."]
    assert not viewer.meanwhile
    assert viewer.join(True, 15.0) is not None


def test_a_client_that_would_begin_another_run_is_kept_until_it_has_an_id() -> None:
    process = Process(stored=0)
    viewer = viewed(process, ALL, 0, lambda: process.deliver(1, 1))
    before, given, after = viewer.resumable, list(viewer.history()), viewer.resumable
    assert (before, given, after) == (False, [b"1."], True)
    # One that never reconnects can be detached at once.
    never = Format(Numbers, resumable=False)
    assert list(viewed(Process(stored=0), never).history()) == []


def test_what_is_given_with_the_headers_needs_no_opening() -> None:
    process = Process(stored=1)
    for announce, opening in ((True, b"id: id.0\n\n"), (False, HEARTBEAT)):
        viewer = Viewer(process, process.run, ALL, announce=announce, early=not announce)
        if announce:
            assert list(viewer.first(0.0)) == [b"1."]
            assert viewer.get(0.0) is None
            viewer = Viewer(process, process.run, ALL, announce=True)
        assert viewer.get(0.0) == (opening, announce)
        assert viewer.get(0.0) == (b"1.", True)


def failed(process: Process) -> None:
    process.live_runs.end(process.run, Outcome.failed(Failure("broken", status=502)))


def test_a_failure_is_an_error_response_only_before_the_first_frame() -> None:
    process = Process(stored=0)
    viewer = viewed(process, ALL, 0, lambda: failed(process))
    with pytest.raises(Failure, match="broken") as caught:
        list(viewer.first(60.0))
    assert caught.value.headers["X-Run-Id"] == "id"
    assert caught.value.cursor == "id.0"
    # In the stream it is the run's last event, also if it is the only one.
    process = Process(stored=0)
    viewer = viewed(process, ALL, 0, lambda: failed(process))
    assert viewer.get(60.0) == (b"1 failed", False)
    assert viewer.ended
    # A frame without an event, after which it can't be an error any more.
    process = Process(stored=5)
    viewer = viewed(process, ALL, 4, lambda: failed(process))
    assert list(viewer.first(60.0)) == [b"6 failed"]


def test_the_end_comes_after_what_is_in_the_queue() -> None:
    process = Process(stored=1)
    viewer = viewed(process)
    assert list(viewer.history()) == [b"1."]
    process.deliver(2, 3)
    process.live_runs.end(process.run, FINISHED)
    assert list(viewer.history()) == [b"2.3.", b"4 finished"]
    assert viewer.ended


def test_a_run_that_has_ended_is_read_from_the_store() -> None:
    process = Process(stored=2)
    process.run = process.run._replace(ended=3, outcome=b"finished")
    assert b"".join(viewed(process).frames()) == b"1.2.3 finished"
    # It was running when it was found.
    live = process.live_runs.get("key")
    assert live is not None
    process.live_runs.drop(live)
    process.run = Run("key", "id", "", 2)
    viewer = viewed(process)
    process.run = process.run._replace(ended=3, outcome=b"finished")
    assert b"".join(viewer.frames()) == b"1.2.3 finished"


def test_frames_that_were_delivered_before_are_not_delivered_again() -> None:
    process = Process(stored=4)
    viewer = viewed(process)
    assert list(viewer.history()) == [b"1.2.3.4."]
    process.deliver(2, 4)
    assert list(viewer.history()) == []
    process.deliver(4, 6)
    assert list(viewer.history()) == [b"6."]


def test_a_group_goes_on_where_its_first_viewer_was() -> None:
    process = Process(stored=2)
    first, second = viewed(process), viewed(process, ALL, 1)
    for viewer in (first, second):
        list(viewer.history())
    groups = [viewer.join(True, 15.0) for viewer in (first, second)]
    assert groups[0] is not None
    assert groups[0] is groups[1]
    assert process.deliver(3, 5) == b"3.4."
    assert process.deliver(5, 5) == b""
    assert (seen(first), seen(second)) == ([1, 2, 3, 4, 5], [1, 2])
    batch = process.live_runs.end(process.run, FINISHED)
    assert (list(batch), batch.ended) == ([(groups[0], b"6 finished")], (groups[0],))


def test_the_last_viewer_that_leaves_is_noticed_and_one_that_will_reconnect_expected() -> None:
    process = Process(stored=1)
    viewer, other = viewed(process), viewed(process)
    for each in (viewer, other):
        list(each.history())
    viewer.close()
    assert process.left == []
    group = other.join(True, 15.0)
    assert group is not None
    group.add(stream := DetachedStream(-1, group, 0.0, 0))
    group.last_reconnect = 1000.0
    group.remove(stream)
    (live,) = process.left
    assert live.expected_until == 1010.0


def test_what_fails_here_may_go_on_elsewhere() -> None:
    process = Process(stored=1)
    viewer = viewed(process, ALL, 0, lambda: process.live_runs.fail("key", Failure("gone")))
    assert viewer.get(60.0) == (b"1.", True)
    with pytest.raises(Failure, match="gone"):
        viewer.get(60.0)
    assert not viewer.ended


@pytest.mark.parametrize("ended", [True, False])
def test_an_end_wakes_a_viewer_that_waits(ended: bool) -> None:
    process = Process(stored=0)
    viewer = Viewer(process, process.run, ALL)
    assert viewer.get(0.0) is None
    if ended:
        process.live_runs.end(process.run, FINISHED)
    else:
        process.live_runs.fail("key", Failure("gone"))
    viewer._wait(None)  # for ever, if nothing has woken it

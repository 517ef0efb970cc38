"""Stop and leaving reach the generator; its ``finally`` always runs."""

from __future__ import annotations

import time

import pytest

from tests.live.kit.durable import (
    EVERYWHERE,
    Place,
    Story,
    everywhere,
    on_gevent,
    on_threads,
    take,
    texts,
    with_two_workers,
)
from tests.live.kit.runs import all_at_once, run_of
from tests.live.kit.waiting import until
from tests.live.kit.workers import connect_to, other_worker

#: "At once", on a machine that is busy with other tests.
AT_ONCE = 3.0
BLOCKED = ["sleep", "queue", "event", "lock", "socket", "accept"]
blocked_at = pytest.mark.parametrize("kind", BLOCKED)


def assert_ended_soon(place: Place, tag: str, since: float) -> None:
    place.wait_for(tag, "finally")
    assert time.monotonic() - since < AT_ONCE
    assert "went on" not in place.marks(tag)
    assert place.marks(tag).count("finally") == 1


@on_gevent
@blocked_at
def test_wherever_it_blocks(place: Place, tag: str, kind: str) -> None:
    with place.run("blocking", tag, kind=kind) as stream:
        run = run_of(stream)
        seen = take(stream, 1)
        place.wait_for(tag, "blocked")
        since = time.monotonic()
        assert place.stop(run) == "stopped"
        assert_ended_soon(place, tag, since)
        story = Story.of(run, [*seen, *stream.rest()])
    assert story.data == texts(tag, 1)
    assert story.end.state == "stopped"
    assert place.read(run) == story
    assert place.result(run)["state"] == "stopped"


@on_gevent
@blocked_at
def test_before_the_first_item(place: Place, tag: str, kind: str) -> None:
    run = place.start("blocking", tag, kind=kind, before=0)
    place.wait_for(tag, "blocked")
    since = time.monotonic()
    assert place.stop(run) == "stopped"
    assert_ended_soon(place, tag, since)
    assert place.result(run)["state"] == "stopped"


@with_two_workers
def test_from_any_worker(place: Place, tag: str) -> None:
    """By the one that runs it and by the other; the generator yields now and then."""
    for n, chosen in enumerate(("the writer", "the other")):
        name = f"{tag}-{n}"
        with place.run("endless", name, interval=0.05) as stream:
            run = run_of(stream)
            seen = take(stream, 2)
            worker = place.writer(name)
            if chosen == "the other":
                worker = other_worker(place.server, worker)
            since = time.monotonic()
            assert place.stop(run, connect_to(place.server, worker)) == "stopped"
            story = Story.of(run, [*seen, *stream.rest()])
        assert story.end.state == "stopped"
        place.wait_for(name, "finally")
        assert time.monotonic() - since < AT_ONCE + 10, chosen


@pytest.mark.parametrize(
    "place", ["gunicorn-worker", "gunicorn-gevent", "gunicorn-worker redis"], indirect=True
)
def test_from_another_worker_while_it_blocks(place: Place, tag: str) -> None:
    with place.run("blocking", tag, kind="queue") as stream:
        run = run_of(stream)
        take(stream, 1)
        place.wait_for(tag, "blocked")
        where = connect_to(place.server, other_worker(place.server, place.writer(tag)))
        since = time.monotonic()
        assert place.stop(run, where) == "stopped"
        assert_ended_soon(place, tag, since)
        stream.rest()


@on_threads
def test_without_gevent_at_its_next_yield(place: Place, tag: str) -> None:
    """Its readers have the end at once; the generator is ended when it yields, and not later."""
    with place.run("numbers", tag, count=5, gated=1) as stream:
        run = run_of(stream)
        place.allow(tag, 1)
        seen = take(stream, 1)
        assert place.stop(run) == "stopped"
        story = Story.of(run, [*seen, *stream.rest()])
    assert (story.data, story.end.state) == (texts(tag, 1), "stopped")
    assert "finally" not in place.marks(tag), "it waits for the test"
    place.allow(tag, 5)
    place.wait_for(tag, "finally")
    assert "finished" not in place.marks(tag), "it was not advanced again"
    assert place.read(run) == story, "what it has yielded since belongs to no run"


@on_gevent
def test_stopped_between_two_items(place: Place, tag: str) -> None:
    with place.run("numbers", tag, count=5, gated=1) as stream:
        run = run_of(stream)
        place.allow(tag, 1)
        seen = take(stream, 1)
        assert place.stop(run) == "stopped"
        story = Story.of(run, [*seen, *stream.rest()])
    place.wait_for(tag, "finally")
    assert (story.data, story.end.state) == (texts(tag, 1), "stopped")
    assert "finished" not in place.marks(tag)


@everywhere
def test_twice(place: Place, tag: str) -> None:
    """And by many at the same time: one end."""
    with place.run("endless", tag) as stream:
        run = run_of(stream)
        seen = take(stream, 1)
        assert all_at_once(*[lambda: place.stop(run)] * 6) == ["stopped"] * 6
        story = Story.of(run, [*seen, *stream.rest()])
    assert story.end.state == "stopped"
    assert place.stop(run) == "stopped"
    assert place.read(run) == story
    place.wait_for(tag, "finally")


@everywhere
@pytest.mark.parametrize(("name", "state"), [("numbers", "finished"), ("failing", "failed")])
def test_a_run_that_has_ended(place: Place, tag: str, name: str, state: str) -> None:
    """It keeps its end."""
    with place.run(name, tag, count=2) as stream:
        run = run_of(stream)
        story = Story.of(run, stream.rest())
    assert story.end.state == state
    assert [place.stop(run) for _ in range(3)] == [state] * 3
    assert place.read(run) == story


@everywhere
def test_in_a_race_with_its_end(place: Place, tag: str) -> None:
    """One of them wins, and everybody sees the same."""
    for n in range(10):
        name = f"{tag}-{n}"
        with place.run("numbers", name, count=1, gated=1) as stream:
            run = run_of(stream)

            def stop(run: str = run) -> str:
                return place.stop(run)

            def let(name: str = name) -> str:
                place.allow(name, 1)
                return ""

            said = [state for state in all_at_once(stop, let, stop) if state]
            story = Story.of(run, stream.rest())
        assert said == [story.end.state] * 2
        assert story.end.state in ("stopped", "finished")
        assert place.read(run) == story
        assert place.result(run)["state"] == story.end.state


@everywhere
def test_the_last_viewer_leaves(place: Place, tag: str) -> None:
    """``cancel``: at once, under gevent; in threads at the next yield."""
    with place.run("endless", tag, on_disconnect="cancel") as stream:
        run = run_of(stream)
        take(stream, 2)
        with place.attach(run) as viewer:
            take(viewer, 2)
            stream.connection.close()
            take(viewer, 20)
            assert "finally" not in place.marks(tag), "somebody reads"
    place.wait_for(tag, "finally")
    story = place.read(run)
    assert story.end.state == "cancelled"
    assert story.data == [f"{tag}:{n}:" for n in range(len(story.data))]
    assert place.stop(run) == "cancelled"


@on_gevent
@blocked_at
def test_the_last_viewer_leaves_while_it_blocks(place: Place, tag: str, kind: str) -> None:
    with place.run("blocking", tag, kind=kind, on_disconnect="cancel") as stream:
        run = run_of(stream)
        take(stream, 1)
        place.wait_for(tag, "blocked")
    since = time.monotonic()
    assert_ended_soon(place, tag, since)
    assert place.wait_for_state(run, "cancelled")["items"] == texts(tag, 1)


@everywhere
def test_it_goes_on_without_viewers(place: Place, tag: str) -> None:
    with place.run("numbers", tag, count=4, gated=1, on_disconnect="continue") as stream:
        run = run_of(stream)
        place.allow(tag, 1)
        take(stream, 1)
    place.allow(tag, 4)
    place.wait_for_state(run, "finished")
    assert place.read(run).data == texts(tag, 4)


@everywhere
def test_seconds_of_grace(place: Place, tag: str) -> None:
    """Who is back in time saves it; who is not, does not."""
    with place.run("endless", tag, on_disconnect=1.5) as stream:
        run = run_of(stream)
        seen = take(stream, 1)
    with place.attach(run, seen[-1].id) as stream:
        seen += take(stream, 200)  # more than the grace
    left = time.monotonic()
    place.wait_for(tag, "finally")
    assert time.monotonic() - left > 1
    story = place.read(run)
    assert story.end.state == "cancelled"
    assert story.items[: len(seen)] == seen


@pytest.mark.parametrize("place", EVERYWHERE, indirect=True)
def test_a_view_can_stop_a_run_that_nobody_reads(place: Place, tag: str) -> None:
    run = place.start("endless", tag)
    until(lambda: place.result(run)["items"], "it yields")
    assert place.result(run)["state"] == "running"
    assert place.stop(run) == "stopped"
    place.wait_for(tag, "finally")
    assert place.read(run).end.state == "stopped"

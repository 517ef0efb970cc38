"""Several write one run: each item once, in one order for all readers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.kit.durable import Place, Story, everywhere, on_gevent, take
from tests.live.kit.runs import run_of
from tests.live.kit.waiting import until


@everywhere
@pytest.mark.parametrize("threads", [1, 8])
def test_several_producers(place: Place, tag: str, threads: int) -> None:
    each = 25
    with place.run("producers", tag, threads=threads, each=each) as stream:
        run = run_of(stream)
        story = Story.of(run, stream.rest())
    assert story.end.value == tag
    assert story.data[-1] == "joined", "what was emitted before it is before it"
    names = ["own", *(f"p{n}" for n in range(threads))]
    for name in names:
        own = [item for item in story.data if (item or "").startswith(f"{name}:")]
        assert own == [f"{name}:{n}" for n in range(each)], "in the order of each"
    assert len(story.data) == each * len(names) + 1
    assert place.read(run) == story, "one order for everybody"


@on_gevent
# All of it is less than what a slow client may be behind before it is cut.
@pytest.mark.parametrize(("each", "size"), [(300, 10), (5, 200_000)])
def test_native_threads(place: Place, tag: str, each: int, size: int) -> None:
    """Any thread may emit, as fast as it can; the runs of others in the same worker go on."""
    with place.run("native_producers", tag, each=each, size=size) as stream:
        run = run_of(stream)
        story = Story.of(run, stream.rest())
    for name in story.end.value:
        own = [item for item in story.data if (item or "").startswith(f"{name}:")]
        assert [item.rpartition(":")[0] for item in own if item] == [
            f"{name}:{n}" for n in range(each)
        ]
    for _ in range(8):  # some of them on that worker
        with place.run("numbers", f"{tag}.after", count=20, interval=0.001) as stream:
            assert len(Story.of(run_of(stream), stream.rest()).data) == 20


@everywhere
def test_emitted_before_a_yield_comes_before_it(place: Place, tag: str) -> None:
    with place.run("ordered", tag) as stream:
        story = Story.of(run_of(stream), stream.rest())
    assert story.data == [str(n) for n in range(30)]
    assert [item.event for item in story.items] == [None, "emitted", None] * 10


@everywhere
def test_while_the_generator_waits(place: Place, tag: str) -> None:
    """It is delivered at once, not at the next yield."""
    with place.run("silent_generator", tag) as stream:
        run = run_of(stream)
        for n in range(3):
            place.allow(tag, n + 1)
            assert [item.data for item in take(stream, 1)] == [f"emitted {n}"]
        assert [item.data for item in Story.of(run, stream.rest()).items] == ["last"]


@everywhere
def test_after_the_end(place: Place, tag: str) -> None:
    """It raises, and is in nobody's stream."""
    with place.run("late", tag) as stream:
        run = run_of(stream)
        story = Story.of(run, stream.rest())
    place.allow(tag, 1)
    until(lambda: len(place.marks(tag)) == 2, "somebody emits")
    assert place.marks(tag)[1].startswith("raised "), place.marks(tag)
    assert place.read(run) == story
    assert story.data == ["only"]


@on_gevent
def test_after_a_stop(place: Place, tag: str) -> None:
    with place.run("late", tag, blocking=1) as stream:
        run = run_of(stream)
        seen = take(stream, 1)
        place.wait_for(tag, "blocked")
        assert place.stop(run) == "stopped"
        story = Story.of(run, [*seen, *stream.rest()])
    place.allow(tag, 1)
    until(lambda: any(mark.startswith("raised") for mark in place.marks(tag)), "it raises")
    assert place.read(run) == story


@everywhere
def test_what_can_not_be_sent(place: Place, tag: str) -> None:
    """The one who emits it is told; the run is not ended by it."""
    with place.run("unencodable_emit", tag) as stream:
        story = Story.of(run_of(stream), stream.rest())
    assert place.marks(tag) == ["raised EventError"]
    assert (story.data, story.end.state) == (["after"], "finished")


@everywhere
def test_faster_than_the_store(place: Place, tag: str) -> None:
    asked: dict[str, Any] = {"count": 3000, "size": 1000, "max_bytes": 20_000_000}
    with place.run("faster_than_the_store", tag, **asked) as stream:
        story = Story.of(run_of(stream), stream.rest())
    numbers = [int((item or "").split(":")[0]) for item in story.data[:-1]]
    assert numbers == list(range(3000))
    assert story.end.state == "finished"

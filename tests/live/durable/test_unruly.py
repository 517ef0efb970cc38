"""Generators that do the worst: one bounded end each, and nobody else suffers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.live.kit.durable import Place, Story, checked, everywhere, on_gevent, take, texts
from tests.live.kit.runs import run_of
from tests.live.kit.waiting import until


@everywhere
def test_blocked_for_ever(place: Place, tag: str) -> None:
    """Heartbeats go on, others are served, and the limit of seconds ends the run."""
    with place.run("blocking", tag, heartbeat=0.3, max_seconds=2) as stream:
        run = run_of(stream)
        seen = take(stream, 1)
        stream.next_comments(2)
        assert place.ask("/hello").status == 200
        story = Story.of(run, [*seen, *stream.rest()])
    assert story.data == texts(tag, 1)
    assert (story.end.state, story.end.code) == ("failed", "run_too_long")


@on_gevent
def test_blocked_for_ever_has_its_finally(place: Place, tag: str) -> None:
    with place.run("blocking", tag, max_seconds=1) as stream:
        stream.rest()
    place.wait_for(tag, "finally")


@everywhere
def test_never_yields(place: Place, tag: str) -> None:
    """The headers come all the same, and a stop ends it for its readers."""
    with place.run("blocking", tag, before=0) as stream:
        run = run_of(stream)
        place.wait_for(tag, "blocked")
        assert place.result(run) == {"state": "running", "value": None, "error": None, "items": []}
        assert place.stop(run) == "stopped"
        story = Story.of(run, stream.rest())
    assert (story.data, story.end.state) == ([], "stopped")


@everywhere
def test_a_megabyte_at_a_time(place: Place, tag: str) -> None:
    """Each item whole, also for the one who comes back in the middle."""
    size, count = 1_000_000, 8
    asked: dict[str, Any] = {"count": count, "size": size, "max_bytes": 20_000_000}
    with place.run("numbers", tag, **asked) as stream:
        run = run_of(stream)
        seen = take(stream, 3)
    with place.attach(run, seen[-1].id) as stream:
        seen += stream.rest()
    story = Story.of(run, seen)
    assert [(item or "").rstrip("x") for item in story.data] == [
        f"{text}:" for text in texts(tag, count)
    ]
    assert [len(item or "") - size for item in story.data] == [
        len(text) + 1 for text in texts(tag, count)
    ]
    assert story.end.state == "finished"


@everywhere
def test_raises_in_finally_at_its_end(place: Place, tag: str) -> None:
    with place.run("failing_at_its_end", tag) as stream:
        story = Story.of(run_of(stream), stream.rest())
    assert story.data == texts(tag, 3)
    assert (story.end.state, story.end.code) == ("failed", "internal_error")
    assert "secret" not in str(story)


@everywhere
@pytest.mark.parametrize("how", ["stop", "leave"])
def test_raises_in_finally_when_it_is_ended(place: Place, tag: str, how: str) -> None:
    """It was ended, whatever it says then."""
    leaving = "cancel" if how == "leave" else "continue"
    with place.run("failing_at_its_end", tag, gated=1, on_disconnect=leaving) as stream:
        run = run_of(stream)
        take(stream, 3)
        place.wait_for(tag, "waiting")
        if how == "stop":
            assert place.stop(run) == "stopped"
    if how == "leave":
        place.wait_for_state(run, "cancelled")
    place.allow(tag, 1)  # in threads it ends at its next yield
    place.wait_for(tag, "finally")
    state = "stopped" if how == "stop" else "cancelled"
    assert place.read(run).end.state == state
    assert place.result(run)["state"] == state
    until(lambda: "secret detail of finally" in place.server.log(), "the operator is told")


@everywhere
def test_swallows_its_end(place: Place, tag: str) -> None:
    """It goes on as long as it wants to, but not in the run: that has ended."""
    with place.run("swallowing", tag, times=1) as stream:
        run = run_of(stream)
        seen = take(stream, 1)
        place.wait_for(tag, "waiting 0")
        assert place.stop(run) == "stopped"
        story = Story.of(run, [*seen, *stream.rest()])
    place.allow(tag, 1)
    until(lambda: place.marks(tag)[-1].split()[0] in ("swallowed", "finally"), "it was told")
    assert story.data == texts(tag, 1)
    assert story.end.state == "stopped"
    assert place.read(run) == story
    assert place.ask("/hello").status == 200


@everywhere
def test_yields_after_its_close(place: Place, tag: str) -> None:
    """What it yields then is in nobody's stream."""
    with place.run("yielding_at_its_end", tag, gated=1) as stream:
        run = run_of(stream)
        seen = take(stream, 3)
        place.wait_for(tag, "waiting")
        assert place.stop(run) == "stopped"
        story = Story.of(run, [*seen, *stream.rest()])
    place.allow(tag, 1)
    place.wait_for(tag, "closing")
    assert story.data == texts(tag, 3)
    assert place.read(run) == story


@everywhere
def test_yields_in_finally_by_itself(place: Place, tag: str) -> None:
    """Nobody has closed it: this is an item as any other."""
    with place.run("yielding_at_its_end", tag) as stream:
        story = Story.of(run_of(stream), stream.rest())
    assert story.data == [*texts(tag, 3), f"{tag}:after the close"]
    assert story.end.state == "finished"


@everywhere
def test_faster_than_its_readers(place: Place, tag: str) -> None:
    """A reader that takes little loses nothing, and does not hold up the run."""
    with place.run(
        "numbers", tag, count=3000, size=1000, max_bytes=20_000_000, on_disconnect="continue"
    ) as stream:
        run = run_of(stream)
        seen = take(stream, 1)
        place.wait_for(tag, "finished", seconds=30)
        seen += stream.rest()
    story = Story.of(run, seen)
    assert [(item or "").rstrip("x") for item in story.data] == [
        f"{text}:" for text in texts(tag, 3000)
    ]
    assert checked(run, seen)[-1].id == f"{run}.3001"

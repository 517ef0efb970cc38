"""Leaving and stopping, counted by the upstream itself: npm's aimock tells who closed early."""

from __future__ import annotations

import json

import pytest

from tests.live.kit.clients import Sent, open_stream
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.runs import run_of, stop
from tests.live.kit.stage import FORMATS, Stage, Told, attach, ended, path, read, start, take
from tests.live.kit.subscribers import EVENT_SOURCE
from tests.live.kit.waiting import until

#: Pieces of a slow story that its upstream sends in a second.
PER_SECOND = 20


def test_the_last_one_to_leave_cancels_at_once(stage: Stage, tag: str) -> None:
    """With `cancel`: not the first of two, although it is the one who started the run."""
    upstream = stage.upstream
    destroyed = upstream.destroyed()
    with start(stage.server, f"slow story #{tag}", on_disconnect="cancel") as starter:
        run = run_of(starter)
        assert starter.next()
        viewer = attach(stage.server, run)
    with viewer:
        take(viewer, PER_SECOND)
        assert upstream.destroyed() == destroyed, "somebody still reads"
    upstream.wait_for_destroyed(destroyed + 1)
    told = ended(stage.server, run)
    assert told.outcome == "cancelled"
    assert told.text
    assert (upstream.story * 20).startswith(told.text)
    assert upstream.asked_for(f"slow story #{tag}") == 1


@pytest.mark.parametrize("head", [False, True], ids=["before the headers", "after the headers"])
def test_leaving_before_the_first_token(stage: Stage, tag: str, head: bool) -> None:
    """The upstream would be silent for a minute."""
    message = f"late #{tag}"
    destroyed = stage.upstream.destroyed()
    with Connection(stage.server) as connection:
        connection.request(path(message, on_disconnect="cancel"))
        until(lambda: stage.upstream.asked_for(message) == 1, "the upstream is asked")
        if head:
            assert connection.head().status == 200
    stage.upstream.wait_for_destroyed(destroyed + 1)
    assert stage.upstream.destroyed() == destroyed + 1
    assert stage.upstream.asked_for(message) == 1


def test_ten_leave_ten_runs(stage: Stage, tag: str) -> None:
    """No seconds of grace are the same as `cancel`."""
    destroyed = stage.upstream.destroyed()
    streams = [start(stage.server, f"slow story #{tag}", on_disconnect="0") for _ in range(10)]
    for stream in streams:
        assert stream.next()
    assert len({run_of(stream) for stream in streams}) == 10
    for stream in streams:
        stream.connection.close()
    stage.upstream.wait_for_destroyed(destroyed + 10)
    assert stage.upstream.destroyed() == destroyed + 10


@pytest.mark.parametrize("form", FORMATS)
def test_stop_in_mid_answer(stage: Stage, tag: str, form: str) -> None:
    """Everybody who reads is told, and what came before stays; however often it is stopped."""
    destroyed = stage.upstream.destroyed()
    with start(stage.server, f"slow story #{tag}", format=form) as stream:
        run = run_of(stream)
        before = take(stream, 3, form)
        with attach(stage.server, run, form) as viewer:
            assert stop(stage.server, run) == "stopped"
            first, second = read(stream, form, before), read(viewer, form)
    stage.upstream.wait_for_destroyed(destroyed + 1)
    assert (first.text, first.outcome) == (second.text, "stopped")
    assert second.outcome == "stopped"
    assert stop(stage.server, run) == "stopped"
    again = ended(stage.server, run, form)
    assert (again.text, again.outcome) == (second.text, "stopped")
    assert again.pieces >= 3
    assert (stage.upstream.story * 20).startswith(again.text)
    assert stage.upstream.destroyed() == destroyed + 1


@pytest.mark.parametrize("how", ["EventSource", "early", "headers"])
def test_stop_before_the_first_token(stage: Stage, tag: str, how: str) -> None:
    """Its id is known by an EventSource's first block, at once with early headers, or late."""
    message = f"late #{tag}"
    destroyed = stage.upstream.destroyed()
    early = {"heartbeat": "early"} if how == "early" else {}
    headers = EVENT_SOURCE if how == "EventSource" else {}
    address = path(message, format="events", **early)
    with open_stream(stage.server, address, headers=headers) as stream:
        run = run_of(stream)
        if how == "EventSource":
            assert stream.next() == Sent(id=f"{run}.0")
        until(lambda: stage.upstream.asked_for(message) == 1, "the upstream is asked")
        assert stop(stage.server, run) == "stopped"
        told = read(stream, "events")
    assert (told.text, told.outcome, told.error) == ("", "stopped", None)
    stage.upstream.wait_for_destroyed(destroyed + 1)
    assert stop(stage.server, run) == "stopped"
    assert stage.upstream.destroyed() == destroyed + 1


def test_coming_back_within_the_grace_time(stage: Stage, tag: str) -> None:
    """The clock stops while somebody is there: more than the grace time is read after it."""
    upstream, destroyed = stage.upstream, stage.upstream.destroyed()
    with start(stage.server, f"slow story #{tag}", on_disconnect="2") as stream:
        run = run_of(stream)
        take(stream, 2)
    with attach(stage.server, run) as viewer:
        take(viewer, 5 * PER_SECOND // 2)
        assert upstream.destroyed() == destroyed
        seen = viewer.next()
        assert seen
    upstream.wait_for_destroyed(destroyed + 1)
    told = ended(stage.server, run)
    assert told.outcome == "cancelled"
    assert told.pieces > 5 * PER_SECOND // 2
    assert upstream.asked_for(f"slow story #{tag}") == 1


def test_nobody_comes_back_within_the_grace_time(stage: Stage, tag: str) -> None:
    """It goes on for that time, then it is cancelled."""
    upstream, destroyed = stage.upstream, stage.upstream.destroyed()
    with start(stage.server, f"slow story #{tag}", on_disconnect="1") as stream:
        run = run_of(stream)
        seen = Told(take(stream, 2), "text")
    upstream.wait_for_destroyed(destroyed + 1)
    told = ended(stage.server, run)
    assert told.outcome == "cancelled"
    assert told.pieces > seen.pieces + PER_SECOND // 2, "what came while nobody was there"
    assert upstream.asked_for(f"slow story #{tag}") == 1


def test_going_on_without_anybody(stage: Stage, tag: str) -> None:
    """With `continue`: nobody is there at its end, and it has all been kept."""
    upstream, destroyed, message = stage.upstream, stage.upstream.destroyed(), f"paced story #{tag}"
    with start(stage.server, message, on_disconnect="continue") as stream:
        run = run_of(stream)
        take(stream, 2)
    ids = []
    for form in ("text", "chunks"):
        told = ended(stage.server, run, form)
        assert (told.text, told.outcome) == (upstream.story * 4, "finished")
        assert told.reason == "stop"
        ids.append(told.events[-1].id)
    assert ids[0] == ids[1]
    assert (upstream.destroyed(), upstream.asked_for(message)) == (destroyed, 1)


def test_stopping_what_has_ended(stage: Stage, tag: str) -> None:
    destroyed = stage.upstream.destroyed()
    with start(stage.server, f"story #{tag}") as stream:
        run = run_of(stream)
        first = read(stream, "chunks")
    assert stop(stage.server, run) == "finished"
    again = ended(stage.server, run, "chunks")
    assert again.events == first.events
    assert stage.upstream.destroyed() == destroyed
    assert fetch(stage.server, f"/runs/{'0' * 32}", method="DELETE").status == 404


def test_tokens_are_counted_however_it_ends(stage: Stage, tag: str) -> None:
    """The upstream's own figures; where it never said, what has been streamed."""
    with start(stage.server, f"counted #{tag}", format="events") as stream:
        told = read(stream, "events")
    (usage,) = told.usage
    assert usage == {"prompt_tokens": 11, "completion_tokens": 222, "total_tokens": 233}
    destroyed = stage.upstream.destroyed()
    with start(stage.server, f"slow story #{tag}", format="events", on_disconnect="0") as stream:
        run = run_of(stream)
        take(stream, 3, "events")
    stage.upstream.wait_for_destroyed(destroyed + 1)
    told = ended(stage.server, run, "events")
    assert told.outcome == "cancelled"
    (usage,) = told.usage
    assert usage.pop("partial") is True
    assert set(usage) == {"completion_tokens"}
    # Half a character is a piece of its own for the upstream, and comes with the other half here.
    assert told.pieces <= usage["completion_tokens"] <= told.pieces + 2
    assert [event.event for event in told.events[-2:]] == ["usage", "done"]


def test_the_log_tells_each_end(stage: Stage, tag: str) -> None:
    """Also what it cost: one line for a run."""
    with start(stage.server, f"counted #{tag}", format="text") as stream:
        run = run_of(stream)
        read(stream, "text")

    def lines() -> list[str]:
        return [line for line in stage.server.log().splitlines() if run in line and "222" in line]

    (line,) = until(lines, "a line with the run's usage")
    assert "finished" in line


def test_errors_are_no_runs_that_can_be_stopped(stage: Stage, tag: str) -> None:
    """A run that failed before its first frame is one that has failed."""
    answer = fetch(stage.server, path(f"broken #{tag}"))
    assert answer.status == 500
    run = answer.headers["x-run-id"]
    assert stop(stage.server, run) == "failed"
    again = fetch(stage.server, f"/runs/{run}")
    assert again.status == 500
    assert json.loads(again.body) == json.loads(answer.body)
    assert stage.upstream.asked_for(f"broken #{tag}") == 1

"""Leaving and stopping, counted by the upstream itself: npm's aimock reports early closes."""

from __future__ import annotations

import json

import pytest

from tests.live.kit.aimock import Aimock
from tests.live.kit.clients import open_stream
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.events import Sent
from tests.live.kit.run_events import FORMATS, Decoded
from tests.live.kit.runs import attach, read, read_run, run_of, start, start_path, stop, take
from tests.live.kit.servers import Server
from tests.live.kit.subscribers import EVENT_SOURCE
from tests.live.kit.waiting import until

#: Pieces of a slow story that its upstream sends in a second.
PER_SECOND = 20


def test_the_last_one_to_leave_cancels_at_once(relay: Server, upstream: Aimock, tag: str) -> None:
    """With `cancel`: not when the first of two leaves, although it started the run."""
    upstream = upstream
    destroyed = upstream.destroyed()
    with start(relay, f"slow story #{tag}", on_disconnect="cancel") as starter:
        run = run_of(starter)
        assert starter.next()
        viewer = attach(relay, run, "text")
    with viewer:
        take(viewer, PER_SECOND)
        assert upstream.destroyed() == destroyed, "it still has a viewer"
    upstream.wait_for_destroyed(destroyed + 1)
    decoded = read_run(relay, run)
    assert decoded.outcome == "cancelled"
    assert decoded.text
    assert (upstream.story * 20).startswith(decoded.text)
    assert upstream.asked_for(f"slow story #{tag}") == 1


@pytest.mark.parametrize("head", [False, True], ids=["before the headers", "after the headers"])
def test_leaving_before_the_first_token(
    relay: Server, upstream: Aimock, tag: str, head: bool
) -> None:
    """The upstream would be silent for a minute."""
    message = f"late #{tag}"
    destroyed = upstream.destroyed()
    with Connection(relay) as connection:
        connection.request(start_path(message, on_disconnect="cancel"))
        until(lambda: upstream.asked_for(message) == 1, "the upstream is asked")
        if head:
            assert connection.head().status == 200
    upstream.wait_for_destroyed(destroyed + 1)
    assert upstream.destroyed() == destroyed + 1
    assert upstream.asked_for(message) == 1


def test_ten_leave_ten_runs(relay: Server, upstream: Aimock, tag: str) -> None:
    """No seconds of grace are the same as `cancel`."""
    destroyed = upstream.destroyed()
    streams = [start(relay, f"slow story #{tag}", on_disconnect="0") for _ in range(10)]
    for stream in streams:
        assert stream.next()
    assert len({run_of(stream) for stream in streams}) == 10
    for stream in streams:
        stream.connection.close()
    upstream.wait_for_destroyed(destroyed + 10)
    assert upstream.destroyed() == destroyed + 10


@pytest.mark.parametrize("format", FORMATS)
def test_stop_in_mid_answer(relay: Server, upstream: Aimock, tag: str, format: str) -> None:
    """All viewers get the end, and what came before stays, however often it is stopped."""
    destroyed = upstream.destroyed()
    with start(relay, f"slow story #{tag}", format=format) as stream:
        run = run_of(stream)
        before = take(stream, 3, format)
        with attach(relay, run, format) as viewer:
            assert stop(relay, run) == "stopped"
            first, second = read(stream, format, before), read(viewer, format)
    upstream.wait_for_destroyed(destroyed + 1)
    assert (first.text, first.outcome) == (second.text, "stopped")
    assert second.outcome == "stopped"
    assert stop(relay, run) == "stopped"
    again = read_run(relay, run, format)
    assert (again.text, again.outcome) == (second.text, "stopped")
    assert again.pieces >= 3
    assert (upstream.story * 20).startswith(again.text)
    assert upstream.destroyed() == destroyed + 1


@pytest.mark.parametrize("how", ["EventSource", "early", "headers"])
def test_stop_before_the_first_token(relay: Server, upstream: Aimock, tag: str, how: str) -> None:
    """Its id is known by an EventSource's first block, at once with early headers, or late."""
    message = f"late #{tag}"
    destroyed = upstream.destroyed()
    early = {"heartbeat": "early"} if how == "early" else {}
    headers = EVENT_SOURCE if how == "EventSource" else {}
    address = start_path(message, format="events", **early)
    with open_stream(relay, address, headers=headers) as stream:
        run = run_of(stream)
        if how == "EventSource":
            assert stream.next() == Sent(id=f"{run}.0")
        until(lambda: upstream.asked_for(message) == 1, "the upstream is asked")
        assert stop(relay, run) == "stopped"
        decoded = read(stream, "events")
    assert (decoded.text, decoded.outcome, decoded.error) == ("", "stopped", None)
    upstream.wait_for_destroyed(destroyed + 1)
    assert stop(relay, run) == "stopped"
    assert upstream.destroyed() == destroyed + 1


def test_coming_back_within_the_grace_time(relay: Server, upstream: Aimock, tag: str) -> None:
    """The clock stops while there is a viewer: it reads on beyond the grace time."""
    upstream, destroyed = upstream, upstream.destroyed()
    with start(relay, f"slow story #{tag}", on_disconnect="2") as stream:
        run = run_of(stream)
        take(stream, 2)
    with attach(relay, run, "text") as viewer:
        take(viewer, 5 * PER_SECOND // 2)
        assert upstream.destroyed() == destroyed
        seen = viewer.next()
        assert seen
    upstream.wait_for_destroyed(destroyed + 1)
    decoded = read_run(relay, run)
    assert decoded.outcome == "cancelled"
    assert decoded.pieces > 5 * PER_SECOND // 2
    assert upstream.asked_for(f"slow story #{tag}") == 1


def test_nobody_comes_back_within_the_grace_time(relay: Server, upstream: Aimock, tag: str) -> None:
    """It goes on for that time, then it is cancelled."""
    upstream, destroyed = upstream, upstream.destroyed()
    with start(relay, f"slow story #{tag}", on_disconnect="1") as stream:
        run = run_of(stream)
        seen = Decoded("text", take(stream, 2))
    upstream.wait_for_destroyed(destroyed + 1)
    decoded = read_run(relay, run)
    assert decoded.outcome == "cancelled"
    assert decoded.pieces > seen.pieces + PER_SECOND // 2, "what came without viewers"
    assert upstream.asked_for(f"slow story #{tag}") == 1


def test_going_on_without_anybody(relay: Server, upstream: Aimock, tag: str) -> None:
    """With `continue`: it has no viewer at its end, and all of it is stored."""
    upstream, destroyed, message = upstream, upstream.destroyed(), f"paced story #{tag}"
    with start(relay, message, on_disconnect="continue") as stream:
        run = run_of(stream)
        take(stream, 2)
    ids = []
    for format in ("text", "chunks"):
        decoded = read_run(relay, run, format)
        assert (decoded.text, decoded.outcome) == (upstream.story * 4, "finished")
        assert decoded.reason == "stop"
        ids.append(decoded.events[-1].id)
    assert ids[0] == ids[1]
    assert (upstream.destroyed(), upstream.asked_for(message)) == (destroyed, 1)


def test_stopping_what_has_ended(relay: Server, upstream: Aimock, tag: str) -> None:
    destroyed = upstream.destroyed()
    with start(relay, f"story #{tag}") as stream:
        run = run_of(stream)
        first = read(stream, "chunks")
    assert stop(relay, run) == "finished"
    again = read_run(relay, run, "chunks")
    assert again.events == first.events
    assert upstream.destroyed() == destroyed
    assert fetch(relay, f"/runs/{'0' * 32}", method="DELETE").status == 404


def test_tokens_are_counted_however_it_ends(relay: Server, upstream: Aimock, tag: str) -> None:
    """The upstream's own figures; if it gave none, what has been streamed."""
    with start(relay, f"counted #{tag}", format="events") as stream:
        decoded = read(stream, "events")
    (usage,) = decoded.usage
    assert usage == {"prompt_tokens": 11, "completion_tokens": 222, "total_tokens": 233}
    destroyed = upstream.destroyed()
    with start(relay, f"slow story #{tag}", format="events", on_disconnect="0") as stream:
        run = run_of(stream)
        take(stream, 3, "events")
    upstream.wait_for_destroyed(destroyed + 1)
    decoded = read_run(relay, run, "events")
    assert decoded.outcome == "cancelled"
    (usage,) = decoded.usage
    assert usage.pop("partial") is True
    assert set(usage) == {"completion_tokens"}
    # Half a character is a piece of its own for the upstream, and comes with the other half here.
    assert decoded.pieces <= usage["completion_tokens"] <= decoded.pieces + 2
    assert [event.event for event in decoded.events[-2:]] == ["usage", "done"]


def test_the_log_tells_each_end(relay: Server, tag: str) -> None:
    """Each run has one line, with its tokens."""
    with start(relay, f"counted #{tag}", format="text") as stream:
        run = run_of(stream)
        read(stream, "text")

    def lines() -> list[str]:
        return [line for line in relay.log().splitlines() if run in line and "222" in line]

    (line,) = until(lines, "a line with the run's usage")
    assert "finished" in line


def test_errors_are_no_runs_that_can_be_stopped(relay: Server, upstream: Aimock, tag: str) -> None:
    """A run that failed before its first frame is one that has failed."""
    answer = fetch(relay, start_path(f"broken #{tag}"))
    assert answer.status == 500
    run = answer.headers["x-run-id"]
    assert stop(relay, run) == "failed"
    again = fetch(relay, f"/runs/{run}")
    assert again.status == 500
    assert json.loads(again.body) == json.loads(answer.body)
    assert upstream.asked_for(f"broken #{tag}") == 1

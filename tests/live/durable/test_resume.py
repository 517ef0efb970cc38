"""A generator is run once; clients drop, come back and get exactly the rest."""

from __future__ import annotations

import contextlib
import random

import pytest

from tests.live.kit.clients import curl
from tests.live.kit.durable import (
    Place,
    Story,
    checked,
    everywhere,
    on_two,
    refused,
    take,
    texts,
    with_two_workers,
)
from tests.live.kit.runs import NO_RUN, path_of, run_of
from tests.live.kit.subscribers import EVENT_SOURCE
from tests.live.kit.workers import connect_to, other_worker, worker_of


@everywhere
def test_one_client_from_start_to_end(place: Place, tag: str) -> None:
    with place.run("numbers", tag, count=5) as stream:
        assert stream.head.status == 200
        headers = stream.head.headers
        run = run_of(stream)
        events = stream.rest()
    assert headers["content-type"].startswith("text/event-stream")
    assert "no-store" in headers["cache-control"]
    story = Story.of(run, events)
    assert story.data == texts(tag, 5)
    assert (story.end.state, story.end.value) == ("finished", {"count": 5})
    assert [event.id for event in events if event.data] == [f"{run}.{n}" for n in range(1, 7)]
    assert place.marks(tag)[1:] == ["finished", "finally"]


@everywhere
@pytest.mark.parametrize("way", ["run", "attach", "query", "polyfill"])
def test_dropped_and_resumed(place: Place, tag: str, way: str) -> None:
    """By either route; the generator goes on meanwhile, and is run once."""
    with place.run("numbers", tag, count=8, gated=1) as stream:
        run = run_of(stream)
        place.allow(tag, 3)
        seen = take(stream, 3)
    place.allow(tag, 6)
    place.wait_for_state(run, "running")
    last = seen[-1].id
    assert last is not None
    if way == "run":
        again = place.run("numbers", tag, count=8, gated=1, headers={"Last-Event-ID": last})
    elif way == "attach":
        again = place.attach(run, last)
    elif way == "query":
        again = place.attach(run, last_event_id=last)
    else:
        again = place.run("numbers", tag, count=8, gated=1, lastEventId=last)
    with again:
        assert run_of(again) == run
        seen += take(again, 3)
        place.allow(tag, 8)
        seen += again.rest()
    assert Story.of(run, seen).data == texts(tag, 8)
    assert len(place.starts(tag)) == 1, "it is not run again"
    assert place.marks(tag).count("finally") == 1


@everywhere
def test_from_each_of_its_ids(place: Place, tag: str) -> None:
    """After its end, and the whole of it without a cursor or from ``earliest``."""
    with place.run("numbers", tag, count=6) as stream:
        run = run_of(stream)
        whole = Story.of(run, stream.rest())
    for n in range(6):
        rest = place.read(run, f"{run}.{n}" if n else None)
        assert rest.items == whole.items[n:]
        assert rest.end == whole.end
    assert place.read(run, f"{run}.0") == whole
    assert place.read(run, "earliest") == whole
    assert place.read(run, last_event_id="earliest") == whole
    assert place.read(run, f"{run}.6").items == []


@everywhere
@pytest.mark.parametrize("by", ["run", "attach"])
def test_nothing_is_left(place: Place, tag: str, by: str) -> None:
    """204 after the terminal event, which makes an EventSource stop."""
    with place.run("numbers", tag, count=2) as stream:
        run = run_of(stream)
        last = Story.of(run, stream.rest()).last
    for headers in ({}, EVENT_SOURCE):
        cursor = {**headers, "Last-Event-ID": last}
        if by == "run":
            again = place.run("numbers", tag, count=2, headers=cursor, method="GET")
        else:
            again = place.attach(run, headers=cursor)
        with again:
            assert again.head.status == 204, again.head
            assert again.rest() == []
    assert len(place.starts(tag)) == 1


@with_two_workers
def test_from_another_worker(place: Place, tag: str) -> None:
    """While it goes on, and after its end."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(place.run("numbers", tag, count=9, gated=1))
        run = run_of(first)
        place.allow(tag, 3)
        seen = take(first, 3)
        writing = worker_of(place.server, first.connection)
        other = other_worker(place.server, writing)
        where = connect_to(place.server, other)
        second = stack.enter_context(place.attach(run, seen[1].id, where=where))
        assert take(second, 1) == seen[2:]
        place.allow(tag, 6)
        more = take(second, 3)
        assert take(first, 3) == more
        place.allow(tag, 9)
        rest = second.rest()
        assert checked(run, first.rest()) == checked(run, rest)
    whole = [*seen, *more, *rest]
    assert Story.of(run, whole).data == texts(tag, 9)
    for worker in (writing, other):
        with place.attach(run, where=connect_to(place.server, worker)) as stream:
            assert Story.of(run, stream.rest()) == Story.of(run, whole)
    assert place.starts(tag) == [writing.pid]


@everywhere
def test_many_viewers_of_one_run(place: Place, tag: str) -> None:
    """Those who come early, in the middle and late see the same."""
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(place.run("numbers", tag, count=10, gated=1))
        run = run_of(first)
        viewers = [first]
        for n in (2, 5, 8):
            place.allow(tag, n)
            viewers += [stack.enter_context(place.attach(run)) for _ in range(3)]
        place.allow(tag, 10)
        stories = [Story.of(run, stream.rest()) for stream in viewers]
    stories.append(place.read(run))
    assert stories[0].data == texts(tag, 10)
    assert stories == [stories[0]] * len(stories)


@everywhere
def test_an_item_is_seen_before_the_next_is_made(place: Place, tag: str) -> None:
    """Nothing waits for a busy generator, or for its end."""
    with place.run("numbers", tag, count=5, gated=1) as stream:
        for n in range(5):
            place.allow(tag, n + 1)
            assert [item.data for item in take(stream, 1)] == [f"{tag}:{n}"]
        stream.rest()


@everywhere
def test_whom_a_run_belongs_to(place: Place, tag: str) -> None:
    """A stranger's run and one that never was are the same to a client."""
    with place.run("numbers", tag, count=3, owner="ann") as stream:
        run = run_of(stream)
        assert Story.of(run, stream.rest()).data == texts(tag, 3)
    assert place.read(run, owner="ann").data == texts(tag, 3)
    for method, path in (("GET", "/attach"), ("DELETE", "/runs"), ("GET", "/result")):
        asked = [
            place.ask(path_of(f"{path}/{which}", **owner), method)
            for which, owner in (
                (run, {"owner": "bob"}),
                (run, {}),
                (NO_RUN, {"owner": "ann"}),
                (NO_RUN, {"owner": "bob"}),
                ("nonsense", {"owner": "ann"}),
            )
        ]
        errors = [refused(answer, 404) for answer in asked]
        assert [error["code"] for error in errors] == ["run_not_found"] * 5
        assert len({error["message"].replace(run, NO_RUN) for error in errors[:4]}) == 1
        told = [set(answer.headers) for answer in asked[:4]]
        assert told == [told[0]] * 4, "nor do the headers tell them apart"
    answer = place.ask(path_of(f"/attach/{run}", owner="bob"), **{"Last-Event-ID": f"{run}.4"})
    assert refused(answer, 404)["code"] == "run_not_found", "not even its last id is known"


@everywhere
def test_a_stranger_resumes_at_the_view_that_runs(place: Place, tag: str) -> None:
    """He gets the 404 of an unknown run, and no run of his own."""
    with place.run("numbers", tag, count=3, owner="ann") as stream:
        run = run_of(stream)
        stream.rest()
    for last in (f"{run}.1", f"{NO_RUN}.1"):
        stranger = place.run(
            "numbers", f"{tag}-2", count=3, owner="bob", headers={"Last-Event-ID": last}
        )
        assert refused(stranger, 404)["code"] == "run_not_found"
    assert place.starts(f"{tag}-2") == []


@on_two
def test_an_owner_is_a_number(place: Place, tag: str) -> None:
    """As the ids of most databases are."""
    with place.run("numbers", tag, count=2, owner_number=7) as stream:
        run = run_of(stream)
        stream.rest()
    assert place.read(run, owner_number=7).data == texts(tag, 2)
    assert refused(place.attach(run, owner_number=8), 404)


@on_two
@pytest.mark.parametrize("by", ["run", "attach"])
@pytest.mark.parametrize(
    "cursor", ["nonsense", "7", "{run}", "{run}.", "{run}.x", "{run}.-1", "{run}.1.1", "{run}.99"]
)
def test_a_cursor_that_is_none(place: Place, tag: str, by: str, cursor: str) -> None:
    """It is said: no other run is begun, no item left out. 99 is further than it has come."""
    with place.run("numbers", tag, count=9, gated=1) as stream:
        run = run_of(stream)
        place.allow(tag, 2)
        take(stream, 2)
        headers = {"Last-Event-ID": cursor.format(run=run)}
        if by == "run":
            answer = place.run("numbers", f"{tag}-2", count=2, headers=headers)
        else:
            answer = place.attach(run, headers=headers)
        assert refused(answer, 400)
        place.allow(tag, 9)
        assert len(take(stream, 7)) == 7, "the run does not mind"
    assert place.starts(f"{tag}-2") == []


@on_two
def test_a_cursor_of_another_run(place: Place, tag: str) -> None:
    runs = []
    for n in range(2):
        with place.run("numbers", f"{tag}-{n}", count=2) as stream:
            runs.append(run_of(stream))
            stream.rest()
    assert refused(place.attach(runs[0], f"{runs[1]}.1"), 400)
    assert place.read(runs[0], "").data == texts(f"{tag}-0", 2), "an empty one is none"


@everywhere
def test_after(place: Place, tag: str) -> None:
    """Where a client without a cursor begins; its own cursor wins."""
    with place.run("numbers", tag, count=4) as stream:
        run = run_of(stream)
        stream.rest()
    assert place.read(run, after=f"{run}.2").data == texts(tag, 4, 2)
    assert place.read(run, f"{run}.3", after=f"{run}.1").data == texts(tag, 4, 3)
    assert place.read(run, after="earliest").data == texts(tag, 4)


@everywhere
def test_head_and_guesses_begin_nothing(place: Place, tag: str) -> None:
    with place.run("numbers", tag, count=2, method="HEAD") as stream:
        assert stream.head.status == 200
        assert stream.rest() == []
    with place.run(
        "numbers", tag, count=2, method="GET", headers={"Sec-Purpose": "prefetch"}
    ) as stream:
        assert stream.head.status == 204
    place.read(place.start("numbers", f"{tag}-later", count=1))  # what was begun has begun by now
    assert place.starts(tag) == []


@on_two
def test_head_of_a_run(place: Place, tag: str) -> None:
    with place.run("numbers", tag, count=2) as stream:
        run = run_of(stream)
        stream.rest()
    answer = place.ask(f"/attach/{run}", "HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert run_of(answer) == run
    assert place.ask(f"/attach/{NO_RUN}", "HEAD").status == 404


@everywhere
def test_curl(place: Place, tag: str) -> None:
    """A complete body, also by HTTP/1.0."""
    for version in ("--http1.1", "--http1.0"):
        done = curl(place.server, path_of("/run/numbers", tag=tag, count=2), version, "-i")
        assert done.returncode == 0, done.stderr
        assert f"data: {tag}:0\n\n" in done.stdout
        assert "event: done\n" in done.stdout
        assert done.stdout.endswith("\n\n")
        assert "x-run-id: " in done.stdout.lower()


@everywhere
def test_an_event_source_can_resume_before_the_first_item(place: Place, tag: str) -> None:
    """It is given the run's id with the headers."""
    with place.run("numbers", tag, count=2, gated=1, method="GET", headers=EVENT_SOURCE) as stream:
        run = run_of(stream)
        first = stream.next()
        assert (first.id, first.data) == (f"{run}.0", None)
    place.allow(tag, 2)
    again = place.run(
        "numbers", tag, count=2, method="GET", headers={**EVENT_SOURCE, "Last-Event-ID": f"{run}.0"}
    )
    with again:
        assert Story.of(run, again.rest()).data == texts(tag, 2)
    assert len(place.starts(tag)) == 1


@everywhere
def test_heartbeats_while_it_is_silent(place: Place, tag: str) -> None:
    """For the one who began it, and for others."""
    with place.run("numbers", tag, count=1, gated=1, heartbeat=0.2) as stream:
        run = run_of(stream)
        assert stream.next_comments(3)[-1] == "ping"
        with place.attach(run) as viewer:
            assert viewer.next_comments(2)[-1] == "ping"
        place.allow(tag, 1)
        assert [item.data for item in take(stream, 1)] == texts(tag, 1)
        stream.rest()


@everywhere
def test_clients_that_break_off_at_random(place: Place, tag: str) -> None:
    """Each comes back with its last id until it is at the end."""
    chance = random.Random(16)
    with place.run("numbers", tag, count=60, interval=0.01) as stream:
        run = run_of(stream)
        seen = take(stream, 1)
    ended = False
    while not ended:
        with place.attach(run, seen[-1].id) as stream:
            for _ in range(chance.randint(1, 15)):
                event = next(iter(stream), None)
                if event is None:
                    ended = True
                    break
                seen.append(event)
    assert Story.of(run, seen).data == texts(tag, 60)


@on_two
def test_an_iterator_that_is_not_run_is_closed(place: Place, tag: str) -> None:
    """A client resumes at the view that runs: what the view has made is not needed."""
    with place.run("iterated", tag) as stream:
        run = run_of(stream)
        story = Story.of(run, stream.rest())
        assert story.data == texts(tag, 3)
    unused = f"{tag}-unused"
    with place.run("iterated", unused, headers={"Last-Event-ID": f"{run}.1"}) as stream:
        assert Story.of(run, stream.rest()).data == texts(tag, 3, 1)
    assert place.marks(unused) == ["closed"]


@on_two
def test_other_iterables(place: Place, tag: str) -> None:
    with place.run("listed", tag) as stream:
        assert Story.of(run_of(stream), stream.rest()).data == texts(tag, 3)
    with place.run("numbers", tag, count=2, call=1) as stream:
        assert Story.of(run_of(stream), stream.rest()).data == texts(tag, 2)


@on_two
def test_the_wait_for_the_first_item_is_no_error(place: Place, tag: str) -> None:
    """The headers come without it, after a second at the latest."""
    with place.run("numbers", tag, count=1, gated=1) as stream:
        assert stream.head.status == 200
        assert place.starts(tag)
        place.allow(tag, 1)
        assert Story.of(run_of(stream), stream.rest()).data == texts(tag, 1)

"""A request that is repeated with its key gets the run that there is."""

from __future__ import annotations

import pytest

from tests.live.kit.connection import Answer
from tests.live.kit.durable import Place, Story, everywhere, on_two, take, texts, with_two_workers
from tests.live.kit.runs import all_at_once, path_of, run_of
from tests.live.kit.workers import connect_to, other_worker


@everywhere
def test_the_same_run(place: Place, tag: str, key: str) -> None:
    """While it goes on, from its start; and after its end."""
    with place.run("numbers", tag, count=4, gated=1, key=key) as first:
        run = run_of(first)
        place.allow(tag, 2)
        seen = take(first, 2)
        with place.run("numbers", tag, count=4, gated=1, key=key) as second:
            assert run_of(second) == run
            assert second.head.headers.get("idempotency-replayed") == "true"
            assert take(second, 2) == seen
            place.allow(tag, 4)
            whole = Story.of(run, [*seen, *second.rest()])
        assert Story.of(run, [*seen, *first.rest()]) == whole
    with place.run("numbers", tag, count=4, gated=1, key=key) as third:
        assert Story.of(run, third.rest()) == whole
    assert len(place.starts(tag)) == 1


@everywhere
def test_a_race_of_twenty(place: Place, tag: str, key: str) -> None:
    """On all workers: one begins the run, and all see the whole of it."""

    def ask() -> Story:
        with place.run("numbers", tag, count=10, interval=0.02, key=key) as stream:
            assert stream.head.status == 200, stream.head
            return Story.of(run_of(stream), stream.rest())

    stories = all_at_once(*[ask] * 20)
    assert stories == [stories[0]] * 20
    assert stories[0].data == texts(tag, 10)
    assert len(place.starts(tag)) == 1


@everywhere
def test_a_race_to_start(place: Place, tag: str, key: str) -> None:
    runs = all_at_once(*[lambda: place.start("numbers", tag, count=3, key=key)] * 20)
    assert len(set(runs)) == 1
    assert place.read(runs[0]).data == texts(tag, 3)
    assert len(place.starts(tag)) == 1


@with_two_workers
def test_on_another_worker(place: Place, tag: str, key: str) -> None:
    with place.run("numbers", tag, count=4, gated=1, key=key) as first:
        run = run_of(first)
        place.allow(tag, 1)
        seen = take(first, 1)
        where = connect_to(place.server, other_worker(place.server, place.writer(tag)))
        with place.run("numbers", tag, count=4, gated=1, key=key, where=where) as second:
            assert run_of(second) == run
            assert take(second, 1) == seen
        place.allow(tag, 4)
        first.rest()
    assert len(place.starts(tag)) == 1


@everywhere
def test_keys_belong_to_owners(place: Place, tag: str, key: str) -> None:
    """Neither ann nor bob can find out that the other has used it."""
    runs = [
        place.start("numbers", f"{tag}-{n}", count=2, key=key, **owner)
        for n, owner in enumerate(({"owner": "ann"}, {"owner": "bob"}, {}, {"owner": "ann"}))
    ]
    assert len(set(runs)) == 3
    assert runs[3] == runs[0]
    assert place.read(runs[0], owner="ann").data == texts(f"{tag}-0", 2)
    assert place.starts(f"{tag}-3") == []


@everywhere
def test_another_generator_with_the_same_key(place: Place, tag: str, key: str) -> None:
    """The library can't compare generators: the run is the first one's, and only that runs."""
    first = place.start("numbers", tag, count=2, key=key)
    assert place.start("blocking", f"{tag}-other", key=key) == first
    assert place.read(first).data == texts(tag, 2)
    assert place.starts(f"{tag}-other") == []


@everywhere
@pytest.mark.parametrize("how", ["stopped", "failed"])
def test_after_such_an_end(place: Place, tag: str, key: str, how: str) -> None:
    """A new attempt needs a new key, once there was an item."""
    name = "endless" if how == "stopped" else "failing"
    with place.run(name, tag, key=key, after=1) as stream:
        run = run_of(stream)
        seen = take(stream, 1)
        if how == "stopped":
            assert place.stop(run) == "stopped"
        story = Story.of(run, [*seen, *stream.rest()])
    with place.run(name, tag, key=key, after=1) as again:
        assert Story.of(run, again.rest()) == story
    with place.run("numbers", f"{tag}-2", key=f"{key}-2", count=1) as fresh:
        assert run_of(fresh) != run
        assert Story.of(run_of(fresh), fresh.rest()).end.state == "finished"


@everywhere
def test_a_cursor_wins_over_a_key(place: Place, tag: str, key: str) -> None:
    """An EventSource has both: it comes back to its address with its last id."""
    with place.run("numbers", tag, count=4, key=key, method="GET") as stream:
        run = run_of(stream)
        seen = take(stream, 2)
    last = {"Last-Event-ID": str(seen[-1].id)}
    with place.run("numbers", tag, count=4, key=key, method="GET", headers=last) as again:
        assert Story.of(run, [*seen, *again.rest()]).data == texts(tag, 4)
    assert len(place.starts(tag)) == 1


@on_two
@pytest.mark.parametrize("key", ["", "with space", "ü", "a" * 256, "line\nbreak"])
def test_keys_that_are_none(place: Place, tag: str, key: str) -> None:
    """1 to 255 printable characters of ASCII without spaces, as over HTTP; nothing is begun."""
    answer: Answer = place.ask(path_of("/run/numbers", tag=tag, count=1, key=key), "POST")
    assert answer.status in (400, 500), answer
    assert place.starts(tag) == []

"""Two machines with files of their own, which share a Redis server: runs cross them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

import pytest

from tests import redis_server
from tests.live.durable.test_death import resumable
from tests.live.durable.test_stop import AT_ONCE
from tests.live.kit.durable import LIMIT, Place, Story, durable, kill, take, texts
from tests.live.kit.runs import all_at_once, run_of
from tests.live.kit.waiting import until


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Place]]:
    """Two process groups with files of their own."""
    if not redis_server.programs():
        pytest.skip(redis_server.NONE)
    runs = redis_server.shared(next(iter(redis_server.programs()))).place()
    directory = tmp_path_factory.mktemp("machines")
    notes = directory / "notes"
    with contextlib.ExitStack() as stack:
        one, two = (
            stack.enter_context(durable(kind, directory / name, runs, workers=1, notes=notes))
            for name, kind in (("one", "gunicorn-worker"), ("two", "gunicorn-worker"))
        )
        yield one, two


@pytest.fixture
def pair(machines: tuple[Place, Place]) -> tuple[Place, Place]:
    """The same, whatever an earlier test has done to their workers."""
    for machine in machines:
        until(lambda machine=machine: len(machine.server.workers()) == 1, "its worker")  # type: ignore[misc]  # mypy knows no default of a lambda
        machine.server.wait_until_ready("/healthz")
    return machines


def test_read_elsewhere(pair: tuple[Place, Place], tag: str) -> None:
    one, two = pair
    with one.run("numbers", tag, count=6, gated=1, owner="ann") as stream:
        run = run_of(stream)
        one.allow(tag, 2)
        seen = take(stream, 2)
    with two.attach(run, seen[0].id, owner="ann") as stream:
        assert take(stream, 1) == seen[1:]
        one.allow(tag, 4)
        seen += take(stream, 2)
    one.allow(tag, 6)
    with two.run(
        "numbers", tag, count=6, owner="ann", headers={"Last-Event-ID": str(seen[-1].id)}
    ) as stream:
        story = Story.of(run, [*seen, *stream.rest()])
    assert story.data == texts(tag, 6)
    assert one.read(run, owner="ann") == two.read(run, owner="ann") == story
    assert two.result(run, owner="ann") == one.result(run, owner="ann")
    assert two.ask(f"/attach/{run}?owner=bob").status == 404
    assert len(one.starts(tag)) == 1


@pytest.mark.parametrize("kind", ["sleep", "queue", "socket"])
def test_stopped_from_another_machine(pair: tuple[Place, Place], tag: str, kind: str) -> None:
    one, two = pair
    with one.run("blocking", tag, kind=kind) as stream:
        run = run_of(stream)
        seen = take(stream, 1)
        one.wait_for(tag, "blocked")
        since = time.monotonic()
        assert two.stop(run) == "stopped"
        one.wait_for(tag, "finally")
        assert time.monotonic() - since < AT_ONCE
        story = Story.of(run, [*seen, *stream.rest()])
    assert story.end.state == "stopped"
    assert one.stop(run) == two.stop(run) == "stopped"
    assert two.read(run) == story


def test_viewers_on_another_machine_count(pair: tuple[Place, Place], tag: str) -> None:
    """With ``cancel`` it goes on as long as one is there."""
    one, two = pair
    with one.run("endless", tag, on_disconnect="cancel") as stream:
        run = run_of(stream)
        take(stream, 1)
        viewer = two.attach(run)
        take(viewer, 1)
    with viewer:
        take(viewer, 50)
        assert "finally" not in one.marks(tag)
    one.wait_for(tag, "finally")
    assert one.read(run).end.state == "cancelled"


def test_a_key_on_both(pair: tuple[Place, Place], tag: str, key: str) -> None:
    def ask(place: Place) -> str:
        return place.start("numbers", tag, count=3, key=key)

    runs = all_at_once(*[lambda: ask(pair[0]), lambda: ask(pair[1])] * 6)
    assert len(set(runs)) == 1
    assert pair[1].read(runs[0]).data == texts(tag, 3)
    assert len(pair[0].starts(tag)) == 1


def test_a_machine_dies(pair: tuple[Place, Place], tag: str) -> None:
    """The other one ends its runs, or goes on with them."""
    one, two = pair
    name, asked = resumable(tag, 5)
    lost = one.start("blocking", f"{tag}-lost", before=2)
    kept = one.start("numbers", name, resume="again", **asked)
    one.allow(name, 2)
    until(lambda: len(two.result(kept)["items"]) == 2, "two items are stored")
    until(lambda: len(two.result(lost)["items"]) == 2, "two of the other")
    with two.attach(lost) as first, two.attach(kept) as second:
        assert one.server.process.poll() is None
        killed = time.monotonic()
        (worker,) = one.server.workers()
        kill(worker)
        one.allow(name, 5)
        ended = Story.of(lost, first.rest())
        assert time.monotonic() - killed < LIMIT + 3
        went_on = Story.of(kept, second.rest())
    assert (ended.data, ended.end.code) == (texts(f"{tag}-lost", 2), "interrupted")
    assert (went_on.data, went_on.end.state) == (texts(name, 5), "finished")
    assert len(one.marks(f"{name}.resume")) == 1

"""Workers that are stopped and replaced: ``finally`` runs, and each run has one end."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.live.durable.test_death import resumable
from tests.live.kit.durable import GEVENT, WORKERS, Place, Story, durable, take, texts
from tests.live.kit.runs import run_of
from tests.live.kit.servers import free_port
from tests.live.kit.waiting import until


@pytest.mark.parametrize("kind", GEVENT)
@pytest.mark.parametrize("block", ["queue", "socket"])
def test_sigterm(tmp_path: Path, tag: str, kind: str, block: str) -> None:
    """Blocked or not: all `finally` run; the next start reads what was there, and one end."""
    port, runs = free_port(), str(tmp_path / "runs.sqlite")
    with durable(kind, tmp_path / "one", runs, workers=1, port=port) as place:
        with place.run("blocking", tag, kind=block) as stream:
            run = run_of(stream)
            take(stream, 1)
            place.wait_for(tag, "blocked")
        busy = place.start("endless", f"{tag}-busy")
        until(lambda: len(place.result(busy)["items"]) > 2, "it yields")
        place.server.send_signal(signal.SIGTERM)
        place.server.wait_until_ended()
        assert place.marks(tag).count("finally") == 1
        assert place.marks(f"{tag}-busy").count("finally") == 1
    with durable(kind, tmp_path / "two", runs, workers=1, port=port) as place:
        place.wait_for_state(run, "interrupted")
        story = place.read(run)
        assert (story.data, story.end.code) == (texts(tag, 1), "interrupted")
        story = place.read(busy)
        assert story.end.code == "interrupted"
        assert story.data == [f"{tag}-busy:{n}:" for n in range(len(story.data))]


@pytest.mark.parametrize("kind", WORKERS)
def test_a_run_that_ends_within_the_grace_finishes(tmp_path: Path, tag: str, kind: str) -> None:
    """A deploy need not cut it short; if it did, it would say so. Its `finally` has run."""
    runs = str(tmp_path / "runs.sqlite")
    with durable(kind, tmp_path / "one", runs, workers=1) as place:
        run = place.start("numbers", tag, count=20, interval=0.05)
        until(lambda: len(place.result(run)["items"]) > 2, "it yields")
        place.server.send_signal(signal.SIGTERM)
        place.server.wait_until_ended()
        assert place.marks(tag).count("finally") == 1
    with durable(kind, tmp_path / "two", runs, workers=1) as place:
        until(lambda: place.result(run)["state"] != "running", "it has an end")
        story = place.read(run)
    if story.end.state == "finished":
        assert story.data == texts(tag, 20)
    else:
        assert story.end.code == "interrupted"
        assert story.data == texts(tag, len(story.data))


@pytest.mark.parametrize("kind", ["gunicorn-gthread", "waitress"])
def test_a_blocked_thread_does_not_keep_the_server(tmp_path: Path, tag: str, kind: str) -> None:
    """Nothing can end a thread that waits for ever: the process ends all the same."""
    with durable(kind, tmp_path, workers=1) as place:
        place.start("blocking", tag)
        place.wait_for(tag, "blocked")
        place.server.send_signal(signal.SIGTERM)
        place.server.wait_until_ended(20)


def reload(place: Place) -> None:
    """SIGHUP, and wait until none of its workers is an old one."""
    old = place.server.workers()
    place.server.send_signal(signal.SIGHUP)
    until(lambda: not any(each.is_running() for each in old), "the old workers end", seconds=30)
    place.wait_until_whole()


@pytest.mark.parametrize("kind", GEVENT)
def test_sighup(tmp_path: Path, tag: str, kind: str) -> None:
    """Readers are sent away and come back; the run has one end, and its `finally` one turn."""
    with durable(kind, tmp_path) as place:
        with place.run("blocking", tag, before=3) as stream:
            run = run_of(stream)
            take(stream, 3)
            place.wait_for(tag, "blocked")
            reload(place)
        place.wait_for(tag, "finally")
        story = place.read(run)
        assert (story.data, story.end.code) == (texts(tag, 3), "interrupted")
        assert place.marks(tag).count("finally") == 1


@pytest.mark.parametrize("kind", GEVENT)
def test_sighup_and_another_worker_goes_on(tmp_path: Path, tag: str, kind: str) -> None:
    """A deploy in the middle of a run that can go on elsewhere: nobody notices."""
    name, asked = resumable(tag, 8)
    with durable(kind, tmp_path) as place:
        with place.run("numbers", name, resume="again", **asked) as stream:
            run = run_of(stream)
            place.allow(name, 3)
            seen = take(stream, 3)
            reload(place)
            place.allow(name, 8)
        with place.attach(run, seen[-1].id) as stream:
            story = Story.of(run, [*seen, *stream.rest()])
        assert story.data == texts(name, 8)
        assert story.end.state == "finished"
        assert len(place.marks(f"{name}.resume")) <= 1
        assert place.marks(name).count("finally") == len(place.starts(name))


@pytest.mark.parametrize("kind", WORKERS)
def test_all_are_killed(tmp_path: Path, tag: str, kind: str) -> None:
    """Nobody is left to end the runs: the next start does."""
    runs = str(tmp_path / "runs.sqlite")
    with durable(kind, tmp_path / "one", runs, workers=1) as place:
        run = place.start("blocking", tag, before=2)
        place.wait_for(tag, "blocked")
        until(lambda: len(place.result(run)["items"]) == 2, "both are stored")
        place.server.kill()
        until(lambda: not place.server.members(), "all are gone")
    with durable(kind, tmp_path / "two", runs, workers=1) as place:
        place.wait_for_state(run, "interrupted")
        assert place.read(run).data == texts(tag, 2)
        assert place.read(run).end.code == "interrupted"

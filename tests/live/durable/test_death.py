"""A worker dies: its runs end as ``interrupted``, or another worker goes on with them."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import redis_server
from tests.live.kit.clients import Stream
from tests.live.kit.durable import LIMIT, Place, Story, durable, kill, take, texts, with_two_workers
from tests.live.kit.ends import EndReader
from tests.live.kit.runs import run_of
from tests.live.kit.waiting import until
from tests.live.kit.workers import connect_to, other_worker, suspended

#: What a reader may have to wait besides, on a busy machine.
SLACK = 3.0


def resumable(tag: str, count: int, gated: bool = True) -> tuple[str, dict[str, Any]]:
    """A tag from whose items another worker knows how to go on, and what is asked for it."""
    name = f"{tag}--{count}{'-gated' if gated else ''}"
    return name, {"count": str(count), **({"gated": "1"} if gated else {})}


class Viewer(EndReader):
    """Reads a run to its end in a thread, and notes when it got the end."""

    def __init__(self, run: str, stream: Stream) -> None:
        super().__init__(stream)
        self._run = run

    def story(self) -> Story:
        return Story.of(self._run, self.all())


def resumes(place: Place, tag: str) -> list[str]:
    """Who has gone on with a run of this tag: its id and the process."""
    return place.marks(f"{tag}.resume")


@with_two_workers
def test_interrupted(place: Place, tag: str) -> None:
    """What was there stays readable; viewers on the other worker keep their connection."""
    with contextlib.ExitStack() as stack:
        starter = stack.enter_context(place.run("numbers", tag, count=9, gated=1))
        run = run_of(starter)
        place.allow(tag, 3)
        take(starter, 3)
        writer = place.writer(tag)
        where = connect_to(place.server, other_worker(place.server, writer))
        viewers = [Viewer(run, stack.enter_context(place.attach(run, where=where)))]
        until(lambda: len(viewers[0].events) == 3, "it reads")
        killed = time.monotonic()
        kill(writer)
        stories = [viewer.story() for viewer in viewers]
        assert max(viewer.ended_at for viewer in viewers) - killed < LIMIT + SLACK
    place.wait_until_whole()
    for story in [*stories, place.read(run)]:
        assert story.data == texts(tag, 3)
        assert (story.end.state, story.end.code) == ("failed", "interrupted")
    assert place.stop(run) == "interrupted"
    said = place.result(run)
    assert (said["state"], said["items"]) == ("interrupted", texts(tag, 3))
    assert len(place.starts(tag)) == 1, "a generator is not run again by itself"


@with_two_workers
def test_interrupted_while_nobody_reads(place: Place, tag: str) -> None:
    """A reader who comes later does not wait."""
    run = place.start("blocking", tag, before=2)
    until(lambda: len(place.result(run)["items"]) == 2, "both are stored")
    killed = time.monotonic()
    kill(place.writer(tag))
    place.wait_for_state(run, "interrupted", seconds=LIMIT + SLACK)
    assert time.monotonic() - killed < LIMIT + SLACK
    asked = time.monotonic()
    assert place.read(run).end.code == "interrupted"
    assert time.monotonic() - asked < 3


@with_two_workers
def test_interrupted_before_the_first_item(place: Place, tag: str) -> None:
    run = place.start("blocking", tag, before=0)
    place.wait_for(tag, "blocked")
    kill(place.writer(tag))
    said = place.wait_for_state(run, "interrupted", seconds=LIMIT + SLACK)
    assert said["items"] == []
    assert "interrupted" in str(said["error"])


@with_two_workers
def test_taken_over(place: Place, tag: str) -> None:
    """The stream goes on with the next id, as if nothing had happened."""
    name, asked = resumable(tag, 8)
    with contextlib.ExitStack() as stack:
        starter = stack.enter_context(place.run("numbers", name, resume="again", **asked))
        run = run_of(starter)
        place.allow(name, 3)
        seen = take(starter, 3)
        writer = place.writer(name)
        where = connect_to(place.server, other_worker(place.server, writer))
        viewer = Viewer(run, stack.enter_context(place.attach(run, where=where)))
        until(lambda: len(viewer.events) == 3, "it reads")
        killed = time.monotonic()
        kill(writer)
        place.allow(name, 8)
        story = viewer.story()
        assert viewer.ended_at - killed < LIMIT + SLACK
    assert story.data == texts(name, 8)
    assert (story.end.state, story.end.value) == ("finished", {"count": 8})
    assert [item.id for item in story.items] == [f"{run}.{n}" for n in range(1, 9)]
    assert story.last == f"{run}.9"
    place.wait_until_whole()
    with place.attach(run, seen[-1].id) as stream:
        rest = Story.of(run, [*seen, *stream.rest()])
    assert rest == story, "who was on the dead worker comes back and has the rest"
    assert [line.split()[0] for line in resumes(place, name)] == [run], "once"
    assert place.starts(name)[0] == writer.pid
    assert len(place.starts(name)) == 2
    assert place.result(run)["items"] == texts(name, 8)


@with_two_workers
def test_taken_over_before_the_first_item(place: Place, tag: str) -> None:
    """There is no last item then."""
    run = place.start("blocking", tag, before=0, resume="again")
    place.wait_for(tag, "blocked")
    kill(place.writer(tag))
    said = place.wait_for_state(run, "finished", seconds=LIMIT + SLACK)
    assert said["items"] == ["from the start"]
    assert [line for line in place.marks("resumed") if line.startswith(run)][1:] == []


@pytest.mark.parametrize("store", ["", "redis"])
def test_nobody_asks_for_a_run_while_it_is_taken_over(tmp_path: Path, tag: str, store: str) -> None:
    """A worker that has never used a run goes on with it, or the one that replaces the dead one."""
    runs = redis_server.shared(next(iter(redis_server.programs()))).place() if store else ""
    with durable("gunicorn-worker", tmp_path, runs) as place:
        name, asked = resumable(tag, 5)
        with place.run("numbers", name, resume="again", **asked) as stream:
            place.allow(name, 2)
            take(stream, 2)
            kill(place.writer(name))
        until(lambda: resumes(place, name), "another worker goes on", seconds=LIMIT + SLACK)


@with_two_workers
def test_nobody_reads_while_it_is_taken_over(place: Place, tag: str) -> None:
    name, asked = resumable(tag, 5)
    run = place.start("numbers", name, resume="again", **asked)
    place.allow(name, 2)
    until(lambda: len(place.result(run)["items"]) == 2, "two items are stored")
    kill(place.writer(name))
    place.allow(name, 5)
    said = place.wait_for_state(run, "finished", seconds=LIMIT + SLACK)
    assert said["items"] == texts(name, 5)
    assert len(resumes(place, name)) == 1


@with_two_workers
def test_a_run_that_was_taken_over_is_a_run(place: Place, tag: str) -> None:
    """It can be stopped, its `finally` runs, and its owner is the same."""
    name, asked = resumable(tag, 9)
    run = place.start("numbers", name, resume="again", owner="ann", **asked)
    place.allow(name, 1)
    until(lambda: place.result(run, owner="ann")["items"], "an item is stored")
    kill(place.writer(name))
    until(lambda: len(place.starts(name)) == 2, "it is taken over", seconds=LIMIT + SLACK)
    place.allow(name, 2)
    until(lambda: len(place.result(run, owner="ann")["items"]) == 2, "it goes on")
    assert place.ask(f"/attach/{run}?owner=bob").status == 404
    assert place.stop(run, owner="ann") == "stopped"
    place.allow(name, 9)
    place.wait_for(name, "finally")
    story = place.read(run, owner="ann")
    assert (story.data, story.end.state) == (texts(name, 2), "stopped")


@with_two_workers
def test_resuming_raises(place: Place, tag: str) -> None:
    """Then it is as without: one end, which tells nothing of the inside."""
    name, asked = resumable(tag, 5)
    run = place.start("numbers", name, resume="raising", **asked)
    place.allow(name, 2)
    until(lambda: len(place.result(run)["items"]) == 2, "two items are stored")
    kill(place.writer(name))
    place.wait_for_state(run, "failed", seconds=LIMIT + SLACK)
    story = place.read(run)
    assert story.data == texts(name, 2)
    assert story.end.code == "internal_error"
    assert "secret" not in str(story)
    time.sleep(2)  # what is waited for is that nobody tries again
    assert len(resumes(place, name)) == 1
    assert place.read(run) == story


@with_two_workers
def test_who_has_taken_over_dies_too(place: Place, tag: str) -> None:
    """One end in any case, and each item once."""
    name, asked = resumable(tag, 9)
    run = place.start("numbers", name, resume="again", **asked)
    place.allow(name, 2)
    until(lambda: len(place.result(run)["items"]) == 2, "two items are stored")
    kill(place.writer(name))
    until(lambda: len(place.starts(name)) == 2, "it is taken over", seconds=LIMIT + SLACK)
    place.wait_until_whole()
    place.allow(name, 4)
    until(lambda: len(place.result(run)["items"]) == 4, "it goes on")
    kill(psutil.Process(place.starts(name)[1]))
    place.allow(name, 9)
    until(
        lambda: place.result(run)["state"] != "running",
        "it has an end",
        seconds=LIMIT + SLACK,
    )
    story = place.read(run)
    assert story.data == texts(name, len(story.data))
    if story.end.state == "finished":
        assert len(story.data) == 9
    else:
        assert (story.end.code, len(story.data)) == ("interrupted", 4)
    assert len(resumes(place, name)) <= 2


@with_two_workers
def test_a_worker_that_only_stood_still(place: Place, tag: str) -> None:
    """Another has taken over; the first writes nothing more, and its generator is ended."""
    name, asked = resumable(tag, 6)
    run = place.start("numbers", name, resume="again", **asked)
    place.allow(name, 2)
    until(lambda: len(place.result(run)["items"]) == 2, "two items are stored")
    writer = place.writer(name)
    with contextlib.ExitStack() as stack:
        where = connect_to(place.server, other_worker(place.server, writer))
        stream = stack.enter_context(place.attach(run, where=where))
        with suspended(writer):
            until(lambda: len(place.starts(name)) == 2, "it is taken over", seconds=LIMIT + SLACK)
            place.allow(name, 6)
            story = Story.of(run, stream.rest())
    assert story.data == texts(name, 6)
    until(lambda: place.marks(name).count("finally") == 2, "both generators have ended")
    place.wait_until_whole()
    assert place.read(run) == story


@with_two_workers
def test_a_run_that_has_ended_is_not_taken_over(place: Place, tag: str) -> None:
    name, asked = resumable(tag, 2, gated=False)
    run = place.start("numbers", name, resume="again", **asked)
    story = place.read(run)
    kill(place.writer(name))
    place.wait_until_whole()
    other = place.start("blocking", f"{tag}-later", before=0)  # is ended when it is this one's turn
    place.wait_for(f"{tag}-later", "blocked")
    place.wait_until_whole()
    kill(psutil.Process(place.starts(f"{tag}-later")[0]))
    place.wait_for_state(other, "interrupted", seconds=LIMIT + SLACK)
    assert resumes(place, name) == []
    assert place.read(run) == story

"""Flask's contexts in a generator: as with ``stream_with_context``, and after the request too."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.live.durable.probe.values import FORBIDDEN
from tests.live.kit.clients import open_stream
from tests.live.kit.durable import Place, Story, everywhere, on_two, take
from tests.live.kit.runs import path_of, run_of
from tests.live.kit.waiting import settled, until


def parsed(data: str | None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(data or "")
    return found


def cookie_of(place: Place, name: str) -> str:
    """The cookie of somebody who has logged in."""
    answer = place.ask(path_of("/login", name=name))
    assert answer.status == 200
    return answer.headers["set-cookie"].partition(";")[0]


@on_two
def test_a_run_begins_runs(place: Place, tag: str) -> None:
    """Each has the contexts of the one that began it."""
    headers = {"Cookie": cookie_of(place, "ann"), "Content-Type": "text/x"}
    path = path_of("/nested", tag=tag)
    with open_stream(place.server, path, method="POST", headers=headers, body=b"body") as stream:
        story = Story.of(run_of(stream), stream.rest())
    found = [story]
    while found[-1].end.value is not None:
        found.append(place.read(found[-1].end.value))
    assert [each.end.state for each in found] == ["finished"] * 3
    seen = [parsed(each.data[0]) for each in found]
    assert seen[0] == seen[1] == seen[2]
    assert (seen[0]["session"], seen[0]["user"], seen[0]["body"]) == ("ann", "ann", "body")


@everywhere
def test_the_contexts_of_the_view(place: Place, tag: str) -> None:
    """All of them, before and after the request has ended: its client has left."""
    headers = {"Cookie": cookie_of(place, "ann"), "X-Probe": "a header", "Content-Type": "text/x"}
    path = path_of("/contexts", tag=tag, on_disconnect="continue")
    with open_stream(
        place.server, path, method="POST", headers=headers, body=b"the body"
    ) as stream:
        run = run_of(stream)
        first = parsed(take(stream, 1)[0].data)
    assert first == {
        "path": "/contexts",
        "tag": tag,
        "method": "POST",
        "body": "the body",
        "header": "a header",
        "user": "ann",
        "late": None,
        "app": "probe",
        "endpoint": "contexts.contexts",
        "session": "ann",
        "url": "/hello",
    }
    until(lambda: "request NoneType" in place.marks(f"{tag}.teardown"), "the request has ended")
    for n in range(5):  # others' requests, by the same workers, disturb nothing
        assert place.ask(path_of("/login", name=f"other-{n}", tag=f"{tag}-other")).status == 200
    place.allow(tag, 1)
    story = place.read(run)
    assert parsed(story.data[1]) == {**first, "late": "set by the generator"}
    assert story.end.state == "finished"


@everywhere
def test_runs_at_the_same_time_do_not_mix(place: Place, tag: str) -> None:
    """Each has its own request and session, also in one worker."""
    runs = {}
    for n in range(8):
        path = path_of("/contexts", tag=f"{tag}-{n}", on_disconnect="continue")
        with place.view(path, Cookie=cookie_of(place, f"user-{n}")) as stream:
            runs[n] = run_of(stream)
            take(stream, 1)
    for n in reversed(runs):
        place.allow(f"{tag}-{n}", 1)
    for n, run in runs.items():
        for seen in map(parsed, place.read(run).data):
            assert (seen["session"], seen["tag"]) == (f"user-{n}", f"{tag}-{n}")


@on_two
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_can_not_be_done(place: Place, tag: str, what: str, late: bool) -> None:
    """It raises at once, and says why; nothing of it has happened."""
    cookie = cookie_of(place, "ann")
    asked = {"tag": tag, "on_disconnect": "continue", **({"late": "1"} if late else {})}
    with place.view(path_of(f"/forbidden/{what}", **asked), Cookie=cookie) as stream:
        assert "set-cookie" not in stream.head.headers
        run = run_of(stream)
        take(stream, 1)
        if not late:
            story = Story.of(run, stream.rest())
    if late:
        place.allow(tag, 1)
        story = place.read(run)
    assert story.data[-1] == "raised", place.marks(tag)
    (said,) = [mark for mark in place.marks(tag) if mark.startswith("raised")]
    words = said.lower()
    assert ("after_this_request" if what == "after_this_request" else "session") in words, said
    assert "response" in words or "request" in words, "the reason is said"
    assert parsed(place.ask("/session", Cookie=cookie).body.decode()) == {"name": "ann"}


@everywhere
def test_the_view_itself_may_write_the_session(place: Place, tag: str) -> None:
    """Before and after the call that begins the run."""
    path = path_of("/view-writes-session", tag=tag, on_disconnect="continue")
    with place.view(path) as stream:
        cookie = stream.head.headers["set-cookie"].partition(";")[0]
        run = run_of(stream)
        take(stream, 1)
        place.allow(tag, 1)
        stream.rest()
    assert parsed(place.ask("/session", Cookie=cookie).body.decode()) == {"before": 1, "after": 2}
    assert parsed(place.read(run).data[1])["before"] == 1


@everywhere
def test_teardown_functions(place: Place, tag: str) -> None:
    """What a generator has opened is closed once: when its run has ended, not its request."""
    with place.view(path_of("/resources", tag=tag, on_disconnect="continue")) as stream:
        run = run_of(stream)
        take(stream, 1)
        place.allow(tag, 1)
        assert take(stream, 1)[0].data == "the generator's"
    assert place.result(run)["state"] == "running"
    assert "closed the generator's" not in place.marks(tag), "its client has left, no more"
    place.allow(tag, 2)
    place.wait_for_state(run, "finished")
    place.wait_for(tag, "closed the generator's")
    assert place.marks(tag) == [
        "opened the generator's",
        "uses the generator's",
        "closed the generator's",
    ]
    assert place.marks(f"{tag}.teardown").count("appcontext NoneType") == 1


@everywhere
def test_what_the_view_has_opened(place: Place, tag: str) -> None:
    """It is closed once, and nobody is given what is closed."""
    path = path_of("/resources", tag=tag, view=1, on_disconnect="continue")
    with place.view(path) as stream:
        run = run_of(stream)
        take(stream, 1)
    place.wait_for(tag, "closed the view's")
    place.allow(tag, 2)
    story = place.read(run)
    assert story.data[1] == "the generator's", "the view's is closed by now"
    place.wait_for(tag, "closed the generator's")
    marks = place.marks(tag)
    assert marks.count("closed the view's") == marks.count("closed the generator's") == 1


@everywhere
def test_teardown_functions_get_the_error(place: Place, tag: str) -> None:
    """As those of any request."""
    path = path_of("/resources", tag=tag, error=1, on_disconnect="continue")
    with place.view(path) as stream:
        run = run_of(stream)
        place.allow(tag, 2)
        assert Story.of(run, stream.rest()).end.code == "internal_error"
    place.wait_for(tag, "closed the generator's")
    assert "appcontext ArithmeticError" in place.marks(f"{tag}.teardown")
    assert place.marks(tag).count("closed the generator's") == 1


@everywhere
def test_a_stop_tears_down_too(place: Place, tag: str) -> None:
    with place.view(path_of("/resources", tag=tag, on_disconnect="continue")) as stream:
        run = run_of(stream)
        place.allow(tag, 1)
        take(stream, 2)
        assert place.stop(run) == "stopped"
        place.allow(tag, 2)  # without gevent it ends at its next yield
        assert Story.of(run, stream.rest()).end.state == "stopped"
    place.wait_for(tag, "closed the generator's")
    assert place.marks(tag).count("closed the generator's") == 1


def collected(place: Place, tag: str) -> bool:
    """Whether what the generator held is gone; each asked process collects its garbage."""
    assert place.ask("/held").status == 200
    return "collected" in place.marks(tag)


@everywhere
@pytest.mark.parametrize("how", ["ends", "fails", "is stopped", "has no reader"])
def test_nothing_is_kept_of_a_generator(place: Place, tag: str, how: str) -> None:
    asked: dict[str, Any] = {"error": "1"} if how == "fails" else {}
    with place.run("holding", tag, gated=1, **asked) as stream:
        run = run_of(stream)
        take(stream, 1)
        assert not collected(place, tag)
        if how == "is stopped":
            assert place.stop(run) == "stopped"
        if how != "has no reader":
            place.allow(tag, 1)
            Story.of(run, stream.rest())
    place.allow(tag, 1)
    until(lambda: collected(place, tag), "it is collected", pause=0.1)


@everywhere
def test_nothing_is_left_running(place: Place, tag: str) -> None:
    """Neither a greenlet nor a thread nor a descriptor for each run that there was."""

    def held() -> dict[int, tuple[int, int, int]]:
        found = {}

        def all_asked() -> bool:
            said = json.loads(place.ask("/held").body)
            found[said["pid"]] = (said["descriptors"], said["threads"], said["greenlets"])
            return len(found) == place.workers

        until(all_asked, "every worker was asked")
        return found

    for n in range(20):  # so that what is made once is there
        place.start("numbers", f"{tag}-warm-{n}", count=2)
    before = settled(held, "it stands still", pause=0.5)
    for n in range(30):
        run = place.start("numbers", f"{tag}-{n}", count=3)
        assert place.read(run).data
    for n in range(30):
        with place.run("endless", f"{tag}-left-{n}", on_disconnect="cancel") as stream:
            take(stream, 2)
    for n in range(30):
        place.wait_for(f"{tag}-left-{n}", "finally")

    def back() -> bool:
        now = held()
        return all(
            value <= bound + 4
            for pid, bounds in before.items()
            for value, bound in zip(now.get(pid, bounds), bounds, strict=True)
        )

    until(back, "as many as before", pause=0.2, seconds=20)

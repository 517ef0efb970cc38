"""What a generator may yield and return, and how its run ends: once, and with one of two events."""

from __future__ import annotations

import json

import pytest

from sseflask import wire
from tests.live.durable.probe.values import RETURNED, UNSPEAKABLE
from tests.live.kit.connection import fetch
from tests.live.kit.durable import (
    GIVEN_UP,
    Place,
    Story,
    everywhere,
    on_two,
    refused,
    take,
    texts,
)
from tests.live.kit.runs import path_of, run_of
from tests.live.kit.waiting import until

SECRETS = ("secret", "ProbeError", "Traceback", "generators.py", "object at 0x")


def assert_nothing_leaks(story: Story) -> None:
    """Errors of the application's own stay on the server."""
    told = json.dumps(story.end.error)
    assert not [word for word in SECRETS if word in told], told


@everywhere
def test_all_that_an_event_source_response_takes(place: Place, tag: str) -> None:
    """The events are the same; only their ids are the run's."""

    def dispatched(body: bytes) -> list[tuple[str, str]]:
        return [(event.event, event.data) for event in wire.Decoder().feed(body)]

    plain = dispatched(fetch(place.server, f"/plain/kinds?tag={tag}").body)
    assert len(plain) > 20
    with place.run("kinds", tag) as stream:
        run = run_of(stream)
        body = stream.connection.body(stream.head)
    assert dispatched(body)[:-1] == plain
    assert dispatched(body)[-1][0] == "done"
    assert b"id: mine" not in body, "an id of its own would not be resumed"
    assert b"id: 7\n" not in body
    assert b"retry: 700\n" in body
    again = fetch(place.server, f"/attach/{run}").body
    assert dispatched(again) == dispatched(body)


@everywhere
def test_each_kind_can_be_resumed_after(place: Place, tag: str) -> None:
    """Whatever an item is, a client that has had it gets the rest and not the item again."""
    with place.run("kinds", tag) as stream:
        run = run_of(stream)
        events = stream.rest()
    whole = Story.of(run, events)
    identified = [n for n, item in enumerate(whole.items) if item.id]
    for n in identified:
        rest = place.read(run, whole.items[n].id)
        assert rest.items == whole.items[n + 1 :], whole.items[n]


@everywhere
def test_comments_take_no_part(place: Place, tag: str) -> None:
    with place.run("kinds", tag) as stream:
        run = run_of(stream)
        stream.rest()
        assert "a comment" in stream.comments, "it is what the generator said"
    assert place.read(run).end.state == "finished"


@on_two
@pytest.mark.parametrize("value", RETURNED)
def test_what_a_generator_returns(place: Place, tag: str, value: str) -> None:
    with place.run("returning", tag, value=value) as stream:
        run = run_of(stream)
        story = Story.of(run, stream.rest())
    expected = "2026-11-29" if value == "date" else RETURNED[value]
    assert story.data == ["only"]
    assert story.end.state == "finished"
    if value == "date":
        assert "29 Nov 2026" in story.end.value, "as Flask's JSON writes it"
    else:
        assert story.end.value == expected
    said = place.result(run)
    assert said["state"] == "finished"


@on_two
@pytest.mark.parametrize("value", UNSPEAKABLE)
def test_what_json_can_not_carry(place: Place, tag: str, value: str) -> None:
    """The run has finished all the same: its items are there, its value is not."""
    with place.run("returning", tag, value=value) as stream:
        run = run_of(stream)
        events = stream.rest()
        story = Story.of(run, events)
    assert story.data == ["only"]
    assert (story.end.state, story.end.value) == ("finished", None)
    told = json.dumps([event.data for event in events])
    assert "object at" not in told
    assert place.result(run)["state"] == "finished"


@everywhere
def test_the_returned_word_of_a_stop_is_no_stop(place: Place, tag: str) -> None:
    """A state is not read from what a generator says."""
    with place.run("returning", tag, value="reason") as stream:
        run = run_of(stream)
        stream.rest()
    assert place.result(run)["state"] == "finished"
    assert place.stop(run) == "finished"


@everywhere
@pytest.mark.parametrize("after", [1, 5])
def test_an_exception(place: Place, tag: str, after: int) -> None:
    with place.run("failing", tag, after=after) as stream:
        run = run_of(stream)
        story = Story.of(run, stream.rest())
    assert story.data == texts(tag, after)
    assert (story.end.state, story.end.code) == ("failed", "internal_error")
    assert_nothing_leaks(story)
    assert place.read(run) == story
    assert place.marks(tag)[1:] == ["finally"]
    assert "secret detail" in place.server.log(), "the operator sees it"


@on_two
@pytest.mark.parametrize("error", ["timeout", "cancelled", "generator", "greenlet", "system"])
def test_an_exception_that_is_no_error(place: Place, tag: str, error: str) -> None:
    """Such as that of a ``gevent.Timeout``, or a cancelled task of asyncio, which nobody caught."""
    with place.run("failing", tag, after=1, error=error) as stream:
        story = Story.of(run_of(stream), stream.rest())
    assert story.data == texts(tag, 1)
    assert (story.end.state, story.end.code) == ("failed", "internal_error")
    assert_nothing_leaks(story)
    assert place.marks(tag)[1:] == ["finally"]


@everywhere
@pytest.mark.parametrize("error", ["failure", "http"])
def test_an_exception_for_the_client(place: Place, tag: str, error: str) -> None:
    """A `Failure` reaches the client as it is, and so does what Flask's own errors say."""
    with place.run("failing", tag, after=1, error=error) as stream:
        story = Story.of(run_of(stream), stream.rest())
    assert story.data == texts(tag, 1)
    assert story.end.state == "failed"
    if error == "failure":
        assert story.end.error == {
            "message": "too much of it",
            "type": "rate_limit_error",
            "param": "n",
            "code": "slow_down",
        }
    elif error == "http":
        assert story.end.error["message"] == "there already"
    assert_nothing_leaks(story)


@everywhere
@pytest.mark.parametrize(("error", "status"), [("failure", 429), ("http", 409), ("probe", 500)])
def test_an_exception_before_the_first_item(
    place: Place, tag: str, error: str, status: int
) -> None:
    """An error response, as of any view; who attaches later gets the same again."""
    answer = place.run("failing", tag, after=0, error=error)
    run = run_of(answer)
    with answer:
        assert answer.head.status == status
        body = answer.connection.body(answer.head)
    assert not [word for word in SECRETS if word.encode() in body], body
    assert place.result(run)["state"] == "failed"
    with place.attach(run) as again:
        assert again.head.status == status
        assert run_of(again) == run
    assert place.marks(tag)[1:] == ["finally"]


@everywhere
def test_an_item_that_can_not_be_sent(place: Place, tag: str) -> None:
    """The run fails, and the generator is ended."""
    with place.run("unencodable", tag) as stream:
        run = run_of(stream)
        story = Story.of(run, stream.rest())
    assert story.data == ["before"]
    assert story.end.state == "failed"
    assert_nothing_leaks(story)
    place.wait_for(tag, "finally")
    assert place.result(run)["state"] == "failed"


@everywhere
def test_no_item_at_all(place: Place, tag: str) -> None:
    with place.run("returning_at_once", tag) as stream:
        run = run_of(stream)
        story = Story.of(run, stream.rest())
    assert story.data == []
    assert (story.end.state, story.end.value) == ("finished", "nothing to say")
    assert place.read(run) == story
    with place.attach(run, story.last) as stream:
        assert stream.head.status == 204


@on_two
@pytest.mark.parametrize("name", ["asynchronous", "text", "nothing"])
def test_no_generator(place: Place, tag: str, name: str) -> None:
    """It is a mistake in the view, and said where it is made."""
    with place.run(name, tag) as stream:
        assert stream.head.status == 500
        said = json.loads(stream.connection.body(stream.head))
    assert said["mistake"].startswith("TypeError")


@everywhere
def test_results(place: Place, tag: str) -> None:
    """As a value: while it goes on, and how it ended."""
    with place.run("numbers", tag, count=3, gated=1) as stream:
        run = run_of(stream)
        assert place.result(run)["items"] == []
        place.allow(tag, 2)
        take(stream, 2)
        said = place.result(run)
        assert (said["state"], said["items"]) == ("running", texts(tag, 2))
        assert said["value"] is None
        place.allow(tag, 3)
        stream.rest()
    said = place.result(run)
    assert (said["state"], said["items"]) == ("finished", texts(tag, 3))
    assert said["value"] == {"count": 3}


@everywhere
def test_the_result_of_a_failure(place: Place, tag: str) -> None:
    with place.run("failing", tag, after=2, error="failure") as stream:
        run = run_of(stream)
        stream.rest()
    said = place.result(run)
    assert (said["state"], said["items"]) == ("failed", texts(tag, 2))
    assert "slow_down" in json.dumps(said["error"])
    with place.run("failing", f"{tag}-2", after=1) as stream:
        run = run_of(stream)
        stream.rest()
    said = place.result(run)
    assert not [word for word in SECRETS if word in json.dumps(said)], said


@everywhere
def test_a_limit_of_seconds(place: Place, tag: str) -> None:
    """Also of a generator that yields all the time; its `finally` runs."""
    with place.run("endless", tag, max_seconds=0.5, interval=0.02) as stream:
        run = run_of(stream)
        story = Story.of(run, stream.rest())
    assert (story.end.state, story.end.code) == ("failed", "run_too_long")
    assert story.data == texts_of_endless(tag, len(story.data))
    assert story.data
    place.wait_for(tag, "finally")
    assert place.stop(run) == "failed"


@everywhere
def test_a_limit_of_bytes(place: Place, tag: str) -> None:
    """What was stored can be read, and is no more than the limit."""
    with place.run("endless", tag, max_bytes=20_000, size=1000, interval=0) as stream:
        run = run_of(stream)
        story = Story.of(run, stream.rest())
    assert (story.end.state, story.end.code) == ("failed", "run_too_large")
    assert 5 <= len(story.data) <= 20
    assert place.read(run) == story
    place.wait_for(tag, "finally")


def texts_of_endless(tag: str, count: int) -> list[str]:
    return [f"{tag}:{n}:" for n in range(count)]


@everywhere
def test_kept_for_a_while(place: Place, tag: str) -> None:
    """``keep`` begins at the end; then the run is one that never was."""
    with place.run("numbers", tag, count=2, gated=1, keep=1) as stream:
        run = run_of(stream)
        place.allow(tag, 1)
        seen = take(stream, 1)
        stream.next_comments(2)  # more than a second has passed
        assert place.result(run)["state"] == "running", "it does not end while it goes on"
        place.allow(tag, 2)
        story = Story.of(run, [*seen, *stream.rest()])
    assert place.read(run) == story
    until(
        lambda: place.ask(f"/attach/{run}").status == 404,
        "it is forgotten",
        seconds=30,
        pause=0.25,
    )
    for method, path in (("GET", "/result"), ("DELETE", "/runs")):
        assert refused(place.ask(path_of(f"{path}/{run}"), method), 404)["code"] == "run_not_found"


@on_two
def test_given_up_and_finished_differ(place: Place, tag: str) -> None:
    """Whoever only reads the stream can tell them apart."""
    with place.run("blocking", tag) as stream:
        run = run_of(stream)
        take(stream, 1)
        assert place.stop(run) in GIVEN_UP
        assert Story.of(run, stream.rest()).end.state == "stopped"

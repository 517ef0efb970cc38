from __future__ import annotations

import random
import time
from collections.abc import Iterator

import httpx2
import pytest

from sseflask.cli.client import Failed, Reconnect, ReconnectingStream
from tests.live.kit.interrupted import FINISHED, ONE, STORIES, TWO, Story, cut
from tests.scripted_upstream import Exchange, Script, upstream


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams are opened again without waiting; how long is asked of what they tell."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(random, "uniform", min)


def read(
    script: Script, method: str = "GET", *, until_done: bool = True
) -> tuple[list[list[str]], str, list[Reconnect], list[Exchange]]:
    """Events, how the stream ended, when it was opened again, and the requests."""
    events: list[list[str]] = []
    again: list[Reconnect] = []
    ended = "done"
    with upstream(script) as server, httpx2.Client() as client:
        stream = ReconnectingStream(
            client,
            method,
            httpx2.URL(server.url),
            body={} if method == "POST" else None,
            until_done=until_done,
        )
        try:
            for item in stream:
                if isinstance(item, Reconnect):
                    again.append(item)
                else:
                    events.append([item.last_event_id, item.event, item.data])
        except Failed:
            ended = "failure"
    return events, ended, again, server.exchanges


def numbered(story: Story) -> Script:
    numbers: Iterator[int] = iter(range(100))
    return lambda exchange: story.answer(next(numbers), exchange)


@pytest.mark.parametrize("name", STORIES)
def test_streams_that_are_interrupted(name: str) -> None:
    story = STORIES[name]
    events, ended, _, asked = read(numbered(story))
    ends = (["done", "failure"], ["[DONE]"])
    reported = [event for event in events if event[1] not in ends[0] and event[2] not in ends[1]]
    assert reported == story.events
    assert ended == story.ended
    assert tuple(each.headers.get("last-event-id") for each in asked) == story.cursors


def test_times_are_the_servers() -> None:
    answers = (b"retry: 30\n\n", cut(b""), b"retry: 1\nid: 1\n\n", FINISHED)
    _, _, again, _ = read(numbered(Story(answers, [])))
    assert [each.seconds for each in again] == [0.03, 0.03, 0.001]
    assert [bool(each.cause) for each in again] == [False, True, False]


def test_a_first_connection_that_fails_is_no_interruption() -> None:
    with upstream(Exchange.end) as server:
        url = httpx2.URL(server.url)
    with httpx2.Client() as client, pytest.raises(httpx2.ConnectError):
        next(iter(ReconnectingStream(client, "GET", url)))


def test_a_request_that_begins_something_is_the_same_each_time() -> None:
    events, _, _, asked = read(numbered(Story((cut(b""), cut(ONE), TWO + FINISHED), [])), "POST")
    assert [event[2] for event in events] == ["one", "two", "{}"]
    assert {each.content for each in asked} == {b"{}"}


@pytest.mark.parametrize("last", [b"event: done\ndata: {}\n\n", b"data: [DONE]\n\n"])
def test_what_ends_one_thing_of_a_channel_does_not_end_the_channel(last: bytes) -> None:
    answers = (ONE + last + TWO, cut(last), last + b": ping\n\n", last + b"retry: 1\n\n", last)
    events, ended, again, _ = read(numbered(Story(answers[:3], [])), until_done=False)
    assert [event[2] for event in events][0:3:2] == ["one", "two"]
    assert (len(events), ended, len(again)) == (5, "done", 2)
    events, ended, again, _ = read(numbered(Story(answers[3:], [])), until_done=False)
    assert (len(events), ended, len(again)) == (2, "done", 1)


def test_an_id_is_sent_back_in_utf_8() -> None:
    answers = (cut("id: é\ndata: one\n\n".encode()), FINISHED)
    _, _, _, asked = read(numbered(Story(answers, [])))
    assert asked[1].headers["last-event-id"] == "é"

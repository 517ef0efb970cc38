from __future__ import annotations

import json
from typing import Any

import pytest

from tests.completions.scripted import Exchange, Script, upstream
from tests.live.conftest import node
from tests.live.interrupted import FINISHED, ONE, STORIES, TWO, Story, cut


def read(script: Script, **options: Any) -> tuple[list[list[Any]], list[Exchange]]:
    """What the module tells of a server, and the requests that it made."""
    with upstream(script) as server:
        lines = node("sse.mjs", server.url, json.dumps(options)).stdout.splitlines()
        return [json.loads(line) for line in lines], server.exchanges


def numbered(story: Story) -> Script:
    numbers = iter(range(100))
    return lambda exchange: story.answer(next(numbers), exchange)


@pytest.mark.parametrize("name", STORIES)
def test_streams_that_are_interrupted(name: str) -> None:
    story = STORIES[name]
    told, asked = read(numbered(story))
    assert [line[1:] for line in told if line[0] == "event"] == story.told
    assert told[-2][0] == story.ended
    assert told[-1] == ["ended", story.ended]
    assert tuple(each.headers.get("last-event-id") for each in asked) == story.cursors
    assert {each.headers["accept"] for each in asked} == {"text/event-stream"}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_events_that_arrive_in_pieces(size: int) -> None:
    story = STORIES["every kind of line"]
    told, _ = read(numbered(story), size=size)
    assert [line[1:] for line in told if line[0] == "event"] == story.told


def test_a_gap_is_told() -> None:
    gap = b'event: gap\ndata: {"reason": "trimmed"}\n\n'
    told, _ = read(numbered(Story((gap + ONE + FINISHED,), [])))
    assert told[1:4] == [
        ["gap", {"reason": "trimmed"}],
        ["event", "1", "message", "one"],
        ["done", {}],
    ]


def test_a_request_that_begins_something_has_one_key() -> None:
    answers = (cut(b""), cut(ONE), TWO + FINISHED)
    told, asked = read(numbered(Story(answers, [])), method="POST", body='{"a":1}')
    assert [line[3] for line in told if line[0] == "event"] == ["one", "two"]
    assert {each.content for each in asked} == {b'{"a":1}'}
    (key,) = {each.headers["idempotency-key"] for each in asked}
    assert len(key) > 20


def test_times_are_the_servers_and_grow() -> None:
    answers = (b"retry: 30\n\n", cut(b""), b"retry: 1\nid: 1\n\n", FINISHED)
    told, _ = read(numbered(Story(answers, [])))
    assert [line[2] for line in told if line[0] == "again"] == [30, 30, 1]

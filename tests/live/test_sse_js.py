"""The client module against servers that do what servers do, in Node and in Chromium."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.completions.scripted import Exchange, Script, upstream
from tests.live.browser import READ, chromium_page
from tests.live.conftest import node
from tests.live.interrupted import FINISHED, ONE, STORIES, TWO, Story, cut
from tests.live.servers import ROOT

MODULE = ROOT / "sseflask" / "static" / "sse.js"


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    with chromium_page() as opened:
        yield opened


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


class Browsed:
    """Stories told to a page of their own origin, each under an address of its own.

    Args:
        stories: by the last part of that address.
    """

    def __init__(self, stories: dict[str, Story]) -> None:
        self.stories = stories
        self.asked: dict[str, list[Exchange]] = defaultdict(list)

    def __call__(self, exchange: Exchange) -> None:
        name = exchange.line.split()[1].rpartition("/")[2]
        if name == "page.html":
            exchange.answer(200, b"<!doctype html><title>A reader</title>", "text/html")
        elif name == "sse.js":
            exchange.answer(200, MODULE.read_bytes(), "text/javascript")
        elif name == "favicon.ico":
            exchange.answer(404, b"", "text/plain")
        else:
            asked = self.asked[name]
            asked.append(exchange)
            self.stories[name].answer(len(asked) - 1, exchange)

    def read_in(self, page: Page, **options: Any) -> dict[str, list[list[Any]]]:
        """What the module tells of each, all of them read at the same time."""
        with upstream(self) as server:
            page.goto(f"{server.url}/page.html")
            given = {"module": f"{server.url}/sse.js", "options": options}
            reads = [{**given, "url": f"{server.url}/{name}"} for name in self.stories]
            told: list[list[list[Any]]] = page.evaluate(READ, reads)
            page.goto("about:blank")  # or it would keep connections
        return dict(zip(self.stories, told, strict=True))


def test_the_same_in_chromium(page: Page) -> None:
    stories = {str(number): story for number, story in enumerate(STORIES.values())}
    browsed = Browsed(stories)
    told = browsed.read_in(page)
    for number, name in enumerate(STORIES):
        story, found = stories[str(number)], told[str(number)]
        asked = browsed.asked[str(number)]
        assert [line[1:] for line in found if line[0] == "event"] == story.told, name
        assert found[-1] == ["ended", story.ended], name
        assert tuple(each.headers.get("last-event-id") for each in asked) == story.cursors, name
        assert {each.headers["accept"] for each in asked} == {"text/event-stream"}


def test_a_post_in_chromium(page: Page) -> None:
    browsed = Browsed({"post": Story((cut(b""), cut(ONE), TWO + FINISHED), [])})
    told = browsed.read_in(page, method="POST", body='{"a":1}')["post"]
    assert [line[3] for line in told if line[0] == "event"] == ["one", "two"]
    asked = browsed.asked["post"]
    assert [each.line.split()[0] for each in asked] == ["POST"] * 3
    assert {each.content for each in asked} == {b'{"a":1}'}
    assert len({each.headers["idempotency-key"] for each in asked}) == 1


def dripping(sent: bytes) -> Any:
    """Byte by byte, each in a chunk and a packet of its own."""

    def answer(exchange: Exchange) -> None:
        exchange.stream(*(sent[at : at + 1] for at in range(len(sent))))

    return answer


def test_bytes_that_drip_in_chromium(page: Page) -> None:
    story = STORIES["every kind of line"]
    dripped = Story((dripping(story.answers[0]), story.answers[1]), story.told)
    told = Browsed({"drip": dripped}).read_in(page)["drip"]
    assert [line[1:] for line in told if line[0] == "event"] == story.told

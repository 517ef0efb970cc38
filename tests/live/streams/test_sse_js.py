"""The client module against servers that do what servers do, in Node and in Chromium."""

from __future__ import annotations

import json
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.live.kit.browser import READ, chromium_page
from tests.live.kit.interrupted import (
    EVENT_ONE,
    EVENT_TWO,
    FINISHED,
    ONE,
    STORIES,
    TWO,
    Story,
    cut,
    failure,
    silence,
)
from tests.live.kit.servers import ROOT
from tests.live.kit.tools import node
from tests.scripted_upstream import STREAM_HEAD, Exchange, Script, upstream

SECONDS = 10.0
MODULE = ROOT / "sseflask" / "static" / "sse.js"


class Seen:
    """How many events a page has reported, by the address of their stream. Thread-safe."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._changed = threading.Condition()

    def add(self, url: str) -> None:
        with self._changed:
            self._counts[url.rpartition("/")[2]] += 1
            self._changed.notify_all()

    def wait(self, name: str, count: int) -> None:
        """Wait until there have been this many."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._counts[name] >= count, SECONDS)

    def forget(self) -> None:
        self._counts.clear()


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen()


@pytest.fixture(scope="module")
def page(seen: Seen) -> Iterator[Page]:
    with chromium_page() as opened:
        opened.expose_function("seen", seen.add)
        yield opened


def read(script: Script, **options: Any) -> tuple[list[list[Any]], list[Exchange]]:
    """What the module reports of a server, and the requests that it made."""
    with upstream(script) as server:
        lines = node("sse.mjs", server.url, json.dumps(options)).stdout.splitlines()
        return [json.loads(line) for line in lines], server.exchanges


def numbered(story: Story) -> Script:
    numbers = iter(range(100))
    return lambda exchange: story.answer(next(numbers), exchange)


@pytest.mark.parametrize("name", STORIES)
def test_streams_that_are_interrupted(name: str) -> None:
    story = STORIES[name]
    reported, asked = read(numbered(story))
    assert [line[1:] for line in reported if line[0] == "event"] == story.events
    assert reported[-2][0] == story.ended
    assert reported[-1] == ["ended", story.ended]
    assert tuple(each.headers.get("last-event-id") for each in asked) == story.cursors
    assert {each.headers["accept"] for each in asked} == {"text/event-stream"}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_events_that_arrive_in_pieces(size: int) -> None:
    story = STORIES["every kind of line"]
    reported, _ = read(numbered(story), size=size)
    assert [line[1:] for line in reported if line[0] == "event"] == story.events


def test_a_gap_is_reported() -> None:
    gap = b'event: gap\ndata: {"reason": "trimmed"}\n\n'
    reported, _ = read(numbered(Story((gap + ONE + FINISHED,), [])))
    assert reported[1:4] == [
        ["gap", {"reason": "trimmed"}],
        ["event", "1", "message", "one"],
        ["done", {}],
    ]


def test_a_request_that_begins_something_has_one_key() -> None:
    answers = (cut(b""), cut(ONE), TWO + FINISHED)
    reported, asked = read(numbered(Story(answers, [])), method="POST", body='{"a":1}')
    assert [line[3] for line in reported if line[0] == "event"] == ["one", "two"]
    assert {each.content for each in asked} == {b'{"a":1}'}
    (key,) = {each.headers["idempotency-key"] for each in asked}
    assert len(key) > 20


def of_a_run(sent: bytes, *, whole: bool = False) -> Script:
    """A stream that names its run, and that is cut."""

    def answer(exchange: Exchange) -> None:
        exchange.send(STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nX-Run-Id: r1\r\n\r\n"))
        if sent:
            exchange.chunk(sent)
        if whole:
            exchange.end()
        else:
            exchange.hang_up()

    return answer


#: Nothing but the run's name; an error of the connection; a proper end; the end of the run.
RUN = Story(
    (
        silence,
        of_a_run(b""),
        of_a_run(failure("shutting_down"), whole=True),
        of_a_run(b": beat\n\n", whole=True),
        of_a_run(ONE),
        of_a_run(TWO + FINISHED),
    ),
    [EVENT_ONE, EVENT_TWO],
    cursors=(None, None, None, None, None, "1"),
)


def test_a_run_is_read_on_where_it_is() -> None:
    """What has begun it is not sent again once its name is known."""

    def script(exchange: Exchange) -> None:
        RUN.answer(len(asked), exchange)
        asked.append(exchange)

    asked: list[Exchange] = []
    with upstream(script) as server:
        options = {"method": "POST", "body": '{"a":1}', "attach": f"{server.url}/runs/"}
        lines = node("sse.mjs", f"{server.url}/begin", json.dumps(options)).stdout.splitlines()
    reported = [json.loads(line) for line in lines]
    assert [line[1:] for line in reported if line[0] == "event"] == RUN.events
    assert reported[-1] == ["ended", "done"]
    assert [each.line.rpartition(" ")[0] for each in asked] == [
        *["POST /v1/begin"] * 2,
        *["GET /v1/runs/r1"] * 4,
    ]
    assert tuple(each.headers.get("last-event-id") for each in asked) == RUN.cursors
    assert [each.content for each in asked] == [b'{"a":1}'] * 2 + [b""] * 4
    assert ["idempotency-key" in each.headers for each in asked] == [True] * 2 + [False] * 4


def test_times_are_the_servers_and_grow() -> None:
    answers = (b"retry: 30\n\n", cut(b""), b"retry: 1\nid: 1\n\n", FINISHED)
    reported, _ = read(numbered(Story(answers, [])))
    assert [line[2] for line in reported if line[0] == "again"] == [30, 30, 1]


class Observed(Exchange):
    """One that hangs up when the page has got what was sent: when a body is cut, a browser drops
    what the page has not read yet, which then asks for it again."""

    def watch(self, got: Callable[[int], None]) -> None:
        """Call that with how many events were sent, before hanging up."""
        self._got, self._sent = got, 0

    def chunk(self, data: bytes) -> None:
        self._sent += data.count(b"\n\n")
        super().chunk(data)

    def hang_up(self) -> None:
        self._got(self._sent)
        super().hang_up()


class Browsed:
    """Stories told to a page of their own origin, each under an address of its own.

    Args:
        stories: by the last part of that address.
        seen: what the page tells.
    """

    def __init__(self, stories: dict[str, Story], seen: Seen) -> None:
        seen.forget()
        self._seen = seen
        self._events: Counter[str] = Counter()
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
            self._report(name, exchange)

    def _report(self, name: str, exchange: Exchange) -> None:
        asked = self.asked[name]
        asked.append(exchange)
        observed = Observed(exchange.connection, exchange.line, exchange.headers, exchange.content)

        def got(sent: int) -> None:
            self._events[name] += sent
            self._seen.wait(name, self._events[name])

        observed.watch(got)
        self.stories[name].answer(len(asked) - 1, observed)

    def read_in(self, page: Page, **options: Any) -> dict[str, list[list[Any]]]:
        """What the module reports of each, all of them read at the same time."""
        with upstream(self) as server:
            page.goto(f"{server.url}/page.html")
            given = {"module": f"{server.url}/sse.js", "options": options}
            reads = [{**given, "url": f"{server.url}/{name}"} for name in self.stories]
            reported: list[list[list[Any]]] = page.evaluate(READ, reads)
            page.goto("about:blank")  # or it would keep connections
        return dict(zip(self.stories, reported, strict=True))


def test_the_same_in_chromium(page: Page, seen: Seen) -> None:
    stories = {str(number): story for number, story in enumerate(STORIES.values())}
    browsed = Browsed(stories, seen)
    reported = browsed.read_in(page)
    for number, name in enumerate(STORIES):
        story, found = stories[str(number)], reported[str(number)]
        asked = browsed.asked[str(number)]
        assert [line[1:] for line in found if line[0] == "event"] == story.events, name
        assert found[-1] == ["ended", story.ended], name
        assert tuple(each.headers.get("last-event-id") for each in asked) == story.cursors, name
        assert {each.headers["accept"] for each in asked} == {"text/event-stream"}


def test_a_post_in_chromium(page: Page, seen: Seen) -> None:
    browsed = Browsed({"post": Story((cut(b""), cut(ONE), TWO + FINISHED), [])}, seen)
    reported = browsed.read_in(page, method="POST", body='{"a":1}')["post"]
    assert [line[3] for line in reported if line[0] == "event"] == ["one", "two"]
    asked = browsed.asked["post"]
    assert [each.line.split()[0] for each in asked] == ["POST"] * 3
    assert {each.content for each in asked} == {b'{"a":1}'}
    assert len({each.headers["idempotency-key"] for each in asked}) == 1

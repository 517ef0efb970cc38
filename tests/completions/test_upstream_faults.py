"""Upstreams that end without saying so or say odd things, and clients that take their time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sseflask.completions.formats import FORMATS
from sseflask.completions.upstream import DONE as OUR_DONE
from sseflask.completions.upstream import Upstream
from sseflask.config import load
from sseflask.errors import Failure
from sseflask.event import Event
from tests.completions.scripted import DONE, Exchange, frame, upstream
from tests.live.waiting import until
from tests.service import KEY, environment

MESSAGES = [{"role": "user", "content": "你好"}]
TIMEOUT = 0.3
LAST = frame(finish="stop")


@pytest.fixture
def connect() -> Iterator[Callable[[str], Upstream]]:
    made: list[Upstream] = []

    def connect(url: str) -> Upstream:
        settings = {"SSEFLASK_UPSTREAM_TIMEOUT": str(TIMEOUT)}
        with environment(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=url, **settings):
            made.append(Upstream(load()))
        return made[-1]

    yield connect
    for each in made:
        each.close()


def take_longer_than_the_timeout() -> None:
    end = time.monotonic() + 3 * TIMEOUT
    until(lambda: time.monotonic() > end, "the upstream's timeout has passed")


def test_an_empty_finish_reason_finishes_nothing(connect: Callable[[str], Upstream]) -> None:
    sent = [frame("one", finish=""), frame("two", finish=""), frame(finish="")]
    received: list[bytes] = []
    with upstream(lambda x: x.stream(*sent)) as server, pytest.raises(Failure) as caught:
        received.extend(connect(server.url).frames(MESSAGES))
    assert caught.value.code == "upstream_truncated"
    assert received == sent


def test_empty_finish_reasons_and_a_real_one(connect: Callable[[str], Upstream]) -> None:
    sent = [frame("one", finish=""), LAST]
    with upstream(lambda x: x.stream(*sent)) as server:
        assert list(connect(server.url).frames(MESSAGES)) == [*sent, OUR_DONE]


def test_a_slow_reader_of_what_is_there(connect: Callable[[str], Upstream]) -> None:
    sent = [frame("one"), frame("two"), LAST]
    received = []
    with upstream(lambda x: x.stream(*sent, DONE)) as server:
        for each in connect(server.url).frames(MESSAGES):
            received.append(each)
            take_longer_than_the_timeout()
    assert received == [*sent, OUR_DONE]


def test_a_slow_reader_of_what_is_still_to_come(connect: Callable[[str], Upstream]) -> None:
    """The upstream was waited for only after the pause, not during it."""
    sent = [frame("one"), frame("two"), LAST]
    asked = threading.Semaphore(1)

    def script(exchange: Exchange) -> None:
        exchange.begin()
        for each in [*sent, DONE]:
            assert asked.acquire(timeout=10)
            exchange.chunk(each)
        exchange.end()

    received = []
    with upstream(script) as server:
        for each in connect(server.url).frames(MESSAGES):
            received.append(each)
            take_longer_than_the_timeout()
            asked.release()
    assert received == [*sent, OUR_DONE]


def test_a_silent_upstream_of_a_slow_reader(connect: Callable[[str], Upstream]) -> None:
    """The limit still holds once the reader waits."""

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(frame("one"))
        assert exchange.left()

    with upstream(script) as server:
        frames = connect(server.url).frames(MESSAGES)
        assert next(frames) == frame("one")
        take_longer_than_the_timeout()
        with pytest.raises(Failure) as caught:
            next(frames)
    assert caught.value.code == "upstream_timeout"


def chunk(**choice: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"index": 0, **choice}]}).encode() + b"\n\n"


def says(text: str) -> bytes:
    return chunk(delta={"content": text}, finish_reason=None)


def text_of(*frames: bytes) -> list[str]:
    """The pieces of text, each fit to be sent, without the ``done`` at the end."""
    sent = [*frames, chunk(delta={}, finish_reason="stop"), OUR_DONE]
    *pieces, done = FORMATS["text"].view(frame for frame in sent)
    assert done == Event({"finish_reason": "stop"}, event="done")
    texts = [piece for piece in pieces if isinstance(piece, str)]
    assert texts == pieces
    assert "".join(texts).encode()
    return texts


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["a\ud83d", "\ude00b"], "a😀b"),
        (["\ud83d", "", "\ude00"], "😀"),
        (["\ud83d", "\ude00\ud83d", "\ude01"], "😀😁"),
        (["😀", "你"], "😀你"),
        (["a\ud83d", "b"], "a\ufffdb"),
        (["a", "\ude00b"], "a\ufffdb"),
        (["a\ud83db"], "a\ufffdb"),
        (["\ud83d", "\ud83d", "\ude00"], "\ufffd😀"),
        (["a\ud83d"], "a\ufffd"),
    ],
    ids=ascii,
)
def test_surrogates(pieces: list[str], text: str) -> None:
    assert "".join(text_of(*map(says, pieces))) == text


@pytest.mark.parametrize(
    "frame",
    [
        chunk(delta=None, finish_reason=None),
        chunk(finish_reason=None),
        chunk(delta={"content": None}, finish_reason=None),
        b'data: {"choices": null}\n\n',
        b'data: {"choices": []}\n\n',
        b'event: usage\ndata: {"total": 3}\n\n',
        b"event: ping\ndata: now\n\n",
        b"event: other\n" + says("never"),
    ],
    ids=repr,
)
def test_chunks_without_text(frame: bytes) -> None:
    assert text_of(frame, says("a"), frame, says("b"), frame) == ["a", "b"]
    assert text_of(says("\ud83d"), frame, says("\ude00")) == ["😀"]

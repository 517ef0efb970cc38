"""Upstreams that end without saying so or say odd things, and clients that take their time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.upstream import CompletionRequest, Upstream
from sseflask.config import load
from sseflask.errors import Failure
from tests.live.kit.waiting import until
from tests.scripted_upstream import DONE, Exchange, complete, frame, upstream
from tests.service import KEY, environment

CHAT = CompletionRequest("/chat/completions", b"{}")
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


def each_of(there: Upstream) -> Iterator[bytes | CompletionOutcome]:
    for came in there.stream(CHAT):
        yield from [came] if isinstance(came, CompletionOutcome) else came


def take_longer_than_the_timeout() -> None:
    end = time.monotonic() + 3 * TIMEOUT
    until(lambda: time.monotonic() > end, "the upstream's timeout has passed")


def test_an_empty_finish_reason_finishes_nothing(connect: Callable[[str], Upstream]) -> None:
    sent = [frame("one", finish=""), frame("two", finish=""), frame(finish="")]
    received: list[bytes | CompletionOutcome] = []
    with upstream(lambda x: x.stream(*sent)) as server, pytest.raises(Failure) as caught:
        received.extend(each_of(connect(server.url)))
    assert caught.value.code == "upstream_truncated"
    assert received == sent


def test_empty_finish_reasons_and_a_real_one(connect: Callable[[str], Upstream]) -> None:
    sent = [frame("one", finish=""), LAST]
    with upstream(lambda x: x.stream(*sent)) as server:
        assert list(each_of(connect(server.url))) == [*sent, CompletionOutcome("finished", "stop")]


def test_a_slow_reader_of_what_is_there(connect: Callable[[str], Upstream]) -> None:
    sent = [frame("one"), frame("two"), LAST]
    received: list[bytes | CompletionOutcome] = []
    with upstream(lambda x: x.stream(*sent, DONE)) as server:
        for each in each_of(connect(server.url)):
            received.append(each)
            take_longer_than_the_timeout()
    assert received == [*sent, CompletionOutcome("finished", "stop")]


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

    received: list[bytes | CompletionOutcome] = []
    with upstream(script) as server:
        for each in each_of(connect(server.url)):
            received.append(each)
            take_longer_than_the_timeout()
            asked.release()
    assert received == [*sent, CompletionOutcome("finished", "stop")]


def test_a_silent_upstream_of_a_slow_reader(connect: Callable[[str], Upstream]) -> None:
    """The limit still holds once the reader waits."""

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(frame("one"))
        assert exchange.left()

    with upstream(script) as server:
        frames = connect(server.url).stream(CHAT)
        assert next(frames) == [frame("one")]
        take_longer_than_the_timeout()
        with pytest.raises(Failure) as caught:
            next(frames)
    assert caught.value.code == "upstream_timeout"


def _error_head(*more: str) -> bytes:
    return "\r\n".join(
        ["HTTP/1.1 503 Busy", "Content-Type: application/json", *more, "", ""]
    ).encode()


def _say_half(exchange: Exchange) -> None:
    exchange.send(_error_head("Content-Length: 1000") + b'{"error": ')


def _stop_in_the_middle(exchange: Exchange) -> None:
    _say_half(exchange)
    exchange.left()


def _never_end(exchange: Exchange) -> None:
    exchange.send(_error_head("Transfer-Encoding: chunked"))
    with contextlib.suppress(OSError):
        while True:
            exchange.chunk(b" " * 65_536)


def _drip(exchange: Exchange) -> None:
    exchange.send(_error_head("Transfer-Encoding: chunked"))
    exchange.connection.settimeout(TIMEOUT / 6)
    with contextlib.suppress(ConnectionError):
        while True:
            exchange.chunk(b" ")
            with contextlib.suppress(TimeoutError):
                assert exchange.connection.recv(1) == b""
                return


def _say_what_is_no_gzip(exchange: Exchange) -> None:
    exchange.send(_error_head("Content-Encoding: gzip", "Content-Length: 9") + b"not gzip!")


@pytest.mark.parametrize("script", [_say_half, _stop_in_the_middle, _never_end, _drip])
@pytest.mark.parametrize("path", ["stream", "whole", "models"])
def test_an_error_that_has_no_end_keeps_its_status(
    connect: Callable[[str], Upstream],
    script: Callable[[Exchange], None],
    path: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sseflask.completions.openai_client._REFUSAL_SECONDS", 2 * TIMEOUT)
    with upstream(script) as server, pytest.raises(Failure) as caught:
        _ask(connect(server.url), path)
    assert caught.value.status == 503


@pytest.mark.parametrize("path", ["stream", "whole", "models"])
def test_an_error_that_can_not_be_decoded(connect: Callable[[str], Upstream], path: str) -> None:
    with upstream(_say_what_is_no_gzip) as server, pytest.raises(Failure) as caught:
        _ask(connect(server.url), path)
    assert caught.value.status == 503


def test_an_answer_in_one_piece_that_has_no_end(
    connect: Callable[[str], Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        with contextlib.suppress(OSError):
            while True:
                exchange.chunk(b" " * 65_536)

    monkeypatch.setattr("sseflask.completions.response_reader._MAX_EMPTY", 1_000_000)
    with upstream(script) as server, pytest.raises(Failure) as caught:
        complete(connect(server.url), CHAT)
    assert caught.value.code == "upstream_invalid"


def _ask(service: Upstream, path: str) -> None:
    if path == "models":
        service.models()
    elif path == "whole":
        complete(service, CHAT)
    else:
        list(service.stream(CHAT))

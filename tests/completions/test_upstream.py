from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sseflask.completions.failures import UpstreamFailure
from sseflask.completions.upstream import DONE as OUR_DONE
from sseflask.completions.upstream import ErrorFrame, Upstream
from sseflask.config import load
from sseflask.errors import Failure
from tests.completions.scripted import DONE, Exchange, Script, frame, upstream
from tests.service import KEY, environment

MESSAGES = [{"role": "user", "content": "你好"}]
ONE, TWO, LAST = frame("one"), frame("zwei\n"), frame(finish="stop")


@pytest.fixture
def connect() -> Iterator[Callable[..., Upstream]]:
    made: list[Upstream] = []

    def connect(url: str, **settings: str) -> Upstream:
        with environment(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=url, **settings):
            made.append(Upstream(load()))
        return made[-1]

    yield connect
    for each in made:
        each.close()


def relay(connect: Callable[..., Upstream], script: Script, **settings: str) -> list[bytes]:
    with upstream(script) as server:
        return list(connect(server.url, **settings).frames(MESSAGES))


def failure_of(connect: Callable[..., Upstream], script: Script, **settings: str) -> Failure:
    with upstream(script) as server, pytest.raises(Failure) as caught:
        list(connect(server.url, **settings).frames(MESSAGES))
    return caught.value


def test_each_frame_byte_for_byte(connect: Callable[..., Upstream]) -> None:
    odd = b'data:{"choices":[],  "id" : "\xe4\xbd\xa0" }\r\n\r\n'
    named = b'event: chunk\nid: 7\ndata: {"choices":\ndata: []}\n\n'
    sent = [ONE, odd, named, TWO, LAST]
    assert relay(connect, lambda x: x.stream(*sent, DONE)) == [*sent, OUR_DONE]


def test_what_is_asked(connect: Callable[..., Upstream]) -> None:
    with upstream(lambda x: x.stream(LAST, DONE)) as server:
        there = connect(server.url, SSEFLASK_MODEL="usual")
        list(there.frames(MESSAGES))
        list(there.frames(MESSAGES, "special"))
    first, second = server.exchanges
    assert first.line == "POST /v1/chat/completions HTTP/1.1"
    assert first.body == {"messages": MESSAGES, "model": "usual", "stream": True}
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert first.headers["accept-encoding"] == "identity"
    assert second.body["model"] == "special"


def test_without_a_key() -> None:
    with upstream(lambda x: x.stream(LAST, DONE)) as server:
        with environment(OPENAI_BASE_URL=server.url):
            there = Upstream(load())
        assert list(there.frames(MESSAGES)) == [LAST, OUR_DONE]
        there.close()


def test_frames_cut_anywhere(connect: Callable[..., Upstream]) -> None:
    stream = ONE + TWO + LAST + DONE
    pieces = [stream[start : start + 7] for start in range(0, len(stream), 7)]
    assert relay(connect, lambda x: x.stream(*pieces)) == [ONE, TWO, LAST, OUR_DONE]
    assert relay(connect, lambda x: x.stream(stream)) == [ONE, TWO, LAST, OUR_DONE]


def test_comments_and_frames_without_data_are_dropped(connect: Callable[..., Upstream]) -> None:
    sent = [
        b"\xef\xbb\xbf: hello\n\n",
        ONE,
        b": keep-alive\n\n",
        b"event: ping\n\n",
        b"retry: 5\n\n",
        b": OPENROUTER PROCESSING\n" + TWO,
        LAST.replace(b"\n\n", b"\n: trailing\n\n"),
        DONE,
    ]
    assert relay(connect, lambda x: x.stream(*sent)) == [ONE, TWO, LAST, OUR_DONE]


def test_each_frame_comes_at_once(connect: Callable[..., Upstream]) -> None:
    go_on = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(ONE)
        assert go_on.wait(10)
        exchange.chunk(LAST)
        exchange.chunk(DONE)
        exchange.end()

    with upstream(script) as server:
        frames = iter(connect(server.url).frames(MESSAGES))
        assert next(frames) == ONE
        go_on.set()
        assert list(frames) == [LAST, OUR_DONE]


def test_an_end_without_done_but_with_a_finish_reason(connect: Callable[..., Upstream]) -> None:
    assert relay(connect, lambda x: x.stream(ONE, LAST)) == [ONE, LAST, OUR_DONE]


def test_done_without_its_blank_line(connect: Callable[..., Upstream]) -> None:
    assert relay(connect, lambda x: x.stream(ONE, b"data: [DONE]\n")) == [ONE, OUR_DONE]


def test_nothing_is_sent_before_the_first_frame_is_wanted(connect: Callable[..., Upstream]) -> None:
    with upstream(lambda x: x.stream(LAST, DONE)) as server:
        frames = connect(server.url).frames(MESSAGES)
        frames.close()
    assert server.connections == 0


SAYS_FINISHED = frame('"finish_reason": "stop" and \\"finish_reason\\":"stop"')


@pytest.mark.parametrize(
    "script",
    [
        lambda x: x.stream(ONE),
        lambda x: x.stream(),
        lambda x: x.stream(SAYS_FINISHED),
        lambda x: x.stream(ONE, LAST[:-1]),
        lambda x: (x.begin(), x.chunk(ONE), x.hang_up()),
        lambda x: (x.begin(), x.chunk(LAST), x.send(b"40\r\nhalf"), x.hang_up()),
    ],
    ids=["clean end", "empty", "only said in the text", "last frame cut", "closed", "chunk cut"],
)
def test_a_truncated_stream_is_an_error(connect: Callable[..., Upstream], script: Script) -> None:
    failure = failure_of(connect, script)
    assert (failure.status, failure.code) == (502, "upstream_truncated")


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        ({"error": {"message": "overloaded", "type": "server_error", "x": 1}}, "overloaded"),
        ({"id": "1", "error": {"message": "late", "code": 502}, "choices": []}, "late"),
        ({"error": "plain"}, "plain"),
    ],
)
def test_an_error_inside_the_stream(
    connect: Callable[..., Upstream], sent: dict[str, Any], error: str
) -> None:
    data = f"data: {json.dumps(sent)}\n\n".encode()
    seen: list[bytes] = []
    with upstream(lambda x: x.stream(ONE, data, DONE)) as server:
        frames = connect(server.url).frames(MESSAGES)
        with pytest.raises(ErrorFrame) as caught:
            seen.extend(frames)
    assert caught.value.message == error
    if isinstance(sent["error"], dict):
        assert caught.value.frame == data
    said = json.loads(caught.value.frame.removeprefix(b"data: "))["error"]
    assert said["message"] == error


def test_an_error_event(connect: Callable[..., Upstream]) -> None:
    failure = failure_of(
        connect, lambda x: x.stream(ONE, b'event: error\ndata: {"message": "no", "code": 5}\n\n')
    )
    assert isinstance(failure, ErrorFrame)
    assert json.loads(failure.frame.removeprefix(b"data: ")) == {
        "error": {"message": "no", "type": "server_error", "param": None, "code": 5}
    }


@pytest.mark.parametrize(
    "chunk", [frame("x", error=None), frame('{"error": {"message": "x"}}'), frame("error")]
)
def test_what_only_looks_like_an_error(connect: Callable[..., Upstream], chunk: bytes) -> None:
    assert relay(connect, lambda x: x.stream(chunk, LAST, DONE)) == [chunk, LAST, OUR_DONE]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 422, 429, 500, 503])
def test_a_refusal_keeps_its_status_and_body(connect: Callable[..., Upstream], status: int) -> None:
    error = {"message": "no", "type": "some_error", "param": "model", "code": "x", "more": [1]}
    body = json.dumps({"error": error}).encode()
    failure = failure_of(
        connect, lambda x: x.answer(status, body, "application/json", "Retry-After: 7")
    )
    assert isinstance(failure, UpstreamFailure)
    assert (failure.status, failure.body()) == (status, {"error": error})
    assert failure.headers == {"Retry-After": "7"}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": "model not found"}', "model not found"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"message": "bare", "code": 3}', "bare"),
        (b"<html>nginx</html>", "The upstream failed with status 404."),
        (b"", "The upstream failed with status 404."),
        (b"[1]", "The upstream failed with status 404."),
        (b'{"error": {"message": 5}}', "The upstream failed with status 404."),
    ],
)
def test_a_refusal_of_another_shape_is_wrapped(
    connect: Callable[..., Upstream], body: bytes, message: str
) -> None:
    failure = failure_of(connect, lambda x: x.answer(404, body))
    error = failure.body()["error"]
    assert list(error)[:4] == ["message", "type", "param", "code"] or message == "bare"
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["message"], error["type"]) == (message, "invalid_request_error")
    assert failure.status == 404


def test_a_refusal_is_not_retried(connect: Callable[..., Upstream]) -> None:
    with upstream(lambda x: x.answer(500, b"{}")) as server, pytest.raises(Failure):
        list(connect(server.url).frames(MESSAGES))
    assert len(server.exchanges) == 1


@pytest.mark.parametrize("kind", ["application/json", "text/html; charset=utf-8"])
def test_an_answer_that_is_no_stream(connect: Callable[..., Upstream], kind: str) -> None:
    failure = failure_of(connect, lambda x: x.answer(200, b"{}", kind))
    assert (failure.status, failure.code) == (502, "upstream_invalid")


def test_an_endless_frame(connect: Callable[..., Upstream]) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        for _ in range(5):
            exchange.chunk(b"x" * 2**20)
        assert exchange.left()

    assert failure_of(connect, script).code == "upstream_invalid"


def test_an_upstream_that_is_not_there(connect: Callable[..., Upstream]) -> None:
    with upstream(lambda x: x.end()) as server:
        pass
    with pytest.raises(Failure) as caught:
        list(connect(server.url).frames(MESSAGES))
    assert (caught.value.status, caught.value.code) == (502, "upstream_unreachable")


def test_an_upstream_that_hangs_up(connect: Callable[..., Upstream]) -> None:
    failure = failure_of(connect, lambda x: x.hang_up())
    assert (failure.status, failure.code) == (502, "upstream_unreachable")


def silent(exchange: Exchange) -> None:
    assert exchange.left()


def silent_after_one(exchange: Exchange) -> None:
    exchange.begin()
    exchange.chunk(ONE)
    assert exchange.left()


@pytest.mark.parametrize("script", [silent, silent_after_one])
def test_a_silent_upstream(connect: Callable[..., Upstream], script: Script) -> None:
    failure = failure_of(connect, script, SSEFLASK_UPSTREAM_TIMEOUT="0.2")
    assert (failure.status, failure.code) == (504, "upstream_timeout")


def test_closing_cancels_the_upstream(connect: Callable[..., Upstream]) -> None:
    left = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(ONE)
        assert exchange.left()
        left.set()

    with upstream(script) as server:
        frames = connect(server.url).frames(MESSAGES)
        assert next(frames) == ONE
        assert not left.is_set()
        frames.close()
        assert left.wait(10)


def test_connections_are_used_again(connect: Callable[..., Upstream]) -> None:
    def end_later(exchange: Exchange) -> None:
        # Like uvicorn: the end of the response is a packet of its own.
        exchange.begin()
        exchange.chunk(LAST + DONE)
        time.sleep(0.02)
        exchange.end()

    with upstream(end_later) as server:
        there = connect(server.url)
        for _ in range(5):
            assert list(there.frames(MESSAGES)) == [LAST, OUR_DONE]
    assert (server.connections, len(server.exchanges)) == (1, 5)


def test_an_upstream_that_never_ends_after_done(connect: Callable[..., Upstream]) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(LAST + DONE)
        assert exchange.left()

    assert relay(connect, script) == [LAST, OUR_DONE]


def test_an_upstream_that_goes_on_after_done(connect: Callable[..., Upstream]) -> None:
    cut = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(LAST + DONE)
        try:
            while True:
                exchange.chunk(ONE * 100)
        except (BrokenPipeError, ConnectionResetError):
            cut.set()

    assert relay(connect, script) == [LAST, OUR_DONE]
    assert cut.is_set()


def test_many_streams_at_once(connect: Callable[..., Upstream]) -> None:
    together = threading.Barrier(101)

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(ONE)
        together.wait(30)
        exchange.chunk(LAST + DONE)
        exchange.end()

    with upstream(script) as server:
        there = connect(server.url)
        results: list[list[bytes]] = []
        threads = [
            threading.Thread(target=lambda: results.append(list(there.frames(MESSAGES))))
            for _ in range(100)
        ]
        for thread in threads:
            thread.start()
        together.wait(30)
        for thread in threads:
            thread.join(30)
    assert results == [[ONE, LAST, OUR_DONE]] * 100


def echo(exchange: Exchange) -> None:
    key = exchange.headers["authorization"].removeprefix("Bearer ")
    error = {"message": f"Incorrect API key provided: {key}.", "type": "auth", "key": [{"k": key}]}
    if exchange.body["model"] == "refuse":
        exchange.answer(401, json.dumps({"error": error}).encode())
    else:
        exchange.stream(ONE, f"data: {json.dumps({'error': error})}\n\n".encode())


@pytest.mark.parametrize("model", ["refuse", "fail later"])
@pytest.mark.parametrize("key", [KEY, "a-key-of-another-form-0123"])
def test_the_key_is_never_told(model: str, key: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with upstream(echo) as server:
        with environment(OPENAI_API_KEY=key, OPENAI_BASE_URL=server.url, SSEFLASK_MODEL=model):
            there = Upstream(load())
        with pytest.raises(UpstreamFailure) as caught:
            list(there.frames(MESSAGES))
        there.close()
    failure = caught.value
    told = [str(failure), repr(failure), failure.json(), repr(there), caplog.text]
    if isinstance(failure, ErrorFrame):
        told.append(failure.frame.decode())
    assert not any(key in text for text in told)
    assert "Incorrect API key provided: " in failure.message
    assert "***" in failure.message

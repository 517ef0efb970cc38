from __future__ import annotations

import gzip
import json
import logging
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import pytest

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.frame_splitter import fields
from sseflask.completions.upstream import CompletionRequest, Upstream
from sseflask.config import load
from sseflask.errors import Failure
from sseflask.runs.outcome import ReportedFailure
from tests.scripted_upstream import (
    DONE,
    Exchange,
    Script,
    complete,
    event,
    frame,
    read_all,
    upstream,
)
from tests.service import KEY, environment

CHAT = CompletionRequest(
    "/chat/completions", '{"messages": [{"role": "user", "content": "你好"}]}'.encode()
)
RESPONSE = CompletionRequest("/responses", b'{"input": "hi", "stream": true}')
STOPPED = CompletionOutcome("finished", "stop")
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


def run(there: Upstream, asked: CompletionRequest = CHAT) -> tuple[list[bytes], CompletionOutcome]:
    """The frames of an answer, and its outcome."""
    reads, outcome = read_all(there.stream(asked))
    return list(chain.from_iterable(reads)), outcome


def relay(connect: Callable[..., Upstream], script: Script, **settings: str) -> list[bytes]:
    with upstream(script) as server:
        frames, outcome = run(connect(server.url, **settings))
    assert outcome == STOPPED
    return frames


def failure_of(connect: Callable[..., Upstream], script: Script, **settings: str) -> Failure:
    with upstream(script) as server, pytest.raises(Failure) as caught:
        run(connect(server.url, **settings))
    return caught.value


def test_each_frame_byte_for_byte(connect: Callable[..., Upstream]) -> None:
    odd = b'data:{"choices":[],  "id" : "\xe4\xbd\xa0" }\r\n\r\n'
    named = b'event: chunk\ndata: {"choices":\ndata: []}\n\n'
    sent = [ONE, odd, named, TWO, LAST]
    assert relay(connect, lambda x: x.stream(*sent, DONE)) == [*sent]


def test_what_is_asked(connect: Callable[..., Upstream]) -> None:
    # No parameter is unknown, and no byte is changed.
    content = b'{"model":"m",  "new one": [1.0, "\\u4f60"], "stream": true}'
    with upstream(lambda x: x.stream(LAST, DONE)) as server:
        run(connect(server.url), CompletionRequest("/chat/completions", content))
    (asked,) = server.exchanges
    assert asked.line == "POST /v1/chat/completions HTTP/1.1"
    assert asked.content == content
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["authorization"] == f"Bearer {KEY}"
    assert asked.headers["accept-encoding"] == "identity"


def test_without_a_key() -> None:
    with upstream(lambda x: x.stream(LAST, DONE)) as server:
        with environment(OPENAI_BASE_URL=server.url):
            there = Upstream(load())
        assert run(there) == ([LAST], STOPPED)
        there.close()


def test_frames_cut_anywhere(connect: Callable[..., Upstream]) -> None:
    stream = ONE + TWO + LAST + DONE
    pieces = [stream[start : start + 7] for start in range(0, len(stream), 7)]
    assert relay(connect, lambda x: x.stream(*pieces)) == [ONE, TWO, LAST]
    assert relay(connect, lambda x: x.stream(stream)) == [ONE, TWO, LAST]


def test_what_is_of_the_upstreams_connection_is_dropped(connect: Callable[..., Upstream]) -> None:
    sent = [
        b"\xef\xbb\xbf: hello\n\n",
        ONE,
        b": keep-alive\n\n",
        b"event: ping\n\n",
        b"retry: 5\n\n",
        b": OPENROUTER PROCESSING\n" + TWO,
        b"id: 5\nretry: 100\n" + ONE,
        LAST.replace(b"\n\n", b"\n: trailing\nid\n\n"),
        DONE,
    ]
    assert relay(connect, lambda x: x.stream(*sent)) == [ONE, TWO, ONE, LAST]


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
        frames = connect(server.url).stream(CHAT)
        assert next(frames) == [ONE]
        go_on.set()
        assert read_all(frames) == ([[LAST]], STOPPED)


def test_frames_that_come_together_are_given_together(connect: Callable[..., Upstream]) -> None:
    with upstream(lambda x: x.stream(ONE + TWO + LAST + DONE + ONE)) as server:
        assert read_all(connect(server.url).stream(CHAT)) == ([[ONE, TWO, LAST]], STOPPED)


def test_what_came_before_a_failure_is_given_first(connect: Callable[..., Upstream]) -> None:
    with upstream(lambda x: x.stream(ONE + TWO + b"data: {\n\n" + LAST)) as server:
        frames = connect(server.url).stream(CHAT)
        assert next(frames) == [ONE, TWO]
        with pytest.raises(Failure) as caught:
            next(frames)
    assert caught.value.code == "upstream_invalid"


def test_an_end_without_done_but_with_a_finish_reason(connect: Callable[..., Upstream]) -> None:
    assert relay(connect, lambda x: x.stream(ONE, LAST)) == [ONE, LAST]


def test_done_without_its_blank_line(connect: Callable[..., Upstream]) -> None:
    with upstream(lambda x: x.stream(ONE, b"data: [DONE]\n")) as server:
        assert run(connect(server.url)) == ([ONE], CompletionOutcome("finished"))


def test_nothing_is_sent_before_the_first_frame_is_wanted(connect: Callable[..., Upstream]) -> None:
    with upstream(lambda x: x.stream(LAST, DONE)) as server:
        frames = connect(server.url).stream(CHAT)
        frames.close()
    assert server.connections == 0


SAYS_FINISHED = frame('"finish_reason": "stop" and \\"finish_reason\\":"stop"')


@pytest.mark.parametrize(
    "script",
    [
        lambda x: x.stream(ONE),
        lambda x: x.stream(),
        lambda x: x.stream(SAYS_FINISHED),
        lambda x: x.stream(ONE, LAST.rstrip()[:-1]),
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
    seen: list[list[bytes] | CompletionOutcome] = []
    with upstream(lambda x: x.stream(ONE, data, DONE)) as server:
        frames = connect(server.url).stream(CHAT)
        with pytest.raises(ReportedFailure) as caught:
            seen.extend(frames)
    assert seen == [[ONE]]
    assert caught.value.message == error
    if isinstance(sent["error"], dict):
        assert {**caught.value.error, **sent["error"]} == caught.value.error


def test_an_error_event(connect: Callable[..., Upstream]) -> None:
    failure = failure_of(
        connect, lambda x: x.stream(ONE, b'event: error\ndata: {"message": "no", "code": 5}\n\n')
    )
    assert isinstance(failure, ReportedFailure)
    assert failure.body() == {
        "error": {"message": "no", "type": "server_error", "param": None, "code": 5}
    }


@pytest.mark.parametrize(
    "chunk", [frame("x", error=None), frame('{"error": {"message": "x"}}'), frame("error")]
)
def test_what_only_looks_like_an_error(connect: Callable[..., Upstream], chunk: bytes) -> None:
    assert relay(connect, lambda x: x.stream(chunk, LAST, DONE)) == [chunk, LAST]


@pytest.mark.parametrize("status", [400, 402, 403, 404, 409, 422, 429, 500, 503])
def test_a_refusal_keeps_its_status_and_body(connect: Callable[..., Upstream], status: int) -> None:
    error = {"message": "no", "type": "some_error", "param": "model", "code": "x", "more": [1]}
    body = json.dumps({"error": error}).encode()
    failure = failure_of(
        connect, lambda x: x.answer(status, body, "application/json", "Retry-After: 7")
    )
    assert isinstance(failure, ReportedFailure)
    assert (failure.status, failure.body()) == (status, {"error": error})
    # OpenAI's clients ask again after a 409, unless a header says otherwise.
    again = {"X-Should-Retry": "true"} if status == 409 else {}
    assert failure.headers == {"Retry-After": "7", **again}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": "model not found"}', "model not found"),
        (b'{"detail": "Not Found"}', "Not Found"),
        (b'{"message": "bare", "code": 3}', "bare"),
        (b"<html>nginx</html>", "The upstream failed with status 404 (Whatever): nginx"),
        (b"", "The upstream failed with status 404 (Whatever)."),
        (b"[1]", "The upstream failed with status 404 (Whatever): [1]"),
        (b'{"error": {}}', 'The upstream failed with status 404 (Whatever): {"error": {}}'),
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
        run(connect(server.url))
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

    failure = failure_of(connect, script, SSEFLASK_MAX_EVENT="4194304")
    assert failure.code == "upstream_invalid"


def test_an_upstream_that_is_not_there(connect: Callable[..., Upstream]) -> None:
    with upstream(lambda x: x.end()) as server:
        pass
    with pytest.raises(Failure) as caught:
        run(connect(server.url))
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
        frames = connect(server.url).stream(CHAT)
        assert next(frames) == [ONE]
        assert not left.is_set()
        frames.close()
        assert left.wait(10)


def test_the_end_does_not_wait_for_the_responses_after_which_its_connection_is_used_again(
    connect: Callable[..., Upstream],
) -> None:
    """Like uvicorn's: the end of the response is a packet of its own."""
    told = threading.Semaphore(0)

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(LAST + DONE)
        assert told.acquire(timeout=10)
        exchange.end()

    with upstream(script) as server:
        there = connect(server.url)
        for _ in range(5):
            frames = there.stream(CHAT)
            assert [next(frames), next(frames)] == [[LAST], STOPPED]
            told.release()
            assert next(frames, None) is None
    assert (server.connections, len(server.exchanges)) == (1, 5)


def test_a_connection_that_has_been_idle_for_long_is_not_used_again(
    connect: Callable[..., Upstream], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sseflask.completions.openai_client._IDLE_SECONDS", 0.0)
    with upstream(lambda x: x.stream(LAST, DONE)) as server:
        there = connect(server.url)
        for _ in range(2):
            assert run(there) == ([LAST], STOPPED)
    assert server.connections == 2


def test_an_upstream_that_never_ends_after_done(connect: Callable[..., Upstream]) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(LAST + DONE)
        assert exchange.left()

    assert relay(connect, script) == [LAST]


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

    assert relay(connect, script) == [LAST]
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
        results: list[tuple[list[bytes], CompletionOutcome]] = []
        threads = [threading.Thread(target=lambda: results.append(run(there))) for _ in range(100)]
        for thread in threads:
            thread.start()
        together.wait(30)
        for thread in threads:
            thread.join(30)
    assert results == [([ONE, LAST], STOPPED)] * 100


def echo(exchange: Exchange) -> None:
    key = exchange.headers["authorization"].removeprefix("Bearer ")
    error = {"message": f"Incorrect API key provided: {key}.", "type": "auth", "key": [{"k": key}]}
    said = exchange.body["say"]
    if said == "refuse":
        exchange.answer(401, json.dumps({"error": error}).encode())
    elif said == "fail later":
        exchange.stream(ONE, f"data: {json.dumps({'error': error})}\n\n".encode())
    elif said == "error":
        exchange.stream(event("error", **{**error, "type": "error"}))
    else:
        exchange.stream(event(said, response={"error": error, "note": key}))


@pytest.mark.parametrize(
    ("path", "say"),
    [
        ("/chat/completions", "refuse"),
        ("/chat/completions", "fail later"),
        ("/responses", "refuse"),
        ("/responses", "fail later"),
        ("/responses", "response.failed"),
        ("/responses", "error"),
    ],
)
@pytest.mark.parametrize("key", [KEY, "a-key-of-another-form-0123"])
def test_the_key_is_never_shown(
    path: str, say: str, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with upstream(echo) as server:
        with environment(OPENAI_API_KEY=key, OPENAI_BASE_URL=server.url):
            there = Upstream(load())
        try:
            outcome = run(there, CompletionRequest(path, json.dumps({"say": say}).encode()))[1]
        except ReportedFailure as error:
            outcome = CompletionOutcome.failed(error)
        there.close()
    failure = outcome.failure
    assert isinstance(failure, ReportedFailure)
    told = [str(failure), repr(failure), failure.json(), repr(there), caplog.text, repr(outcome)]
    assert not any(key in text for text in [*told, outcome.ending().outcome.decode()])
    assert "Incorrect API key provided: " in failure.message
    assert "***" in failure.message
    if outcome.frame is not None:
        name, _, data = outcome.frame.partition(b"\ndata: ")
        assert name == b"event: " + say.encode()
        assert json.loads(data)["type"] == say


def test_a_response(connect: Callable[..., Upstream]) -> None:
    created = event("response.created", response={"error": None, "usage": None})
    said = event("response.output_text.delta", delta="你好")
    last = event("response.completed", response={"usage": {"total_tokens": 3}})
    with upstream(lambda x: x.stream(created, said, last, DONE)) as server:
        frames, outcome = run(connect(server.url), RESPONSE)
    assert server.exchanges[0].line == "POST /v1/responses HTTP/1.1"
    assert server.exchanges[0].content == RESPONSE.body
    assert frames == [created, said]
    assert outcome == CompletionOutcome("finished", "stop", frame=last)


def test_a_response_that_is_cut_off(connect: Callable[..., Upstream]) -> None:
    said = event("response.output_text.delta", delta="hi")
    with upstream(lambda x: x.stream(said)) as server, pytest.raises(Failure) as caught:
        run(connect(server.url), RESPONSE)
    assert caught.value.code == "upstream_truncated"


def test_another_path(connect: Callable[..., Upstream]) -> None:
    with pytest.raises(KeyError, match="/embeddings"):
        next(connect("http://127.0.0.1:9/v1").stream(CompletionRequest("/embeddings", b"{}")))


@pytest.mark.parametrize("path", ["/chat/completions", "/responses"])
def test_an_answer_in_one_piece(connect: Callable[..., Upstream], path: str) -> None:
    body, asked = b'{"id" :  "1", "x": 1.0}\n', b'{"stream":  false}'
    with upstream(lambda x: x.answer(200, body, "application/json; charset=utf-8")) as server:
        got = complete(connect(server.url), CompletionRequest(path, asked))
    assert got == body
    assert server.exchanges[0].line == f"POST /v1{path} HTTP/1.1"
    assert server.exchanges[0].content == asked


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
def test_a_document_of_lines(connect: Callable[..., Upstream], end: bytes) -> None:
    """It stays as it came if a person may have laid it out, or else is a frame of its size."""
    few, many = b"{" + end * 10 + b"}", b"{" + end * 1_000_000 + b"}"
    with upstream(lambda x: x.answer(200, few if x.body["few"] else many)) as server:
        there = connect(server.url)
        (frame,), _ = run_whole(there, b'{"few": true}')
        assert (fields(frame)[1] or b"") == b"{" + b"\n" * 10 + b"}"
        (frame,), _ = run_whole(there, b'{"few": false}')
    data = fields(frame)[1]
    assert data is not None
    assert data.translate(None, b" ") == b"{}"
    assert len(frame) < len(many) + 100


def run_whole(there: Upstream, content: bytes) -> tuple[list[bytes], CompletionOutcome]:
    (frames,), outcome = read_all(there.document(CompletionRequest("/chat/completions", content)))
    return frames, outcome


def test_a_compressed_refusal_may_not_become_a_large_one(connect: Callable[..., Upstream]) -> None:
    small = gzip.compress(b'{"error": {"message": "no", "code": "x"}}')
    large = gzip.compress(b'{"error": {"message": "%b"}}' % (b" " * 100_000_000))

    def script(exchange: Exchange) -> None:
        content = small if exchange.body["small"] else large
        exchange.answer(400, content, "application/json", "Content-Encoding: gzip")

    with upstream(script) as server:
        there = connect(server.url)
        with pytest.raises(ReportedFailure) as caught:
            run(there, CompletionRequest("/chat/completions", b'{"small": true}'))
        assert (caught.value.status, caught.value.code) == (400, "x")
        tracemalloc.start()
        with pytest.raises(Failure) as refused:
            run(there, CompletionRequest("/chat/completions", b'{"small": false}'))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert refused.value.status == 400
    assert most < 50_000_000


def test_what_follows_an_answer_is_nobodys(connect: Callable[..., Upstream]) -> None:
    evil = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 0\r\n\r\n"
    told = []

    def script(exchange: Exchange) -> None:
        told.append(exchange.content)
        if len(told) == 1:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n"
            exchange.send(head + b"{}" + evil)
        else:
            exchange.stream(LAST, DONE)

    with upstream(script) as server:
        there = connect(server.url)
        assert complete(there, CHAT) == b"{}"
        assert run(there) == ([LAST], STOPPED)
    assert server.connections == 2


def test_the_models(connect: Callable[..., Upstream]) -> None:
    body = b'{"object": "list",  "data": []}'
    with upstream(lambda x: x.answer(200, body)) as server:
        assert connect(server.url).models() == body
    assert server.exchanges[0].line == "GET /v1/models HTTP/1.1"
    assert server.exchanges[0].headers["authorization"] == f"Bearer {KEY}"


CALLS: list[Callable[[Upstream], object]] = [
    lambda there: complete(there, CHAT),
    lambda there: there.models(),
]


@pytest.mark.parametrize("call", CALLS, ids=["answer", "models"])
@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (lambda x: x.answer(429, b'{"error": {"message": "no", "code": "x"}}'), 429, "x"),
        (lambda x: x.answer(200, b"<html>", "text/html"), 502, "upstream_invalid"),
        (lambda x: x.hang_up(), 502, "upstream_unreachable"),
        (lambda x: x.left(), 504, "upstream_timeout"),
    ],
    ids=["refused", "a page", "closed", "silent"],
)
def test_no_answer(
    connect: Callable[..., Upstream],
    call: Callable[[Upstream], object],
    script: Script,
    status: int,
    code: str,
) -> None:
    with upstream(script) as server, pytest.raises(Failure) as caught:
        call(connect(server.url, SSEFLASK_UPSTREAM_TIMEOUT="0.3"))
    assert (caught.value.status, caught.value.code) == (status, code)

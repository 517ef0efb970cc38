"""What upstreams really send: under other labels, in other shapes, in one piece or not."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import openai
import pytest

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.response_reader import ResponseReader
from sseflask.completions.upstream import CompletionRequest, Upstream
from sseflask.config import load
from sseflask.errors import Failure
from sseflask.runs.outcome import ReportedFailure
from tests.live.kit.waiting import until
from tests.scripted_upstream import (
    DONE,
    STREAM_HEAD,
    Exchange,
    Script,
    chunk,
    complete,
    event,
    frame,
    read_all,
    upstream,
)
from tests.service import KEY, environment

CHAT = CompletionRequest("/chat/completions", b'{"stream": true}')
RESPONSE = CompletionRequest("/responses", b'{"stream": true}')
ONE, LAST = frame("one"), frame(finish="stop")
TOKENS = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
USAGE = frame(choices=[], usage=TOKENS)
STOPPED = CompletionOutcome("finished", "stop")
ELSEWHERE = (301, 302, 303, 307, 308)


@pytest.fixture
def connect() -> Iterator[Callable[..., Upstream]]:
    made: list[Upstream] = []

    def connect(url: str, **settings: str) -> Upstream:
        settings = {"SSEFLASK_MAX_EVENT": "500000", **settings}
        with environment(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=url, **settings):
            made.append(Upstream(load()))
        return made[-1]

    yield connect
    for each in made:
        each.close()


Connect = Callable[..., Upstream]


def run(there: Upstream, asked: CompletionRequest = CHAT) -> tuple[list[bytes], CompletionOutcome]:
    reads, outcome = read_all(there.stream(asked))
    return list(chain.from_iterable(reads)), outcome


CALLS: dict[str, Callable[[Upstream], object]] = {
    "stream": run,
    "whole": lambda there: complete(there, CHAT),
    "models": lambda there: there.models(),
}


def failure_of(
    connect: Connect, script: Script, call: Callable[[Upstream], object] = run, **settings: str
) -> Failure:
    with upstream(script) as server, pytest.raises(Failure) as caught:
        call(connect(server.url, **settings))
    return caught.value


# -- led elsewhere ---------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("status", ELSEWHERE)
def test_no_redirection_is_followed(
    connect: Connect, status: int, call: str, caplog: pytest.LogCaptureFixture
) -> None:
    with upstream(lambda x: x.stream(LAST, DONE)) as other:
        place = f"Location: {other.url.replace('//', '//me:geheim@')}/x?key=geheim"
        failure = failure_of(
            connect, lambda x: x.answer(status, b"moved", "text/plain", place), CALLS[call]
        )
    assert other.connections == 0
    assert (failure.status, failure.code) == (502, "upstream_redirected")
    assert f"{other.url}/x, which is not followed: set OPENAI_BASE_URL" in failure.message
    assert "geheim" not in failure.message + caplog.text
    assert f"redirecting to {other.url}/x" in caplog.text


@pytest.mark.parametrize("place", ["/v2", "http://[::1", "http://h/\x01", "//h:99999/"])
def test_a_redirection_to_anywhere(connect: Connect, place: str) -> None:
    failure = failure_of(connect, lambda x: x.answer(302, b"", "text/plain", f"Location: {place}"))
    assert (failure.status, failure.code) == (502, "upstream_redirected")
    assert failure.message.isprintable()


def test_no_redirection_at_all(connect: Connect) -> None:
    failure = failure_of(connect, lambda x: x.answer(300, b"choose", "text/plain"))
    assert failure.status == 502
    assert failure.message == "The upstream failed with status 300 (Whatever): choose"


@pytest.mark.parametrize("call", ["whole", "models"])
def test_an_empty_answer(connect: Connect, call: str) -> None:
    failure = failure_of(connect, lambda x: x.answer(200, b" \n"), CALLS[call])
    assert failure.message == "The upstream's answer can't be relayed: it is empty."


def test_a_large_answer_is_not_taken_apart(connect: Connect) -> None:
    """As objects it would take a hundred times its size."""
    body = b'{"choices": [%b{}]}' % (b"{}," * 4_000_000)
    with upstream(lambda x: x.answer(200, body)) as server:
        there = connect(server.url)
        tracemalloc.start()
        assert len(complete(there, CHAT)) == len(body)
        with pytest.raises(Failure, match="too long"):
            run(there)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 5 * len(body)


def test_few_large_answers_are_in_memory_at_once(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One more waits until another has been stored."""
    monkeypatch.setattr("sseflask.completions.response_reader._LARGE", 1_000)
    only = threading.BoundedSemaphore(1)
    monkeypatch.setattr("sseflask.completions.response_reader._large_documents", lambda: only)
    large, small = (b'{"choices": [], "x": "%b"}' % (b"x" * size) for size in (2_000, 10))
    bodies = iter([large, large, small])
    with upstream(lambda x: x.answer(200, next(bodies))) as server, ThreadPoolExecutor() as pool:
        there = connect(server.url)
        with contextlib.closing(there.document(CHAT)) as first:
            assert next(first) == [b"data: %b\n\n" % large]
            second = pool.submit(lambda: list(there.document(CHAT)))
            until(lambda: len(server.exchanges) == 2, "the second is asked for")
            assert complete(there, CHAT) == small
            assert next(first) == CompletionOutcome("finished")
            assert not second.done()
        assert second.result(10) == [[b"data: %b\n\n" % large], CompletionOutcome("finished")]
    assert only.acquire(blocking=False)


def test_no_cookie_is_kept(connect: Connect) -> None:
    with upstream(lambda x: x.answer(200, b"{}", "application/json", "Set-Cookie: a=b")) as server:
        there = connect(server.url)
        for call in ("whole", "models", "whole"):
            CALLS[call](there)
    assert [each.headers.get("cookie") for each in server.exchanges] == [None] * 3


# -- bounds ----------------------------------------------------------------------------------------


def _flood(head: bytes, piece: bytes) -> Script:
    def script(exchange: Exchange) -> None:
        exchange.send(head)
        with contextlib.suppress(OSError):
            while True:
                exchange.send(piece)

    return script


def _drip(head: bytes, piece: bytes) -> Script:
    def script(exchange: Exchange) -> None:
        exchange.send(head)
        exchange.connection.settimeout(0.02)
        with contextlib.suppress(ConnectionError):
            while True:
                exchange.send(piece)
                with contextlib.suppress(TimeoutError):
                    assert exchange.connection.recv(1) == b""
                    return

    return script


BOMB = gzip.compress(b" " * 40_000_000, 1)
BIG = chunk(b"x" * 65_536)
JSON_HEAD = STREAM_HEAD.replace(b"text/event-stream", b"application/json")


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sseflask.completions.response_reader._MAX_EMPTY", 500_000)
    monkeypatch.setattr("sseflask.completions.upstream._MAX_MODELS", 500_000)
    monkeypatch.setattr(ResponseReader.__init__, "__defaults__", ("", 1, 500_000, 500_000))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("call", "script"),
    [
        *((call, _flood(JSON_HEAD + chunk(b'{"'), BIG)) for call in CALLS),
        *((call, _flood(JSON_HEAD, chunk(b" " * 65_536))) for call in CALLS),
        *((call, _flood(STREAM_HEAD, chunk(b":\n\n" * 20_000))) for call in ("stream", "whole")),
        ("stream", _flood(STREAM_HEAD + chunk(b"data: "), BIG)),
        ("stream", _flood(STREAM_HEAD + chunk(b"data: x\n"), chunk(b"data: x\n" * 8_000))),
        ("whole", _flood(STREAM_HEAD, chunk(ONE * 100))),
        ("models", _flood(b"HTTP/1.1 200 OK\r\nX: ", b"x" * 65_536)),
        ("stream", _flood(b"HTTP/1.1 200 OK\r\n", b"X: x\r\n" * 10_000)),
        ("models", _flood(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1_000)),
        ("whole", _flood(STREAM_HEAD + b"0\r\n", b"X: x\r\n" * 10_000)),
        ("stream", _flood(JSON_HEAD + b"1;", b"x" * 65_536)),
        ("models", _flood(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n", BIG)),
    ],
)
def test_what_has_no_end(connect: Connect, call: str, script: Script) -> None:
    """It fails at a size, long before any time limit."""
    assert failure_of(connect, script, CALLS[call]).status in (500, 502)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("call", CALLS)
def test_what_is_small_only_while_it_is_compressed(
    connect: Connect, call: str, status: int
) -> None:
    bombs = iter([(BOMB, "gzip"), (gzip.compress(BOMB), "gzip, gzip")])

    def script(exchange: Exchange) -> None:
        bomb, coding = next(bombs)
        exchange.answer(status, bomb, "application/json", f"Content-Encoding: {coding}")

    with upstream(script) as server:
        there = connect(server.url)
        tracemalloc.start()
        for _ in range(2):
            with pytest.raises(Failure) as caught:
                CALLS[call](there)
            assert caught.value.status == (500 if status == 500 else 502)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert most < 20_000_000


@pytest.mark.parametrize(
    ("call", "script"),
    [
        ("models", _drip(JSON_HEAD, chunk(b" "))),
        ("models", _drip(JSON_HEAD + chunk(b"{"), chunk(b" "))),
        ("whole", _drip(JSON_HEAD + chunk(b"{"), chunk(b" "))),
        ("stream", _drip(JSON_HEAD + chunk(b"{"), chunk(b" "))),
        *((call, _drip(b"HTTP/1.1 200 OK\r\nX: ", b"x")) for call in CALLS),
        *((call, _drip(b"", b"HTTP/1.1 102 Processing\r\n\r\n")) for call in CALLS),
        *((call, lambda x: x.left()) for call in CALLS),
    ],
)
def test_what_drips(connect: Connect, call: str, script: Script) -> None:
    failure = failure_of(connect, script, CALLS[call], SSEFLASK_UPSTREAM_TIMEOUT="0.3")
    assert (failure.status, failure.code) == (504, "upstream_timeout")


def test_a_head_has_all_its_time_whatever_was_before_on_its_connection(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refused list of models, whose trailers were awaited for less time than a head may take."""
    monkeypatch.setattr("sseflask.completions.upstream._MODELS_SECONDS", 1.0)
    slow = threading.Event()

    def script(exchange: Exchange) -> None:
        if exchange.line.startswith("GET"):
            exchange.send(b"HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
            slow.wait(0.1)
            exchange.send(b"X: x\r\n\r\n")
        else:
            slow.wait(1.3)
            exchange.stream(LAST, DONE)

    with upstream(script) as server:
        there = connect(server.url)
        with pytest.raises(ReportedFailure):
            there.models()
        assert run(there) == ([LAST], STOPPED)
    assert server.connections == 1


# -- labels ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "label",
    ["application/json", "text/plain; charset=utf-8", "application/x-ndjson", "text/html",
     "application/octet-stream", "nonsense", ""],
)  # fmt: skip
@pytest.mark.parametrize("before", [b"", b"\xef\xbb\xbf", b"\n\n", b": hello\n\n", b"retry: 1\n\n"])
def test_the_first_bytes_count_and_no_label(connect: Connect, label: str, before: bytes) -> None:
    head = STREAM_HEAD.replace(b"text/event-stream", label.encode())
    if not label:
        head = head.replace(b"Content-Type: \r\n", b"")

    def script(exchange: Exchange) -> None:
        exchange.send(head)
        for byte in before:
            exchange.chunk(bytes([byte]))
        exchange.chunk(ONE[:1])
        exchange.chunk(ONE[1:] + LAST + DONE)
        exchange.end()

    with upstream(script) as server:
        assert run(connect(server.url)) == ([ONE, LAST], STOPPED)


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b"<html><title>Sign in</title>", "text/html", "it is text/html, not {}: Sign in"),
        (b"<html><title>Sign in</title>", "text/event-stream", "not {}: Sign in"),
        (
            b"upstream connect error",
            "text/plain",
            "it is text/plain, not {}: upstream connect error",
        ),
        (b"\x1b\x00\x00br", "", "it is of no type, not {}"),
        (b'"text"', "application/json", "text"),
        (b'{"a": 1', "application/json", '{"a": 1'),
        (b"[1]", "application/json", "[1]"),
    ],
)
@pytest.mark.parametrize("call", ["stream", "whole"])
def test_what_is_no_answer_is_quoted(
    connect: Connect, body: bytes, kind: str, message: str, call: str
) -> None:
    failure = failure_of(connect, lambda x: x.answer(200, body, kind), CALLS[call])
    assert (failure.status, failure.code) == (502, "upstream_invalid")
    assert message.replace("{}", "an event stream") in failure.message


@pytest.mark.parametrize("call", ["stream", "whole"])
def test_an_event_that_is_none_is_quoted(connect: Connect, call: str) -> None:
    text = f"data: Internal error of {KEY}\n\n".encode()
    failure = failure_of(connect, lambda x: x.stream(ONE, text), CALLS[call])
    assert failure.code == "upstream_invalid"
    assert failure.message.endswith("it is not a JSON object: Internal error of ***") or (
        "Internal error of" in failure.message and KEY not in failure.message
    )


@pytest.mark.parametrize("event", ["message", "completion.chunk", "data", ""])
def test_chunks_under_any_event_type(connect: Connect, event: str) -> None:
    sent = [f"event: {event}\n".encode() + each for each in (ONE, LAST)]
    with upstream(lambda x: x.stream(*sent, f"event: {event}\n".encode() + DONE)) as server:
        assert run(connect(server.url)) == (sent, STOPPED)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_last_event_without_its_blank_line(connect: Connect, end: bytes) -> None:
    """It counts if it is complete; a cut one is no JSON, and ends nothing."""
    said = LAST.rstrip()
    with upstream(lambda x: x.stream(ONE, said + end)) as server:
        assert run(connect(server.url)) == ([ONE, LAST], STOPPED)
    done = event("response.completed", response={"output": []})
    with upstream(lambda x: x.stream(done.rstrip() + end)) as server:
        assert run(connect(server.url), RESPONSE)[1].kind == "finished"
    assert failure_of(connect, lambda x: x.stream(ONE, said[:-1] + end)).code == (
        "upstream_truncated"
    )


def test_an_end_written_as_json(connect: Connect) -> None:
    with upstream(lambda x: x.stream(ONE, LAST, b'data: "[DONE]"\n\n')) as server:
        assert run(connect(server.url)) == ([ONE, LAST], STOPPED)


@pytest.mark.parametrize("coding", ["x-gzip", "X-GZip"])
@pytest.mark.parametrize("call", CALLS)
def test_the_old_name_of_gzip(connect: Connect, coding: str, call: str) -> None:
    body = gzip.compress(b'{"choices": [], "data": []}' if call != "stream" else ONE + LAST)
    head = f"Content-Encoding: {coding}"
    with upstream(lambda x: x.answer(200, body, "text/event-stream", head)) as server:
        CALLS[call](connect(server.url))
    refusal = gzip.compress(b'{"detail": "too much"}')
    failure = failure_of(
        connect, lambda x: x.answer(400, refusal, "application/json", head), CALLS[call]
    )
    assert failure.message == "too much"


MEMBERS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
}


@pytest.mark.parametrize("filler", [b"", b"\0" * 700])
@pytest.mark.parametrize("coding", MEMBERS)
@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_a_compressed_body_of_several_members(
    connect: Connect, coding: str, size: int, filler: bytes
) -> None:
    sent = [ONE, frame("x" * 400_000), USAGE, LAST, DONE]
    body = b"".join(map(MEMBERS[coding], sent)) + filler
    head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\nContent-Encoding: %b\r\n\r\n" % coding.encode())

    def script(exchange: Exchange) -> None:
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
        exchange.send(head + b"".join(map(chunk, pieces)))
        exchange.end()

    with upstream(script) as server:
        assert run(connect(server.url)) == (sent[:-1], STOPPED)


@pytest.mark.parametrize("coding", ["gzip", "gzip, identity", "deflate, gzip", "br", "zstd"])
def test_whatever_it_is_compressed_with(connect: Connect, coding: str) -> None:
    """Although it was asked not to: Node's fetch reads all of these."""
    import brotli  # type: ignore[import-untyped]  # it has no stubs
    from backports import zstd

    packers = {**MEMBERS, "br": brotli.compress, "zstd": zstd.compress, "identity": bytes}
    body = ONE + LAST + DONE
    for name in coding.split(", "):
        body = packers[name](body)
    with upstream(
        lambda x: x.answer(200, body, "text/event-stream", f"Content-Encoding: {coding}")
    ) as server:
        assert run(connect(server.url)) == ([ONE, LAST], STOPPED)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_what_is_not_what_its_coding_says(connect: Connect, coding: str, call: str) -> None:
    head = f"Content-Encoding: {coding}"
    failure = failure_of(connect, lambda x: x.answer(200, b"\xff" * 99, "a/b", head), CALLS[call])
    assert (failure.status, failure.code) == (502, "upstream_invalid")
    assert failure.message.startswith("The upstream's answer can't be decompressed: Error -3")


def test_chunks_whose_lines_end_in_a_bare_line_feed(connect: Connect) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(STREAM_HEAD)
        for each in (ONE, LAST, DONE):
            exchange.send(b"00%X ;a=b\n%b\n" % (len(each), each))
        exchange.send(b"0\n\n")

    with upstream(script) as server:
        there = connect(server.url)
        for _ in range(2):
            assert run(there) == ([ONE, LAST], STOPPED)
    assert server.connections == 1


def test_what_is_no_chunk_is_no_reason_to_wait(connect: Connect) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(STREAM_HEAD + chunk(ONE) + b"zz\n")
        assert exchange.left()

    failure = failure_of(connect, script)
    assert (failure.status, failure.code) == (502, "upstream_invalid")
    assert failure.message == "The upstream's answer can't be read: no chunk begins with b'zz\\n'."


@pytest.mark.parametrize(
    "odd", ['"x": NaN', '"x": [-Infinity, 1]', '"x": {"y": Infinity}', '"choices": NaN']
)
def test_a_document_with_what_is_not_json(connect: Connect, odd: str) -> None:
    body = f'{{"choices": [], {odd}}}'.encode()
    for call in (CALLS["whole"], CALLS["models"]):
        failure = failure_of(connect, lambda x: x.answer(200, body), call)
        assert (failure.status, failure.code) == (502, "upstream_invalid")
        assert "not JSON, which has neither NaN nor Infinity" in failure.message


@pytest.mark.parametrize(
    "body",
    [
        b'{"choices": [], "x": "NaN, [Infinity]"}',
        b'{"choices": [], "x": "\\ud83d", "y": 1e999}',
        b'{"choices": [], "choices": []}',
    ],
)
def test_a_document_that_is_json_is_passed_on_as_it_is(connect: Connect, body: bytes) -> None:
    with upstream(lambda x: x.answer(200, body)) as server:
        assert complete(connect(server.url), CHAT) == body


@pytest.mark.parametrize(
    "body", [b'{"choices": []} x', b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b'{"choices": [}']
)
def test_a_document_that_nobody_reads(connect: Connect, body: bytes) -> None:
    failure = failure_of(connect, lambda x: x.answer(200, body), CALLS["whole"])
    assert (failure.status, failure.code) == (502, "upstream_invalid")


def test_numbers_of_a_stream_that_json_can_not_spell_are_null(connect: Connect) -> None:
    odd = b'data: {"choices": [{"delta": {"content": "NaN"}, "logprobs": [NaN, -Infinity]}]}\n\n'
    with upstream(lambda x: x.stream(odd, b"event: a\n" + odd, LAST, DONE)) as server:
        frames, outcome = run(connect(server.url))
    assert outcome == STOPPED
    mended = {"choices": [{"delta": {"content": "NaN"}, "logprobs": [None, None]}]}
    for each in frames[:2]:
        assert json.loads(each.partition(b"data: ")[2], parse_constant=pytest.fail) == mended


def test_what_only_javascript_reads(connect: Connect) -> None:
    odd = ONE.replace(b"one", b"\xff")
    with upstream(lambda x: x.stream(odd, b"data: null\n\n", LAST, b"data: [DONE] \n\n")) as server:
        assert run(connect(server.url)) == ([ONE.replace(b"one", "\ufffd".encode()), LAST], STOPPED)


# -- ends ------------------------------------------------------------------------------------------


def _then(*sent: bytes, keepalive: bytes = b": keepalive\n\n") -> Script:
    return _drip(STREAM_HEAD + b"".join(chunk(each) for each in sent), chunk(keepalive))


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_REST_SECONDS", "_LAST_SECONDS", "_CALLS_SECONDS"):
        monkeypatch.setattr(f"sseflask.completions.stream_parser.{name}", 0.2)


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("sent", [[ONE, LAST], [ONE, LAST, USAGE]])
@pytest.mark.parametrize(
    "keepalive", [b": keepalive\n\n", b"event: ping\ndata: {}\n\n", frame(choices=[], usage=None)]
)
def test_keepalives_after_the_finish_reason(
    connect: Connect, sent: list[bytes], keepalive: bytes
) -> None:
    with upstream(_then(*sent, keepalive=keepalive)) as server:
        frames, outcome = run(connect(server.url))
    assert [each for each in frames if each != keepalive] == sent
    assert outcome == STOPPED


@pytest.mark.usefixtures("short_grace")
@pytest.mark.parametrize("reason", ["", "null", "None"])
def test_a_reason_that_is_none_finishes_nothing(connect: Connect, reason: str) -> None:
    slow = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(frame("one", finish=reason))
        slow.wait(0.5)
        exchange.chunk(LAST + DONE)
        exchange.end()

    with upstream(script) as server:
        assert run(connect(server.url)) == ([frame("one", finish=reason), LAST], STOPPED)


@pytest.mark.usefixtures("short_grace")
def test_silence_after_the_finish_reason(connect: Connect) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(ONE + LAST)
        assert exchange.left()

    with upstream(script) as server:
        assert run(connect(server.url)) == ([ONE, LAST], STOPPED)


def test_usage_that_comes_late(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event of it gives the next one as long again."""
    monkeypatch.setattr("sseflask.completions.stream_parser._REST_SECONDS", 1.0)
    monkeypatch.setattr("sseflask.completions.stream_parser._LAST_SECONDS", 1.0)
    soon = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(ONE + LAST)
        for _ in range(4):
            soon.wait(0.3)
            exchange.chunk(USAGE)
        exchange.chunk(DONE)
        exchange.end()

    with upstream(script) as server:
        assert run(connect(server.url)) == ([ONE, LAST, *[USAGE] * 4], STOPPED)


@pytest.mark.parametrize("reason", ["tool_calls", "function_call"])
def test_a_server_that_makes_its_calls_itself_goes_on_after_them(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """It has more time than the end of an answer, also if it tells the usage of each step."""
    monkeypatch.setattr("sseflask.completions.stream_parser._REST_SECONDS", 0.1)
    monkeypatch.setattr("sseflask.completions.stream_parser._LAST_SECONDS", 0.1)
    running = threading.Event()
    calling = frame("Looking it up.", finish=reason)

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(calling + USAGE)
        for _ in range(5):
            running.wait(0.1)
            exchange.chunk(b": running\n\n")
        exchange.chunk(ONE + LAST + DONE)
        exchange.end()

    with upstream(script) as server:
        assert run(connect(server.url)) == ([calling, USAGE, ONE, LAST], STOPPED)


def test_calls_that_are_the_clients_end_as_well(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sseflask.completions.stream_parser._CALLS_SECONDS", 0.2)
    with upstream(_then(frame(finish="tool_calls"))) as server:
        assert run(connect(server.url))[1] == CompletionOutcome("finished", "tool_calls")


def test_comments_before_the_finish_reason_are_signs_of_life(connect: Connect) -> None:
    """As of a model that thinks for longer than the limit on silence."""

    def script(exchange: Exchange) -> None:
        exchange.begin()
        end = time.monotonic() + 1.5
        pause = threading.Event()
        while time.monotonic() < end:
            exchange.chunk(b": OPENROUTER PROCESSING\n\n")
            pause.wait(0.1)
        exchange.chunk(ONE + LAST + DONE)
        exchange.end()

    with upstream(script) as server:
        there = connect(server.url, SSEFLASK_UPSTREAM_TIMEOUT="1")
        assert run(there) == ([ONE, LAST], STOPPED)


def _choice(index: int, finish: str | None = None) -> bytes:
    return frame(choices=[{"index": index, "delta": {"content": "x"}, "finish_reason": finish}])


@pytest.mark.usefixtures("short_grace")
def test_several_choices_are_finished_when_all_are(connect: Connect) -> None:
    asked = CompletionRequest("/chat/completions", b'{"n": 2, "stream": true}')
    sent = [_choice(0), _choice(1), _choice(0, "stop")]
    with upstream(_then(*sent, _choice(1, "length"))) as server:
        assert run(connect(server.url), asked) == (
            [*sent, _choice(1, "length")],
            CompletionOutcome("finished", "stop"),
        )

    def one_is_silent(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(b"".join(sent))
        assert exchange.left()

    for script in (one_is_silent, lambda x: x.stream(*sent)):
        with upstream(script) as server, pytest.raises(Failure) as caught:
            run(connect(server.url, SSEFLASK_UPSTREAM_TIMEOUT="0.5"), asked)
        assert caught.value.code in ("upstream_timeout", "upstream_truncated")


@pytest.mark.parametrize("sent", [[ONE, LAST], [ONE, LAST, USAGE]])
def test_a_connection_that_breaks_once_all_is_said(connect: Connect, sent: list[bytes]) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(b"".join(sent))
        exchange.hang_up()

    with upstream(script) as server:
        assert run(connect(server.url)) == (sent, STOPPED)


def _document_with_an_error(text: str) -> bytes:
    choice = {"index": 0, "message": {"content": text}, "finish_reason": "error"}
    error = {"message": f"refused for {KEY}", "code": 429}
    return json.dumps({"choices": [{**choice, "error": error}]}).encode()


def test_a_document_that_says_more_than_its_error(connect: Connect) -> None:
    """It is kept; without the key that may be in the error."""
    body = _document_with_an_error("so far")
    with upstream(lambda x: x.answer(200, body)) as server:
        there = connect(server.url)
        (choice,) = json.loads(complete(there, CHAT))["choices"]
        answer = there.stream(CHAT)
        frames = next(answer)
        with pytest.raises(ReportedFailure, match=r"refused for \*\*\*") as caught:
            next(answer)
    assert choice["message"]["content"] == "so far"
    assert choice["error"] == {"message": "refused for ***", "code": 429}
    assert isinstance(frames, list)
    assert b'"so far"' in frames[0]
    assert KEY.encode() not in b"".join(frames)
    assert caught.value.status == 429


@pytest.mark.parametrize("call", ["stream", "whole"])
def test_a_document_that_is_an_error(connect: Connect, call: str) -> None:
    body = _document_with_an_error("")
    failure = failure_of(connect, lambda x: x.answer(200, body), CALLS[call])
    assert (failure.status, failure.message) == (429, "refused for ***")


# -- stream_options --------------------------------------------------------------------------------

REFUSALS: list[tuple[int, Any]] = [
    (400, {"error": {"message": "Unrecognized request argument supplied: stream_options"}}),
    (
        422,
        {"detail": [{"type": "extra_forbidden", "loc": ["body", "stream_options"], "msg": "No"}]},
    ),
    (400, {"error": {"message": "Unknown parameter", "param": "stream_options"}}),
    (400, {"message": "include_usage is not supported"}),
    (500, {"error": "create() got an unexpected keyword argument 'stream_options'"}),
    (200, {"error": {"message": "Stream options are not supported", "code": 400}}),
]


@pytest.mark.parametrize(("status", "body"), REFUSALS)
def test_an_upstream_that_refuses_what_is_added(connect: Connect, status: int, body: Any) -> None:
    body_with_options = b'{"a":1,"stream_options":{}}'
    asked = CompletionRequest("/chat/completions", body_with_options, fallback_body=b'{"a":1}')

    def script(exchange: Exchange) -> None:
        if "stream_options" in exchange.body:
            exchange.answer(status, json.dumps(body).encode())
        else:
            exchange.stream(LAST, DONE)

    with upstream(script) as server:
        there = connect(server.url)
        for _ in range(2):
            assert run(there, asked) == ([LAST], STOPPED)
        assert [each.content for each in server.exchanges] == [
            asked.body,
            asked.fallback_body,
            asked.fallback_body,
        ]
        with pytest.raises(ReportedFailure):  # what a client itself has asked for stays
            run(there, CompletionRequest(asked.path, asked.body))
    assert len(server.exchanges) == 4


@pytest.mark.parametrize("status", [400, 422, 429, 500])
def test_other_refusals_are_final(connect: Connect, status: int) -> None:
    asked = CompletionRequest("/chat/completions", b'{"stream_options":{}}', fallback_body=b"{}")
    script: Script = lambda x: x.answer(status, b'{"detail": "no"}')  # noqa: E731
    with upstream(script) as server, pytest.raises(ReportedFailure):
        run(connect(server.url), asked)
    assert len(server.exchanges) == 1


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ({"message": "no", "code": "insufficient_quota"}, 429, "insufficient_quota"),
        ({"message": "no", "type": "rate_limit_error"}, 429, None),
        ({"message": "no", "code": 503}, 503, 503),
        ({"message": "no", "code": "404"}, 404, "404"),
        ({"message": "no", "status": "RESOURCE_EXHAUSTED"}, 429, None),
        ({"message": "no", "code": "invalid_api_key"}, 502, "upstream_unauthorized"),
        ({"message": "no", "code": 401}, 502, "upstream_unauthorized"),
        ({"message": "no", "type": "invalid_request_error"}, 400, None),
        ({"message": "no", "code": "x"}, 502, "x"),
        ("no", 502, None),
    ],
)  # fmt: skip
@pytest.mark.parametrize("form", ["JSON", "a list", "labelled a stream", "an event", "no stream"])
def test_an_error_with_status_200(
    connect: Connect, error: Any, status: int, code: Any, form: str
) -> None:
    body = json.dumps({"error": error}).encode()

    def script(exchange: Exchange) -> None:
        if form == "an event":
            exchange.stream(b"data: %b\n\n" % body, DONE)
        elif form == "a list":
            exchange.answer(200, b"[%b]" % body)
        else:
            kind = "text/event-stream" if form == "labelled a stream" else "application/json"
            exchange.answer(200, body, kind)

    failure = failure_of(connect, script, CALLS["whole" if form == "no stream" else "stream"])
    assert isinstance(failure, ReportedFailure)
    assert (failure.status, failure.code) == (status, code)
    assert failure.message.endswith("no")


@pytest.mark.parametrize(
    "said",
    [
        b'data: {"detail": "no"}\n\n',
        b'data: {"object": "error", "message": "no", "code": 400}\n\n',
        b'data: {"type": "error", "error": {"type": "x", "message": "no"}}\n\n',
        b'data: {"errors": [{"message": "no"}]}\n\n',
        b'event: error\ndata: no\n\n',
        b'event: error\ndata: {"detail": [{"msg": "no"}]}\n\n',
        b'event: error\ndata: [{"error": {"message": "no"}}]\n\n',
    ],
)  # fmt: skip
@pytest.mark.parametrize("asked", [CHAT, RESPONSE], ids=["chat", "responses"])
def test_an_error_in_the_stream_in_any_shape(
    connect: Connect, said: bytes, asked: CompletionRequest
) -> None:
    first = ONE if asked is CHAT else event("response.output_text.delta", delta="x")
    with upstream(lambda x: x.stream(first, said, LAST, DONE)) as server:
        frames = connect(server.url).stream(asked)
        assert next(frames) == [first]
        try:
            (outcome,) = frames
            assert isinstance(outcome, CompletionOutcome)
            failure = outcome.failure
        except Failure as raised:
            failure = raised
    assert failure is not None
    assert failure.message.endswith("no")


@pytest.mark.parametrize("asked", [CHAT, RESPONSE], ids=["chat", "responses"])
@pytest.mark.parametrize("begun", [True, False])
@pytest.mark.parametrize("end", [b"\n\n", b"\n", b""])
@pytest.mark.parametrize("said", [b'error: {"code": 500, "message": "no"}', b"error: no"])
def test_an_error_in_a_field_of_its_own(
    connect: Connect, said: bytes, end: bytes, begun: bool, asked: CompletionRequest
) -> None:
    first = [ONE if asked is CHAT else event("response.output_text.delta", delta="x")] * begun
    call = lambda there: run(there, asked)  # noqa: E731
    assert failure_of(connect, lambda x: x.stream(*first, said + end), call).message == "no"


@pytest.mark.parametrize("end", [b"\n\n", b"\n", b""])
def test_an_error_as_bare_json_behind_a_stream(connect: Connect, end: bytes) -> None:
    said = b'{"error": {"message": "no", "code": 429}}' + end
    failure = failure_of(connect, lambda x: x.stream(ONE, said))
    assert (failure.status, failure.message) == (429, "no")


@pytest.mark.parametrize("status", [401, 407])
def test_a_refused_key_is_not_the_clients(
    connect: Connect, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    body = json.dumps({"error": {"message": f"Incorrect API key: {KEY}", "code": "x"}}).encode()
    failure = failure_of(connect, lambda x: x.answer(status, body))
    assert (failure.status, failure.code) == (502, "upstream_unauthorized")
    assert failure.message.startswith("The upstream refused this server's ")
    assert "Incorrect API key: " in failure.message
    assert failure.headers == {"X-Should-Retry": "false"}
    assert f"the upstream answered {status}: 'Incorrect API key: " in caplog.text
    assert KEY not in failure.message + caplog.text


def test_the_log_says_why_on_one_line_of_bounded_length(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    said = "no\n\x1b[2J forged" + "x" * 100_000
    failure = failure_of(connect, lambda x: x.answer(400, json.dumps({"detail": said}).encode()))
    assert failure.message.startswith("no\n")
    assert len(failure.message) < 5_000
    (record,) = [each for each in caplog.records if each.name.startswith("sseflask")]
    assert record.getMessage().startswith("the upstream answered 400: 'no\\n\\x1b[2J forged")
    assert record.getMessage().isprintable()
    assert len(record.getMessage()) < 1_200


def test_what_says_whether_to_ask_again_is_passed_on(connect: Connect) -> None:
    headers = ["Retry-After: 7", "Retry-After-Ms: 7000", "X-Should-Retry: false", "X-Other: 1"]
    failure = failure_of(connect, lambda x: x.answer(429, b"{}", "application/json", *headers))
    assert failure.headers == {
        "Retry-After": "7",
        "Retry-After-Ms": "7000",
        "X-Should-Retry": "false",
    }


RATES = {
    "X-Ratelimit-Remaining-Requests": "59",
    "X-Ratelimit-Reset-Tokens": "6m0s",
    "Anthropic-Ratelimit-Tokens-Limit": "8000",
    "Ratelimit-Policy": '"default";q=100;w=60',
    "Ratelimit": '"default";r=50;t=30',
    "X-Request-Id": "req_1",
    "Request-Id": "req_2",
    "Apim-Request-Id": "req_3",
}
KEPT = {
    "Set-Cookie": "a=b",
    "Openai-Organization": "acme",
    "Server": "uvicorn",
    "Via": "1.1 inner.acme.example",
    "X-Envoy-Upstream-Service-Time": "7",
    "X-Ratelimit-Key": KEY,
    "X-Ratelimit-Letter": "\xe9",
    "X-Ratelimit-Novel": "x" * 201,
    "X-Request-Id-Of-Somebody": "req_4",
}


def _lines(headers: dict[str, str]) -> list[str]:
    return [f"{name.lower()}: {value}" for name, value in headers.items()]


def _begin(there: Upstream, asked: CompletionRequest, told: dict[str, str]) -> object:
    answer = there.stream(asked, told)
    next(answer)
    answer.close()
    return None


def test_which_headers_a_client_gets(connect: Connect) -> None:
    sent = _lines({**KEPT, **RATES, "Retry-After": "7"})
    for call in (_begin, complete):
        told: dict[str, str] = {}
        with upstream(lambda x: x.answer(200, b'{"choices": []}', "a/json", *sent)) as server:
            call(connect(server.url), CHAT, told)
        assert told == RATES
    refusal = failure_of(connect, lambda x: x.answer(429, b"{}", "application/json", *sent))
    assert refusal.headers == {**RATES, "Retry-After": "7"}


def test_headers_without_end_are_not_passed_on(connect: Connect) -> None:
    sent = _lines({f"X-RateLimit-{number}": "1" for number in range(90)})
    failure = failure_of(connect, lambda x: x.answer(429, b"{}", "application/json", *sent))
    assert len(failure.headers) == 40


# -- in one piece or not ---------------------------------------------------------------------------


def _answering(body: bytes, kind: str) -> Script:
    return lambda exchange: exchange.answer(200, body, kind)


def test_a_stream_that_was_not_asked_for(connect: Connect) -> None:
    def delta(**more: Any) -> bytes:
        return frame(choices=[{"index": 0, "delta": more, "finish_reason": None}])

    def call(**more: Any) -> bytes:
        return delta(tool_calls=[more])

    sent = [
        delta(role="assistant", content=""),
        delta(reasoning_content="Hm"),
        delta(reasoning_content="m."),
        frame("It is "),
        frame("你."),
        call(index=0, id="a", type="function", function={"name": "f", "arguments": '{"x"'}),
        call(index=0, function={"arguments": ": 1}"}),
        call(index=1, id="b", type="function", function={"name": "g", "arguments": {"y": 2}}),
        _choice(1),
        _choice(1, "length"),
        frame(finish="tool_calls"),
        USAGE,
    ]
    for kind in ("text/event-stream", "application/json"):
        with upstream(_answering(b"".join([*sent, DONE]), kind)) as server:
            body = json.loads(complete(connect(server.url), CHAT))
        completion = openai.types.chat.ChatCompletion.model_validate(body)
        first, second = completion.choices
        assert (completion.object, completion.id) == ("chat.completion", "chatcmpl-1")
        assert (first.message.role, first.message.content) == ("assistant", "It is 你.")
        assert body["choices"][0]["message"]["reasoning_content"] == "Hmm."
        assert [
            (each.id, each.function.name, json.loads(each.function.arguments))
            for each in first.message.tool_calls or []
            if each.type == "function"
        ] == [("a", "f", {"x": 1}), ("b", "g", {"y": 2})]
        assert (first.finish_reason, second.finish_reason) == ("tool_calls", "length")
        assert second.message.content == "xx"
        assert body["usage"] == TOKENS


def test_a_nameless_chunk_takes_no_name_from_a_stream_that_was_not_asked_for(
    connect: Connect,
) -> None:
    """Azure's results of filters have an empty id and model."""
    filtered = frame(id="", model="", created=0, choices=[{"index": 0, "finish_reason": None}])
    with upstream(lambda x: x.stream(ONE, LAST, filtered, DONE)) as server:
        body = json.loads(complete(connect(server.url), CHAT))
    assert (body["id"], body["model"], body["created"]) == ("chatcmpl-1", "scripted", 1)


def test_calls_without_an_index_in_a_stream_that_was_not_asked_for(connect: Connect) -> None:
    calls = [
        {
            "id": "a",
            "extra_content": {"signature": "s"},
            "function": {"name": "f", "arguments": "{}"},
        },
        {"id": "b", "function": {"name": "g", "arguments": '{"y"'}},
        {"function": {"arguments": ": 2}"}},
    ]
    sent = [
        frame(choices=[{"index": 0, "delta": {"tool_calls": [each]}, "finish_reason": None}])
        for each in calls
    ]
    with upstream(lambda x: x.stream(*sent, LAST, DONE)) as server:
        body = json.loads(complete(connect(server.url), CHAT))
    told = body["choices"][0]["message"]["tool_calls"]
    assert told[0]["extra_content"] == {"signature": "s"}
    assert [each["function"] for each in told] == [
        {"name": "f", "arguments": "{}"},
        {"name": "g", "arguments": '{"y": 2}'},
    ]


def test_a_cut_stream_that_was_not_asked_for(connect: Connect) -> None:
    failure = failure_of(connect, lambda x: x.stream(ONE), CALLS["whole"])
    assert failure.code == "upstream_truncated"


def test_a_responses_stream_that_was_not_asked_for(connect: Connect) -> None:
    whole = {"id": "r", "object": "response", "output": [], "status": "completed"}
    sent = [event("response.created", response={}), event("response.completed", response=whole)]
    with upstream(lambda x: x.stream(*sent)) as server:
        assert json.loads(complete(connect(server.url), RESPONSE)) == whole


@pytest.mark.parametrize(
    "last",
    [
        event("error", code="insufficient_quota", message="no"),
        event(
            "response.failed", response={"error": {"code": "too_many_requests", "message": "no"}}
        ),
    ],
)
def test_a_failed_responses_stream_that_was_not_asked_for(connect: Connect, last: bytes) -> None:
    failure = failure_of(
        connect,
        lambda x: x.stream(event("response.created", response={}), last),
        lambda there: complete(there, RESPONSE),
    )
    assert (failure.status, failure.message) == (429, "no")


MESSAGE = {
    "role": "assistant",
    "content": "Four 你.",
    "reasoning_content": "Hm.",
    "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
}


@pytest.mark.parametrize("kind", ["application/json", "text/event-stream", "text/plain"])
def test_one_document_in_place_of_a_stream(connect: Connect, kind: str) -> None:
    whole = {
        "id": "c",
        "object": "chat.completion",
        "created": 5,
        "model": "m",
        "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "tool_calls"}],
        "usage": TOKENS,
    }
    with upstream(lambda x: x.answer(200, b"\n" + json.dumps(whole).encode(), kind)) as server:
        there = connect(server.url)
        frames, outcome = run(there)
        # The connection is used again.
        assert json.loads(complete(there, CHAT)) == whole
    assert server.connections == 1
    assert outcome == CompletionOutcome("finished", "tool_calls")
    chunks = [json.loads(each.removeprefix(b"data: ")) for each in frames]
    for each in chunks:
        openai.types.chat.ChatCompletionChunk.model_validate(each)
    delta = chunks[0]["choices"][0]["delta"]
    assert delta == {**MESSAGE, "tool_calls": [{"index": 0, **MESSAGE["tool_calls"][0]}]}  # type: ignore[dict-item]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert chunks[-1]["usage"] == TOKENS


def test_one_response_in_place_of_a_stream(connect: Connect) -> None:
    text = {"type": "output_text", "text": "Four.", "annotations": []}
    whole = {
        "id": "r",
        "object": "response",
        "status": "completed",
        "error": None,
        "output": [
            {"type": "reasoning", "id": "t", "summary": [{"type": "summary_text", "text": "Hm"}]},
            {"type": "message", "id": "m", "role": "assistant", "content": [text]},
            {"type": "function_call", "id": "f", "call_id": "c", "name": "g", "arguments": "{}"},
        ],
    }
    with upstream(lambda x: x.answer(200, json.dumps(whole).encode())) as server:
        frames, outcome = run(connect(server.url), RESPONSE)
    assert (outcome.kind, outcome.reason) == ("finished", "tool_calls")
    events = [
        json.loads(each.partition(b"\ndata: ")[2]) for each in [*frames, outcome.frame or b""]
    ]
    assert [each["sequence_number"] for each in events] == list(range(len(events)))
    said = [(each["type"], each["delta"]) for each in events if "delta" in each]
    assert said == [
        ("response.reasoning_summary_text.delta", "Hm"),
        ("response.output_text.delta", "Four."),
        ("response.function_call_arguments.delta", "{}"),
    ]
    assert events[-1] == {
        "type": "response.completed",
        "response": whole,
        "sequence_number": len(events) - 1,
    }


# -- addresses -------------------------------------------------------------------------------------


def test_the_base_urls_query_is_sent_each_time(connect: Connect) -> None:
    def script(exchange: Exchange) -> None:
        exchange.answer(200, b'{"choices": []}')

    with upstream(script) as server:
        there = connect(f"{server.url}/?api-version=2026-01-01&a=%20b")
        for call in CALLS.values():
            call(there)
    query = "?api-version=2026-01-01&a=%20b HTTP/1.1"
    assert [each.line for each in server.exchanges] == [
        f"POST /v1/chat/completions{query}",
        f"POST /v1/chat/completions{query}",
        f"GET /v1/models{query}",
    ]


def test_a_client_that_leaves_ends_what_is_awaited(connect: Connect) -> None:
    """Without gevent by the thread that waits: its connection is closed with the client."""
    left = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(ONE)
        if exchange.left():
            left.set()

    with upstream(script) as server:
        frames = connect(server.url).stream(CHAT)
        next(frames)
        frames.close()
        until(left.is_set, "the upstream's connection is closed")

"""Completions of an application's own client: what is asked, what comes, how it fails."""

from __future__ import annotations

import gzip
import json
import logging
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any

import httpx
import httpx2
import openai
import pytest

from sseflask import openai_chunks, openai_response
from sseflask.completions.client_completion import ClientCompletion
from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.errors import Failure
from tests.processes import run_program
from tests.scripted_upstream import DONE, Exchange, Script, event, frame, read_all, upstream

KEY = "sk-the-key-of-the-application"
OTHER_KEY = "another-credential-0123456789"
ASKED: list[Any] = [{"role": "user", "content": "你好"}]
STOPPED = CompletionOutcome("finished", "stop")
ONE, TWO, LAST = frame("one"), frame("zwei\n"), frame(finish="stop")

COMPRESS: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}

Make = Callable[..., openai.OpenAI]


@pytest.fixture(params=["httpx2", "httpx"])
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    """Makes clients over each of the two HTTP clients that the SDK takes."""
    made: list[openai.OpenAI] = []

    def make(url: str, kind: type[openai.OpenAI] = openai.OpenAI, **more: Any) -> openai.OpenAI:
        timeout = more.pop("timeout", 5)
        http = httpx2.Client(timeout=timeout)
        if request.param == "httpx":
            http = httpx.Client(timeout=timeout)  # type: ignore[assignment]  # so it is documented
        more = {"base_url": url, "api_key": KEY, "max_retries": 0, **more}
        made.append(kind(http_client=http, timeout=timeout, **more))
        return made[-1]

    yield make
    for each in made:
        each.close()


def source_of(client: openai.OpenAI, **more: Any) -> ClientCompletion:
    source = openai_chunks(client, ASKED, **{"model": "m", **more})
    assert isinstance(source, ClientCompletion)
    return source


def run(source: Any) -> tuple[list[bytes], CompletionOutcome, dict[str, str]]:
    headers: dict[str, str] = {}
    reads, outcome = read_all(source.answer(headers))
    return list(chain.from_iterable(reads)), outcome, headers


def failure_of(make: Make, script: Script, **more: Any) -> Failure:
    with upstream(script) as server, pytest.raises(Failure) as caught:
        run(source_of(make(server.url, **more)))
    return caught.value


def test_each_frame_byte_for_byte(make: Make) -> None:
    odd = b'data:{"choices":[],  "id" : "\xe4\xbd\xa0" }\r\n\r\n'
    sent = [ONE, odd, TWO, LAST]
    with upstream(lambda x: x.stream(*sent, DONE)) as server:
        client = make(server.url)
        assert run(source_of(client))[:2] == (sent, STOPPED)
        assert run(source_of(client))[:2] == (sent, STOPPED)
        assert server.connections == 1, "a connection is used again"


def test_what_is_asked(make: Make) -> None:
    with upstream(lambda x: x.stream(ONE, LAST, DONE)) as server:
        client = make(server.url, default_headers={"X-Mine": "1"})
        run(
            source_of(
                client, temperature=0.5, extra_body={"top_k": 3}, extra_headers={"X-Its": "2"}
            )
        )
        run(source_of(client, stream_options={"include_usage": False}, stream=True))
    first, second = server.exchanges
    assert first.line == "POST /v1/chat/completions HTTP/1.1"
    assert first.body == {
        "model": "m",
        "messages": ASKED,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "top_k": 3,
    }
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert first.headers["accept-encoding"] == "identity"
    assert (first.headers["x-mine"], first.headers["x-its"]) == ("1", "2")
    assert second.body["stream_options"] == {"include_usage": False}


def test_a_response(make: Make) -> None:
    delta = event("response.output_text.delta", delta="Hi", sequence_number=1)
    usage = {"input_tokens": 1, "output_tokens": 2}
    last = event("response.completed", response={"status": "completed", "usage": usage})
    with upstream(lambda x: x.stream(delta, last)) as server:
        frames, outcome, _ = run(openai_response(make(server.url), "hi", model="m", store=False))
    assert (frames, outcome) == ([delta], CompletionOutcome("finished", "stop", frame=last))
    (asked,) = server.exchanges
    assert asked.line == "POST /v1/responses HTTP/1.1"
    assert asked.body == {"model": "m", "input": "hi", "store": False, "stream": True}


def test_azure(make: Make) -> None:
    with upstream(lambda x: x.stream(ONE, LAST, DONE)) as server:
        client = make(
            "",
            openai.AzureOpenAI,
            base_url=None,
            azure_endpoint=server.url.removesuffix("/v1"),
            api_version="2026-01-01",
        )
        assert run(source_of(client, model="my-deployment"))[:2] == ([ONE, LAST], STOPPED)
    (asked,) = server.exchanges
    path = "/openai/deployments/my-deployment/chat/completions?api-version=2026-01-01"
    assert asked.line == f"POST {path} HTTP/1.1"
    assert asked.headers["api-key"] == KEY


def test_several_choices(make: Make) -> None:
    second = frame(choices=[{"index": 1, "delta": {}, "finish_reason": "stop"}])
    with upstream(lambda x: x.stream(LAST, ONE, second)) as server:
        frames, outcome, _ = run(source_of(make(server.url), n=2))
    assert (frames, outcome) == ([LAST, ONE, second], STOPPED)


@pytest.mark.parametrize("coding", COMPRESS)
def test_compressed_although_it_was_not_asked_for(make: Make, coding: str) -> None:
    body, kind = COMPRESS[coding](ONE + LAST + DONE), "text/event-stream"
    with upstream(lambda x: x.answer(200, body, kind, f"Content-Encoding: {coding}")) as server:
        assert run(source_of(make(server.url)))[:2] == ([ONE, LAST], STOPPED)


def test_without_what_the_upstream_refuses(make: Make) -> None:
    def script(exchange: Exchange) -> None:
        if "stream_options" in exchange.body:
            error = {"error": {"message": "Unknown parameter: 'stream_options'."}}
            exchange.answer(400, json.dumps(error).encode())
        else:
            exchange.stream(ONE, LAST, DONE)

    with upstream(script) as server:
        client = make(server.url)
        assert run(source_of(client))[:2] == ([ONE, LAST], STOPPED)
        with pytest.raises(Failure) as caught:
            run(source_of(client, stream_options={"include_usage": True}))
    assert caught.value.status == 400
    assert len(server.exchanges) == 3


# -- how it fails ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 403, 404, 409, 422, 429, 500, 503])
def test_a_refusal_keeps_its_status_and_its_error(
    make: Make, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    error = {"message": f"No: Bearer {KEY}, {OTHER_KEY}", "type": "t", "param": "p", "code": "c"}
    body = json.dumps({"error": error}).encode()
    more = ["Retry-After: 7", "X-Request-Id: req-1", f"X-RateLimit-Key: {KEY}"]
    failure = failure_of(
        make,
        lambda x: x.answer(status, body, "application/json", *more),
        default_headers={"Ocp-Apim-Subscription-Key": OTHER_KEY},
    )
    assert failure.status == status
    shown = {"message": "No: ***, ***", "type": "t", "param": "p", "code": "c"}
    assert failure.body() == {"error": shown}
    assert failure.headers["Retry-After"] == "7"
    assert failure.headers["X-Request-Id"] == "req-1"
    assert KEY not in str(failure.headers) + caplog.text
    assert OTHER_KEY not in caplog.text


def test_a_refused_key_is_the_servers_affair(make: Make) -> None:
    body = json.dumps({"error": {"message": f"Incorrect API key: {KEY}"}}).encode()
    failure = failure_of(make, lambda x: x.answer(401, body))
    assert (failure.status, failure.code) == (502, "upstream_unauthorized")
    assert KEY not in failure.json()


def test_an_error_in_band(make: Make) -> None:
    error = b'data: {"error": {"message": "too many for %b", "code": "rate_limit_exceeded"}}\n\n'
    failure = failure_of(make, lambda x: x.stream(ONE, error % KEY.encode()))
    assert (failure.status, failure.message) == (429, "too many for ***")


def test_an_answer_that_breaks_off(make: Make) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(ONE)
        exchange.hang_up()

    failure = failure_of(make, script)
    assert (failure.status, failure.code) == (502, "upstream_truncated")


@pytest.mark.parametrize("begun", [False, True])
def test_silence_ends_after_the_clients_own_timeout(make: Make, begun: bool) -> None:
    def script(exchange: Exchange) -> None:
        if begun:
            exchange.begin()
            exchange.chunk(ONE)
        assert exchange.left()

    began = time.monotonic()
    failure = failure_of(make, script, timeout=0.5)
    assert (failure.status, failure.code) == (504, "upstream_timeout")
    assert 0.4 < time.monotonic() - began < 5


def test_nobody_answers(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with upstream(lambda x: x.end()) as server:
        url = server.url
    with pytest.raises(Failure) as caught:
        run(source_of(make(url)))
    assert (caught.value.status, caught.value.code) == (502, "upstream_unreachable")
    assert KEY not in caplog.text


def test_a_key_that_is_no_header_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    key = "a-key-from-a-file-0123456789\n"
    client = openai.OpenAI(base_url="http://127.0.0.1:9/v1", api_key=key, max_retries=0)
    with client, pytest.raises(Failure) as caught, caplog.at_level(logging.WARNING):
        run(source_of(client))
    assert caught.value.code == "upstream_unreachable"
    assert "can't be reached" in caplog.text
    assert key.strip() not in caplog.text


def test_the_clients_own_retries_hold(make: Make) -> None:
    def script(exchange: Exchange) -> None:
        if exchange.headers["x-stainless-retry-count"] == "0":
            exchange.answer(503, b"{}", "application/json", "Retry-After-Ms: 1")
        else:
            exchange.stream(ONE, LAST, DONE)

    with upstream(script) as server:
        assert run(source_of(make(server.url, max_retries=1)))[:2] == ([ONE, LAST], STOPPED)


class _Connection:
    """What a transport says of a connection; it must not be asked for the socket."""

    def get_extra_info(self, _info: str) -> Any:
        raise AssertionError("others' connection")


class _Silent(httpx2.SyncByteStream):
    """A body whose transport gives up after the client's timeout, which nobody has changed."""

    def __init__(self, request: httpx2.Request) -> None:
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        yield ONE
        raise httpx2.ReadTimeout(f"after {self._request.extensions['timeout']['read']:g} s")


def test_the_connection_of_http2_is_not_cut() -> None:
    """Other responses share it: the client's own timeout is what ends the silence."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        extensions = {"http_version": b"HTTP/2", "network_stream": _Connection()}
        return httpx2.Response(200, stream=_Silent(request), extensions=extensions)

    http = httpx2.Client(transport=httpx2.MockTransport(answer), timeout=3)
    client = openai.OpenAI(api_key=KEY, max_retries=0, http_client=http, timeout=3)
    with client, pytest.raises(Failure) as caught:
        run(source_of(client))
    assert caught.value.code == "upstream_timeout"
    assert isinstance(caught.value.__cause__, httpx2.ReadTimeout)
    assert str(caught.value.__cause__) == "after 3 s"


@pytest.mark.parametrize("http", [httpx, httpx2])
def test_a_transport_without_connections(http: Any) -> None:
    """As applications' own tests have it."""
    body = b"".join([ONE, LAST, DONE])
    transport = http.MockTransport(lambda _: http.Response(200, content=body))
    with openai.OpenAI(api_key=KEY, http_client=http.Client(transport=transport)) as client:
        assert run(source_of(client))[:2] == ([ONE, LAST], STOPPED)


# -- what can't be a run ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [openai.AsyncOpenAI, openai.AsyncAzureOpenAI])
def test_an_asynchronous_client(kind: Any) -> None:
    more = (
        {"azure_endpoint": "http://127.0.0.1:9", "api_version": "1"} if "Azure" in str(kind) else {}
    )
    plain = kind.__name__.removeprefix("Async")
    with pytest.raises(
        TypeError, match=rf"{kind.__name__} is asynchronous; .*use openai\.{plain},"
    ):
        openai_chunks(kind(api_key=KEY, **more), ASKED, model="m")


def test_what_is_no_client() -> None:
    nothing: Any = httpx2.Client
    with pytest.raises(TypeError, match=r"must be an openai\.OpenAI .*, not type; text_chunks"):
        openai_chunks(nothing, ASKED, model="m")


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({}, "model"),
        ({"model": "m", "temprature": 1}, "temprature"),
        ({"model": "m", "stream": False}, "stream=False"),
    ],
)
def test_parameters_that_the_method_does_not_take(parameters: Any, said: str) -> None:
    """The view raises it, and not the run."""
    with openai.OpenAI(api_key=KEY) as client, pytest.raises(TypeError, match=said):
        openai_chunks(client, ASKED, **parameters)


# -- leaving ---------------------------------------------------------------------------------------

PROGRAM = """
from gevent import monkey
monkey.patch_all()

import sys
import threading

import gevent
import httpx
import httpx2
import openai

from sseflask import openai_chunks
from tests.scripted_upstream import frame, upstream

moment = sys.argv[1]
waiting, left = threading.Event(), threading.Event()


def script(exchange):
    if moment == "between tokens":
        exchange.begin()
        exchange.chunk(frame("one"))
    else:
        waiting.set()
    assert exchange.left()
    left.set()


def consume(client):
    for _ in openai_chunks(client, [], model="m").answer({}):
        waiting.set()


with upstream(script) as server:
    for made in httpx.Client(), httpx2.Client():
        waiting.clear()
        left.clear()
        client = openai.OpenAI(base_url=server.url, api_key="key", http_client=made)
        consumer = gevent.spawn(consume, client)
        assert waiting.wait(10)
        gevent.sleep(0)  # the consumer goes on until it blocks
        assert not left.is_set()
        consumer.kill(block=False)
        assert left.wait(5), "the upstream was not cancelled"
        consumer.join()
        assert isinstance(consumer.value, gevent.GreenletExit)
        client.close()
print("cancelled")
"""


@pytest.mark.parametrize("moment", ["before the first token", "between tokens"])
def test_a_killed_greenlet_cancels_the_upstream(moment: str) -> None:
    done = run_program(PROGRAM, moment)
    assert (done.returncode, done.stdout) == (0, "cancelled\n"), done.stderr

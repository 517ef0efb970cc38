"""Upstreams over TLS: what is sent arrives as it was, and each end is noticed as over TCP alone."""

from __future__ import annotations

import gc
import logging
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from itertools import chain

import pytest

from sseflask.completions.completion_outcome import CompletionOutcome
from sseflask.completions.upstream import CompletionRequest, Upstream
from sseflask.completions.upstream_connection import UpstreamConnection
from sseflask.config import load
from sseflask.errors import Failure
from tests.certificates import Certified, certified
from tests.live.kit.proxy import Proxy
from tests.live.kit.waiting import until
from tests.scripted_upstream import (
    DONE,
    STREAM_HEAD,
    Exchange,
    Script,
    complete,
    frame,
    read_all,
    upstream,
)
from tests.service import KEY, environment

CHAT = CompletionRequest(
    "/chat/completions", '{"messages": [{"role": "user", "content": "你好"}]}'.encode()
)
STOPPED = CompletionOutcome("finished", "stop")
ONE, TWO, LAST = frame("one"), frame("zwei 你好\n"), frame(finish="stop")
HUGE = frame("你" * 349_525)  # 1 MiB of text

Connect = Callable[..., Upstream]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return certified(tmp_path_factory.mktemp("tls"))


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch, certificate: Certified) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.authority))


@pytest.fixture
def connect() -> Iterator[Connect]:
    made: list[Upstream] = []

    def connect(url: str, **settings: str) -> Upstream:
        with environment(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=url, **settings):
            made.append(Upstream(load()))
        return made[-1]

    yield connect
    for each in made:
        each.close()


def run(there: Upstream) -> tuple[list[bytes], CompletionOutcome]:
    """The frames of an answer, and its outcome."""
    reads, outcome = read_all(there.stream(CHAT))
    return list(chain.from_iterable(reads)), outcome


def failure_of(
    connect: Connect, certificate: Certified, script: Script, **settings: str
) -> Failure:
    with upstream(script, certificate.server) as server, pytest.raises(Failure) as caught:
        run(connect(server.url, **settings))
    return caught.value


def test_each_frame_byte_for_byte(connect: Connect, certificate: Certified) -> None:
    odd = b'data:{"choices":[],  "id" : "\xe4\xbd\xa0" }\r\n\r\n'
    sent = [ONE, odd, TWO, HUGE, ONE, LAST]
    with upstream(lambda x: x.stream(*sent, DONE), certificate.server) as server:
        assert server.url.startswith("https:")
        assert run(connect(server.url)) == (sent, STOPPED)


def test_a_closed_connection_is_free_at_once(connect: Connect, certificate: Certified) -> None:
    """So is its TCP socket from before the handshake: the garbage collector comes rarely."""

    def watched() -> int:
        return sum(type(each) is UpstreamConnection for each in gc.get_objects())

    gc.collect()
    before = watched()
    with upstream(lambda x: x.stream(LAST, DONE), certificate.server) as server:
        there = connect(server.url)
        gc.disable()
        try:
            assert run(there) == ([LAST], STOPPED)
            assert watched() == before + 1
            there.close()
            assert watched() == before
        finally:
            gc.enable()


@pytest.mark.parametrize("size", [1, 7, 16_384, 100_000])
def test_frames_cut_anywhere(connect: Connect, certificate: Certified, size: int) -> None:
    """Each piece in a chunk and a record of its own; for 1 the heads are in other records."""
    sent = [ONE, TWO, HUGE, LAST] if size > 7 else [ONE, TWO, LAST]
    stream = b"".join(sent) + DONE

    def script(exchange: Exchange) -> None:
        exchange.begin()
        for start in range(0, len(stream), size):
            exchange.chunk(stream[start : start + size])
        exchange.end()

    def in_crumbs(exchange: Exchange) -> None:
        for byte in STREAM_HEAD + b"%x\r\n%s\r\n0\r\n\r\n" % (len(stream), stream):
            exchange.send(bytes([byte]))

    with upstream(in_crumbs if size == 1 else script, certificate.server) as server:
        assert run(connect(server.url)) == (sent, STOPPED)


def test_records_cut_anywhere(connect: Connect, certificate: Certified) -> None:
    """Between them a relay passes on 1 to 3 bytes at a time: hardly any read has a full record."""
    sent = [ONE, TWO, ONE, LAST]
    with (
        upstream(lambda x: x.stream(*sent, DONE), certificate.server) as server,
        Proxy(int(server.url.split(":")[2].split("/")[0]), pieces=3) as proxy,
    ):
        assert run(connect(f"https://127.0.0.1:{proxy.port}/v1")) == (sent, STOPPED)


def test_many_records_at_once(connect: Connect, certificate: Certified) -> None:
    """They are all there before the second read: that has not to wait for more than is to come."""
    sent = [frame(f"{number} 你") for number in range(200)]
    there, left = threading.Event(), threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(ONE)
        for each in sent:
            exchange.chunk(each)
        there.set()
        assert left.wait(10)
        exchange.chunk(LAST + DONE)
        exchange.end()

    with upstream(script, certificate.server) as server:
        frames = connect(server.url).stream(CHAT)
        assert next(frames) == [ONE]
        assert there.wait(10)
        found: list[bytes] = []
        while len(found) < len(sent):
            came = next(frames)
            assert isinstance(came, list)
            found += came
        left.set()
        assert found == sent
        assert list(frames) == [[LAST], STOPPED]


def test_one_connection_for_many_runs(connect: Connect, certificate: Certified) -> None:
    with upstream(lambda x: x.stream(ONE, LAST, DONE), certificate.server) as server:
        there = connect(server.url)
        for _ in range(5):
            assert run(there) == ([ONE, LAST], STOPPED)
    assert (server.connections, len(server.exchanges)) == (1, 5)


@pytest.mark.parametrize("politely", [True, False])
def test_an_idle_connection_that_the_upstream_has_closed(
    connect: Connect, certificate: Certified, politely: bool
) -> None:
    closed = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.stream(LAST, DONE)
        try:
            if politely:
                exchange.say_goodbye()
            exchange.hang_up()
        finally:
            closed.set()  # also if the client was faster

    with upstream(script, certificate.server) as server:
        there = connect(server.url)
        for _ in range(3):
            assert run(there) == ([LAST], STOPPED)
            assert closed.wait(10)
            closed.clear()
    assert server.connections == 3


def test_closing_cancels_the_upstream(connect: Connect, certificate: Certified) -> None:
    left = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(ONE)
        assert exchange.left()
        left.set()

    with upstream(script, certificate.server) as server:
        frames = connect(server.url).stream(CHAT)
        assert next(frames) == [ONE]
        assert not left.is_set()
        frames.close()
        assert left.wait(10)


def says_nothing(exchange: Exchange) -> None:
    assert exchange.left()


def is_silent_after_one(exchange: Exchange) -> None:
    exchange.begin()
    exchange.chunk(ONE)
    assert exchange.left()


def is_silent_in_a_chunk(exchange: Exchange) -> None:
    exchange.begin()
    exchange.send(b"1000\r\ndata: ")
    assert exchange.left()


@pytest.mark.parametrize("script", [says_nothing, is_silent_after_one, is_silent_in_a_chunk])
def test_a_silent_upstream(connect: Connect, certificate: Certified, script: Script) -> None:
    failure = failure_of(connect, certificate, script, SSEFLASK_UPSTREAM_TIMEOUT="0.2")
    assert (failure.status, failure.code) == (504, "upstream_timeout")


def test_silence_that_ends_in_the_moment_in_which_it_has_lasted_too_long(
    certificate: Certified,
) -> None:
    """Under gevent, both in one turn of its loop."""
    seconds = 0.2
    stalled, sent = threading.Event(), threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(ONE)
        assert stalled.wait(10)
        exchange.chunk(TWO)
        sent.set()
        assert exchange.left()

    with upstream(script, certificate.server) as server:
        settings = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": server.url}
        with environment(SSEFLASK_UPSTREAM_TIMEOUT=str(seconds), **settings):
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.unit.completions.stalled"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        with process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                assert process.stdout.readline() == "stalled\n"
                end = time.monotonic() + 2 * seconds
                stalled.set()
                assert sent.wait(10)
                until(lambda: time.monotonic() > end, "the silence has lasted too long")
                process.stdin.write("go on\n")
                process.stdin.flush()
                assert process.stdout.readline() == "upstream_timeout\n"
            finally:
                process.kill()


def test_an_upstream_that_shakes_no_hands(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sseflask.completions.openai_client._CONNECT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(Failure) as caught:
        run(connect(f"https://127.0.0.1:{listener.getsockname()[1]}/v1"))
    assert (caught.value.status, caught.value.code) == (504, "upstream_timeout")


def test_an_upstream_that_never_ends_after_done(connect: Connect, certificate: Certified) -> None:
    def script(exchange: Exchange) -> None:
        exchange.begin()
        exchange.chunk(LAST + DONE)
        assert exchange.left()

    with upstream(script, certificate.server) as server:
        assert run(connect(server.url)) == ([LAST], STOPPED)


def _between_chunks(exchange: Exchange) -> None:
    exchange.chunk(ONE)


def _in_a_chunk(exchange: Exchange) -> None:
    exchange.send(b"400\r\n" + ONE)


def _in_a_chunks_head(exchange: Exchange) -> None:
    exchange.chunk(ONE)
    exchange.send(b"4")


def _politely(exchange: Exchange) -> None:
    exchange.say_goodbye()
    exchange.hang_up()


def _by_fin(exchange: Exchange) -> None:
    exchange.hang_up()


def _by_reset(exchange: Exchange) -> None:
    linger = struct.pack("ii", 1, 0)  # no time to: closing is a reset
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    os.close(exchange.connection.detach())


def _in_a_record(exchange: Exchange) -> None:
    exchange.connection.settimeout(None)
    assert isinstance(exchange.connection, ssl.SSLSocket)
    with socket.socket(fileno=os.dup(exchange.connection.fileno())) as beneath:
        beneath.sendall(b"\x17\x03\x03\x01\x00" + b"x" * 20)
    exchange.hang_up()


def _by_what_is_no_record(exchange: Exchange) -> None:
    with socket.socket(fileno=os.dup(exchange.connection.fileno())) as beneath:
        beneath.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    exchange.hang_up()


@pytest.mark.parametrize("where", [_between_chunks, _in_a_chunk, _in_a_chunks_head])
@pytest.mark.parametrize(
    "how", [_politely, _by_fin, _by_reset, _in_a_record, _by_what_is_no_record]
)
def test_truncated(connect: Connect, certificate: Certified, where: Script, how: Script) -> None:
    received = threading.Event()

    def script(exchange: Exchange) -> None:
        exchange.begin()
        where(exchange)
        assert received.wait(10)  # a reset would take with it what has not been read
        how(exchange)

    with upstream(script, certificate.server) as server:
        frames = connect(server.url).stream(CHAT)
        assert next(frames) == [ONE]
        received.set()
        with pytest.raises(Failure) as caught:
            next(frames)
    assert (caught.value.status, caught.value.code) == (502, "upstream_truncated")


def test_a_body_until_the_end_of_the_connection(connect: Connect, certificate: Certified) -> None:
    def script(exchange: Exchange) -> None:
        exchange.send(STREAM_HEAD.replace(b"Transfer-Encoding: chunked\r\n", b""))
        exchange.send(ONE + LAST + DONE)
        exchange.hang_up()

    with upstream(script, certificate.server) as server:
        assert run(connect(server.url)) == ([ONE, LAST], STOPPED)


@pytest.mark.parametrize("name", ["another authority", "another name"])
def test_a_certificate_that_is_none(
    connect: Connect,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    caplog.set_level(logging.DEBUG)
    other = certified(tmp_path_factory.mktemp("other"), "example.org")
    if name == "another name":
        monkeypatch.setenv("SSL_CERT_FILE", str(other.authority))
    with (
        upstream(lambda x: x.stream(LAST, DONE), other.server) as server,
        pytest.raises(Failure) as caught,
    ):
        run(connect(server.url))
    assert (caught.value.status, caught.value.code) == (502, "upstream_unreachable")
    assert not server.exchanges
    assert "certificate verify failed" in caplog.text.lower()
    texts = [str(caught.value), caught.value.json(), caplog.text]
    assert not any(KEY in text for text in texts)


def test_a_server_without_tls(connect: Connect) -> None:
    def serve(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with client:
            client.recv(65_536)
            client.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        with pytest.raises(Failure) as caught:
            run(connect(f"https://127.0.0.1:{listener.getsockname()[1]}/v1"))
        thread.join(10)
    assert (caught.value.status, caught.value.code) == (502, "upstream_unreachable")


def test_the_key_is_sent(connect: Connect, certificate: Certified) -> None:
    with upstream(lambda x: x.stream(LAST, DONE), certificate.server) as server:
        run(connect(server.url))
    assert server.exchanges[0].headers["authorization"] == f"Bearer {KEY}"


def test_answers_in_one_piece(connect: Connect, certificate: Certified) -> None:
    body = b'{"object": "list",  "data": []}'
    with upstream(lambda x: x.answer(200, body), certificate.server) as server:
        there = connect(server.url)
        assert there.models() == body
        assert complete(there, CHAT) == body
    assert server.connections == 1

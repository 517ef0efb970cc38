"""Runs of an upstream behind TLS, as nearly all are: under gevent, whose TLS is its own."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Certified, certified
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.events import Sent
from tests.live.kit.gateway import gateway
from tests.live.kit.proxy import Proxy
from tests.live.kit.run_events import end_of, text_of
from tests.live.kit.runs import ask_start, rest, run_of, run_service, start, start_path, stop
from tests.live.kit.scripted import ScriptedAnswer, ScriptedUpstream, scripted_upstream
from tests.live.kit.servers import Server
from tests.live.kit.services import KEY
from tests.live.kit.waiting import until
from tests.live.kit.workers import connected_to
from tests.scripted_upstream import DONE, frame

#: Seconds that the upstream may be silent; the first heartbeat would come later.
SILENCE = 2.0
SETTINGS = {"SSEFLASK_UPSTREAM_TIMEOUT": str(SILENCE), "SSEFLASK_HEARTBEAT": "10"}
FRAMES = [
    frame("one"),
    frame("zwei 你好\n"),
    frame("你" * 349_525),
    frame("\\u4f60"),
]  # one of 1 MiB


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certified:
    return certified(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def secure(certificate: Certified) -> Iterator[ScriptedUpstream]:
    """An upstream over TLS whose answers the tests direct."""
    with scripted_upstream(certificate.server) as started:
        yield started


@pytest.fixture
def script(secure: ScriptedUpstream) -> Iterator[ScriptedAnswer]:
    made = secure.script()
    yield made
    made.hang_up()


def settings_of(certificate: Certified, **more: str) -> dict[str, str]:
    return {**SETTINGS, "SSL_CERT_FILE": str(certificate.authority), **more}


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, secure: ScriptedUpstream, certificate: Certified
) -> Iterator[Server]:
    """One worker, so that one connection to the upstream will do for all runs."""
    directory = tmp_path_factory.mktemp("tls")
    settings = settings_of(certificate)
    with run_service(directory, secure, workers=1, settings=settings) as started:
        yield started


def data_of(frames: list[bytes]) -> list[str]:
    return [each.removeprefix(b"data: ").removesuffix(b"\n\n").decode() for each in frames]


def read_all(server: Server, script: ScriptedAnswer) -> list[Sent]:
    return rest(start(server, script))


def assert_whole(server: Server, script: ScriptedAnswer) -> None:
    """Each frame arrives as it was sent."""
    script.send(*FRAMES)
    script.finish(usage=None)
    expected = [*data_of(FRAMES), *data_of([frame(finish="stop")]), "[DONE]"]
    assert [each.data for each in read_all(server, script)] == expected
    assert script.count == 1


def test_each_frame_byte_for_byte(server: Server, script: ScriptedAnswer) -> None:
    assert_whole(server, script)


@pytest.mark.parametrize("size", [1, 7, 20_000])
def test_frames_cut_anywhere(server: Server, script: ScriptedAnswer, size: int) -> None:
    """Each piece in a chunk and at least one record of its own."""
    sent = FRAMES if size > 7 else [each for each in FRAMES if len(each) < 1000]
    stream = b"".join(sent)
    script.send(*(stream[at : at + size] for at in range(0, len(stream), size)))
    script.finish(usage=None)
    events = read_all(server, script)
    assert [each.data for each in events][: len(sent)] == data_of(sent)
    assert end_of("chunks", events) == "[DONE]"


def test_records_cut_anywhere(
    tmp_path: Path, secure: ScriptedUpstream, certificate: Certified, script: ScriptedAnswer
) -> None:
    """Most reads of the socket then have no complete record."""
    sent = [frame(f"{number} 你") for number in range(20)]
    with Proxy(secure.port, pieces=3) as proxy:
        url = f"https://127.0.0.1:{proxy.port}/v1"
        settings = settings_of(certificate, OPENAI_BASE_URL=url)
        with run_service(tmp_path, secure, workers=1, settings=settings) as server:
            script.send(*sent)
            script.finish(usage=None)
            events = read_all(server, script)
    assert [each.data for each in events][: len(sent)] == data_of(sent)
    assert end_of("chunks", events) == "[DONE]"


def test_one_connection_for_many_runs(server: Server, secure: ScriptedUpstream) -> None:
    before = 0
    for number in range(5):
        script = secure.script()
        assert_whole(server, script)
        before = before or secure.server.connections
        assert secure.server.connections == before, f"run {number + 1}"


def test_an_idle_connection_that_the_upstream_has_closed(
    server: Server, secure: ScriptedUpstream
) -> None:
    for _ in range(3):
        script = secure.script()
        script.send(frame("one"), frame(finish="stop"), DONE)
        script.end(close=True)
        assert end_of("chunks", read_all(server, script)) == "[DONE]"
        assert script.count == 1
        until(
            lambda: not connected_to(server, secure.port), "the upstream has closed the connection"
        )


def test_leaving_closes_the_upstreams_connection(server: Server, script: ScriptedAnswer) -> None:
    script.say("one")
    with start(server, script, on_disconnect="cancel") as stream:
        assert text_of("chunks", [stream.next()]) == "one"
        assert not script.left()
    script.wait_until_left(SILENCE - 0.5)  # sooner than the silence would be too long


def test_leaving_before_the_first_frame(server: Server, script: ScriptedAnswer) -> None:
    with Connection(server) as connection:
        connection.request(start_path(script.message, on_disconnect="cancel"))
        script.wait_for_requests()
    script.wait_until_left(SILENCE - 0.5)


def test_leaving_before_hands_are_shaken(
    tmp_path: Path, secure: ScriptedUpstream, certificate: Certified
) -> None:
    """That too would end by itself only after some seconds."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1"
        settings = settings_of(certificate, OPENAI_BASE_URL=url)
        with run_service(tmp_path, secure, workers=1, settings=settings) as server:
            with Connection(server) as client:
                client.request(start_path("hello", on_disconnect="cancel"))
                connection, _ = listener.accept()
            with connection:
                connection.settimeout(SILENCE)
                while connection.recv(65_536):  # the client's greeting
                    pass


def test_stopping_closes_the_upstreams_connection(server: Server, script: ScriptedAnswer) -> None:
    script.say("one")
    with start(server, script) as stream:
        assert text_of("chunks", [stream.next()]) == "one"
        assert stop(server, run_of(stream)) == "stopped"
        assert end_of("chunks", rest(stream)) == "error:stopped"
    script.wait_until_left(SILENCE - 0.5)


def test_silent_from_the_beginning(
    tmp_path: Path, secure: ScriptedUpstream, certificate: Certified, script: ScriptedAnswer
) -> None:
    """For less than clients wait for their headers."""
    settings = settings_of(certificate, SSEFLASK_UPSTREAM_TIMEOUT="0.3")
    with run_service(tmp_path, secure, workers=1, settings=settings) as server:
        answer = ask_start(server, script)
        script.wait_until_left()
    assert answer.status == 504
    assert json.loads(answer.body)["error"]["code"] == "upstream_timeout"


@pytest.mark.parametrize("last", [b"", frame("never whole")[:-20]], ids=["between", "in a frame"])
def test_silent_in_the_middle(server: Server, script: ScriptedAnswer, last: bytes) -> None:
    script.say("one")
    if last:
        script.send(last)
    events = read_all(server, script)
    assert text_of("chunks", events) == "one"
    assert end_of("chunks", events) == "error:upstream_timeout"
    script.wait_until_left()


@pytest.mark.parametrize("last", [b"", frame("never whole")[:-20]], ids=["between", "in a frame"])
def test_truncated(server: Server, script: ScriptedAnswer, last: bytes) -> None:
    """By an end of TCP's alone, which could be anybody's."""
    script.say("one")
    with start(server, script) as stream:
        first = stream.next()
        if last:
            script.send(last)
        script.hang_up()
        events = [first, *rest(stream)]
    assert text_of("chunks", events) == "one"
    assert end_of("chunks", events) == "error:upstream_truncated"


def test_a_certificate_of_an_authority_that_is_not_known(
    tmp_path: Path, secure: ScriptedUpstream, script: ScriptedAnswer
) -> None:
    settings = settings_of(certified(tmp_path))
    with run_service(tmp_path, secure, workers=1, settings=settings) as server:
        answer = ask_start(server, script)
        assert fetch(server, "/healthz").status == 200
    assert answer.status == 502
    assert answer.headers["content-type"] == "application/json"
    error = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == "upstream_unreachable"
    assert KEY.encode() not in answer.body
    assert script.count == 0


@contextlib.contextmanager
def behind_a_proxy(
    directory: Path, upstream: ScriptedUpstream, proxy: str, certificate: Certified
) -> Iterator[Server]:
    # Each in both spellings: the lower one is the stronger, and a machine may have it set.
    names = {f"{upstream.scheme}_proxy": proxy, "no_proxy": "", "all_proxy": ""}
    both = {**names, **{name.upper(): value for name, value in names.items()}}
    settings = settings_of(certificate, **both)
    with run_service(directory, upstream, workers=1, settings=settings) as server:
        yield server


@pytest.mark.parametrize("over_tls", [False, True], ids=["TCP", "TLS"])
def test_through_a_tunnel(
    tmp_path: Path, secure: ScriptedUpstream, certificate: Certified, over_tls: bool
) -> None:
    """One tunnel serves all runs; leaving and silence are noticed through it."""
    with (
        gateway(certificate.server if over_tls else None) as proxy,
        behind_a_proxy(tmp_path, secure, proxy.url, certificate) as server,
    ):
        for _ in range(3):
            assert_whole(server, secure.script())
        assert proxy.requests == [f"CONNECT 127.0.0.1:{secure.port} HTTP/1.1"]

        script = secure.script()
        script.say("one")
        with start(server, script, on_disconnect="cancel") as stream:
            stream.next()
        script.wait_until_left(SILENCE - 0.5)

        script = secure.script()
        script.say("one")
        assert end_of("chunks", read_all(server, script)) == "error:upstream_timeout"
        script.wait_until_left()

        script = secure.script()
        script.say("one")
        with start(server, script) as stream:
            stream.next()
            script.hang_up()
            assert end_of("chunks", rest(stream)) == "error:upstream_truncated"


def test_by_way_of_a_proxy(
    tmp_path: Path, scripted: ScriptedUpstream, certificate: Certified
) -> None:
    """Without TLS there is no tunnel: the proxy reads the request, and passes it on."""
    with (
        gateway() as proxy,
        behind_a_proxy(tmp_path, scripted, proxy.url, certificate) as server,
    ):
        for _ in range(3):
            assert_whole(server, scripted.script())
        line = f"POST http://127.0.0.1:{scripted.port}/v1/chat/completions HTTP/1.1"
        assert proxy.requests == [line]

        script = scripted.script()
        script.say("one")
        with start(server, script, on_disconnect="cancel") as stream:
            stream.next()
        script.wait_until_left(SILENCE - 0.5)

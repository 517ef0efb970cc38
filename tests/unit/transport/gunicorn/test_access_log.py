from __future__ import annotations

import logging
import re
import socket
from datetime import timedelta
from logging.handlers import BufferingHandler
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.instrument.statsd import Statsd

from sseflask.transport.gunicorn import access_log

FORMAT = (
    '%(h)s %(t)s "%(m)s %(U)s %(q)s %(H)s" %(s)s %(b)s %(B)s "%(a)s" '
    "%(T)s %(D)s %(M)s %(L)s %({x-id}i)s %({etag}o)s"
)
ENVIRON = {
    "REMOTE_ADDR": "192.0.2.7",
    "REQUEST_METHOD": "GET",
    "RAW_URI": "/channels/a?x=1",
    "PATH_INFO": "/channels/a%s",
    "QUERY_STRING": "x=1",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_USER_AGENT": 'a "browser" 100% \0b\0\xe9',
}


def logger(**settings: Any) -> Logger:
    config = Config()
    config.set("accesslog", "-")
    config.set("access_log_format", FORMAT)
    for name, value in settings.items():
        config.set(name, value)
    return Logger(config)


def response() -> Any:
    return SimpleNamespace(
        status="200 OK",
        sent=0,
        headers=[("ETag", "e")],
        req=SimpleNamespace(headers=[("X-ID", "17")]),
    )


def test_the_line_is_what_gunicorn_would_have_written(monkeypatch: pytest.MonkeyPatch) -> None:
    log = logger()
    # Not pytest's handler: like the logger it may have got the filter that escapes characters.
    buffered = BufferingHandler(10)
    monkeypatch.setattr(log.access_log, "filters", [])
    prepared = access_log.prepare(log, response(), ENVIRON)
    assert prepared is not None
    log.access_log.addHandler(buffered)
    log.access_log.setLevel(logging.INFO)
    access_log.write(log, prepared, 90_061.5, 1234)
    (record,) = buffered.buffer
    found = re.fullmatch(
        r'192\.0\.2\.7 \[.+\] "GET /channels/a%s x=1 HTTP/1\.1" 200 1234 1234 '
        r'"a \\"browser\\" 100% \0b\0\xe9" (\d+) (\d+) (\d+) (\S+) 17 e',
        record.getMessage(),
    )
    assert found, record.getMessage()
    assert found.groups() == ("90061", "90061500000", "90061500", "90061.500000")


class OwnAtoms(Logger):
    """A user's logger with an atom of its own, made of a header that no format names."""

    def atoms(self, resp: Any, req: Any, environ: Any, request_time: Any) -> Any:
        found = super().atoms(resp, req, environ, request_time)
        return {**found, "Z": dict(req.headers)["X-ID"] + environ["mine"]}


@pytest.mark.parametrize("kind", [Logger, OwnAtoms])
@pytest.mark.parametrize(
    "format",
    ["%(r)s %(f)s %(u)s %(Z)s", "%({X-Id}i)s %({ETAG}o)s %({MINE}e)s %({no}i)s %({Raw_uri}e)s"],
)
def test_the_atoms_that_are_asked_for_are_gunicorns(kind: type[Logger], format: str) -> None:
    config = Config()
    config.set("accesslog", "-")
    config.set("access_log_format", format)
    log, answered = kind(config), response()
    environ = {
        **ENVIRON,
        "mine": "m",
        "HTTP_REFERER": "there",
        "HTTP_AUTHORIZATION": "Basic dXNlcjpwYXNz",
    }
    atoms = log.atoms(answered, answered.req, environ, timedelta(0))
    wrapped = log.atoms_wrapper_class({**atoms})
    prepared = access_log.prepare(log, answered, environ)
    assert prepared == (format % wrapped).encode()


def test_without_an_access_log_there_is_no_line() -> None:
    assert access_log.prepare(logger(accesslog=None), response(), ENVIRON) is None


class OwnLogger(Logger):
    """A user's logger, which reads what gunicorn's reads, and more."""

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        atoms = self.atoms(resp, req, environ, request_time)
        self.error("own %s %s %s %s", req.method, atoms["s"], atoms["B"], request_time)


def test_a_logger_of_another_class_is_called_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    config = Config()
    log = OwnLogger(config)
    asked = response()
    asked.req.method = "GET"
    prepared = access_log.prepare(log, asked, {**ENVIRON, "gunicorn.socket": object()})
    log.error_log.addHandler(caplog.handler)
    access_log.write(log, prepared, 90.5, 1234)
    assert caplog.messages == ["own GET 200 1234 0:01:30.500000"]


def test_without_a_log_nothing_is_kept() -> None:
    assert access_log.prepare(Logger(Config()), response(), ENVIRON) is None


def test_statsd_gets_what_gunicorn_sends_it() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd:
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(10)
        config = Config()
        config.set("statsd_host", f"127.0.0.1:{statsd.getsockname()[1]}")
        log = Statsd(config)
        log.access(response(), response().req, ENVIRON, timedelta(seconds=90.5))
        expected = [statsd.recv(1000) for _ in range(3)]
        prepared = access_log.prepare(log, response(), ENVIRON)
        access_log.write(log, prepared, 90.5, 1234)
        assert [statsd.recv(1000) for _ in range(3)] == expected
        assert log.sock is not None
        log.sock.close()

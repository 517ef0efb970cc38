"""What clients, hooks and logs get of our answer to plain requests, and of gunicorn's own."""

from __future__ import annotations

import io
import logging
import os
import re
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.socket
import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.http.parser import RequestParser
from gunicorn.workers.ggevent import GeventWorker

from sseflask.transport.gunicorn.plain_request import Environments, PlainRequest
from sseflask.transport.gunicorn.plain_response import answer

LISTENER: Any = SimpleNamespace(getsockname=lambda: ("192.0.2.1", 80))
GET = b"GET /%s HTTP/1.1\r\nHost: a\r\nUser-Agent: me\r\n\r\n"
POST = b"POST /%s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
FORMAT = '%(h)s %(r)s %(s)s %(b)s %(B)s "%(a)s" %({user-agent}i)s %({x-mine}o)s %({raw_uri}e)s'


class Ours(GeventWorker):
    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> bool:
        assert req.plain
        answer(self, Environments(self.cfg), listener_name, req, sock, addr)
        return True


class Worked:
    """One connection, served by one kind of worker, with what can be seen of it."""

    def __init__(self, kind: type[GeventWorker], requests: bytes, **values: Any) -> None:
        self.hooks: list[Any] = []
        self.lines = io.StringIO()
        cfg = Config()
        noted = {
            "accesslog": "-",
            "errorlog": "-",
            "access_log_format": FORMAT,
            "pre_request": lambda _, request: self.hooks.append(("pre", request.path)),
            "post_request": self._post,
        }
        for name, value in {**noted, **values}.items():
            cfg.set(name, value)
        application: Any = None
        self.worker = kind(1, os.getppid(), [], application, 30, cfg, Logger(cfg))
        self.worker.wsgi = self._application
        handlers = [logging.StreamHandler(self.lines)]
        for log in (self.worker.log.access_log, self.worker.log.error_log):
            log.handlers = handlers  # type: ignore[assignment]  # a list of another class
        ours, client = socket.socketpair()
        client.settimeout(10)
        with client:
            client.sendall(requests)
            client.shutdown(socket.SHUT_WR)
            accepted = gevent.socket.socket(fileno=ours.detach())
            served = gevent.spawn(self.worker.handle, LISTENER, accepted, ("192.0.2.7", 1234))
            served.get(timeout=10)
            sent = b"".join(iter(lambda: client.recv(65536), b""))
        self.sent = re.sub(rb"Date: [^\r]*", b"Date:", sent)
        self.worker.tmp.close()

    def _post(self, _worker: Any, request: Any, environ: Any, response: Any) -> None:
        self.hooks.append(("post", request.path, environ.get("PATH_INFO"), response.status))
        if request.path == "/hook":
            raise RuntimeError("of the hook")

    def _application(self, environ: Any, start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path == "/fails":
            raise RuntimeError("of the application")
        if path == "/exits":
            raise SystemExit
        if path == "/killed":
            raise gevent.GreenletExit
        if path == "/gone":
            raise BrokenPipeError(32, "gone")
        if path == "/stops":
            self.worker.alive = False
        if path == "/hints":
            environ["wsgi.early_hints"]([("Link", "</a.css>")])
        headers = [("X-Mine", "1"), ("Content-Type", "text/plain")]
        body = environ["wsgi.input"].read() if path != "/unread" else b"unread"
        if path != "/chunked":
            headers.append(("Content-Length", "7" if path == "/short" else str(len(body))))
        start_response("200 OK", headers)
        if path == "/file":
            return environ["wsgi.file_wrapper"](io.BytesIO(body))
        if path == "/breaks":
            return self._breaks()
        return Closing(self.hooks, [body])

    def _breaks(self) -> Iterator[bytes]:
        yield b"a piece"
        raise RuntimeError("in the middle")

    @property
    def seen(self) -> Any:
        # Tracebacks have other lines of code.
        lines = [line for line in self.lines.getvalue().splitlines() if not line.startswith("  ")]
        return self.sent, self.hooks, lines, self.worker.nr, self.worker.alive


class Closing(list[bytes]):
    def __init__(self, hooks: list[Any], pieces: list[bytes]) -> None:
        super().__init__(pieces)
        self._hooks = hooks

    def close(self) -> None:
        self._hooks.append("closed")


def both(requests: bytes, monkeypatch: pytest.MonkeyPatch, **values: Any) -> tuple[Any, Any]:
    theirs = Worked(GeventWorker, requests, **values).seen
    monkeypatch.setattr(RequestParser, "mesg_class", PlainRequest)
    return Worked(Ours, requests, **values).seen, theirs


PATHS = [
    *(b"a", b"chunked", b"file", b"short", b"breaks", b"fails", b"exits", b"killed", b"gone"),
    *(b"stops", b"hook", b"hints", b"unread"),
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("keepalive", [0, 2])
def test_an_answer_is_gunicorns(
    path: bytes, keepalive: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = GET % b"first" + POST % path + GET % b"last"
    ours, theirs = both(requests, monkeypatch, keepalive=keepalive)
    assert ours == theirs
    assert ours[1], "hooks have been called"


def test_a_worker_has_answered_its_last_request(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = GET % b"1" + GET % b"2" + GET % b"3"
    ours, theirs = both(requests, monkeypatch, max_requests=2)
    assert ours == theirs
    *_, requests_seen, alive = ours
    assert (requests_seen, alive) == (2, False)


@pytest.mark.parametrize("head", [b"HEAD /a HTTP/1.1", b"GET /chunked HTTP/1.0"])
def test_other_heads(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = both(head + b"\r\nHost: a\r\n\r\n" + GET % b"next", monkeypatch)
    assert ours == theirs


def test_a_hook_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_worker: Any, _request: Any) -> None:
        raise RuntimeError("of the first hook")

    def ignore(_worker: Any, _request: Any, _environ: Any, _response: Any) -> None:
        pass

    ours, theirs = both(GET % b"a", monkeypatch, pre_request=refuse, post_request=ignore)
    assert ours == theirs
    assert b"500 Internal" in ours[0]

"""Servers with few threads are warned of, with their first stream and once."""

from __future__ import annotations

import logging
import threading
import urllib.request
from types import SimpleNamespace
from typing import Any

import pytest
import waitress.server  # type: ignore[import-untyped]  # it has no types
from flask import Flask
from gunicorn.config import Config
from werkzeug.serving import make_server

from sseflask import SSE, EventSourceResponse
from sseflask.logs import once as notices
from sseflask.transport.choose import warn_about_threads


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "_warned", set())


def application() -> Flask:
    app = Flask(__name__)
    SSE(app)
    app.add_url_rule("/", view_func=lambda: EventSourceResponse(iter("ab")))
    return app


def ask(port: int, times: int = 2) -> None:
    for _ in range(times):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=20) as answer:
            assert answer.read() == b"data: a\n\ndata: b\n\n"


def serve(server: Any, sockets: dict[int, Any], ended: threading.Event) -> None:
    """Serve as waitress does, until the end.

    A task answers first and wakes the loop then. So its threads end before what they wake it by.
    """
    while not ended.is_set():
        server.asyncore.loop(timeout=0.01, map=sockets, count=1)
    server.task_dispatcher.shutdown(timeout=20)
    server.asyncore.close_all(sockets)


@pytest.mark.parametrize(("threads", "said"), [(4, ["This server has 4 threads"]), (100, [])])
def test_waitress(threads: int, said: list[str], caplog: pytest.LogCaptureFixture) -> None:
    sockets, ended = dict[int, Any](), threading.Event()
    server = waitress.server.create_server(
        application(), host="127.0.0.1", port=0, threads=threads, map=sockets
    )
    thread = threading.Thread(target=serve, args=(server, sockets, ended))
    thread.start()
    try:
        ask(server.effective_port)
    finally:
        ended.set()
        thread.join(30)
    assert not thread.is_alive()
    messages = [record.getMessage() for record in caplog.records if record.name == "sseflask"]
    assert [each[: len("This server has 4 threads")] for each in messages] == said


@pytest.mark.parametrize(("threaded", "said"), [(False, 1), (True, 0)])
def test_a_server_without_threads(
    threaded: bool, said: int, caplog: pytest.LogCaptureFixture
) -> None:
    server = make_server("127.0.0.1", 0, application(), threaded=threaded)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        ask(server.port)
    finally:
        server.shutdown()
        thread.join(20)
        server.server_close()
    messages = [record.getMessage() for record in caplog.records if record.name == "sseflask"]
    assert len(messages) == said
    assert all(each.startswith("This server has one thread") for each in messages)


@pytest.mark.parametrize(
    ("worker_class", "threads", "said"),
    [("gthread", 1, 1), ("sync", 4, 1), ("gthread", 100, 0), ("gevent", 1, 0)],
)
def test_gunicorn(
    worker_class: str, threads: int, said: int, caplog: pytest.LogCaptureFixture
) -> None:
    config = Config()
    config.set("worker_class", worker_class)
    config.set("threads", threads)
    environ = {"gunicorn.socket": object(), "SERVER_SOFTWARE": "gunicorn"}
    with caplog.at_level(logging.WARNING, "sseflask"):
        warn_about_threads(environ, SimpleNamespace(cfg=config))
    assert len(caplog.records) == said

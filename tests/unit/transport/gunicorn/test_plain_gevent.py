"""gunicorn's own gevent worker, with what our hooks set on it."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.socket
import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.ggevent import GeventWorker

from sseflask.logs import request_ids
from sseflask.transport.gunicorn import plain_gevent
from sseflask.transport.gunicorn.drain import Drain
from sseflask.transport.gunicorn.server_response import KEY
from sseflask.transport.gunicorn.stream_worker import StreamWorker

SECONDS = 10.0


@pytest.fixture
def drain(monkeypatch: pytest.MonkeyPatch) -> Drain:
    drain = Drain()
    monkeypatch.setattr(plain_gevent, "worker_drain", drain)
    monkeypatch.setattr(plain_gevent, "_POLL_SECONDS", 0.001)
    monkeypatch.setattr(plain_gevent, "_interrupted", False)
    monkeypatch.setattr(plain_gevent, "_interrupter", None)
    return drain


@pytest.fixture
def worker(drain: Drain) -> Iterator[Any]:  # noqa: ARG001  # it is the worker's
    application: Any = None
    worker = GeventWorker(1, os.getppid(), [], application, 30, Config(), Logger(Config()))
    worker.wsgi = lambda *_: []
    yield worker
    worker.alive = False
    gevent.sleep(0.01)
    worker.tmp.close()


def test_a_stream_finds_its_response_and_a_wait_belongs_to_no_request(worker: Any) -> None:
    seen: list[Any] = []

    def application(environ: Any, start_response: Any) -> list[bytes]:
        seen.append((request_ids.current(), environ[KEY].is_http1))
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    worker.wsgi = application
    plain_gevent.prepare(worker)
    wait = worker.timeout_ctx

    def waiting() -> object:
        context = wait()
        seen.append(request_ids.current())
        return context

    worker.timeout_ctx = waiting
    listener = SimpleNamespace(getsockname=lambda: ("192.0.2.1", 80))
    ours, client = socket.socketpair()
    with client:
        client.settimeout(SECONDS)
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        client.shutdown(socket.SHUT_WR)
        accepted = gevent.socket.socket(fileno=ours.detach())
        gevent.spawn(worker.handle, listener, accepted, ("192.0.2.7", 1)).get(timeout=SECONDS)
        assert client.recv(1000).endswith(b"\r\n\r\nok")
    before, (during, http1), after = seen
    assert (bool(before), bool(during), bool(after), http1) == (False, True, False, True)


def test_it_is_drained_when_it_ends(worker: Any, drain: Drain) -> None:
    plain_gevent.prepare(worker)
    gevent.sleep(0.01)
    assert not drain.draining
    worker.handle_exit(15, None)
    with gevent.Timeout(SECONDS):
        while not drain.draining:
            gevent.sleep(0.001)


def test_a_second_interrupt_waits_for_the_exit_of_the_first(worker: Any, drain: Drain) -> None:
    plain_gevent.interrupt(worker)
    assert drain.draining
    assert not worker.alive
    second = gevent.spawn(plain_gevent.interrupt, worker)
    assert not gevent.joinall([second], timeout=0.01)
    second.kill()


def test_a_worker_that_exits_is_not_exited_again(worker: Any) -> None:
    exited: list[bool] = []

    def interrupt() -> None:
        plain_gevent.interrupt(worker)
        gevent.sleep(0.01)
        exited.append(True)

    interrupting = gevent.spawn(interrupt)
    gevent.sleep(0)
    plain_gevent.exit_once(worker)
    interrupting.join(SECONDS)
    assert exited == []


def test_other_workers_are_left_alone(drain: Drain) -> None:
    for worker in (StreamWorker.__new__(StreamWorker), SimpleNamespace()):
        before = dict(vars(worker))
        plain_gevent.prepare(worker)
        plain_gevent.interrupt(worker)
        plain_gevent.exit_once(worker)
        assert vars(worker) == before
    assert not drain.draining

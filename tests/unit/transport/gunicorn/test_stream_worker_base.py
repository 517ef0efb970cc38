"""What gunicorn's own methods do that our worker class replaces or relies on, on any version.

A failure here says what to look at in `sseflask.transport.gunicorn.stream_worker`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import gevent
import gevent.socket
import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger
from gunicorn.workers.ggevent import GeventWorker

REQUEST = b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n"
SECONDS = 10.0


class Reads:
    """A configuration that notes which settings are read."""

    def __init__(self) -> None:
        self.names: set[str] = set()
        self._config = Config()

    def __getattr__(self, name: str) -> Any:
        self.names.add(name)
        return getattr(self._config, name)


class Observed(GeventWorker):
    """gunicorn's own; it notes which attributes of it are read, and calls of some methods."""

    def __init__(self, cfg: Any) -> None:
        self.names: set[str] = set()
        self.calls: list[tuple[Any, ...]] = []
        application: Any = None
        super().__init__(1, os.getppid(), [], application, 30, cfg, Logger(Config()))

    def __getattribute__(self, name: str) -> Any:
        if name not in ("names", "calls", "__class__"):
            super().__getattribute__("names").add(name)
        return super().__getattribute__(name)


@pytest.fixture
def worker() -> Iterator[Observed]:
    worker = Observed(Reads())
    yield worker
    worker.tmp.close()


@pytest.fixture
def connection() -> Iterator[tuple[Any, socket.socket]]:
    """Both ends of a connection: the worker's and the client's."""
    ours, client = socket.socketpair()
    client.settimeout(SECONDS)
    with client, gevent.socket.socket(fileno=ours.detach()) as accepted:
        yield accepted, client


LISTENER: Any = SimpleNamespace(getsockname=lambda: ("192.0.2.1", 80))
ADDRESS = ("192.0.2.7", 1234)


def recorded(worker: Observed, *names: str, then: Callable[[], object] = bool) -> None:
    """Replace methods by ones that note their arguments."""
    for name in names:

        def method(*arguments: Any, _name: str = name) -> object:
            worker.calls.append((_name, *arguments))
            return then() if _name == "handle_request" else contextlib.nullcontext()

        setattr(worker, name, method)


def test_what_run_uses(worker: Observed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours does what gunicorn's does: with these attributes and settings, and no others."""
    sleep = gevent.sleep
    monkeypatch.setattr(gevent, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    with gevent.socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        worker.sockets = [listening]
        accepted: list[Any] = []
        worker.handle = lambda *arguments: accepted.append(arguments)  # type: ignore[method-assign]
        run = worker.run
        worker.names.clear()
        running = gevent.spawn(run)
        with gevent.socket.create_connection(listening.getsockname(), timeout=SECONDS) as client:
            assert client.recv(1) == b"", "what has been handled is closed"
            name = client.getsockname()
        worker.alive = False
        running.get(timeout=SECONDS)
    ((listener, socket, address),) = accepted
    assert listener is listening
    assert isinstance(socket, gevent.socket.socket)
    assert address == name
    assert worker.names == {
        *("alive", "cfg", "handle", "notify", "server_class", "sockets", "worker_connections"),
        *("ppid", "tmp"),  # by notify
    }
    assert worker.cfg.names == {"graceful_timeout", "is_ssl", "workers"} | worker_settings()


def worker_settings() -> set[str]:
    """What the constructor reads."""
    reads = Reads()
    Observed(reads).tmp.close()
    return reads.names


def test_a_connection_is_served_request_by_request(
    worker: Observed, connection: tuple[Any, socket.socket]
) -> None:
    ours, client = connection
    recorded(worker, "timeout_ctx", "handle_request", "handle_error")
    client.sendall(REQUEST % 1 + REQUEST % 2)
    client.shutdown(socket.SHUT_WR)
    gevent.spawn(worker.handle, LISTENER, ours, ADDRESS).get(timeout=SECONDS)
    shown = [
        (name, arguments[0], arguments[1].path, *arguments[2:]) if arguments else (name,)
        for name, *arguments in worker.calls
    ]
    assert shown == [
        ("timeout_ctx",),
        ("handle_request", ("192.0.2.1", 80), "/1", ours, ADDRESS),
        ("timeout_ctx",),
        ("handle_request", ("192.0.2.1", 80), "/2", ours, ADDRESS),
        ("timeout_ctx",),
    ]
    assert client.recv(1) == b""


def test_stop_iteration_is_the_connections_end(
    worker: Observed, connection: tuple[Any, socket.socket]
) -> None:
    def stop() -> None:
        raise StopIteration

    ours, client = connection
    recorded(worker, "timeout_ctx", "handle_request", "handle_error", then=stop)
    client.sendall(REQUEST % 1 + REQUEST % 2)
    gevent.spawn(worker.handle, LISTENER, ours, ADDRESS).get(timeout=SECONDS)
    assert [name for name, *_ in worker.calls] == ["timeout_ctx", "handle_request"]
    assert ours.fileno() == -1


def test_what_is_no_request_is_an_error(
    worker: Observed, connection: tuple[Any, socket.socket]
) -> None:
    ours, client = connection
    recorded(worker, "timeout_ctx", "handle_request", "handle_error")
    client.sendall(b"no request\r\n\r\n")
    gevent.spawn(worker.handle, LISTENER, ours, ADDRESS).get(timeout=SECONDS)
    (error,) = (call for call in worker.calls if call[0] == "handle_error")
    assert error[1:4] == (None, ours, ADDRESS)
    assert isinstance(error[4], Exception)


def test_http2_is_served_by_a_method_of_its_own(
    worker: Observed, connection: tuple[Any, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, _ = connection
    monkeypatch.setattr("gunicorn.sock.is_http2_negotiated", lambda _: True)
    recorded(worker, "timeout_ctx", "handle_request", "handle_http2")
    gevent.spawn(worker.handle, LISTENER, ours, ADDRESS).get(timeout=SECONDS)
    assert worker.calls == [("handle_http2", LISTENER, ours, ADDRESS)]


def serve(worker: Observed, ours: Any, error: BaseException) -> list[str]:
    """Answer one request with an application that raises; what gunicorn's access log got."""
    logged: list[str] = []

    def application(*_: object) -> None:
        raise error

    worker.wsgi = application  # type: ignore[assignment]  # it never returns
    worker.log.access = lambda *_: logged.append("access")  # type: ignore[method-assign]
    recorded(worker, "timeout_ctx", "handle_error")
    gevent.spawn(worker.handle, LISTENER, ours, ADDRESS).get(timeout=SECONDS)
    return logged


def test_an_adopted_streams_request_is_forgotten(
    worker: Observed, connection: tuple[Any, socket.socket]
) -> None:
    """See `hand_over_responses`: neither an error page nor a line in the access log."""
    ours, client = connection
    client.sendall(REQUEST % 1)
    assert serve(worker, ours, StopIteration()) == []
    assert [name for name, *_ in worker.calls] == ["timeout_ctx"]
    assert client.recv(1) == b""


def test_a_kill_is_taken_for_an_answer(
    worker: Observed, connection: tuple[Any, socket.socket]
) -> None:
    """Ours ends the connection; gunicorn's waits for the next request."""
    ours, client = connection
    client.sendall(REQUEST % 1)
    client.shutdown(socket.SHUT_WR)
    assert serve(worker, ours, gevent.GreenletExit()) == []
    assert [name for name, *_ in worker.calls] == ["timeout_ctx", "timeout_ctx"]


def test_without_an_arbiter_notify_exits(worker: Observed) -> None:
    worker.ppid = os.getppid() + 1
    with pytest.raises(SystemExit):
        worker.notify()
    assert worker.alive, "ours clears it instead"


def test_handle_quit_exits_soon(worker: Observed, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    worker.cfg.set("worker_int", lambda worker: done.append(worker.alive))
    monkeypatch.setattr(sys, "exit", done.append)
    worker.handle_quit(signal.SIGQUIT, None)
    assert done == [], "not in the signal handler"
    with gevent.Timeout(SECONDS):
        while len(done) < 2:
            gevent.sleep(0.01)
    assert done == [False, 0]


def test_handle_exit_clears_alive(worker: Observed) -> None:
    worker.handle_exit(signal.SIGTERM, None)
    assert not worker.alive


def test_the_signals_of_a_worker() -> None:
    program = (
        "import os, signal\n"
        "from gunicorn.workers.ggevent import GeventWorker\n"
        "worker = GeventWorker.__new__(GeventWorker)\n"
        "worker.PIPE = os.pipe()\n"
        "os.set_blocking(worker.PIPE[1], False)\n"
        "worker.init_signals()\n"
        "for name in ('SIGTERM', 'SIGQUIT', 'SIGINT'):\n"
        "    print(name, signal.getsignal(getattr(signal, name)).__name__)\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    assert shown.stdout.split("\n") == [
        "SIGTERM handle_exit",
        "SIGQUIT handle_quit",
        "SIGINT handle_quit",
        "",
    ]

"""The probe: an application for tests, on every kind of server."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.live.kit.servers import GUNICORN, WORKER, Server, free_port, running

PROBE = "tests.live.streams.probe.app:app"
#: Both write to the socket themselves: they notice at once that a client has left, they coalesce
#: bursts, and they drain.
GEVENT = ["gunicorn-worker", "gunicorn-gevent"]
#: Any WSGI server will do.
PORTABLE = ["gunicorn-gthread", "flask", "waitress"]
SERVERS = GEVENT + PORTABLE

on_every_server = pytest.mark.parametrize("server", SERVERS, indirect=True)
on_gevent = pytest.mark.parametrize("server", GEVENT, indirect=True)
on_portable = pytest.mark.parametrize("server", PORTABLE, indirect=True)


def probe_command(kind: str, port: int, *options: str) -> list[str]:
    """How the probe app is served by each kind of server."""
    bind = ["--bind", f"127.0.0.1:{port}"]
    many = ["--worker-connections", "4000"]
    if kind == "gunicorn-worker":
        return [*GUNICORN, *bind, *many, "-k", WORKER, *options, PROBE]
    if kind == "gunicorn-gevent":
        config = ["-c", "sseflask/gunicorn_conf.py"]
        return [*GUNICORN, *config, *bind, *many, "-k", "gevent", "-w", "1", *options, PROBE]
    if kind == "gunicorn-gthread":
        return [*GUNICORN, *bind, "-k", "gthread", "--threads", "80", *options, PROBE]
    if kind == "gunicorn-sync":
        return [*GUNICORN, *bind, "-k", "sync", *options, PROBE]
    if kind == "flask":
        flask = [sys.executable, "-m", "flask", "--app", PROBE, "run", "--no-reload"]
        return [*flask, "--port", str(port), *options]
    if kind == "waitress":
        listen = ["--listen", f"127.0.0.1:{port}", "--threads", "80"]
        return [sys.executable, "-m", "waitress", *listen, *options, PROBE]
    raise ValueError(kind)


@contextlib.contextmanager
def probe_server(
    kind: str, directory: Path, *options: str, changes: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """The probe app on a server of this kind."""
    port = free_port()
    with running(kind, probe_command(kind, port, *options), port, directory, changes) as server:
        yield server
    server.assert_log_is_clean()

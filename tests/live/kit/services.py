"""The service itself, as operators start it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path

from tests.live.kit.servers import GUNICORN, ROOT, WORKER, Server, environment, free_port, running
from tests.live.kit.workers import wait_for_workers

SECRET = "a-secret-of-the-tests-long-enough-for-each-of-the-HMAC-algorithms-of-JWT"
#: The upstream's key: it must never be seen in a response or in a log.
KEY = "sk-tests-0123456789abcdefghijklmnopqrstuvwxyz-never-to-be-seen"

SERVICE = "sseflask.app:create_app(development=True)"


def upstream_settings(port: int, scheme: str = "http") -> dict[str, str]:
    """Settings that make an upstream of what listens on this port of 127.0.0.1."""
    return {"OPENAI_BASE_URL": f"{scheme}://127.0.0.1:{port}/v1", "OPENAI_API_KEY": KEY}


def logs(directory: Path) -> dict[str, str]:
    """Settings that keep what a service stores out of the instance folder."""
    names = {"SSEFLASK_RUN_LOG": "runs.sqlite", "SSEFLASK_CHANNEL_LOG": "channels.sqlite"}
    return {name: str(directory / file) for name, file in names.items()}


def service(
    directory: Path,
    *options: str,
    workers: int = 1,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
    application: str = SERVICE,
) -> AbstractContextManager[Server]:
    """The service under gunicorn with our worker: this machine needs no token.

    The upstream's key must not be in its log afterwards.

    Args:
        directory: for the server's log, and for what it stores unless the settings say where.
        options: more of gunicorn's.
        workers: how many.
        port: where it listens; a free one unless a test starts it twice at one address.
        settings: further environment variables.
        application: what gunicorn serves.
    """
    port = port or free_port()
    bind = ["-b", f"127.0.0.1:{port}", "-w", str(workers)]
    # A test on a busy machine may open several connections before it asks on the first.
    idle = ["--keep-alive", "20"]
    command = [*GUNICORN, "-k", WORKER, *bind, *idle, *options, application]
    return _started("gunicorn-service", command, port, directory, settings, workers)


@contextlib.contextmanager
def _started(
    kind: str,
    command: list[str],
    port: int,
    directory: Path,
    settings: Mapping[str, str] | None,
    workers: int,
) -> Iterator[Server]:
    changes = {**logs(directory), **(settings or {})}
    with running(kind, command, port, directory, changes, "/healthz") as server:
        wait_for_workers(server, workers)
        yield server
    server.assert_log_is_clean()
    assert KEY not in server.log(), "the upstream's key is in the log"


def make_token(*options: str, secret: str = SECRET) -> str:
    """A token made by the command line, as an operator makes it."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sseflask",
            "token",
            *(options or ("--sub", "tester", "--complete")),
        ],
        cwd=ROOT,
        env=environment(SSEFLASK_SECRET=secret),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    (line,) = done.stdout.splitlines()
    return line


def authorization(token: str) -> dict[str, str]:
    """The header that sends a token."""
    return {"Authorization": f"Bearer {token}"}


def production_command(port: int, host: str = "127.0.0.1") -> list[str]:
    """The Procfile's line, on a port of its own."""
    (line,) = (ROOT / "Procfile").read_text().splitlines()
    name, _, command = line.partition(": ")
    assert name == "web"
    program, *arguments = command.split()
    assert program == "gunicorn"
    return [*GUNICORN, "-b", f"{host}:{port}", *arguments]


def production(
    directory: Path, settings: Mapping[str, str] | None = None
) -> AbstractContextManager[Server]:
    """The service as a platform starts it."""
    port = free_port()
    workers = int((settings or {}).get("WEB_CONCURRENCY", "1"))
    command = production_command(port)
    return _started("gunicorn-production", command, port, directory, settings, workers)

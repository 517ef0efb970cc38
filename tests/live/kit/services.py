"""The service itself, as operators start it, and an upstream for it that others wrote."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.live.kit.connection import Connection, fetch
from tests.live.kit.servers import GUNICORN, ROOT, WORKER, Server, environment, free_port, running
from tests.live.kit.sockets import inode, owners
from tests.live.kit.waiting import until

SECRET = "a-secret-of-the-tests-long-enough-for-each-of-the-HMAC-algorithms-of-JWT"
#: The upstream's key: it must never be seen in a response or in a log.
KEY = "sk-tests-0123456789abcdefghijklmnopqrstuvwxyz-never-to-be-seen"

SERVICE = "sseflask.app:create_app(development=True)"


@dataclass(frozen=True)
class Upstream:
    """A running aimock.

    Args:
        port: where it listens on 127.0.0.1.
        story: the text of its usual answer.
        tale: what it makes the answers to "tale #<tag>" of.
    """

    port: int
    story: str
    tale: dict[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, str]:
        return {"OPENAI_BASE_URL": f"http://127.0.0.1:{self.port}/v1", "OPENAI_API_KEY": KEY}

    def tale_of(self, tag: str) -> str:
        """Its answer to "tale #<tag>": another text for each tag."""
        return str(self.tale["text"]).replace("{}", tag) * int(self.tale["times"])

    def _counted(self, status: str) -> int:
        metrics = fetch(self.port, "/metrics").body.decode()
        labels = (
            r'aimock_requests_total\{[^}]*path="/v1/(?:chat/completions|responses)"'
            r'[^}]*status="%s"[^}]*\} (\d+)'
        )
        return sum(int(found) for found in re.findall(labels % status, metrics))

    def destroyed(self) -> int:
        """How many of its streams were closed by their reader before they had ended."""
        return self._counted("destroyed")

    def served(self) -> int:
        """How many completions it has been asked for, whatever became of them."""
        return self._counted('[^"]*')

    def wait_for_destroyed(self, count: int) -> None:
        until(lambda: self.destroyed() >= count, f"{count} upstream streams closed early")

    def journal(self) -> list[dict[str, Any]]:
        """Every request it got, those that are still being answered too."""
        entries = json.loads(fetch(self.port, "/__aimock/journal").body)
        if isinstance(entries, dict):
            entries = entries["entries"]
        return list(entries)

    def forget(self) -> None:
        """Empty the journal; what is counted goes on."""
        assert fetch(self.port, "/__aimock/reset/journal", method="POST").status == 200

    def asked(self) -> list[dict[str, object]]:
        """The bodies of the requests it got."""
        return [each["body"] for each in self.journal() if each["path"] == "/v1/chat/completions"]

    def last_messages(self) -> list[object]:
        """The last message of each request it got, by whatever endpoint."""
        bodies = [each["body"] for each in self.journal() if each["body"]]
        return [body["messages"][-1]["content"] for body in bodies if body.get("messages")]

    def asked_for(self, message: str) -> int:
        """How many requests it got whose last message is this one."""
        return self.last_messages().count(message)


@contextlib.contextmanager
def running_upstream(node: Path, directory: Path) -> Iterator[Upstream]:
    """aimock with the fixtures of tests/node/upstream.mjs."""
    log = directory / "upstream.log"
    with log.open("wb") as errors:
        process = subprocess.Popen(
            ["node", "upstream.mjs", KEY],
            cwd=node,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
        )
    with process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line, log.read_text()
            started = json.loads(line)
            port = int(started["url"].rsplit(":", 1)[1])
            yield Upstream(port, started["story"], started["tale"])
        finally:
            process.kill()


def logs(directory: Path) -> dict[str, str]:
    """Settings that keep what a service stores out of the instance folder."""
    names = {"SSEFLASK_RUN_LOG": "runs.sqlite", "SSEFLASK_CHANNEL_LOG": "channels.sqlite"}
    return {name: str(directory / file) for name, file in names.items()}


def wait_for_workers(server: Server, count: int) -> None:
    """Until so many workers answer: the first may long do so before the last has opened its files.

    Which of them takes a connection is up to the kernel.
    """
    answering: set[int] = set()

    def all_answer() -> bool:
        with Connection(server) as connection:
            connection.request("/healthz")
            assert connection.head().status == 200
            number = inode(server.port, connection.socket.getsockname()[1])
            answering.update(each.pid for each in owners(server.workers(), number))
        return len(answering) >= count

    if count > 1:
        until(all_answer, f"{count} workers answer", seconds=60, pause=0.05)


@contextlib.contextmanager
def service(
    directory: Path,
    *options: str,
    workers: int = 1,
    port: int | None = None,
    settings: Mapping[str, str] | None = None,
    application: str = SERVICE,
) -> Iterator[Server]:
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
    changes = {**logs(directory), **(settings or {})}
    with running("gunicorn-service", command, port, directory, changes, "/healthz") as server:
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


def production_command(port: int) -> list[str]:
    """The Procfile's line, on a port of its own."""
    (line,) = (ROOT / "Procfile").read_text().splitlines()
    name, _, command = line.partition(": ")
    assert name == "web"
    program, *arguments = command.split()
    assert program == "gunicorn"
    return [*GUNICORN, "-b", f"127.0.0.1:{port}", *arguments]


@contextlib.contextmanager
def production(directory: Path, settings: Mapping[str, str] | None = None) -> Iterator[Server]:
    """The service as a platform starts it."""
    port = free_port()
    command = production_command(port)
    changes = {**logs(directory), **(settings or {})}
    with running("gunicorn-production", command, port, directory, changes, "/healthz") as server:
        wait_for_workers(server, int(changes.get("WEB_CONCURRENCY", "1")))
        yield server
    server.assert_log_is_clean()
    assert KEY not in server.log(), "the upstream's key is in the log"

"""Machines: services as platforms start them, which tests kill and start again."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from tests.live.kit.runs import bearer
from tests.live.kit.servers import Server, free_port
from tests.live.kit.services import KEY, SECRET, logs, production_command
from tests.live.kit.waiting import until
from tests.live.kit.workers import wait_for_workers

SETTINGS = {
    "SSEFLASK_SECRET": SECRET,
    "SSEFLASK_HEARTBEAT": "1",
    "SSEFLASK_GRACE": "15",
    "SSEFLASK_RATE_LIMIT": "off",
    "SSEFLASK_PUBLISH_RATE_LIMIT": "off",
    "SSEFLASK_MAX_RUNS": "1000",
    "SSEFLASK_HISTORY_EVENTS": "100000",
}
#: The header of a client that may do everything.
TOKEN = bearer("machines", complete=True, publish="**", subscribe="**")


class Machine:
    """A service as a platform starts it, which a test kills and starts again: the port stays.

    Args:
        name: what to call it in messages.
        directory: an empty directory for its files and logs.
        settings: further environment variables.
        workers: how many.
        prefix: what runs its command elsewhere, such as ``ip netns exec``.
        host: the address that it listens on.
    """

    def __init__(
        self,
        name: str,
        directory: Path,
        settings: Mapping[str, str],
        *,
        workers: int = 1,
        prefix: Sequence[str] = (),
        host: str = "127.0.0.1",
    ) -> None:
        self.name = name
        self.port = free_port()
        self.workers = workers
        self._directory = directory
        self._settings = {**SETTINGS, "WEB_CONCURRENCY": str(workers), **settings}
        self._command = [*prefix, *production_command(self.port, host)]
        self._local = not prefix
        self.starts: list[Server] = []

    @property
    def server(self) -> Server:
        """The service that runs, or the last one that did."""
        return self.starts[-1]

    def log(self) -> str:
        """What all its starts have logged."""
        return "".join(each.log() for each in self.starts)

    def launch(self) -> None:
        """Start it, without waiting for anything."""
        directory = self._directory / f"start-{len(self.starts) + 1}"
        kind = f"gunicorn-{self.name}"
        self.starts.append(Server(kind, self._command, self.port, directory, self._settings))

    def start(self) -> None:
        """Start it, and wait until all its workers answer."""
        self.launch()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        if self._local:
            self.server.wait_until_ready("/healthz")
            wait_for_workers(self.server, self.workers)

    def kill(self) -> None:
        """SIGKILL to all of its processes."""
        self.server.kill()

    def reload(self) -> None:
        """SIGHUP, and wait until none of its workers is an old one."""
        old = self.server.workers()
        self.server.send_signal(signal.SIGHUP)
        until(
            lambda: not any(each.is_running() for each in old),
            f"the old workers of {self.name} have ended",
            seconds=30,
        )

    def begin_to_stop(self) -> None:
        """SIGTERM, if it runs."""
        if self.starts and self.server.process.poll() is None:
            self.server.send_signal(signal.SIGTERM)

    def close(self) -> None:
        """End it in order, and look at its logs."""
        print(f"--- log of {self.name} on {self.port} ---\n{self.log()[-8000:]}")
        if not self.starts:
            return
        if self.server.process.poll() is None:
            self.server.stop()
        for each in self.starts:
            each.assert_log_is_clean()
            assert "MonkeyPatchWarning" not in each.log(), each.log()
            assert KEY not in each.log(), "the upstream's key is in the log"


@contextlib.contextmanager
def single_machine(
    directory: Path, settings: Mapping[str, str] | None = None, *, workers: int = 2
) -> Iterator[Machine]:
    """One machine whose stores are files."""
    machine = Machine("single", directory, {**logs(directory), **(settings or {})}, workers=workers)
    with contextlib.ExitStack() as stack:
        stack.callback(machine.close)
        machine.start()
        yield machine

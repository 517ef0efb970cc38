"""The systemd units of the documentation: a restart of the service refuses no connection."""

from __future__ import annotations

import contextlib
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.live.kit.background import Background
from tests.live.kit.clients import open_stream
from tests.live.kit.servers import ROOT, Server
from tests.live.kit.services import SECRET
from tests.live.kit.tools import tool
from tests.live.kit.waiting import until

UNITS = ROOT / "docs" / "systemd"
#: Where the units have the command and the data.
COMMAND, DATA = "/opt/sseflask/bin/sseflask", "/var/lib/sseflask"


class _Unit:
    """What a unit says; of a name that is there several times, all values."""

    def __init__(self, name: str) -> None:
        self.values_of: dict[str, list[str]] = {}
        for line in (UNITS / name).read_text().splitlines():
            key, found, value = line.partition("=")
            if found and not key.startswith("#"):
                self.values_of.setdefault(key, []).append(value)

    def one(self, key: str) -> str:
        (value,) = self.values_of[key]
        return value


def test_systemd_reads_the_units(tmp_path: Path) -> None:
    analyze = tool("systemd-analyze")
    for unit in UNITS.iterdir():
        # It looks whether the command is there.
        text = unit.read_text().replace(COMMAND, sys.executable)
        (tmp_path / unit.name).write_text(text)
    done = subprocess.run(
        [analyze, "verify", *(str(tmp_path / unit.name) for unit in UNITS.iterdir())],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@contextlib.contextmanager
def activated(listener: socket.socket, directory: Path, data: Path) -> Iterator[Server]:
    """The service as systemd starts it, with the socket that it holds."""
    unit = _Unit("sseflask.service")
    program, *arguments = shlex.split(unit.one("ExecStart"))
    assert program == COMMAND
    command = [sys.executable, "-m", "sseflask", *arguments]
    changes = dict(
        line.replace(DATA, str(data)).split("=", 1) for line in unit.values_of["Environment"]
    )
    changes["SSEFLASK_SECRET"] = SECRET  # in the EnvironmentFile
    assert unit.one("Type") == "notify"
    changes["NOTIFY_SOCKET"] = f"@{uuid.uuid4().hex}"
    # LISTEN_PID is that of the process which systemd becomes: "$$" stays it across exec.
    passing = f'exec 3<&{listener.fileno()}; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
    shell = ["bash", "-c", passing, "bash", *command]
    port = listener.getsockname()[1]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.settimeout(60)
        notified.bind(changes["NOTIFY_SOCKET"].replace("@", "\0"))
        server = Server(
            "gunicorn-activated", shell, port, directory, changes, inherited=(listener.fileno(),)
        )
        try:
            assert notified.recv(4096).startswith(b"READY=1\n"), "systemd waits for it"
            server.wait_until_ready("/healthz")
            yield server
        finally:
            print(server.log()[-8000:])
            server.stop()
    server.assert_log_is_clean()


class Visitors(Background):
    """Ask on one new connection after the other, for a stream of two events each."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answered = 0

    def run(self) -> None:
        """Ask, until one is refused."""
        while self.going_on:
            with open_stream(self._port, "/sse/v1?count=2&interval=0") as stream:
                assert stream.head.status == 200
                seen = [event.data for event in stream.rest()]
            # At the restart a stream may end, to be resumed.
            assert seen == ["0", "1"][: 2 if not stream.retries else len(seen)]
            self.answered += 1
            time.sleep(0.02)


def count(port: int, to: int) -> list[str | None]:
    """A counter's events as a client reads them that comes back."""
    seen: list[str | None] = []
    headers: dict[str, str] = {}
    while len(seen) < to:
        with open_stream(port, f"/sse/v1?count={to}&interval=0.05", headers=headers) as stream:
            assert stream.head.status == 200
            seen += [event.data for event in stream]
            assert stream.ended, "the stream was cut"
            headers = {"Last-Event-ID": str(seen[-1])} if seen else {}
    return seen


def test_a_restart_refuses_nobody(tmp_path: Path) -> None:
    counted: list[list[str | None]] = []
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=4096))
        port = listener.getsockname()[1]
        visitors = [Visitors(port) for _ in range(3)]

        def answered() -> int:
            for each in visitors:
                each.check()
            return sum(each.answered for each in visitors)

        with activated(listener, tmp_path / "first", tmp_path) as first:
            for each in visitors:
                stack.enter_context(each)
            reader = threading.Thread(target=lambda: counted.append(count(port, 60)))
            reader.start()
            until(lambda: answered() > 50, "visitors are served")
            first.send_signal(signal.SIGTERM)
            assert first.wait_until_ended() == 0
        # As systemd does it at a restart: the next one starts when this one has ended.
        before = answered()
        with activated(listener, tmp_path / "second", tmp_path):
            until(lambda: answered() > before + 50, "visitors are served again")
            reader.join(30)
            for each in visitors:
                each.stop()
    assert counted == [[str(n) for n in range(60)]]


def test_the_units_fit_each_other() -> None:
    service, socket_unit = _Unit("sseflask.service"), _Unit("sseflask.socket")
    assert socket_unit.one("ListenStream") == "127.0.0.1:8000", "as in docs/proxies/nginx.conf"
    settings = dict(line.split("=", 1) for line in service.values_of["Environment"])
    assert int(service.one("TimeoutStopSec")) > int(settings["SSEFLASK_GRACE"])
    assert settings["SSEFLASK_CHANNEL_LOG"].startswith(f"/var/lib/{service.one('StateDirectory')}/")

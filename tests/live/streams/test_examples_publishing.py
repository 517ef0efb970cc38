"""Events from Celery, cron and `flask shell`, as `examples/publishing.py` shows them."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.live.kit.clients import open_stream
from tests.live.kit.connection import fetch
from tests.live.kit.examples import documented, example
from tests.live.kit.servers import environment, free_port
from tests.live.kit.tools import tool
from tests.live.kit.waiting import until


def listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


@contextlib.contextmanager
def beside(command: list[str], directory: Path, log: Path, **changes: str) -> Iterator[None]:
    """A program that ends with the block, and that then has printed no traceback."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=environment(**changes),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    with process:
        try:
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            finally:
                process.kill()
                print(f"--- {command[0]} ---\n{log.read_text()[-4000:]}")
    assert "Traceback" not in log.read_text()


@contextlib.contextmanager
def redis(directory: Path) -> Iterator[str]:
    port = free_port()
    settings = ["--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    command = [tool("redis-server"), "--port", str(port), *settings]
    with beside(command, directory, directory / "redis.log"):
        until(lambda: listens(port), "redis listens")
        yield f"redis://127.0.0.1:{port}"


def test_from_celery_cron_and_a_shell(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        broker = {"CELERY_BROKER_URL": stack.enter_context(redis(tmp_path))}
        server = stack.enter_context(
            example("publishing", "flask", tmp_path, changes=broker, ready="/reports/events")
        )
        clean = {"PYTHONPATH": "", **broker}
        _, worker = documented("publishing", "celery")
        few = ["--concurrency", "1"]
        stack.enter_context(beside([*worker, *few], tmp_path, tmp_path / "celery.log", **clean))
        stream = stack.enter_context(open_stream(server, "/reports/events"))

        def reported() -> dict[str, str]:
            report: dict[str, str] = json.loads(stream.next().data or "")
            return report

        # As cron does it: from another folder, with next to no environment.
        _, (_, script) = documented("publishing", "python")
        subprocess.run([sys.executable, str(tmp_path / script)], cwd="/", env={}, check=True)
        assert reported() == {"report": "of the night", "state": "ready"}

        _, shell = documented("publishing", "flask", "shell")
        subprocess.run(
            shell,
            cwd=tmp_path,
            env=environment(**clean),
            input='sse.publish("reports", {"report": "by hand"})\n',
            text=True,
            check=True,
        )
        assert reported() == {"report": "by hand"}

        assert fetch(server, "/reports", method="POST").status == 202
        assert reported() == {"report": "on demand", "state": "begun"}
        assert reported() == {"report": "on demand", "state": "ready"}

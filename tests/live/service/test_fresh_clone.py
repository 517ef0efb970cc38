"""As a new user would: clone, `make serve`, curl; then what a platform does, and `make test`.

Installs the project with its dependencies from the package index: by far the slowest tests.
What is cloned is the last commit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.kit.clients import curl
from tests.live.kit.servers import ROOT, Server, environment, free_port
from tests.live.kit.tools import tool
from tests.live.service.test_service import COUNTED

pytestmark = [pytest.mark.fresh_clone, pytest.mark.timeout(400)]

INSTALL_SECONDS = 240


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("fresh") / "clone"
    command = [tool("git"), "clone", "--quiet", str(ROOT), str(target)]
    subprocess.run(command, check=True, timeout=60, env=environment())
    return target


@pytest.fixture(scope="module")
def served(clone: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`make serve`, from nothing."""
    port = free_port()
    settings = {"PORT": str(port), "PYTHONPATH": ""}
    directory = tmp_path_factory.mktemp("served")
    server = Server("make", [tool("make"), "serve"], port, directory, settings, clone)
    try:
        server.wait_until_ready("/healthz", INSTALL_SECONDS)
        yield server
    finally:
        print(server.log()[-8000:])
        server.kill()


def test_make_serve_answers_curl(served: Server) -> None:
    done = curl(served, "/sse/v1", "-X", "POST")
    assert (done.returncode, done.stdout) == (0, COUNTED), done.stderr
    done = curl(served, "/sse/no_sse", "-X", "POST")
    assert done.stdout.strip() == '{"message":"Hello World"}'
    done = curl(served, "/sse/openai_out", "-X", "POST")
    assert done.returncode == 0
    assert done.stdout.endswith("data: [DONE]\n\n")


def test_make_serve_listens_on_loopback_only(served: Server) -> None:
    addresses = {
        connection.laddr.ip
        for process in served.members()
        for connection in process.net_connections("tcp")
        if connection.status == "LISTEN"
    }
    assert addresses == {"127.0.0.1"}


def test_ctrl_c_ends_make_serve(served: Server) -> None:
    served.interrupt()
    served.wait_until_ended(20)
    assert not served.members()
    assert "Traceback" not in served.log()


@pytest.mark.parametrize("command", ["the Procfile's", "sseflask serve"])
def test_production_answers_curl(clone: Path, served: Server, command: str, tmp_path: Path) -> None:
    assert served.port, "it has installed everything"
    scripts = clone / ".venv" / "bin"
    port = free_port()
    line = (clone / "Procfile").read_text().strip().removeprefix("web: ")
    words = line.split() if command == "the Procfile's" else command.split()
    settings = {"PORT": str(port), "WEB_CONCURRENCY": "2", "PYTHONPATH": ""}
    arguments = [str(scripts / words[0]), *words[1:]]
    server = Server("gunicorn-fresh", arguments, port, tmp_path, settings, clone)
    try:
        server.wait_until_ready("/healthz")
        assert len(server.workers()) == 2
        done = curl(server, "/sse/v1", "-X", "POST")
        assert (done.returncode, done.stdout) == (0, COUNTED), done.stderr
    finally:
        print(server.log())
        server.stop()


def wanted_python(clone: Path) -> str:
    """The Python that `.python-version` asks for, or else the one that runs the tests."""
    python = shutil.which(f"python{(clone / '.python-version').read_text().strip()}")
    asked = [python or "false", "-c", "import ensurepip, venv"]
    done = subprocess.run(asked, capture_output=True, check=False, timeout=60)
    return python if python and done.returncode == 0 else sys.executable


def test_what_a_buildpack_makes_of_it(clone: Path, tmp_path: Path) -> None:
    """Installed in one folder and run in another, by the Procfile's line, as on Heroku."""
    build, app, python = tmp_path / "build", tmp_path / "app", tmp_path / "python"
    shutil.copytree(clone, build, ignore=shutil.ignore_patterns(".venv", ".git"))
    for command in (
        [wanted_python(clone), "-m", "venv", str(python)],
        [str(python / "bin" / "pip"), "install", "--quiet", "--requirement", "requirements.txt"],
    ):
        subprocess.run(
            command, cwd=build, env=environment(PYTHONPATH=""), check=True, timeout=INSTALL_SECONDS
        )
    build.rename(app)
    port = free_port()
    settings = {
        "PATH": f"{python / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": "",
        "PORT": str(port),
        "DYNO": "web.1",
        "WEB_CONCURRENCY": "2",
    }
    line = (app / "Procfile").read_text().strip().removeprefix("web: ")
    server = Server("gunicorn-buildpack", ["bash", "-c", line], port, tmp_path, settings, app)
    try:
        server.wait_until_ready("/healthz")
        done = curl(server, "/sse/openai_out", "-X", "POST", "-d", "user_message=Hello")
        assert done.returncode == 0
        assert done.stdout.endswith("data: [DONE]\n\n")
        # Where the disk goes with the dyno, and nothing has to be set.
        assert (app / "instance" / "runs.sqlite3").is_file()
    finally:
        print(server.log())
        server.stop()
    server.assert_log_is_clean()


def test_make_test_runs(clone: Path, served: Server) -> None:
    assert served.port, "the service has been installed beside it"
    done = subprocess.run(
        [tool("make"), "test", "ARGS=tests/unit/test_wire.py tests/unit/test_event.py -q"],
        cwd=clone,
        env=environment(PYTHONPATH=""),
        capture_output=True,
        text=True,
        check=False,
        timeout=INSTALL_SECONDS,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    assert " passed" in done.stdout


def test_nothing_was_left_in_the_clone(clone: Path, served: Server) -> None:
    """What the commands make is ignored by git."""
    assert served.port
    done = subprocess.run(
        [tool("git"), "status", "--porcelain"],
        cwd=clone,
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == ""


def test_the_readme_names_both_commands() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make serve" in readme
    assert "make test" in readme
    assert "curl -N" in readme
    assert COUNTED.split("\n\n")[0] in readme, "their real output"

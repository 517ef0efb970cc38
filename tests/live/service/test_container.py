"""The steps of the Dockerfile, one after the other, without Docker.

A folder stands for the image's file system: paths of the image are those of the folder. What a
base image brings is this machine's: its Python and its programs. The last stage's process runs as
another user where the tests are root's.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from docker.utils.build import exclude_paths
from dockerfile_parse import DockerfileParser

from tests.live.kit.clients import curl, open_stream
from tests.live.kit.servers import ROOT, Server, environment, free_port
from tests.live.kit.services import SECRET
from tests.live.service.test_service import COUNTED

pytestmark = [pytest.mark.fresh_clone, pytest.mark.timeout(400)]

INSTALL_SECONDS = 240
#: The directories of the image that are made by the steps.
_MADE = re.compile(r"(?<![\w.-])(/(?:opt|src|var/lib)(?:/[\w.-]+)*)")


@dataclass
class Image:
    """What the steps have made so far.

    Args:
        root: the folder that stands for the file system.
        base: a folder with the base image's programs.
        context: the folder that is built.
    """

    root: Path
    base: Path
    context: Path
    environment: dict[str, str] = field(default_factory=dict)
    directory: str = "/"
    user: str = ""
    command: list[str] = field(default_factory=list)
    healthcheck: list[str] = field(default_factory=list)
    volumes: list[str] = field(default_factory=list)
    stages: dict[str, Path] = field(default_factory=dict)

    def outside(self, text: str) -> str:
        """Paths of the image as this machine's."""
        return _MADE.sub(lambda found: f"{self.root}{found[1]}", text)

    def path(self, inside: str) -> Path:
        """Where a path of the image is, absolute or in the working directory."""
        return self.root / str(Path(self.directory) / inside).lstrip("/")

    def variables(self) -> dict[str, str]:
        """The environment of a process in the image."""
        return environment(**{"PYTHONPATH": "", "PATH": self.search(), **self.environment})

    def search(self) -> str:
        return self.environment.get("PATH", f"{self.base}:/usr/bin:/bin")

    def step(self, instruction: str, value: str) -> None:
        """Do what an instruction says."""
        getattr(self, f"_{instruction.lower()}")(value)

    def _from(self, value: str) -> None:
        _, _, name = value.partition(" AS ")
        if self.stages:
            (last,) = self.stages
            self.root.rename(self.stages[last])
            self.root.mkdir(mode=0o755)
        else:
            self.stages[name] = self.root.with_name(name)
        self.environment = {}
        self.directory = "/"

    def _env(self, value: str) -> None:
        for name, text in re.findall(r"(\w+)=(\S+)", value):
            known = text.replace("$PATH", self.search())
            self.environment[name] = self.outside(known) if name != "PATH" else known
            if name == "PATH":
                mine, _, rest = text.partition(":$PATH")
                assert text.endswith(":$PATH")
                self.environment[name] = f"{self.outside(mine)}:{self.base}:/usr/bin:/bin"
                assert not rest

    def _workdir(self, value: str) -> None:
        self.directory = value
        self.path(value).mkdir(parents=True, exist_ok=True)

    def _copy(self, value: str) -> None:
        words = value.split()
        source = self.context
        if words[0].startswith("--from="):
            source = self.stages[words.pop(0).partition("=")[2]]
        *sources, target = words
        for each in sources:
            found = source / each.lstrip("/")
            goal = self.path(target)
            if found.is_dir():
                shutil.copytree(found, goal, symlinks=True, dirs_exist_ok=True)
            else:
                assert target.endswith("/")
                goal.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, goal)

    def _run(self, value: str) -> None:
        value = self.outside(value)
        if os.geteuid():
            value = re.sub(r"\b\d+:\d+\b", f"{os.geteuid()}:{os.getegid()}", value)
        for parent in re.findall(rf"mkdir .*?({re.escape(str(self.root))}\S*)", value):
            Path(parent).parent.mkdir(parents=True, exist_ok=True)  # the base image has it
        done = subprocess.run(
            ["/bin/sh", "-c", value],
            cwd=self.path("."),
            env=self.variables(),
            capture_output=True,
            text=True,
            check=False,
            timeout=INSTALL_SECONDS,
        )
        assert done.returncode == 0, f"{value}\n{done.stdout}\n{done.stderr}"

    def _user(self, value: str) -> None:
        self.user = value

    def _volume(self, value: str) -> None:
        self.volumes.append(value)

    def _expose(self, value: str) -> None:
        assert value == self.environment["PORT"]

    def _healthcheck(self, value: str) -> None:
        self.healthcheck = json.loads(value.partition("CMD ")[2])

    def _cmd(self, value: str) -> None:
        self.command = json.loads(value)  # the exec form, or a shell would get SIGTERM

    def as_user(self, command: list[str]) -> list[str]:
        """The command of a process in the image, as its user where that can be."""
        if os.geteuid():
            return command
        user, group = self.user.split(":")
        program = shutil.which(command[0], path=self.search())
        assert program, command
        change = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--"]
        return [*change, program, *command[1:]]


def a_python() -> str:
    """One that any user can run, as that of the base image."""
    for name in ("/usr/bin/python3", "/usr/local/bin/python3", shutil.which("python3") or ""):
        asked = [name, "-c", "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 10))"]
        if Path(name).exists() and subprocess.run(asked, check=False, timeout=60).returncode == 0:
            return name
    raise AssertionError("there is no Python with its venv module")


@pytest.fixture(scope="module")
def built() -> Iterator[Image]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        base, context, root = (place / name for name in ("base", "context", "root"))
        for each in (base, context, root):
            each.mkdir(mode=0o755)
        (base / "python").symlink_to(a_python())
        ignored = (ROOT / ".dockerignore").read_text().splitlines()
        patterns = [each for each in ignored if each and not each.startswith("#")]
        for name in exclude_paths(str(ROOT), patterns, dockerfile=".dockerignore"):
            source, target = ROOT / name, context / name
            if source.is_dir():
                target.mkdir(parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        image = Image(root, base, context)
        parsed = DockerfileParser(fileobj=io.BytesIO((ROOT / "Dockerfile").read_bytes()))
        for each in parsed.structure:
            if each["instruction"] != "COMMENT":
                image.step(each["instruction"], each["value"])
        yield image


@pytest.fixture
def container(built: Image, tmp_path: Path) -> Iterator[Server]:
    """What ``docker run`` starts."""
    port = free_port()
    changes = {**built.variables(), "PORT": str(port), "SSEFLASK_SECRET": SECRET}
    command = built.as_user(built.command)
    server = Server("gunicorn-image", command, port, tmp_path, changes, built.path("."))
    try:
        server.wait_until_ready("/healthz")
        yield server
    finally:
        print(server.log()[-8000:])
        server.stop()
    server.assert_log_is_clean()


def test_the_context_is_small(built: Image) -> None:
    files = {str(path.relative_to(built.context)) for path in built.context.rglob("*")}
    assert {"setup.cfg", "sseflask/app.py", "sseflask/static/sse.js"} <= files
    assert not [name for name in files if re.search(r"__pycache__|\.git|tests|\.venv", name)]


def test_the_image_serves_as_its_own_user(built: Image, container: Server) -> None:
    done = curl(container, "/sse/v1", "-X", "POST")
    assert (done.returncode, done.stdout) == (0, COUNTED), done.stderr
    listening = {
        (each.laddr.ip, each.laddr.port)
        for process in container.members()
        for each in process.net_connections("tcp")
        if each.status == "LISTEN"
    }
    assert listening == {("0.0.0.0", container.port)}
    if os.geteuid() == 0:
        assert {process.uids().real for process in container.members()} == {10001}
    (volume,) = built.volumes
    logs = {path.name: path.stat() for path in built.path(volume).iterdir() if path.is_file()}
    assert "runs.sqlite3" in logs
    assert all(stat.S_IMODE(each.st_mode) == 0o600 for each in logs.values())


def test_the_healthcheck(built: Image, container: Server) -> None:
    def healthy(port: int) -> int:
        return subprocess.run(
            built.as_user(built.healthcheck),
            env={**built.variables(), "PORT": str(port)},
            capture_output=True,
            check=False,
            timeout=30,
        ).returncode

    assert healthy(container.port) == 0
    assert healthy(free_port()) == 1


def test_sigterm_reaches_gunicorn(container: Server) -> None:
    """The first process is gunicorn's own: no shell, and no command in front of it."""
    first = psutil.Process(container.process.pid)
    assert "gunicorn" in " ".join(first.cmdline())
    with open_stream(container, "/sse/v1?count=100000&interval=0.01") as stream:
        assert stream.data(2) == ["0", "1"]
        container.send_signal(signal.SIGTERM)
        stream.rest()
        assert len(stream.retries) == 1
    assert container.wait_until_ended() == 0

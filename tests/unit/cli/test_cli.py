from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
from click.testing import Result

from sseflask import cli
from tests.service import SECRET
from tests.unit.cli.commands import run

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("command", ["serve", "token"])
def test_a_bad_setting_is_one_line(command: str) -> None:
    arguments = ["--sub", "a", "--complete"] if command == "token" else []
    result = run(command, *arguments, PORT="http", SSEFLASK_SECRET=SECRET)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("PORT='http' is not allowed: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "-h"], ["token", "--help"]])
def test_help(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0
    assert "Usage:" in result.stdout


def without(missing: set[str], *arguments: str) -> Result:
    """The command where these modules are not installed."""

    def find(name: str) -> object:
        return None if name in missing else find_spec(name)

    find_spec = importlib.util.find_spec
    with mock.patch.object(importlib.util, "find_spec", find):
        return run(*arguments)


@pytest.mark.parametrize(
    ("missing", "command"),
    [
        ({"gunicorn", "gevent"}, ("serve", "--dev")),
        ({"openai"}, ("serve", "--help")),
        ({"jwt"}, ("token", "--sub", "a", "--complete")),
        ({"httpx2"}, ("tail", "http://127.0.0.1/")),
        ({"httpx2"}, ("publish", "news", "text", "--event", "x")),
        ({"httpx2"}, ("run", "127.0.0.1", "-h")),
        ({"httpx2"}, ("doctor",)),
        ({"pydantic_settings"}, ("config",)),
    ],
)
def test_a_command_whose_libraries_are_not_there(
    missing: set[str], command: tuple[str, ...]
) -> None:
    result = without(missing, *command)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    assert "pip install 'sseflask[service]'" in result.stderr
    assert f": {', '.join(sorted(missing, reverse=True))}." in result.stderr


def test_with_the_library_alone_the_commands_are_listed() -> None:
    extras = {"gunicorn", "gevent", "jwt", "httpx2", "pydantic_settings", "idna", "openai"}
    result = without(extras, "--help")
    assert result.exit_code == 0
    for name in cli._COMMANDS:
        assert re.search(rf"(?m)^  {name} +\(not installed: ", result.stdout)
    assert without(extras, "--version").exit_code == 0


def test_what_the_commands_need_is_what_the_extra_installs() -> None:
    lines = configparser.ConfigParser()
    lines.read(ROOT / "setup.cfg")
    extras = lines["options.extras_require"]
    wanted = "\n".join(extras[name] for name in ("service", "gevent", "openai", "redis"))
    names = set(re.findall(r"(?m)^([A-Za-z][A-Za-z0-9_-]*)", wanted))
    modules = {name.lower().replace("-", "_") for name in names} | {"jwt"}
    assert {name for needed in cli._COMMANDS.values() for name in needed} <= modules


def test_a_command_that_is_none() -> None:
    result = run("tial")
    assert result.exit_code == 2
    assert "No such command 'tial'" in result.stderr


def test_the_version() -> None:
    assert run("--version").stdout == f"sseflask {importlib.metadata.version('sseflask')}\n"


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "sseflask", "token", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "--ttl" in done.stdout

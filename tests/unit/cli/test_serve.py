from __future__ import annotations

import os
import sys
from pathlib import Path
from unittest import mock

import pytest
from click.testing import CliRunner

from sseflask import cli
from tests.service import environment

ROOT = Path(__file__).parents[3]


def served(*arguments: str, **variables: str) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that serve replaces this process with."""
    with environment(**variables), mock.patch.object(os, "execve") as execute:
        result = CliRunner().invoke(cli.main, ["serve", *arguments])
    assert (result.exit_code, result.output) == (0, "")
    program, command, variables = execute.call_args[0]
    assert program == command[0] == sys.executable
    return command[1:], variables


def test_serve() -> None:
    command, _ = served(PORT="5000")
    configuration = str(ROOT / "sseflask" / "gunicorn_conf.py")
    assert command == [
        "-m",
        "gunicorn",
        "-c",
        configuration,
        "sseflask.app:create_app(development=False)",
    ]


@pytest.mark.parametrize(("variables", "port"), [({}, 8000), ({"PORT": "5000"}, 5000)])
def test_serve_in_development_mode(variables: dict[str, str], port: int) -> None:
    command, environment = served("--dev", GUNICORN_CMD_ARGS="--reload", **variables)
    assert environment["GUNICORN_CMD_ARGS"] == "--graceful-timeout 2 --reload"
    assert command[-3:] == [
        "-b",
        f"127.0.0.1:{port}",
        "sseflask.app:create_app(development=True)",
    ]


@pytest.mark.parametrize(("given", "passed"), [("", "1"), ("3", "3")])
def test_serve_spares_gunicorn_an_empty_number(given: str, passed: str) -> None:
    assert served(WEB_CONCURRENCY=given)[1]["WEB_CONCURRENCY"] == passed

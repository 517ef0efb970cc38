from __future__ import annotations

import configparser
import importlib.metadata
import importlib.util
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import httpx2
import jwt
import pytest
from click.testing import CliRunner, Result

from sseflask import cli
from sseflask.auth.tokens import verify
from sseflask.cli.client import connected, error_of
from tests.service import OLD_SECRET, SECRET, environment

ROOT = Path(__file__).parents[3]


def run(*arguments: str, **variables: str) -> Result:
    with environment(**variables):
        return CliRunner().invoke(cli.main, arguments)


def served(*arguments: str, **variables: str) -> tuple[list[str], dict[str, str]]:
    """The command and the environment that serve replaces this process with."""
    with environment(**variables), mock.patch.object(os, "execve") as execute:
        result = CliRunner().invoke(cli.main, ["serve", *arguments])
    assert (result.exit_code, result.output) == (0, "")
    program, command, variables = execute.call_args[0]
    assert program == command[0] == sys.executable
    return command[1:], variables


def claims(result: Result, secret: str = SECRET) -> dict[str, Any]:
    assert result.exit_code == 0, result.output
    decoded: dict[str, Any] = jwt.decode(result.stdout.strip(), secret, algorithms=["HS256"])
    return decoded


def test_a_token() -> None:
    before = int(time.time())
    made = claims(run("token", "--sub", "alice", "--complete", SSEFLASK_SECRET=SECRET))
    expires = made.pop("exp")
    assert made == {"sub": "alice", "complete": True}
    assert before + 3600 <= expires <= time.time() + 3600


def test_a_token_is_signed_with_the_newest_secret() -> None:
    both = f"{SECRET},{OLD_SECRET}"
    assert claims(run("token", "--sub", "a", "--complete", SSEFLASK_SECRET=both))["sub"] == "a"


@pytest.mark.parametrize(
    ("ttl", "seconds"), [("90s", 90), ("15m", 900), ("12h", 43_200), ("30d", 2_592_000)]
)
def test_how_long_a_token_is_valid(ttl: str, seconds: int) -> None:
    before = int(time.time())
    result = run("token", "--sub", "a", "--complete", "--ttl", ttl, SSEFLASK_SECRET=SECRET)
    assert before + seconds <= claims(result)["exp"] <= time.time() + seconds


@pytest.mark.parametrize("ttl", ["", "1", "0h", "-1h", "1w", "1.5h", "1h30m", "h", "forever"])
def test_a_duration_that_is_none(ttl: str) -> None:
    result = run("token", "--sub", "a", "--complete", "--ttl", ttl, SSEFLASK_SECRET=SECRET)
    assert result.exit_code == 2
    assert "write 90s, 15m, 12h or 30d" in result.stderr


def test_a_token_needs_a_secret() -> None:
    result = run("token", "--sub", "a", "--complete")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("SSEFLASK_SECRET is not set")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["--complete"], ["--sub", "", "--complete"], ["--sub", " ", "--publish", "a"]]
)
def test_completions_need_a_name_and_no_name_is_empty(arguments: list[str]) -> None:
    result = run("token", *arguments, SSEFLASK_SECRET=SECRET)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--sub" in result.stderr


@pytest.mark.parametrize("arguments", [[], ["--sub", "a"]])
def test_a_token_needs_a_right(arguments: list[str]) -> None:
    result = run("token", *arguments, SSEFLASK_SECRET=SECRET)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "give --publish, --subscribe or --complete" in result.stderr


def test_a_token_for_channels() -> None:
    arguments = ["--publish", "orders.*", "--subscribe", "**", "--publish", "news", "--ttl", "1h"]
    made = claims(run("token", *arguments, SSEFLASK_SECRET=SECRET))
    assert re.fullmatch("token-[0-9a-f]{8}", made.pop("sub"))
    del made["exp"]
    assert made == {"publish": ["orders.*", "news"], "subscribe": ["**"]}


def test_tokens_without_a_name_are_not_each_others() -> None:
    made = [claims(run("token", "--publish", "a", SSEFLASK_SECRET=SECRET)) for _ in range(2)]
    assert made[0]["sub"] != made[1]["sub"]


def test_a_token_for_everything_is_accepted_by_the_server() -> None:
    arguments = ["--sub", "a", "--complete", "--publish", "a.b", "--subscribe", "a.**"]
    made = run("token", *arguments, SSEFLASK_SECRET=SECRET).stdout.strip()
    caller = verify(made, [SECRET])
    assert (caller.subject, caller.complete) == ("a", True)
    assert [str(each) for each in (*caller.publish, *caller.subscribe)] == ["a.b", "a.**"]


@pytest.mark.parametrize("option", ["--publish", "--subscribe"])
@pytest.mark.parametrize("pattern", ["", "or*ders", "**.x", "two words", "a" * 129, "a,b"])
def test_a_pattern_that_is_none(option: str, pattern: str) -> None:
    result = run("token", option, "good", option, pattern, SSEFLASK_SECRET=SECRET)
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"Invalid value for '{option}'" in result.stderr
    assert "pattern" in result.stderr


@pytest.mark.parametrize("command", ["serve", "token"])
def test_a_bad_setting_is_one_line(command: str) -> None:
    arguments = ["--sub", "a", "--complete"] if command == "token" else []
    result = run(command, *arguments, PORT="http", SSEFLASK_SECRET=SECRET)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("PORT='http' is not allowed: ")
    assert result.stderr.count("\n") == 1


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
    wanted = "\n".join(extras[name] for name in ("service", "gevent", "openai"))
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


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (500, "500 Internal Server Error (x): It failed. [request abc]"),
        (404, "404 Not Found (x): It failed."),
    ],
)
def test_an_error_names_the_request_that_the_servers_log_names(status: int, told: str) -> None:
    body = {"error": {"message": "It failed.", "code": "x"}}
    response = httpx2.Response(status, json=body, headers={"X-Request-Id": "abc"})
    assert error_of(response) == told


def test_headers_are_sent_in_utf_8() -> None:
    with connected("é", [("X-Name", "ü")]) as client:
        sent = dict(client.headers.raw)
    assert (sent[b"Authorization"], sent[b"X-Name"]) == ("Bearer é".encode(), "ü".encode())


def test_a_header_whose_name_is_none() -> None:
    result = run("tail", "http://127.0.0.1:1/", "-H", "é: x")
    assert (result.exit_code, "'é: x' is no header" in result.stderr) == (2, True)

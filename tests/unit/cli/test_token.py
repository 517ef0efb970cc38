from __future__ import annotations

import re
import time
from typing import Any

import jwt
import pytest
from click.testing import Result

from sseflask.auth.tokens import verify
from tests.service import OLD_SECRET, SECRET
from tests.unit.cli.commands import run


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

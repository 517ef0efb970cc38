"""What is known of platforms, and what settings are made of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from sseflask import cli, platforms
from sseflask.cli.config import sources
from sseflask.config import load
from sseflask.errors import ConfigError
from sseflask.platforms import DETECTING, NAMES, PLATFORMS, PROXIES, Proxy
from tests.service import environment

DOCUMENT = Path(__file__).parents[2] / "docs" / "deploy.md"
#: Any value that a platform might set.
VALUES = {
    "DYNO": "web.1",
    "RENDER": "true",
    "FLY_APP_NAME": "app",
    "K_SERVICE": "app",
    "RAILWAY_ENVIRONMENT_ID": "0b6a",
}


@pytest.mark.parametrize(
    ("name", "heartbeat", "lifetime", "grace", "proxies"),
    [
        ("heroku", 15, 0, 25, 1),
        ("render", 15, 0, 25, 0),
        ("fly", 15, 0, 4, 2),
        ("cloud_run", 15, 280, 8, 1),
        ("railway", 15, 840, 25, 0),
    ],
)
def test_defaults_fit_the_platform(
    name: str, heartbeat: float, lifetime: float, grace: int, proxies: int
) -> None:
    variable = DETECTING[NAMES.index(name)]
    for variables in ({"SSEFLASK_PLATFORM": name}, {variable: VALUES[variable]}):
        with environment(**variables):
            made = load()
        assert made.platform == name
        assert (made.heartbeat, made.lifetime) == (heartbeat, lifetime)
        assert (made.grace, made.trusted_proxies) == (grace, proxies)


def test_an_explicit_setting_wins() -> None:
    variables = {"SSEFLASK_HEARTBEAT": "3", "SSEFLASK_LIFETIME": "0", "SSEFLASK_GRACE": "9"}
    with environment(K_SERVICE="app", SSEFLASK_TRUSTED_PROXIES="0", **variables):
        made = load()
    assert (made.heartbeat, made.lifetime, made.grace, made.trusted_proxies) == (3, 0, 9, 0)


@pytest.mark.parametrize(
    ("variables", "platform"),
    [
        ({}, None),
        ({"DYNO": ""}, None),
        ({"DYNO": "web.1", "SSEFLASK_PLATFORM": "none"}, None),
        ({"DYNO": "web.1", "SSEFLASK_PLATFORM": ""}, "heroku"),
        ({"DYNO": "web.1", "SSEFLASK_PLATFORM": "fly"}, "fly"),
    ],
)
def test_which_platform_it_is(variables: dict[str, str], platform: str | None) -> None:
    found = platforms.detect(variables)
    assert (found and found.name) == platform


def test_without_detection_the_defaults_are_the_usual_ones() -> None:
    with environment(DYNO="web.1", SSEFLASK_PLATFORM="none"):
        made = load()
    with environment():
        assert made.model_dump(exclude={"platform"}) == load().model_dump(exclude={"platform"})


def test_an_unknown_platform_stops_the_start_with_one_line() -> None:
    with environment(SSEFLASK_PLATFORM="Heroku"), pytest.raises(ConfigError) as caught:
        load()
    assert str(caught.value) == (
        "SSEFLASK_PLATFORM='Heroku' is not allowed: there is no such platform "
        "(allowed: heroku, render, fly, cloud_run, railway, none)"
    )


def test_what_has_given_each_value() -> None:
    with environment(DYNO="web.1", SSEFLASK_HEARTBEAT="5", SSEFLASK_RETRY=""):
        found = sources()
    assert found["SSEFLASK_PLATFORM"] == "DYNO"
    assert found["SSEFLASK_HEARTBEAT"] == "environment"
    assert found["SSEFLASK_GRACE"] == found["SSEFLASK_TRUSTED_PROXIES"] == "platform heroku"
    assert found["SSEFLASK_LIFETIME"] == found["SSEFLASK_RETRY"] == "default"
    with environment(SSEFLASK_PLATFORM="cloud_run"):
        found = sources()
    assert found["SSEFLASK_PLATFORM"] == "environment"
    assert found["SSEFLASK_LIFETIME"] == "platform cloud_run"


def test_config_prints_it() -> None:
    with environment(K_SERVICE="app"):
        result = CliRunner().invoke(cli.main, ["config"])
    assert result.exit_code == 0
    printed = {line.split()[0]: line.split()[1:] for line in result.output.splitlines()}
    assert printed["SSEFLASK_PLATFORM"] == ["cloud_run", "K_SERVICE"]
    assert printed["SSEFLASK_LIFETIME"] == ["280", "platform", "cloud_run"]
    assert printed["SSEFLASK_HEARTBEAT"] == ["15", "default"]


def test_streams_survive_what_the_table_knows() -> None:
    """Of three heartbeats two may be late, and a stream is rotated before it is cut."""
    for platform in PLATFORMS:
        with environment(SSEFLASK_PLATFORM=platform.name):
            made = load()
        assert made.heartbeat * 3 <= platforms.SHORTEST_IDLE
        assert made.heartbeat * 3 <= (platform.proxy.idle or 1e9)
        assert made.first_byte * 10 <= (platform.proxy.first_byte or 1e9)
        assert made.lifetime < (platform.proxy.total or 1e9)
        assert made.grace < platform.kill


def _seconds(value: float | None) -> str:
    return "none known" if value is None else f"{value:g} s"


def test_the_document_has_the_same_table() -> None:
    rows = re.findall(
        r"^\| \[([^]]+)\]\(([^)]+)\) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$",
        DOCUMENT.read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    kill = {each.proxy.title: _seconds(each.kill) for each in PLATFORMS}

    def row(proxy: Proxy) -> tuple[str, ...]:
        limits = (proxy.first_byte, proxy.idle, proxy.total)
        return proxy.title, proxy.source, *map(_seconds, limits), kill.get(proxy.title, "its own")

    assert rows == [row(each) for each in (*(each.proxy for each in PLATFORMS), *PROXIES)]


def test_the_document_shows_what_config_prints() -> None:
    block = re.search(
        r"```sh\n([^\n]+ sseflask config)\n```\n\n```text\n(.+?)```", DOCUMENT.read_text(), re.S
    )
    assert block
    variables = dict(word.split("=") for word in block[1].split() if "=" in word)
    with environment(**variables):
        printed = CliRunner().invoke(cli.main, ["config"]).output.splitlines()
    words = [line.split() for line in printed]
    shown = [line.split() for line in block[2].splitlines() if line != "..."]
    assert len(shown) > 3
    assert [line for line in words if line in shown] == shown

"""``sseflask migrate`` with real files and a real server; what it moves: see the store's tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from sseflask.store.api import Append, EventLimits
from sseflask.store.run_api import Claim, Ending, RunLimits
from sseflask.store.sqlite.event_database import EventDatabase
from sseflask.store.sqlite.run_database import RunDatabase
from tests import redis_server
from tests.unit.cli.commands import run


@pytest.fixture
def place() -> str:
    return redis_server.place()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a service has left that was killed: three events, a run that ended, one that did not."""
    events = EventDatabase(str(tmp_path / "channels.sqlite3"), EventLimits(10, 86_400))
    events.open()
    events.append([Append("a", (b"1", b"2"), "key", b"digest"), Append("b", (bytes(1 << 20),))])
    events.close()
    runs = RunDatabase(str(tmp_path / "runs.sqlite3"), RunLimits(86_400), Ending(b""))
    runs.open()
    for number in range(2):
        claimed = runs.claim(Claim(f"{number:032x}", "alice", "acme", 10, "label"))
        assert isinstance(claimed, tuple)
        if not number:
            runs.end(claimed[0].key, Ending(b"finished"))
    runs.close()
    return tmp_path


COUNTED = "3 events of 2 channels, 1 key of publishers, 1 completion, 1.0 MiB"


def test_there_and_back(folder: Path, place: str) -> None:
    settings = {
        "REDIS_URL": place,
        "SSEFLASK_CHANNEL_LOG": str(folder / "channels.sqlite3"),
        "SSEFLASK_RUN_LOG": str(folder / "runs.sqlite3"),
    }
    counted = run("migrate", "--dry-run", **settings)
    assert counted.exit_code == 0, counted.output
    assert counted.stdout.startswith(f"{COUNTED}: from {folder}/channels.sqlite3 and ")
    done = run("migrate", **settings)
    assert done.exit_code == 0, done.output
    first, second, third = done.stdout.splitlines()
    assert first.startswith(f"moved {COUNTED}: from {folder}/channels.sqlite3 and ")
    assert re.search(r" to the Redis server at /\S+$", first)
    assert second == "left out 1 completion that had not ended"
    assert third.startswith("now start the service with REDIS_URL")
    assert done.stderr == ""

    back = folder / "back"
    done = run("migrate", "--from", "redis", "--to", str(back), REDIS_URL=place)
    assert done.exit_code == 0, done.output
    first, second = done.stdout.splitlines()
    assert first.startswith(f"moved {COUNTED}: from the Redis server at ")
    assert second == "now start the service without REDIS_URL"
    assert sorted(each.name for each in back.iterdir() if each.suffix == ".sqlite3") == [
        "channels.sqlite3",
        "runs.sqlite3",
    ]


def test_a_dry_run_changes_nothing_and_says_why_not(folder: Path, place: str) -> None:
    where = ("--from", str(folder), "--to", place)
    assert run("migrate", "--dry-run", *where).exit_code == 0
    assert run("migrate", *where).exit_code == 0
    for again in (run("migrate", "--dry-run", *where), run("migrate", *where)):
        assert again.exit_code == 1
        assert "is not empty" in again.stderr


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        ((), {}, "set REDIS_URL to the URL of the Redis server"),
        (("--to", "redis://:secret@127.0.0.1"), {}, "a password in an argument can be seen"),
        (
            ("--to", "redis://127.0.0.1?password=secret"),
            {},
            "a password in an argument can be seen",
        ),
        (
            ("--to", "redis"),
            {"REDIS_URL": "redis://h", "SSEFLASK_RUN_LOG": "redis://h"},
            "name files",
        ),
        (("--to", "http://127.0.0.1"), {}, "neither a folder nor a URL of a Redis server"),
        (("--to", "files"), {}, "one of the places has to be a Redis server"),
        (
            ("--from", "redis", "--to", "redis://127.0.0.1:2"),
            {"REDIS_URL": "redis://127.0.0.1:1"},
            "one of the places has to be a Redis server",
        ),
        (("--from", "{folder}", "--to", "redis://127.0.0.1:1"), {}, "can't be reached"),
        (("--from", "{folder}", "--to", "redis://127.0.0.1?x=1"), {}, "unknown argument"),
        (("--from", "{folder}/no", "--to", "redis://127.0.0.1:1"), {}, "neither /"),
        (
            ("--to", "redis://127.0.0.1:1"),
            {"SSEFLASK_CHANNEL_LOG": ":memory:", "SSEFLASK_RUN_LOG": "{folder}/runs.sqlite3"},
            "what is in memory can't be moved",
        ),
        ((), {"SSEFLASK_RUN_SECONDS": "x"}, "SSEFLASK_RUN_SECONDS"),
    ],
)
def test_what_is_refused(
    folder: Path, arguments: tuple[str, ...], variables: dict[str, str], said: str
) -> None:
    result = run(
        "migrate",
        *(each.format(folder=folder) for each in arguments),
        **{name: value.format(folder=folder) for name, value in variables.items()},
    )
    assert result.exit_code in (1, 2)
    assert said in " ".join(result.stderr.split())
    assert "secret" not in result.output
    assert "Traceback" not in result.stderr

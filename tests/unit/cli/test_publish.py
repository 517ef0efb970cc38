"""``sseflask publish --direct``, into a real Redis server; by the service: see the live tests."""

from __future__ import annotations

import pytest

from sseflask.store.api import EventLimits
from sseflask.store.open import open_event_store
from tests import redis_server
from tests.contract.event_stores import Listener, query, read
from tests.unit.cli.commands import run


@pytest.fixture
def place() -> str:
    return redis_server.place()


def stored(place: str) -> list[tuple[str, bytes]]:
    store = open_event_store(place, EventLimits(1000, 86_400))
    store.follow(Listener())
    try:
        return [(each.channel, each.frame) for each in read(store, query("**"))]
    finally:
        store.close()


def test_an_event_is_stored_without_the_service(place: str) -> None:
    result = run("publish", "news", "hello", "--direct", REDIS_URL=place)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("-1\n")
    result = run(
        "publish", "news", '{"a": 1}', "--json", "--event", "x", "--direct", REDIS_URL=place
    )
    assert result.stdout.endswith("-2\n")
    assert stored(place) == [
        ("news", b"data: hello\n\n"),
        ("news", b'event: x\ndata: {"a":1}\n\n'),
    ]


@pytest.mark.parametrize(
    ("arguments", "variables", "said"),
    [
        (("news", "x"), {}, "--direct needs the service's store: set REDIS_URL"),
        (
            ("news", "x"),
            {"REDIS_URL": "redis://127.0.0.1", "SSEFLASK_CHANNEL_LOG": "/tmp/x"},
            "unset SSEFLASK_CHANNEL_LOG",
        ),
        (("news", "x"), {"REDIS_URL": "redis://127.0.0.1:1"}, "The event store is not available"),
        (("bad name", "x"), None, "bad name"),
        (("news", "x", "--event", "gap"), None, "are the server's own"),
        (("news", "x"), {"REDIS_URL": "http://127.0.0.1"}, "REDIS_URL"),
    ],
)
def test_what_is_refused(
    place: str, arguments: tuple[str, ...], variables: dict[str, str] | None, said: str
) -> None:
    if variables is None:
        variables = {"REDIS_URL": place}
    result = run("publish", *arguments, "--direct", **variables)
    assert result.exit_code in (1, 2)
    assert said in result.stderr
    assert "Traceback" not in result.stderr

"""The examples of docs/channels.md, run one after the other as they are printed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sseflask.extension import channels_of
from sseflask.testing import open_stream
from sseflask.wire import HEARTBEAT
from tests.documents.blocks import PYTHON, ROOT, blocks

DOCUMENT = ROOT / "docs" / "channels.md"
BLOCKS = [each.text for each in blocks(DOCUMENT) if each.language in PYTHON]


@pytest.fixture
def names() -> Iterator[dict[str, Any]]:
    """What the examples define."""
    defined: dict[str, Any] = {"__name__": "example"}
    exec(BLOCKS[0], defined)
    defined["app"].testing = True
    defined["app"].config["SSEFLASK_HEARTBEAT"] = 0.02
    for block in BLOCKS[1:]:
        exec(block, defined)
    yield defined
    channels_of(defined["app"]).close()


def test_the_progress_of_a_job(names: dict[str, Any]) -> None:
    names["work"](7)
    client = names["app"].test_client()
    with open_stream(client, "/jobs/7/events") as stream:
        events = list(stream.events())
    assert [event.event for event in events] == ["progress"] * 3 + ["done"]
    last = events[-1].last_event_id
    answer = client.get("/jobs/7/events", headers={"Last-Event-ID": last})
    assert answer.status_code == 204


def test_a_page_that_is_rendered_first(names: dict[str, Any]) -> None:
    client, sse = names["app"].test_client(), names["sse"]
    page = client.get("/orders").json
    id = sse.publish("orders.eu", "meanwhile")
    with open_stream(client, page["events"]) as stream:
        assert [event.last_event_id for event in stream.read(1)] == [id]
    sse.publish("log", "a line")
    assert client.get("/log").json["lines"] == ["a line"]


def test_reading_on(names: dict[str, Any]) -> None:
    sse, read_on = names["sse"], names["read_on"]
    ids = [sse.publish("orders.eu", n) for n in range(3)]
    lines, cursor = read_on()
    assert lines == [f"{id} orders.eu {n}" for n, id in enumerate(ids)]
    assert read_on(cursor) == ([], cursor)


def test_a_logout(names: dict[str, Any]) -> None:
    client, sse = names["app"].test_client(), names["sse"]
    client.set_cookie("user", "7")
    with open_stream(client, "/me/events") as stream:
        pieces = stream.response.iter_encoded()
        assert [next(pieces), next(pieces)] == [HEARTBEAT, HEARTBEAT]  # it has subscribed
        sse.publish("user.7", "bye")
        assert client.post("/logout").json == {"status": "logged out"}
        sse.publish("user.7", "secret")
        assert [event.data for event in stream.events()] == ["bye"]
        assert stream.decoder.retry
    assert client.get("/me/events").status_code == 204

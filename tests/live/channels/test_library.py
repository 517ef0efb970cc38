"""Channels in a user's application: in its tests, in threads, in scripts, preloaded."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from flask import Flask, request
from flask.typing import ResponseReturnValue

from sseflask import SSE
from sseflask.testing import open_stream
from tests.live.kit import clients
from tests.live.kit.connection import fetch
from tests.live.kit.publishing import channel_library, number
from tests.live.kit.stores import Store, on_every_store
from tests.live.kit.subscribers import Subscriber
from tests.live.kit.swarm import Swarm


@pytest.fixture
def app() -> Flask:
    """As a user of the library writes it; in a test the store is in memory."""
    app = Flask(__name__)
    app.testing = True
    sse = SSE(app)

    @app.get("/events")
    def events() -> ResponseReturnValue:
        return sse.subscribe(*request.args.getlist("c"))

    @app.post("/say/<channel>")
    def say(channel: str) -> ResponseReturnValue:
        return {"id": sse.publish(channel, request.get_json())}

    return app


def the(app: Flask) -> SSE:
    """The extension of an application."""
    sse: SSE = app.extensions["sseflask"]
    return sse


def test_in_a_test_of_ones_own(app: Flask) -> None:
    client = app.test_client()
    with open_stream(client, "/events?c=a&c=b.*") as stream:
        ids = [client.post("/say/a", json={"n": 1}).json, client.post("/say/b.1", json="two").json]
        events = stream.read(2)
    assert [event.data for event in events] == ['{"n":1}', "two"]
    assert [event.last_event_id for event in events] == [said["id"] for said in ids if said]


def test_resuming_in_a_test(app: Flask) -> None:
    client = app.test_client()
    ids = [client.post("/say/a", json=n).get_json()["id"] for n in range(5)]
    with open_stream(client, f"/events?c=a&last_event_id={ids[2]}") as stream:
        assert [event.data for event in stream.read(2)] == ["3", "4"]
    with open_stream(client, "/events?c=a&last_event_id=earliest") as stream:
        assert [event.last_event_id for event in stream.read(5)] == ids
    with open_stream(client, "/events?c=a&last_event_id=nonsense") as stream:
        assert stream.read(1)[0].event == "gap"


def test_two_applications_in_memory_do_not_meet(app: Flask) -> None:
    other = Flask("other")
    other.testing = True
    SSE(other)
    assert "sseflask" in other.extensions
    client = app.test_client()
    mine = client.post("/say/a", json="mine").get_json()["id"]
    with open_stream(client, "/events?c=a&last_event_id=earliest") as stream:
        assert [event.last_event_id for event in stream.read(1)] == [mine]


def test_publishing_from_a_thread(app: Flask) -> None:
    """No request, no application context: the extension knows its application."""
    sse = the(app)
    ids: list[str] = []

    def publish() -> None:
        ids.extend(sse.publish("a", n, event="tick", retry=100) for n in range(10))

    client = app.test_client()
    with open_stream(client, "/events?c=a") as stream:
        thread = threading.Thread(target=publish)
        thread.start()
        events = stream.read(10)
        thread.join(20)
    assert [(event.event, event.data) for event in events] == [("tick", str(n)) for n in range(10)]
    assert [event.last_event_id for event in events] == ids == sorted(ids, key=number)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "ä", "a" * 129, "*", "a.*", "**", "a\n"])
def test_bad_names_are_refused_where_they_are_given(app: Flask, name: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        the(app).publish(name, "data")


@pytest.mark.parametrize(
    "fields", [{"event": "gap"}, {"event": "failure"}, {"event": "a\nb"}, {"retry": -1}]
)
def test_bad_events_are_refused_where_they_are_given(app: Flask, fields: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"."):
        the(app).publish("a", "data", **fields)  # type: ignore[arg-type]


def test_a_bad_subscription_is_an_error_response(app: Flask) -> None:
    app.testing = False
    client = app.test_client()
    for query in ("c=a**", "c=", ""):
        assert client.get(f"/events?{query}").status_code == 400, query


@on_every_store
def test_preloaded(tmp_path: Path, store: Store) -> None:
    """The application is made before the workers are forked: each opens the store by itself."""
    with (
        channel_library(tmp_path, "--preload", "-w", "2", settings=store(tmp_path)) as it,
        Swarm(it.port, [Subscriber("/subscribe?c=a") for _ in range(40)]) as swarm,
    ):
        swarm.wait_until_connected()
        for n in range(40):
            assert fetch(it, "/publish/a", method="POST", body=b"%d" % n).status == 201
        swarm.wait_for(lambda each: len(each.events) == 40, "has every event")
        for subscriber in swarm.subscribers:
            assert subscriber.data() == [str(n) for n in range(40)]
            assert (subscriber.connected, subscriber.truncated) == (1, 0)
        with clients.open_stream(it, "/subscribe?c=a&last_event_id=earliest") as stream:
            assert stream.data(40) == [str(n) for n in range(40)]


@on_every_store
def test_no_switch_while_a_native_lock_is_held(tmp_path: Path, store: Store) -> None:
    """Detached subscribers come, get events, resume, are counted and closed."""
    with (
        channel_library(tmp_path, settings={"PROBE_SWITCHES": "1", **store(tmp_path)}) as it,
        Swarm(it.port, [Subscriber(f"/subscribe?c=a&c=b.{n % 3}") for n in range(30)]) as swarm,
    ):
        swarm.wait_until_connected()
        for n in range(20):
            assert fetch(it, "/publish/a", method="POST", body=b"%d" % n).status == 201
        swarm.wait_for(lambda each: len(each.events) == 20, "has every event")
        with clients.open_stream(it, "/subscribe?c=a&last_event_id=earliest") as stream:
            assert stream.data(20) == [str(n) for n in range(20)]
        assert fetch(it, "/subscribers/b.1").body == b"10"
        assert fetch(it, "/close/b.1", method="POST").status == 204
        swarm.wait_for(lambda each: each.connected == 2 or "b.1" not in each.path, "is closed")
        found = json.loads(fetch(it, "/switches").body)["switches"]
        assert found == [], found[0]

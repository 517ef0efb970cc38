"""What is around channels: a proxy in front, other sites' pages, Flask-SSE's way of using them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask import Flask

from sseflask.testing import open_stream as open_test_stream
from tests.live.kit.clients import open_stream
from tests.live.kit.connection import Answer, Connection, fetch
from tests.live.kit.publishing import channel_library, error_of
from tests.live.kit.servers import Server
from tests.live.kit.subscribers import Subscriber
from tests.live.kit.swarm import Swarm
from tests.live.kit.waiting import until
from tests.live.streams.test_nginx import nginx


def test_behind_nginx(tmp_path: Path) -> None:
    """Events come one by one, at once. A client that leaves the proxy leaves the worker."""
    with (
        channel_library(tmp_path / "behind", settings={"PROBE_HEARTBEAT": "2"}) as server,
        nginx(server, tmp_path) as proxy,
    ):
        process = server.serving()
        with Swarm(proxy.port, [Subscriber("/subscribe?c=a") for _ in range(40)]) as swarm:
            swarm.wait_until_connected()
            open_now = process.num_fds()
            for n in range(10):
                sent = fetch(proxy, "/publish/a", method="POST", body=b"%d" % n)
                assert sent.status == 201
                swarm.wait_for(lambda each, n=n: len(each.events) == n + 1, "has it at once")  # type: ignore[misc]
            swarm.wait_for(lambda each: each.comments >= 3, "is kept up, for more than 5 s")
            for subscriber in swarm.subscribers:
                assert subscriber.data() == [str(n) for n in range(10)]
                assert (subscriber.connected, subscriber.problems) == (1, [])
        until(lambda: process.num_fds() <= open_now - 35, "the worker lets them go")


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Host": "evil.example"},
    {"X-Forwarded-For": "127.0.0.1"},
    {"Forwarded": "for=127.0.0.1"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
@pytest.mark.parametrize("kind", ["application/json", "text/plain"])
def test_another_sites_page_can_not_publish_here(
    channels: Server, channel: str, headers: dict[str, str], kind: str
) -> None:
    """Development mode trusts this machine, not whatever page its browser shows."""
    answer = fetch(
        channels,
        f"/channels/{channel}",
        method="POST",
        headers={"Content-Type": kind, **headers},
        body=b'{"data": "from elsewhere"}',
    )
    error_of(answer, 401, 403)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_another_sites_page_can_not_subscribe_here(
    channels: Server, channel: str, headers: dict[str, str]
) -> None:
    with Connection(channels) as connection:
        connection.request(f"/channels/{channel}", headers=headers)
        head = connection.head()
        assert head.status in (401, 403)
        error_of(Answer(head.status, head.headers, connection.body(head)), 401, 403)


def test_ones_own_page_can(channels: Server, channel: str) -> None:
    own = {"Sec-Fetch-Site": "same-origin", "Origin": channels.url}
    path = f"/channels/{channel}"
    with open_stream(channels, path, headers=own) as stream:
        answer = fetch(channels, path, method="POST", headers=own, body=b"hello")
        assert answer.status == 201, answer.body
        assert stream.next().data == "hello"


@pytest.fixture
def migrated() -> Flask:
    """Flask-SSE's own quick start, with one import changed."""
    from sseflask.compat.flask_sse import sse

    app = Flask(__name__)
    app.config["REDIS_URL"] = "redis://localhost"
    app.testing = True
    app.register_blueprint(sse, url_prefix="/stream")

    @app.route("/hello")
    def publish_hello() -> str:
        sse.publish({"message": "Hello!"}, type="greeting")
        return "Message sent!"

    @app.route("/social")
    def publish_social() -> str:
        sse.publish({"user": "alice"}, type="social", channel="users.social", retry=900)
        return "Message sent!"

    return app


def next_of(app: Flask, path: str, publish: str) -> Any:
    """The next event of a stream, caused by a page that publishes."""
    client = app.test_client()
    with open_test_stream(client, path) as stream:
        assert client.get(publish).data == b"Message sent!"
        (event,) = stream.read(1)
    return event


def test_flask_sses_quick_start(migrated: Flask) -> None:
    event = next_of(migrated, "/stream", "/hello")
    assert (event.event, event.data) == ("greeting", '{"message": "Hello!"}')
    event = next_of(migrated, "/stream?channel=users.social", "/social")
    assert (event.event, event.data) == ("social", '{"user": "alice"}')


def test_flask_sses_url_for_and_app_context(migrated: Flask) -> None:
    from sseflask.compat.flask_sse import sse

    with migrated.test_request_context():
        from flask import url_for

        assert url_for("sse.stream") == "/stream"
        assert url_for("sse.stream", channel="a") == "/stream?channel=a"
    client = migrated.test_client()
    with open_test_stream(client, "/stream") as stream:
        with migrated.app_context():
            sse.publish("plain text", type="note", id="ignored-or-not")
        (event,) = stream.read(1)
    assert event.event == "note"
    assert event.data in ("plain text", '"plain text"')

"""Flask-SSE's documented examples, with one changed import."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from types import GeneratorType
from typing import Any

import pytest
from flask import Flask, abort, request

from sseflask import SSE
from sseflask.compat.flask_sse import Message, ServerSentEventsBlueprint, sse
from sseflask.errors import EventError
from sseflask.extension import channels_of
from sseflask.testing import open_stream


@pytest.fixture
def app() -> Iterator[Flask]:
    """The quickstart."""
    app = Flask(__name__)
    app.testing = True
    app.config["REDIS_URL"] = "redis://localhost"
    app.register_blueprint(sse, url_prefix="/stream")

    @app.route("/hello")
    def publish_hello() -> str:
        sse.publish({"message": "Hello!"}, type="greeting")
        return "Message sent!"

    yield app
    channels_of(app).close()


def test_the_quickstart(app: Flask) -> None:
    with open_stream(app.test_client(), "/stream") as stream:
        assert stream.response.mimetype == "text/event-stream"
        assert app.test_client().get("/hello").text == "Message sent!"
        (event,) = stream.read(1)
    assert (event.event, json.loads(event.data)) == ("greeting", {"message": "Hello!"})


def test_it_gains_history(app: Flask) -> None:
    with app.app_context():
        first = sse.publish("one")
        sse.publish("two")
    with open_stream(app.test_client(), "/stream", headers={"Last-Event-ID": first}) as stream:
        assert [event.data for event in stream.read(1)] == ["two"]


def test_channels(app: Flask) -> None:
    with open_stream(app.test_client(), "/stream?channel=users.social") as stream:
        with app.app_context():
            sse.publish("for everybody")
            sse.publish({"user": "alice"}, type="login", channel="users.social")
        (event,) = stream.read(1)
    assert event.event == "login"


def test_publishing_from_elsewhere_needs_the_context(app: Flask) -> None:
    with pytest.raises(RuntimeError):
        sse.publish("no application here")
    with app.app_context():
        assert sse.publish("now")


CHANNELS = ["**", "users.*", "a b", "a/b", "user@example.org", "日本", "x" * 500, "", "a.b"]


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_channel_may_have_any_name_and_is_one_channel(app: Flask, channel: str) -> None:
    """A pattern would open to everybody what a check of the name was to keep apart."""
    client = app.test_client()
    with (
        open_stream(client, "/stream", query_string={"channel": channel}) as stream,
        app.app_context(),
    ):
        for other in {*CHANNELS, "users.x"} - {channel, ""}:
            sse.publish("no", channel=other)
        sse.publish("yes", channel=channel or "sse")
        assert [event.data for event in stream.read(1)] == ["yes"]


def test_access_control_before_the_request() -> None:
    blueprint = ServerSentEventsBlueprint("guarded", __name__)
    blueprint.add_url_rule(rule="", endpoint="stream", view_func=blueprint.stream)

    @blueprint.before_request
    def check_access() -> None:
        if request.args.get("channel") == "analytics":
            abort(403)

    app = Flask(__name__)
    app.testing = True
    app.register_blueprint(blueprint, url_prefix="/stream")
    assert app.test_client().get("/stream?channel=analytics").status_code == 403
    assert app.test_client().head("/stream").status_code == 200
    channels_of(app).close()


@pytest.mark.parametrize(
    "message",
    [
        Message("thing"),
        Message("thing", type="example"),
        Message({"b": 1, "a": [1.5, None]}, type="greeting", retry=500),
        Message('{"a": 1}'),
        Message("5"),
        Message(5),
        Message(None),
        Message(""),
        Message("foo\nbar\n"),
        Message("data: x", type="data: y"),
        Message([]),
    ],
    ids=repr,
)
def test_a_generator_of_messages(app: Flask, message: Message) -> None:
    with app.app_context():
        messages = sse.messages(channel="own")
        assert isinstance(messages, GeneratorType)
        sse.publish(**message.to_dict(), channel="own")
        sse.publish("another", channel="own")
        assert next(messages) == message
        assert next(messages) == Message("another")
        messages.close()


def test_all_arguments_in_their_order(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    with open_stream(app.test_client(), "/stream?channel=c") as stream:
        with app.app_context():
            given = sse.publish("data", "type", "an id", 5000, "c")
            sse.publish("data", type="type", id="another", retry=5000, channel="c")
        event, _ = stream.read(2)
    assert (event.data, event.event, event.last_event_id) == ("data", "type", given)
    assert stream.decoder.retry == 5000
    assert caplog.text.count("an id was given") <= 1


def test_values_of_the_applications_json_encoder(app: Flask) -> None:
    from datetime import date

    with open_stream(app.test_client(), "/stream") as stream:
        with app.app_context():
            sse.publish({"on": date(2026, 1, 2)})
        (event,) = stream.read(1)
    assert "2026" in event.data


def test_beside_an_extension_of_ones_own() -> None:
    app = Flask(__name__)
    app.testing = True
    own = SSE(app)
    app.register_blueprint(sse, url_prefix="/stream")
    with open_stream(app.test_client(), "/stream") as stream:
        own.publish("sse", "from here")
        assert [event.data for event in stream.read(1)] == ["from here"]
    channels_of(app).close()


@pytest.mark.parametrize(
    ("message", "fields", "shown", "text"),
    [
        (Message("foo"), {"data": "foo"}, "Message('foo')", "data:foo\n\n"),
        (
            Message({"message": "Hello!"}),
            {"data": {"message": "Hello!"}},
            "Message({'message': 'Hello!'})",
            'data:{"message": "Hello!"}\n\n',
        ),
        (
            Message("foo\nbar"),
            {"data": "foo\nbar"},
            "Message('foo\\nbar')",
            "data:foo\ndata:bar\n\n",
        ),
        (
            Message("foo", type="example", id=5, retry=500),
            {"data": "foo", "type": "example", "id": 5, "retry": 500},
            "Message('foo', type='example', id=5, retry=500)",
            "event:example\ndata:foo\nid:5\nretry:500\n\n",
        ),
        (Message("", "", "", 0), {"data": ""}, "Message('')", "data:\n\n"),
    ],
)
def test_a_message_is_flask_sses(
    message: Message, fields: dict[str, Any], shown: str, text: str
) -> None:
    """With or without an application, as in its own tests."""
    assert message.to_dict() == fields
    assert repr(message) == shown
    assert str(message) == text
    with Flask(__name__).app_context():
        assert str(message) == text
    assert message == dataclasses.replace(message)
    assert message != Message("something else")


@pytest.mark.parametrize(
    "fields", [{"data": float("nan")}, {"data": "a", "type": "a\nb"}, {"data": "\ud800"}]
)
def test_what_breaks_a_stream_is_refused(app: Flask, fields: dict[str, Any]) -> None:
    with app.app_context(), pytest.raises(EventError):
        sse.publish(**fields)
    with pytest.raises(EventError):
        str(Message(**fields))

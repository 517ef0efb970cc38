"""Flask-SSE's documented examples, with one changed import."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from flask import Flask, abort, request

from sseflask import SSE
from sseflask.compat.flask_sse import Message, ServerSentEventsBlueprint, sse
from sseflask.errors import ChannelError
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


@pytest.mark.parametrize("channel", ["**", "users.*", "a b", "a/b"])
def test_a_channel_is_one_channel(app: Flask, channel: str) -> None:
    """A pattern would open to everybody what a check of the name was to keep apart."""
    answer = app.test_client().get("/stream", query_string={"channel": channel})
    assert answer.status_code == 400
    assert answer.json is not None
    assert answer.json["error"]["code"] == "invalid_channel"
    with app.app_context(), pytest.raises(ChannelError):
        sse.publish("x", channel=channel)


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


def test_a_generator_of_messages(app: Flask) -> None:
    with app.app_context():
        messages = sse.messages(channel="own")
        given = sse.publish({"a": 1}, type="greeting", channel="own")
        assert next(messages) == Message('{"a": 1}', "greeting", given)


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


def test_a_message_as_text() -> None:
    app = Flask(__name__)
    with app.app_context():
        text = str(Message({"a": 1}, type="t", id="7", retry=5))
        assert Message("x", type="t").to_dict() == {"data": "x", "type": "t"}
    assert text.endswith("\n\n")
    assert set(text.split("\n")) == {'data: {"a": 1}', "event: t", "id: 7", "retry: 5", ""}

"""`SSE` in a user's application: publish and subscribe, through Flask's test client."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request

from sseflask import SSE
from sseflask.errors import ChannelError, EventError, Failure
from sseflask.extension import channels_of
from sseflask.logs import once as notices
from sseflask.testing import open_stream


@pytest.fixture
def app() -> Iterator[Flask]:
    made = Flask(__name__)
    made.testing = True
    sse = SSE(made)

    @made.get("/events")
    def events() -> Response:
        return sse.subscribe(*request.args.getlist("c"))

    @made.post("/say")
    def say() -> str:
        return sse.publish("room.1", request.get_data(as_text=True))

    yield made
    channels_of(made).close()


def sse_of(app: Flask) -> SSE:
    extension: SSE = app.extensions["sseflask"]
    return extension


def test_publish_and_subscribe(app: Flask) -> None:
    with open_stream(app.test_client(), "/events?c=room.*") as stream:
        first = app.test_client().post("/say", data="hello").text
        second = sse_of(app).publish("room.2", {"n": 1}, event="count", retry=700)
        one, two = stream.read(2)
    assert (one.data, one.event, one.last_event_id) == ("hello", "message", first)
    assert (two.data, two.event, two.last_event_id) == ('{"n":1}', "count", second)
    assert stream.decoder.retry == 700


def test_what_is_missed_is_replayed(app: Flask) -> None:
    ids = [sse_of(app).publish("a", number) for number in range(4)]
    headers = {"Last-Event-ID": ids[1]}
    with open_stream(app.test_client(), "/events?c=a", headers=headers) as stream:
        assert [event.last_event_id for event in stream.read(2)] == ids[2:]
        assert stream.decoder.retry is None, "what the publisher has said once counts"
        assert "Last-Event-ID" not in stream.response.headers
    with open_stream(app.test_client(), f"/events?c=a&last_event_id={ids[2]}") as stream:
        assert [event.last_event_id for event in stream.read(1)] == ids[3:]
    with open_stream(app.test_client(), "/events?c=a&last_event_id=earliest") as stream:
        assert [event.last_event_id for event in stream.read(4)] == ids


def test_the_header_wins_over_the_query(app: Flask) -> None:
    ids = [sse_of(app).publish("a", number) for number in range(3)]
    headers = {"Last-Event-ID": ids[1]}
    with open_stream(
        app.test_client(), "/events?c=a&last_event_id=earliest", headers=headers
    ) as stream:
        assert [event.last_event_id for event in stream.read(1)] == ids[2:]


def test_a_new_client_learns_where_it_begins(app: Flask) -> None:
    newest = sse_of(app).publish("other", "x")
    with open_stream(app.test_client(), "/events?c=a") as stream:
        assert stream.response.headers["Last-Event-ID"] == newest
        sse_of(app).publish("a", "first")
        (event,) = stream.read(1)
        assert event.data == "first"


def test_an_event_source_gets_it_in_band(app: Flask) -> None:
    newest = sse_of(app).publish("other", "x")
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
    with open_stream(app.test_client(), "/events?c=a", headers=headers) as stream:
        sse_of(app).publish("a", "first")
        body = b""
        for piece in stream.response.iter_encoded():
            body += piece
            if b"first" in body:
                break
    assert f"id: {newest}\n\n".encode() in body.partition(b"first")[0]


def test_head_starts_nothing(app: Flask) -> None:
    answer = app.test_client().head("/events?c=a")
    assert answer.status_code == 200
    assert answer.mimetype == "text/event-stream"
    assert answer.data == b""


def test_names_are_checked(app: Flask) -> None:
    sse = sse_of(app)
    for name in ("", "a b", "a/b", "a" * 129, "ä", "a.*"):
        with pytest.raises(ChannelError):
            sse.publish(name, "x")
    with app.test_request_context(), pytest.raises(ChannelError):
        sse.subscribe("a b")
    with app.test_request_context(), pytest.raises(ChannelError, match="at least one"):
        sse.subscribe()


def test_events_are_checked(app: Flask) -> None:
    sse = sse_of(app)
    with pytest.raises(EventError):
        sse.publish("a", object())
    with pytest.raises(EventError):
        sse.publish("a", "x", event="gap")
    with pytest.raises(EventError):
        sse.publish("a", "x", event="two\nlines")
    with pytest.raises(EventError):
        sse.publish("a", "x", retry=-1)


def test_where_the_store_is(app: Flask, tmp_path: Path) -> None:
    assert channels_of(app).store.durability() == "memory"
    sse_of(app).publish("a", "x")
    other = Flask(__name__, instance_path=str(tmp_path / "instance"))
    sse = SSE(other)
    sse.publish("a", "x")
    assert (tmp_path / "instance" / "channels.sqlite3").exists()
    channels_of(other).close()
    named = Flask(__name__)
    named.config["SSEFLASK_CHANNEL_LOG"] = str(tmp_path / "named")
    SSE(named).publish("a", "x")
    assert (tmp_path / "named").exists()
    channels_of(named).close()


def test_which_application_is_published_in(tmp_path: Path) -> None:
    sse = SSE()
    with pytest.raises(RuntimeError, match="0 applications"):
        sse.publish("a", "x")
    apps = []
    for name in ("one", "two"):
        app = Flask(name)
        app.config["SSEFLASK_CHANNEL_LOG"] = str(tmp_path / name)
        sse.init_app(app)
        apps.append(app)
    with pytest.raises(RuntimeError, match="2 applications"):
        sse.publish("a", "x")
    with apps[1].app_context():
        sse.publish("a", "x")
    assert not (tmp_path / "one").exists()
    assert (tmp_path / "two").exists()
    for app in apps:
        channels_of(app).close()


def test_a_store_that_fails_is_a_503(tmp_path: Path) -> None:
    app = Flask(__name__)
    (tmp_path / "file").write_text("in the way")
    app.config["SSEFLASK_CHANNEL_LOG"] = str(tmp_path / "file" / "log")
    sse = SSE(app)

    @app.get("/events")
    def events() -> Response:
        return sse.subscribe("a")

    with pytest.raises(Failure) as caught:
        sse.publish("a", "x")
    assert caught.value.status == 503
    answer = app.test_client().get("/events")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    assert answer.json is not None
    assert answer.json["error"]["code"] == "log_unavailable"
    # Which would close an EventSource for good.
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
    told = app.test_client().get("/events", headers=headers)
    assert (told.status_code, told.mimetype) == (200, "text/event-stream")
    assert re.fullmatch(r": .*\nretry: [1-9]\d{3}\n", told.text)
    channels_of(app).close()


def test_a_token_that_expires_ends_the_stream(app: Flask) -> None:
    @app.get("/short")
    def short() -> Response:
        return sse_of(app).subscribe("a", expires_at=0)

    with open_stream(app.test_client(), "/short") as stream:
        (event,) = stream.events()
    assert event.event == "failure"
    assert "token_expired" in event.data


def test_a_stream_is_rotated_after_its_lifetime(app: Flask) -> None:
    @app.get("/rotated")
    def rotated() -> Response:
        return sse_of(app).subscribe("a", lifetime=0.05)

    with open_stream(app.test_client(), "/rotated") as stream:
        assert list(stream.events()) == []
    assert stream.decoder.retry is None, "the client's own counts"


@pytest.mark.parametrize("transient", [True, False])
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
def test_only_an_event_source_is_asked_to_come_back(
    app: Flask, transient: bool, method: str, accept: str
) -> None:
    """Any other status than 200 closes it for good; other clients get the status."""

    @app.route("/refused", methods=["GET", "POST"])
    def refused() -> str:
        failure = Failure("Not now.", status=503, headers={"Retry-After": "2"}, transient=transient)
        raise failure

    app.config["SSEFLASK_RETRY_JITTER"] = 0
    headers = {"Accept": accept, "Cache-Control": "no-cache"}
    answer = app.test_client().open("/refused", method=method, headers=headers)
    assert answer.headers["Retry-After"] == "2"
    if transient and method == "GET" and accept == "text/event-stream":
        assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
        assert answer.data == b": Not now.\nretry: 2000\n"
        assert "no-store" in answer.headers["Cache-Control"]
    else:
        assert answer.status_code == 503
        assert answer.json is not None
        assert answer.json["error"]["message"] == "Not now."


def test_an_event_source_comes_back_to_what_was_begun_for_it(app: Flask) -> None:
    """Without an id it would begin another completion."""

    @app.get("/refused")
    def refused() -> str:
        failure = Failure("Not now.", status=503, headers={"Retry-After": "0"}, transient=True)
        failure.cursor = "a-run.0"
        raise failure

    app.config["SSEFLASK_RETRY_JITTER"] = 0
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}
    answer = app.test_client().get("/refused", headers=headers)
    assert answer.data == b": Not now.\nretry: 0\nid: a-run.0\n\n"


@pytest.mark.parametrize("several", [False, True])
def test_channels_in_the_memory_of_several_workers(
    several: bool, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_warned", set())
    app = Flask(__name__)
    app.config["SSEFLASK_CHANNEL_LOG"] = ":memory:"
    sse = SSE(app)
    app.add_url_rule("/", view_func=lambda: sse.publish("a", "x"))
    for _ in range(2):
        answer = app.test_client().get("/", environ_overrides={"wsgi.multiprocess": several})
        assert answer.status_code == 200
    channels_of(app).close()
    assert ["SSEFLASK_CHANNEL_LOG is :memory:" in each for each in caplog.messages] == (
        [True] if several else []
    )


@pytest.mark.parametrize(
    ("config", "warned"),
    [
        ({"SSEFLASK_STORE": "redis://127.0.0.1:1", "SSEFLASK_CHANNEL_LOG_BYTES": 1 << 20}, True),
        ({"SSEFLASK_STORE": "redis://127.0.0.1:1"}, False),
        ({"SSEFLASK_CHANNEL_LOG_BYTES": 1 << 20}, False),
    ],
)
def test_a_bound_that_a_redis_server_does_not_keep(
    caplog: pytest.LogCaptureFixture, config: dict[str, Any], warned: bool
) -> None:
    app = Flask("mine")
    app.config.update(config)
    SSE(app)
    assert ("SSEFLASK_CHANNEL_LOG_BYTES has no effect" in caplog.text) is warned

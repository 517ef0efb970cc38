"""What `SSE` has for channels beside publishing: where to begin, when to end, reading, closing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, Response, request

import sseflask
from sseflask import SSE, ChannelError, Failure
from sseflask.extension import channels_of
from sseflask.testing import ClientStream, open_stream
from sseflask.wire import HEARTBEAT

EVENT_SOURCE = {"Accept": "text/event-stream", "Cache-Control": "no-cache"}


@pytest.fixture
def app() -> Iterator[Flask]:
    made = Flask(__name__)
    made.testing = True
    made.config["SSEFLASK_HEARTBEAT"] = 0.02
    sse = SSE(made)

    @made.get("/events")
    def events() -> Response:
        return sse.subscribe(
            *request.args.getlist("c"),
            since=request.args.get("since"),
            until=request.args.getlist("until") or None,
        )

    yield made
    channels_of(made).close()


@pytest.fixture
def sse(app: Flask) -> SSE:
    extension: SSE = app.extensions["sseflask"]
    return extension


def body_of(app: Flask, path: str, **headers: str) -> bytes:
    """All of a stream that ends."""
    with open_stream(
        app.test_client(), path, headers={k.replace("_", "-"): v for k, v in headers.items()}
    ) as stream:
        return b"".join(stream.response.iter_encoded())


def wait_until_begun(stream: ClientStream) -> None:
    """Wait until it has subscribed: a test client's stream goes on only while it is read."""
    pieces = stream.response.iter_encoded()
    assert [next(pieces), next(pieces)] == [HEARTBEAT, HEARTBEAT]


# -- since -----------------------------------------------------------------------------------------


def test_since_is_where_a_client_begins_that_says_nothing(app: Flask, sse: SSE) -> None:
    ids = [sse.publish("a", n) for n in range(4)]
    for since, expected in (("earliest", ids), (ids[1], ids[2:])):
        with open_stream(app.test_client(), f"/events?c=a&since={since}") as stream:
            assert [event.last_event_id for event in stream.read(len(expected))] == expected


def test_a_clients_own_cursor_wins(app: Flask, sse: SSE) -> None:
    ids = [sse.publish("a", n) for n in range(4)]
    with open_stream(
        app.test_client(), "/events?c=a&since=earliest", headers={"Last-Event-ID": ids[2]}
    ) as stream:
        assert [event.last_event_id for event in stream.read(1)] == ids[3:]
    with open_stream(
        app.test_client(), f"/events?c=a&since={ids[0]}&last_event_id={ids[2]}"
    ) as stream:
        assert [event.last_event_id for event in stream.read(1)] == ids[3:]


def test_a_client_that_begins_somewhere_learns_where(app: Flask, sse: SSE) -> None:
    """It may break off before its first event, and come back to a view that knows of no cursor."""
    (before, _) = sse.publish("a", "1"), sse.publish("a", "2")
    with open_stream(app.test_client(), f"/events?c=b&since={before}") as stream:
        assert stream.response.headers["Last-Event-ID"] == before
    path = f"/events?c=b&since={before}&until=done"
    sse.publish("b", "x", event="done")
    in_band = f"id: {before}\n\n".encode()
    assert in_band in body_of(app, path, **EVENT_SOURCE).partition(b"data")[0]
    assert in_band not in body_of(app, path)


def test_since_something_that_is_gone_is_a_gap(app: Flask, sse: SSE) -> None:
    sse.publish("a", "1")
    with open_stream(app.test_client(), "/events?c=a&since=zzzz-5") as stream:
        assert [event.event for event in stream.read(2)] == ["gap", "message"]


@pytest.mark.parametrize("since", [0, 7, b"earliest", ["earliest"]])
def test_what_can_be_no_place(app: Flask, sse: SSE, since: Any) -> None:
    with app.test_request_context(), pytest.raises(ValueError, match=r"since must be a cursor"):
        sse.subscribe("a", since=since)


def test_an_empty_place_is_none(app: Flask, sse: SSE) -> None:
    sse.publish("a", "before")
    with open_stream(app.test_client(), "/events?c=a&since=") as stream:
        sse.publish("a", "after")
        assert [event.data for event in stream.read(1)] == ["after"]


# -- until -----------------------------------------------------------------------------------------


def test_until_ends_the_stream_and_it_stays_ended(app: Flask, sse: SSE) -> None:
    ids = [sse.publish("job.7", n) for n in range(3)]
    ids.append(sse.publish("job.7", "well", event="done"))
    sse.publish("job.7", "more")
    path = "/events?c=job.7&since=earliest&until=done"
    with open_stream(app.test_client(), path) as stream:
        events = list(stream.events())
    last = f"{ids[3]}.end"
    assert [event.last_event_id for event in events] == [*ids[:3], last]
    again = app.test_client().get(path, headers={"Last-Event-ID": last})
    assert (again.status_code, again.data) == (204, b"")
    assert again.headers["Cache-Control"].startswith("no-store")
    assert "Content-Type" not in again.headers
    assert app.test_client().get(f"{path}&last_event_id={last}").status_code == 204
    assert app.test_client().head(path, headers={"Last-Event-ID": last}).status_code == 204
    with open_stream(app.test_client(), path, headers={"Last-Event-ID": ids[1]}) as stream:
        assert [event.last_event_id for event in stream.events()] == [ids[2], last]


def test_until_one_of_several_types_while_it_is_read(app: Flask, sse: SSE) -> None:
    with open_stream(app.test_client(), "/events?c=job.*&until=done&until=failed") as stream:
        ids = [sse.publish("job.1", "x"), sse.publish("job.2", "oh", event="failed")]
        sse.publish("job.1", "well", event="done")
        assert [event.last_event_id for event in stream.events()] == [ids[0], f"{ids[1]}.end"]


def test_the_end_of_another_stream_is_an_ordinary_place(app: Flask, sse: SSE) -> None:
    done = sse.publish("a", "well", event="done")
    after = sse.publish("a", "more")
    with open_stream(app.test_client(), f"/events?c=a&last_event_id={done}.end") as stream:
        assert [event.last_event_id for event in stream.read(1)] == [after]


def test_a_place_that_happens_to_be_an_end_ends_nothing(app: Flask, sse: SSE) -> None:
    """Somebody begins after the end of one answer, to wait for the next."""
    done = sse.publish("chat", "well", event="done")
    assert sse.position() == done
    with open_stream(app.test_client(), f"/events?c=chat&until=done&since={done}") as stream:
        again = sse.publish("chat", "again", event="done")
        assert [event.last_event_id for event in stream.events()] == [f"{again}.end"]


@pytest.mark.parametrize("until", ["gap", "failure", "", [], ["a\nb"], [7]])
def test_what_can_end_nothing(app: Flask, sse: SSE, until: Any) -> None:
    with app.test_request_context(), pytest.raises(ValueError, match=r"type"):
        sse.subscribe("a", until=until)


# -- position and history --------------------------------------------------------------------------


def test_a_page_that_is_rendered_first(app: Flask, sse: SSE) -> None:
    shown = [sse.publish("a", n) for n in range(3)]
    page = sse.history("a")
    assert [event.id for event in page.events] == shown
    meanwhile = sse.publish("a", "meanwhile")
    with open_stream(app.test_client(), f"/events?c=a&since={page.cursor}") as stream:
        later = sse.publish("a", "later")
        assert [event.last_event_id for event in stream.read(2)] == [meanwhile, later]


def test_the_position_of_an_empty_store(sse: SSE) -> None:
    start = sse.position()
    first = sse.publish("a", "1")
    assert sse.position() == first
    assert [event.id for event in sse.history("a", after=start).events] == [first]


@pytest.mark.parametrize("limit", [0, -1, 1.5, "3", True, None])
def test_limits_are_checked(sse: SSE, limit: Any) -> None:
    with pytest.raises(ValueError, match=r"limit must be a whole number from 1"):
        sse.history("a", limit=limit)


@pytest.mark.parametrize("after", [None, 0, "", b"x"])
def test_places_are_checked(sse: SSE, after: Any) -> None:
    with pytest.raises(ValueError, match=r"after must be a cursor"):
        sse.history("a", after=after)


# -- close and subscribers -------------------------------------------------------------------------


def test_close_ends_a_stream_with_a_time_to_come_back(app: Flask, sse: SSE) -> None:
    app.config["SSEFLASK_RETRY_JITTER"] = 7
    before = sse.stats().streams["channel"].ended["closed"]
    with open_stream(app.test_client(), "/events?c=user.7&c=news") as stream:
        wait_until_begun(stream)
        assert sse.subscribers("user.*") == sse.subscribers("news") == sse.subscribers() == 1
        bye = sse.publish("user.7", "bye")
        sse.close("user.8", "user.7")
        sse.publish("user.7", "secret")
        assert [event.last_event_id for event in stream.events()] == [bye]
    assert stream.decoder.retry is not None
    assert 500 <= stream.decoder.retry <= 507
    assert sse.stats().streams["channel"].ended["closed"] == before + 1
    assert sse.subscribers() == 0


@pytest.mark.parametrize("names", [(), ("a b",), ("a", "")])
def test_names_are_checked(sse: SSE, names: tuple[str, ...]) -> None:
    with pytest.raises(ChannelError):
        sse.close(*names)
    if names:
        for name in names[-1:]:
            with pytest.raises(ChannelError):
                sse.subscribers(name)
            with pytest.raises(ChannelError):
                sse.history(name)


def test_all_of_it_in_a_thread_without_a_context(app: Flask, sse: SSE) -> None:
    said: list[Any] = []

    def script() -> None:
        published = sse.publish("a", 1)
        said.append(sse.position() == published)
        said.append([event.data for event in sse.history("a").events])
        said.append(sse.subscribers("a"))
        sse.close("a")

    with open_stream(app.test_client(), "/events?c=a") as stream:
        wait_until_begun(stream)
        thread = threading.Thread(target=script)
        thread.start()
        assert [event.data for event in stream.events()] == ["1"]
        thread.join(10)
    assert said == [True, ["1"], 1]


def test_which_application_is_meant() -> None:
    sse = SSE()
    with pytest.raises(RuntimeError, match=r"registered with 0 applications"):
        sse.close("a")
    for name in ("one", "two"):
        sse.init_app(Flask(name))
    with pytest.raises(RuntimeError, match=r"call it in the context"):
        sse.position()


def test_a_store_that_fails_is_a_failure(tmp_path: Path) -> None:
    app = Flask(__name__)
    (tmp_path / "file").write_text("in the way")
    app.config["SSEFLASK_CHANNEL_LOG"] = str(tmp_path / "file" / "log")
    sse = SSE(app)
    for call in (
        sse.position,
        lambda: sse.history("a"),
        lambda: sse.close("a"),
        lambda: sse.subscribers("a"),
    ):
        with pytest.raises(Failure) as caught:
            call()
        assert caught.value.code == "log_unavailable"
    channels_of(app).close()


def test_the_types_of_what_is_read_are_public(sse: SSE) -> None:
    sse.publish("a", {"n": 1}, event="count")
    history = sse.history("a")
    assert isinstance(history, sseflask.ChannelHistory)
    (event,) = history.events
    assert isinstance(event, sseflask.ChannelEvent)
    assert (event.channel, event.event, event.data) == ("a", "count", '{"n":1}')

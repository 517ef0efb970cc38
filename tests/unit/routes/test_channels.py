"""Channels over HTTP through Flask's test client; tests/live has them on real servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import hypothesis.strategies as st
import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from werkzeug.test import TestResponse

from sseflask.routes.publication import MAX_EVENTS
from sseflask.testing import open_stream
from tests.service import service


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    # In development mode, so that the tests of rights can be elsewhere.
    with service(development=True, SSEFLASK_CHANNEL_LOG=":memory:") as made:
        yield made


def post(app: Flask, path: str, body: Any = None, **kwargs: Any) -> TestResponse:
    if body is not None and not isinstance(body, (str, bytes)):
        kwargs["json"] = body
    elif body is not None:
        kwargs["data"] = body
        kwargs.setdefault("content_type", "text/plain")
    return app.test_client().post(path, **kwargs)


def refused(answer: TestResponse, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.json is not None
    error = answer.json["error"]
    assert error["code"] == code
    message: str = error["message"]
    return message


def history(app: Flask, channel: str, count: int) -> list[tuple[str, str, str]]:
    with open_stream(app.test_client(), f"/channels/{channel}?last_event_id=earliest") as stream:
        return [(event.event, event.data, event.last_event_id) for event in stream.read(count)]


def test_one_event(app: Flask) -> None:
    answer = post(app, "/channels/one", {"data": {"a": 1}, "event": "order", "retry": 2000})
    assert answer.status_code == 201
    assert answer.json is not None
    assert history(app, "one", 1) == [("order", '{"a":1}', answer.json["id"])]


def test_a_whole_number_may_have_a_point(app: Flask) -> None:
    assert post(app, "/channels/point", {"data": "x", "retry": 2000.0}).status_code == 201


def test_several_events(app: Flask) -> None:
    answer = post(app, "/channels/several", [{"data": "x"}, {"data": 2}, {"data": None}])
    assert answer.status_code == 201
    assert answer.json is not None
    ids = answer.json["ids"]
    assert history(app, "several", 3) == [
        ("message", "x", ids[0]),
        ("message", "2", ids[1]),
        ("message", "null", ids[2]),
    ]
    assert len(post(app, "/channels/several", [{"data": 1}]).json["ids"]) == 1  # type: ignore[index]  # it is there


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "application/octet-stream", ""]
)
def test_text_as_it_is(app: Flask, kind: str) -> None:
    channel = "text." + kind.replace("/", ".")
    text = "two\nlines & a=b%20 ü"
    answer = post(app, f"/channels/{channel}", text.encode(), content_type=kind)
    assert answer.status_code == 201, answer.text
    assert history(app, channel, 1)[0][1] == text


def test_an_array_is_stored_as_a_whole_or_not_at_all(app: Flask) -> None:
    message = refused(
        post(app, "/channels/whole", [{"data": 1}, {"data": 2, "event": "gap"}]),
        400,
        "invalid_event",
    )
    assert "[1]" in message
    post(app, "/channels/whole", {"data": "the first"})
    assert history(app, "whole", 1)[0][1] == "the first"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({}, "invalid_event"),
        ({"event": "x"}, "invalid_event"),
        ({"data": 1, "id": "7"}, "invalid_event"),
        ({"data": 1, "event": "gap"}, "invalid_event"),
        ({"data": 1, "event": "failure"}, "invalid_event"),
        ({"data": 1, "event": "a\nb"}, "invalid_event"),
        ({"data": 1, "event": 5}, "invalid_event"),
        ({"data": 1, "event": {}}, "invalid_event"),
        ({"data": 1, "event": False}, "invalid_event"),
        ({"data": 1, "retry": 2**31}, "invalid_event"),
        ({"data": 1, "retry": -1}, "invalid_event"),
        ({"data": 1, "retry": True}, "invalid_event"),
        ({"data": 1, "retry": "5"}, "invalid_event"),
        ({"data": "\ud800"}, "invalid_event"),
        ([], "invalid_event"),
        ([1], "invalid_event"),
        ([{"data": 1}] * (MAX_EVENTS + 1), "invalid_event"),
        (5, "invalid_json"),
    ],
)
def test_events_that_are_none(app: Flask, body: Any, code: str) -> None:
    refused(post(app, "/channels/none", body), 400, code)


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"{", "application/json", 400, "invalid_json"),
        (b'{"data": NaN}', "application/json", 400, "invalid_event"),
        (b"[" * 40_000, "application/json", 400, "invalid_json"),
        (b"\xff", "application/json", 400, "invalid_json"),
        (b"\xff", "text/plain", 400, "invalid_body"),
        (b"", "text/plain", 400, "empty_body"),
        (b' {"data": 1}', "application/x-www-form-urlencoded", 400, "invalid_json"),
        (b"--x--", "multipart/form-data; boundary=x", 415, "unsupported_media_type"),
        (b"x" * 1_048_577, "text/plain", 413, "request_entity_too_large"),
    ],
)
def test_bodies_that_can_not_be_read(
    app: Flask, body: bytes, kind: str, status: int, code: str
) -> None:
    refused(post(app, "/channels/none", body, content_type=kind), status, code)


@pytest.mark.parametrize("name", ["a%20b", "%C3%A4", "a" * 129, "a*", "a%00", "a%0A"])
def test_names_that_are_none(app: Flask, name: str) -> None:
    refused(post(app, f"/channels/{name}", {"data": 1}), 400, "invalid_channel")
    refused(app.test_client().get(f"/channels/{name}"), 400, "invalid_channel")


def test_a_pattern_can_be_subscribed_to_but_not_published_to(app: Flask) -> None:
    refused(post(app, "/channels/pattern.*", {"data": 1}), 400, "invalid_channel")
    post(app, "/channels/pattern.x", {"data": 1})
    assert len(history(app, "pattern.*", 1)) == 1


def test_several_channels_in_one_stream(app: Flask) -> None:
    with open_stream(app.test_client(), "/channels?c=many.a&c=many.b.*") as stream:
        for channel in ("many.b.1", "many.c", "many.a", "many.b"):
            post(app, f"/channels/{channel}", channel)
        assert [event.data for event in stream.read(2)] == ["many.b.1", "many.a"]


@pytest.mark.parametrize("query", ["", "?c=", "?c=a&c=", "?c=a&c=b%20", "?" + "c=a&" * 101])
def test_what_can_not_be_subscribed_to(app: Flask, query: str) -> None:
    refused(app.test_client().get(f"/channels{query}"), 400, "invalid_channel")


def test_a_key_makes_a_repetition_a_no_op(app: Flask) -> None:
    headers = {"Idempotency-Key": "order-7"}
    first = post(app, "/channels/keys", {"data": 7}, headers=headers)
    again = post(app, "/channels/keys", {"data": 7}, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json == again.json
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    refused(
        post(app, "/channels/keys", {"data": 8}, headers=headers), 409, "idempotency_key_reused"
    )
    # The same key for another channel is another key.
    assert post(app, "/channels/keys.2", {"data": 7}, headers=headers).json != first.json
    post(app, "/channels/keys", "last")
    assert [data for _, data, _ in history(app, "keys", 2)] == ["7", "last"]


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "\x80", "a\tb"])
def test_keys_that_are_none(app: Flask, key: str) -> None:
    headers = {"Idempotency-Key": key}
    refused(
        post(app, "/channels/keys", {"data": 1}, headers=headers), 400, "invalid_idempotency_key"
    )


def test_head_and_other_methods(app: Flask) -> None:
    client = app.test_client()
    answer = client.head("/channels/a")
    assert (answer.status_code, answer.mimetype) == (200, "text/event-stream")
    assert client.delete("/channels/a").status_code == 405
    assert client.post("/channels").status_code == 405


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
events = (
    st.dictionaries(st.sampled_from(["data", "event", "retry", "id"]), json_values) | json_values
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=events | st.lists(events, max_size=3))
def test_any_json_is_published_or_refused(app: Flask, body: Any) -> None:
    answer = app.test_client().post(
        "/channels/fuzz", data=json.dumps(body), content_type="application/json"
    )
    assert answer.status_code in (201, 400), answer.text


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.binary(max_size=200), kind=st.text(max_size=30), key=st.none() | st.text(max_size=9))
def test_any_body_is_published_or_refused(
    app: Flask, body: bytes, kind: str, key: str | None
) -> None:
    headers = {"Content-Type": kind.encode(errors="replace").decode("latin-1")}
    if key is not None:
        headers["Idempotency-Key"] = key.encode(errors="replace").decode("latin-1")
    headers = {
        name: "".join(letter for letter in value if letter not in "\r\n")
        for name, value in headers.items()
    }
    answer = app.test_client().post("/channels/fuzz", data=body, headers=headers)
    assert answer.status_code in (201, 400, 409, 415), answer.text


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cursor=st.text(max_size=40), names=st.lists(st.text(max_size=12), max_size=3))
def test_any_subscription_is_streamed_or_refused(app: Flask, cursor: str, names: list[str]) -> None:
    query = {"c": [*names, "fine"], "last_event_id": cursor}
    with app.test_client() as client:
        answer = client.get("/channels", query_string=query)
        assert answer.status_code in (200, 400)
        if answer.status_code == 200:
            first = next(answer.iter_encoded())
            assert first
        answer.close()


def test_a_subscription_that_ends(app: Flask) -> None:
    ids = post(app, "/channels/job.1", [{"data": 1}, {"data": 2, "event": "done"}]).get_json()[
        "ids"
    ]
    path = "/channels/job.*?last_event_id=earliest&until=done&until=failed"
    with open_stream(app.test_client(), path) as stream:
        assert [event.last_event_id for event in stream.events()] == [ids[0], f"{ids[1]}.end"]
    for end in ("/channels/job.1?until=done", "/channels?c=job.1&c=b&until=done"):
        answer = app.test_client().get(end, headers={"Last-Event-ID": f"{ids[1]}.end"})
        assert answer.status_code == 204


_MANY_TYPES = "&".join(f"until=t{n}" for n in range(21))


@pytest.mark.parametrize(
    "query",
    ["until=", "until=a&until=", "until=gap", "until=a%0Ab", f"until={'x' * 101}", _MANY_TYPES],
)
def test_what_can_end_no_subscription(app: Flask, query: str) -> None:
    answer = app.test_client().get(f"/channels/a?{query}")
    refused(answer, 400, "invalid_value")
    assert answer.get_json()["error"]["param"] == "until"

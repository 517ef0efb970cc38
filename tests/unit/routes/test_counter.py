from __future__ import annotations

import io
import itertools
import json
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from sseflask.routes import counter
from sseflask.testing import open_stream
from tests.service import service


@pytest.fixture(scope="module")
def client() -> Iterator[FlaskClient]:
    with service() as app:
        yield app.test_client()


def numbers(client: FlaskClient, **how: Any) -> list[tuple[str, str]]:
    with open_stream(client, "/sse/v1", **how) as stream:
        assert stream.response.status_code == 200
        assert stream.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
        return [(event.last_event_id, event.data) for event in stream.events()]


def counted(*values: int) -> list[tuple[str, str]]:
    return [(str(value), str(value)) for value in values]


def refused(response: TestResponse, param: str | None, code: str, status: int = 400) -> str:
    assert response.status_code == status
    error = json.loads(response.data)["error"]
    assert (error["param"], error["code"]) == (param, code)
    assert error["type"] == "invalid_request_error"
    message: str = error["message"]
    return message


def test_ten_numbers_a_tenth_of_a_second_apart(client: FlaskClient) -> None:
    pauses: list[float] = []
    with mock.patch.object(
        counter, "time", mock.Mock(sleep=pauses.append, monotonic=time.monotonic)
    ):
        assert numbers(client, method="POST") == counted(*range(10))
    assert pauses == [0.1] * 9  # between the events, not after the last


def test_the_interval_is_kept(client: FlaskClient) -> None:
    started = time.monotonic()
    assert numbers(client, query_string={"count": 3, "interval": 0.2}) == counted(0, 1, 2)
    assert time.monotonic() - started >= 0.4


@pytest.mark.parametrize(
    "how",
    [
        {"query_string": {"count": "3", "interval": "0"}},
        {"method": "POST", "query_string": {"count": "3", "interval": "0.0"}},
        {"method": "POST", "data": {"count": "3", "interval": "0"}},
        {"method": "POST", "json": {"count": 3, "interval": 0}},
        {"method": "POST", "json": {"count": "3", "interval": 0.0}},
        {"method": "POST", "json": {"count": 3}, "query_string": {"interval": "0"}},
        {
            "method": "POST",
            "data": b'{"count":3,"interval":0}',
            "content_type": "application/vnd.counter+json",
        },
        {
            "method": "POST",
            "data": {"count": "3", "interval": "0"},
            "content_type": "multipart/form-data",
        },
        {"query_string": "count=3&interval=0&unknown=1&unknown=2"},
    ],
)
def test_parameters_from_everywhere(client: FlaskClient, how: dict[str, Any]) -> None:
    assert numbers(client, **how) == counted(0, 1, 2)


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"count": "-1"}, "count"),
        ({"count": "abc"}, "count"),
        ({"count": ""}, "count"),
        ({"count": "1.0"}, "count"),
        ({"count": "1_0"}, "count"),
        ({"count": " 1"}, "count"),
        ({"count": "٣"}, "count"),
        ({"count": "9007199254740992"}, "count"),
        ({"count": "9" * 5000}, "count"),
        ({"interval": "-0.1"}, "interval"),
        ({"interval": "1e9"}, "interval"),
        ({"interval": "3600.1"}, "interval"),
        ({"interval": "nan"}, "interval"),
        ({"interval": "inf"}, "interval"),
        ({"interval": "soon"}, "interval"),
        ({"interval": "soon" * 2000}, "interval"),
        ({"interval": "1_0"}, "interval"),
        ({"interval": ""}, "interval"),
    ],
)
def test_a_bad_parameter(client: FlaskClient, query: dict[str, str], param: str) -> None:
    message = refused(client.get("/sse/v1", query_string=query), param, "invalid_value")
    assert message.startswith(f"The parameter {param} is not valid: ")
    assert message.endswith(".")
    assert len(message) < 200
    refused(client.post("/sse/v1", data=query), param, "invalid_value")
    refused(client.post("/sse/v1", json=query), param, "invalid_value")


def test_a_whole_number_in_json_may_have_a_point(client: FlaskClient) -> None:
    assert client.post("/sse/v1", json={"count": 0.0}).status_code == 204


@pytest.mark.parametrize("value", [True, None, 1.5, 1e300, [], {}, "1.5"])
def test_a_bad_count_in_json(client: FlaskClient, value: object) -> None:
    refused(client.post("/sse/v1", json={"count": value}), "count", "invalid_value")


@pytest.mark.parametrize("value", ["true", "null", "NaN", "Infinity", "-Infinity", "[]", '"x"'])
def test_a_bad_interval_in_json(client: FlaskClient, value: str) -> None:
    response = client.post(
        "/sse/v1", data=f'{{"interval": {value}}}', content_type="application/json"
    )
    refused(response, "interval", "invalid_value")


@pytest.mark.parametrize(
    "how",
    [
        {"query_string": "count=1&count=2"},
        {"query_string": "count=1", "json": {"count": 1}},
        {"query_string": "count=1", "data": {"count": "1"}},
        {"data": {"count": ["1", "2"]}},
        {"data": b'{"count": 1, "count": 2}', "content_type": "application/json"},
    ],
)
def test_a_parameter_given_twice(client: FlaskClient, how: dict[str, Any]) -> None:
    refused(client.post("/sse/v1", **how), "count", "duplicate_parameter")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"\xff{}",
        b'{"count": "\xff"}',
        b"[1]",
        b"3",
        b"null",
        b"[" * 40_000,
        b'{"count": ' + b"1" * 5000 + b"}",
    ],
)
def test_malformed_json(client: FlaskClient, body: bytes) -> None:
    response = client.post("/sse/v1", data=body, content_type="application/json")
    refused(response, None, "invalid_json")


def test_json_that_is_declared_a_form(client: FlaskClient) -> None:
    # What curl -d '{"count": 3}' sends.
    response = client.post(
        "/sse/v1", data='{"count": 3}', content_type="application/x-www-form-urlencoded"
    )
    assert "Content-Type: application/json" in refused(response, None, "invalid_json")


_FIELD = b'--x\r\nContent-Disposition: form-data; name="count"\r\n\r\n2\r\n'


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("multipart/form-data", _FIELD + b"--x--\r\n"),
        ("multipart/form-data; boundary=y", _FIELD + b"--x--\r\n"),
        ("multipart/form-data; boundary=\xe9", _FIELD + b"--x--\r\n"),
        ("multipart/form-data; boundary=x", _FIELD[:-2]),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\n2\r\n--x--\r\n"),
        ("multipart/form-data; boundary=x", _FIELD.replace(b"name", b"nome") + b"--x--\r\n"),
        ("application/x-www-form-urlencoded", b"a&" * 1000 + b"count=2"),
    ],
)
def test_a_form_that_cannot_be_read(client: FlaskClient, kind: str, data: bytes) -> None:
    """It is no empty one: a completion would be asked, and paid for, with another prompt."""
    refused(client.post("/sse/v1", data=data, content_type=kind), None, "invalid_body")


def test_a_parameter_as_a_file(client: FlaskClient) -> None:
    # What curl -F count=@file sends.
    response = client.post("/sse/v1", data={"count": (io.BytesIO(b"2"), "count.txt")})
    assert "-F 'count=<FILE'" in refused(response, "count", "invalid_value")
    other = {"count": "1", "other": (io.BytesIO(b"2"), "other.txt")}
    assert numbers(client, method="POST", data=other) == counted(0)


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", None])
def test_a_body_of_another_kind(client: FlaskClient, kind: str | None) -> None:
    response = client.post("/sse/v1", data=b"count=3", content_type=kind)
    refused(response, None, "unsupported_media_type", 415)


def test_an_empty_body_of_any_kind(client: FlaskClient) -> None:
    query = {"count": "1"}
    how = {"method": "POST", "query_string": query, "content_type": "text/plain"}
    assert numbers(client, **how) == counted(0)
    assert numbers(client, **{**how, "content_type": "application/json"}) == counted(0)


@pytest.mark.parametrize(
    "how",
    [
        {"headers": {"Last-Event-ID": "7"}},
        {"query_string": {"last_event_id": "7"}},
        # An EventSource keeps its URL when it reconnects.
        {"query_string": {"last_event_id": "3"}, "headers": {"Last-Event-ID": "7"}},
        {"method": "POST", "json": {"last_event_id": "7"}},
    ],
)
def test_it_resumes_behind_the_cursor(client: FlaskClient, how: dict[str, Any]) -> None:
    assert numbers(client, **how) == counted(8, 9)


@pytest.mark.parametrize(
    "how",
    [
        {"query_string": {"last_event_id": "earliest", "count": 2}},
        {"query_string": {"last_event_id": "", "count": 2}},
        {"query_string": {"count": 2}, "headers": {"Last-Event-ID": ""}},
    ],
)
def test_it_starts_at_the_beginning(client: FlaskClient, how: dict[str, Any]) -> None:
    assert numbers(client, **how) == counted(0, 1)


@pytest.mark.parametrize(
    ("count", "cursor"), [(0, None), (10, "9"), (10, "10"), (3, "9007199254740991"), (1, "0")]
)
def test_nothing_is_left(client: FlaskClient, count: int, cursor: str | None) -> None:
    headers = {"Last-Event-ID": cursor} if cursor else {}
    response = client.get("/sse/v1", query_string={"count": count}, headers=headers)
    assert (response.status_code, response.data) == (204, b"")


@pytest.mark.parametrize(
    "cursor", ["-1", "x", "1.0", "+1", "1 2", "٣", "1_0", "9" * 17, "latest", "0x1"]
)
def test_a_malformed_cursor(client: FlaskClient, cursor: str) -> None:
    response = client.get("/sse/v1", query_string={"last_event_id": cursor})
    assert "number" in refused(response, "last_event_id", "invalid_cursor")
    encoded = cursor.encode().decode("latin-1")
    response = client.get("/sse/v1", environ_overrides={"HTTP_LAST_EVENT_ID": encoded})
    refused(response, "Last-Event-ID", "invalid_cursor")


def test_it_counts_to_its_limit(client: FlaskClient) -> None:
    start = counter.MAX_COUNT - 2
    assert numbers(
        client, query_string={"count": counter.MAX_COUNT, "last_event_id": start - 1}, method="GET"
    ) == counted(start, start + 1)


def test_methods(client: FlaskClient) -> None:
    head = client.head("/sse/v1")
    assert (head.status_code, head.data) == (200, b"")
    assert head.mimetype == "text/event-stream"
    assert client.put("/sse/v1").status_code == 405
    assert client.head("/sse/v1?count=x").status_code == 400


def test_the_ordinary_twin(client: FlaskClient) -> None:
    for answer in (client.get("/sse/no_sse"), client.post("/sse/no_sse")):
        assert (answer.status_code, answer.mimetype) == (200, "application/json")
        assert json.loads(answer.data) == {"message": "Hello World"}


def test_streams_do_not_share_state(client: FlaskClient) -> None:
    query = {"interval": 0}
    with (
        open_stream(client, "/sse/v1", query_string=query) as one,
        open_stream(client, "/sse/v1", query_string=query) as two,
    ):
        pairs = list(itertools.zip_longest(one.events(), two.events()))
    assert [(a.data, b.data) for a, b in pairs] == [(str(n), str(n)) for n in range(10)]


def test_all_counters_together_have_a_pace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many clients together get no more events a second than one."""
    slept: list[float] = []
    now = 1000.0

    def sleep(seconds: float) -> None:
        nonlocal now
        slept.append(seconds)
        now += seconds

    clock = SimpleNamespace(monotonic=lambda: now, sleep=sleep)
    monkeypatch.setattr(counter, "time", clock)
    monkeypatch.setattr(counter, "_pace", counter._Pace())
    counters = [counter._numbers(0, 10_000, 0.0) for _ in range(10)]
    for events in itertools.zip_longest(*counters):
        assert None not in events
    assert now - 1000.0 == pytest.approx(10 * 10_000 / counter.EVENTS_PER_SECOND, rel=0.1)
    assert min(slept) > 0

    before = now
    assert len(list(counter._numbers(0, 10, 0.0))) == 10
    assert len(list(counter._numbers(0, 5, 0.1))) == 5
    assert now - before == pytest.approx(0.4, abs=0.06), "one alone waits for nobody"

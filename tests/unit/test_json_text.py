"""One JSON for what is yielded, made an event of, or published."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import json
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response
from flask.json.provider import DefaultJSONProvider, JSONProvider

from sseflask import SSE, Event, EventError, EventSourceResponse, encode
from sseflask.extension import channels_of
from sseflask.testing import open_stream


@dataclasses.dataclass
class Order:
    number: int


class Level(str, enum.Enum):
    HIGH = "high"


class Nothing(float):
    """A NaN by another name."""


NAN, INFINITY = float("nan"), float("inf")


class Reversing(JSONProvider):
    """One of the application's own, which knows how it writes complex numbers."""

    def dumps(self, obj: Any, **_: Any) -> str:
        return json.dumps(obj, default=lambda value: [value.real, value.imag])

    def loads(self, s: str | bytes, **_: Any) -> Any:
        return json.loads(s)


class Writing(DefaultJSONProvider):
    """Flask's, with a way of its own of writing."""

    def dumps(self, obj: Any, **options: Any) -> str:
        return f"{super().dumps(obj, **options)} "


class Bytes(DefaultJSONProvider):
    """As orjson writes, which Flask could not send either."""

    def dumps(self, obj: Any, **options: Any) -> Any:
        return super().dumps(obj, **options).encode()


WAYS = ["yielded", "event", "published", "published outside"]


@pytest.fixture
def app() -> Iterator[Flask]:
    made = Flask(__name__)
    made.testing = True
    SSE(made)
    yield made
    channels_of(made).close()


def send(app: Flask, way: str, value: Any) -> str:
    """What a client gets of a value."""
    sse: SSE = app.extensions["sseflask"]
    if way == "published outside":
        sse.publish("a", value)
    elif way == "published":
        with app.app_context():
            sse.publish("a", value)

    def view() -> Response:
        def items() -> Iterator[Any]:
            yield Event(value) if way == "event" else value

        return sse.subscribe("a") if way.startswith("published") else EventSourceResponse(items())

    app.add_url_rule("/", view_func=view)
    with open_stream(app.test_client(), "/?last_event_id=earliest") as stream:
        return stream.read(1)[0].data


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"at": datetime.datetime(2026, 1, 2)}, {"at": "Fri, 02 Jan 2026 00:00:00 GMT"}),
        (
            {"b": decimal.Decimal("1.50"), "a": uuid.UUID(int=1)},
            {"a": str(uuid.UUID(int=1)), "b": "1.50"},
        ),
        (Order(7), {"number": 7}),
        ([1, "zwei", None, True], [1, "zwei", None, True]),
        ({"text": "NaN and Infinity"}, {"text": "NaN and Infinity"}),
        ({"level": Level.HIGH}, {"level": "high"}),
        ("\u2028", None),
        ({"line": "\u2028\u2029"}, {"line": "\u2028\u2029"}),
    ],
)
def test_what_flask_can_write(app: Flask, way: str, value: Any, expected: Any) -> None:
    data = send(app, way, value)
    if isinstance(value, str):
        assert data == value, "a text is sent as it is"
        return
    assert json.loads(data) == expected
    assert data == app.json.dumps(value, separators=(",", ":"))
    assert "\u2028" not in data


@pytest.mark.parametrize("way", WAYS)
def test_letters_that_an_application_wants_as_they_are(app: Flask, way: str) -> None:
    assert isinstance(app.json, DefaultJSONProvider)
    app.json.ensure_ascii = False
    assert send(app, way, {"line": "é\u2028"}) == '{"line":"é\\u2028"}'


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("provider", "value", "data"),
    [(Reversing, {"z": 1 + 2j}, '{"z": [1.0, 2.0]}'), (Writing, {"a": 1}, '{"a": 1} ')],
)
def test_a_provider_of_the_applications_own(
    app: Flask, way: str, provider: type[JSONProvider], value: Any, data: str
) -> None:
    app.json = provider(app)
    assert send(app, way, value) == data


CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)
DEEP: list[Any] = []
for _ in range(100_000):
    DEEP = [DEEP]


@pytest.mark.parametrize("provider", [None, DefaultJSONProvider, Reversing, Bytes])
@pytest.mark.parametrize(
    ("value", "why"),
    [
        ({"n": NAN}, "NaN"),
        ({"n": [-INFINITY]}, "Infinity"),
        (Nothing("nan"), "NaN"),
        (NAN, "NaN"),
        (CIRCLE, "ircular"),
        (DEEP, "nested|recursion"),
        ({"a": object()}, "object"),
        ({(1, 2): "a"}, "keys"),
    ],
    ids=["nan", "infinity", "float", "alone", "circle", "deep", "object", "keys"],
)
def test_what_is_no_json(provider: Any, value: Any, why: str) -> None:
    app = Flask(__name__)
    sse = SSE(app)
    if provider is None:  # outside an application context
        with pytest.raises(EventError, match=why):
            Event(value)
        return
    app.json = provider(app)
    why = "bytes|" + why if provider is Bytes else why
    with app.app_context(), pytest.raises(EventError, match=why):
        Event(value)
    with pytest.raises(EventError, match=why):
        sse.publish("a", value)
    response = EventSourceResponse([value])
    with app.app_context(), pytest.raises(EventError, match=why):
        list(response.iter_encoded())


def test_outside_an_application() -> None:
    event = Event({"b": datetime.date(2026, 1, 2), "a": "é"})
    assert event.data == '{"b":"Fri, 02 Jan 2026 00:00:00 GMT","a":"é"}'


def test_texts_of_another_type() -> None:
    """What an Enum's ``format`` gives depends on the version of Python; its text does not."""

    class Number(enum.IntEnum):
        SEVEN = 7

    event = Event(Level.HIGH, event=Level.HIGH, id=Number.SEVEN, retry=Number.SEVEN)
    assert encode(event) == b"retry: 7\nid: 7\nevent: high\ndata: high\n\n"
    assert encode(Event("a", id=Level.HIGH)) == b"id: high\ndata: a\n\n"
    assert b"".join(EventSourceResponse([Level.HIGH]).iter_encoded()) == b"data: high\n\n"

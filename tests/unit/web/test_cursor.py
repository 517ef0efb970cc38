"""Where a client wants to go on, however it spells that, as views and routes read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask, Response, request
from flask.testing import FlaskClient

from sseflask import SSE, last_event_id
from sseflask.completions.formats import FORMATS
from sseflask.extension import channels_of, runs_of
from sseflask.testing import open_stream
from tests.service import LOCAL, service

SPELLINGS = ["last_event_id", "lastEventId", "lastEventID", "Last-Event-ID", "lasteventid"]


@pytest.fixture
def app() -> Iterator[Flask]:
    made = Flask(__name__)
    made.testing = True
    sse = SSE(made)

    @made.get("/read")
    def read() -> dict[str, Any]:
        return {
            "given": last_event_id(),
            "header": request.headers.get("Last-Event-ID"),
            "number": last_event_id(type=int, default=-1),
        }

    @made.get("/events")
    def events() -> Response:
        return sse.subscribe("a")

    yield made
    channels_of(made).close()


def given(app: Flask, query: str = "", header: str | None = None) -> Any:
    """What a view reads; the header's text is sent as UTF-8, as browsers do."""
    sent = {} if header is None else {"HTTP_LAST_EVENT_ID": header.encode().decode("latin-1")}
    answer = app.test_client().get(f"/read?{query}", environ_overrides=sent).json
    assert answer is not None
    assert answer["header"] == header
    return answer["given"]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling(app: Flask, spelling: str) -> None:
    assert given(app, f"{spelling}=7") == "7"
    assert given(app, f"{spelling}=") is None
    assert given(app, f"{spelling}=7", "8") == "8"
    assert given(app, f"{spelling}=7", "") == "7"


@pytest.mark.parametrize("name", ["last_event", "lastEventIds", "event_id", "x_last_event_id"])
def test_other_parameters_are_no_cursors(app: Flask, name: str) -> None:
    assert given(app, f"{name}=7") is None


def test_what_a_polyfill_appends_counts(app: Flask) -> None:
    """It keeps the page's own URL, with the cursor of the first connection, and adds its own."""
    assert given(app, "last_event_id=earliest&lastEventId=7") == "7"
    assert given(app, "lastEventId=7&last_event_id=earliest") == "7"
    assert given(app, "last_event_id=3&lastEventID=") == "3"
    assert given(app, "lastEventID=3&lastEventId=7") == "7"


@pytest.mark.parametrize("text", ["日本-7", "é", "ÿ\u0100", "😀"])
def test_letters_beyond_ascii(app: Flask, text: str) -> None:
    assert given(app, header=text) == text
    assert given(app, f"lastEventId={text}") == text


def test_a_header_that_is_not_utf_8(app: Flask) -> None:
    """Node's fetch and Python's http.client send what fits ISO 8859-1 as that."""
    answer = app.test_client().get("/read", environ_overrides={"HTTP_LAST_EVENT_ID": "caf\xe9"})
    assert answer.json == {"given": "café", "header": "café", "number": -1}


def test_a_number(app: Flask) -> None:
    client = app.test_client()
    for header, number in (("41", 41), ("x", -1), ("", -1)):
        answer = client.get("/read", headers={"Last-Event-ID": header}).json
        assert answer is not None
        assert answer["number"] == number


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_a_subscription_of_the_library(app: Flask, spelling: str) -> None:
    ids = [app.extensions["sseflask"].publish("a", str(n)) for n in range(3)]
    with open_stream(app.test_client(), f"/events?{spelling}={ids[0]}") as stream:
        assert [event.last_event_id for event in stream.read(2)] == ids[1:]
        assert "Last-Event-ID" not in stream.response.headers


@pytest.fixture(scope="module")
def client() -> Iterator[FlaskClient]:
    """The service, with its demo model."""
    with service(development=True) as app:
        client = app.test_client()
        client.environ_base.update(LOCAL)
        yield client


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("way", ["query", "form", "json"])
def test_the_counter(client: FlaskClient, spelling: str, way: str) -> None:
    asked = {"count": "9", "interval": "0", spelling: "6"}
    response = (
        client.get("/sse/v1", query_string=asked)
        if way == "query"
        else client.post("/sse/v1", **({"data": asked} if way == "form" else {"json": asked}))
    )
    assert response.get_data(as_text=True) == "id: 7\ndata: 7\n\nid: 8\ndata: 8\n\n"


@pytest.fixture(scope="module")
def completion(client: FlaskClient) -> tuple[str, list[str]]:
    """One that has ended: its run and its events."""
    whole = client.post("/sse/openai_out", data={"user_message": "Hello", "format": "text"})
    return whole.headers["X-Run-Id"], whole.get_data(as_text=True).split("\n\n")


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("way", ["query", "form", "json", "run"])
def test_a_completion_goes_on_and_none_begins(
    client: FlaskClient, completion: tuple[str, list[str]], spelling: str, way: str
) -> None:
    run, events = completion
    cursor = next(line[4:] for line in events[2].split("\n") if line.startswith("id: "))
    asked = {"user_message": "Hello", "format": "text", spelling: cursor}
    if way == "run":
        rest = client.get(f"/runs/{run}", query_string=asked)
    elif way == "query":
        rest = client.get("/sse/openai_out", query_string=asked)
    else:
        body: dict[str, Any] = {"data": asked} if way == "form" else {"json": asked}
        rest = client.post("/sse/openai_out", **body)
    assert rest.headers["X-Run-Id"] == run
    assert rest.get_data(as_text=True).split("\n\n") == events[3:]
    # The last event's id, as a polyfill adds it to an address with a cursor of its own.
    end = next(line[4:] for line in events[-2].split("\n") if line.startswith("id: "))
    query = {**asked, "last_event_id": "earliest", "lastEventId": end}
    query.pop(spelling if spelling not in ("last_event_id", "lastEventId") else "", None)
    assert client.get("/sse/openai_out", query_string=query).status_code == 204


def test_the_same_spelling_twice_is_refused(client: FlaskClient) -> None:
    response = client.get("/sse/v1?lastEventId=1&lastEventId=2")
    assert response.status_code == 400
    assert response.json is not None
    assert response.json["error"]["code"] == "duplicate_parameter"


@pytest.mark.parametrize("after", [0, 2])
def test_a_viewer_that_is_refused_knows_where_to_come_back(
    client: FlaskClient, completion: tuple[str, list[str]], after: int
) -> None:
    with client.application.app_context():
        run = runs_of(client.application).find(completion[0], "")
        assert run
        failure = runs_of(client.application).view(run, FORMATS["text"], after).refusal()
    assert failure.transient
    assert failure.cursor == f"{completion[0]}.{after}"

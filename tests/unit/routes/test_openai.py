"""Answers in one piece: JSON and nothing else, whatever else the request asks for."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from tests.service import service

BODY = {"model": "demo", "messages": [{"role": "user", "content": "hello"}]}
PATH = "/v1/chat/completions"


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    with service() as app:
        yield app.test_client()


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {}),
        ("?heartbeat=early", {}),
        ("", {"Accept": "text/event-stream", "Cache-Control": "no-cache"}),
        ("?heartbeat=early", {"Accept": "text/event-stream", "Cache-Control": "no-cache"}),
        ("", {"Last-Event-ID": "0"}),
    ],
)
def test_an_answer_in_one_piece_is_json(
    client: FlaskClient, query: str, headers: dict[str, str]
) -> None:
    response = client.post(PATH + query, json=BODY, headers=headers)
    assert response.status_code == 200
    assert response.get_json()["object"] == "chat.completion"


def test_it_is_json_for_who_attaches(client: FlaskClient) -> None:
    first = client.post(PATH, json=BODY)
    run = first.headers["X-Run-Id"]
    for cursor in ({}, {"Last-Event-ID": f"{run}.1"}):
        again = client.get(f"/runs/{run}?heartbeat=early", headers=cursor)
        assert again.get_json() == first.get_json()


def test_lists_of_models_are_counted() -> None:
    """Each is a request to the upstream."""
    with service(SSEFLASK_RATE_LIMIT="2/minute") as app:
        answers = [app.test_client().get("/v1/models") for _ in range(3)]
    assert [each.status_code for each in answers] == [200, 200, 429]
    assert answers[0].json is not None
    assert answers[0].mimetype == "application/json"

"""Attaching to runs: what a cursor says, and where it says nothing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from flask.testing import FlaskClient

from tests.service import service


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    with service() as app:
        yield app.test_client()


def test_a_cursor_of_a_ui_stream_is_ignored_but_for_the_last_one(client: FlaskClient) -> None:
    """See docs/protocol.md."""
    first = client.post("/sse/openai_out", json={"user_message": "x"})
    run = first.headers["X-Run-Id"]
    last = int(first.data.rpartition(b"id: ")[2].partition(b"\n")[0].rpartition(b".")[2])
    path = f"/runs/{run}?format=ui"
    whole = client.get(path).data
    for cursor in ("nonsense", f"{'f' * 32}.3", f"{run}.2", f"{run}.{last + 1}"):
        response = client.get(path, headers={"Last-Event-ID": cursor})
        assert (response.status_code, response.data) == (200, whole)
        assert client.get(f"/runs/{run}", headers={"Last-Event-ID": cursor}).status_code == (
            200 if cursor == f"{run}.2" else 400
        )
    assert client.get(path, headers={"Last-Event-ID": f"{run}.{last}"}).status_code == 204

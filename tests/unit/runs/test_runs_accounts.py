"""Whose running runs are counted: an owner's, or those of a client's address."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from flask import Flask, Response, request
from flask.testing import FlaskClient

from sseflask import SSE
from sseflask.extension import runs_of


@pytest.fixture
def client() -> Iterator[FlaskClient]:
    app = Flask(__name__)
    app.testing = True
    app.config.update(SSEFLASK_MAX_RUNS=2, SSEFLASK_FIRST_BYTE=0)
    sse, over = SSE(app), threading.Event()

    def waiting() -> Iterator[str]:
        over.wait(30)
        yield "over"

    @app.get("/run")
    def run() -> Response:
        return sse.run(
            waiting(), owner=request.args.get("owner"), account=request.args.get("account")
        )

    @app.get("/start")
    def start() -> str:
        return sse.start(waiting())

    yield app.test_client()
    over.set()
    runs_of(app).close()


def status(client: FlaskClient, path: str, address: str = "192.0.2.1") -> int:
    return client.get(path, environ_base={"REMOTE_ADDR": address}).status_code


def test_a_stranger_begins_so_many_and_leaves(client: FlaskClient) -> None:
    assert [status(client, "/run") for _ in range(3)] == [200, 200, 429]
    assert status(client, "/run", "198.51.100.7") == 200


def test_an_owner_has_so_many_wherever_they_are(client: FlaskClient) -> None:
    answers = [status(client, "/run?owner=ann", f"192.0.2.{n}") for n in range(3)]
    assert answers == [200, 200, 429]
    assert status(client, "/run?owner=bob") == 200


def test_the_view_says_who_is_counted(client: FlaskClient) -> None:
    answers = [status(client, f"/run?account=tenant&owner={n}") for n in range(3)]
    assert answers == [200, 200, 429]


def test_what_the_application_begins_by_itself_is_not_counted(client: FlaskClient) -> None:
    assert [status(client, "/start") for _ in range(4)] == [200] * 4

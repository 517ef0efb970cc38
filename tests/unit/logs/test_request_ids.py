from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Response

from sseflask.logs import request_ids
from tests.service import service


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    yield
    request_ids.forget()


@pytest.mark.parametrize(
    "asked",
    ["a", "5f0c", "0b1e5a72-8b5a-4a6e-9c3c-4f1f4f9d0f6e", "AbC/9+=", "Root=1-67:a@b", "x" * 128],
)
def test_what_is_sane_is_taken_over(asked: str) -> None:
    environ = {"HTTP_X_REQUEST_ID": asked}
    assert request_ids.enter(environ) == asked
    assert environ["sseflask.request_id"] == asked
    assert request_ids.current() == asked
    assert request_ids.is_given(environ)


@pytest.mark.parametrize(
    "asked",
    ["", " ", "a b", "a,b", "x" * 129, "é", "a\nb", "a\n", "a\x00", '"', "{id}", "<b>", "٣"],
)
def test_anything_else_is_not(asked: str) -> None:
    environ = {"HTTP_X_REQUEST_ID": asked}
    made = request_ids.enter(environ)
    assert len(made) == 32
    assert set(made) <= set("0123456789abcdef")
    assert not request_ids.is_given(environ)


def test_an_id_is_made_once_for_each_request() -> None:
    first: dict[str, Any] = {}
    second: dict[str, Any] = {}
    assert request_ids.enter(first) == request_ids.enter(first)
    assert request_ids.enter(second) != first["sseflask.request_id"]
    assert request_ids.current() == second["sseflask.request_id"]
    request_ids.forget()
    assert request_ids.current() == ""


ANSWERS = [
    ("GET", "/sse/no_sse", 200),
    ("GET", "/sse/v1?count=2&interval=0", 200),
    ("POST", "/sse/openai_out", 200),
    ("GET", "/sse/v1?last_event_id=99", 204),
    ("GET", "/static/sse.js", 200),
    ("HEAD", "/sse/v1", 200),
    ("GET", "/nothing", 404),
    ("GET", "//nothing", 404),
    ("DELETE", "/sse/v1", 405),
    ("GET", "/sse/v1?count=abc", 400),
    ("GET", "/broken", 500),
    ("GET", "/late", 500),
]


def test_every_response_has_one(caplog: pytest.LogCaptureFixture) -> None:
    with service() as app:

        @app.get("/broken")
        def broken(item: str = "") -> str:  # noqa: ARG001  # called with one by map
            raise RuntimeError("on purpose")

        @app.get("/late")
        def late() -> Response:
            return Response(map(broken, "a"), mimetype="text/event-stream")

        seen = []

        class Seen(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:  # noqa: ARG002  # the base's
                seen.append(request_ids.current())

        handler = Seen()
        app.logger.addHandler(handler)
        client = app.test_client()
        for method, path, status in ANSWERS:
            for asked in ("mine", None):
                headers = {"X-Request-Id": asked} if asked else {}
                answer = client.open(path, method=method, headers=headers)
                assert answer.status_code == status, path
                (id,) = answer.headers.getlist("X-Request-Id")
                assert id == asked or (asked is None and re.fullmatch("[0-9a-f]{32}", id)), path
                if status == 500:
                    assert seen.pop() == id
                answer.get_data()
                answer.close()
                assert request_ids.current() == ""
        known = client.get("/static/sse.js")
        etag = known.headers["ETag"]
        unchanged = client.get("/static/sse.js", headers={"If-None-Match": etag})
        known.close()
        unchanged.close()
        assert unchanged.status_code == 304
        assert unchanged.headers["X-Request-Id"]
        app.logger.removeHandler(handler)
    assert "on purpose" in caplog.text

"""A body that would take long to read is refused, wherever it is read; forms of that kind too."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from sseflask.web.bounded_json import MOST_VALUES
from sseflask.web.forms import form_fields
from tests.service import KEY, LOCAL, SECRET, service

#: More values than are read, in less bytes than a body may have.
MANY = "[" + "[]," * MOST_VALUES + "1]"
CALL = {"type": "tool-x", "toolCallId": "1", "state": "output-available", "output": ""}
FORM = "application/x-www-form-urlencoded"


@pytest.fixture(scope="module")
def app() -> Iterator[Flask]:
    with service(
        development=True,
        SSEFLASK_SECRET=SECRET,
        OPENAI_API_KEY=KEY,
        OPENAI_BASE_URL="http://127.0.0.1:9/v1",
    ) as app:
        yield app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    client = app.test_client()
    client.environ_base.update(LOCAL)
    return client


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/sse/v1", f'{{"a": {MANY}}}'),
        ("/session", f'{{"a": {MANY}}}'),
        ("/sse/openai_out", f'{{"messages": {MANY}}}'),
        ("/sse/openai_out", {"messages": MANY}),
        (
            "/sse/openai_out",
            {"messages": [{"role": "assistant", "parts": [CALL | {"input": MANY}]}]},
        ),
        ("/v1/chat/completions", f'{{"messages": {MANY}}}'),
        ("/v1/responses", f'{{"input": {MANY}}}'),
        ("/channels/a", MANY),
        ("/channels/a", f'{{"data": {MANY}}}'),
    ],
)
def test_json_of_many_values_is_refused(client: FlaskClient, path: str, body: Any) -> None:
    sent: Any = {"data": body, "content_type": "application/json"}
    response = client.post(path, **(sent if isinstance(body, str) else {"json": body}))
    assert (response.status_code, response.json["error"]["code"]) == (413, "too_many_values")  # type: ignore[index]


def test_text_of_many_commas_is_not(client: FlaskClient) -> None:
    """It passes through: so does JSON in a string."""
    for path in ("/channels/a", "/channels/b"):
        assert client.post(path, json={"data": MANY}).status_code == 201
    assert client.post("/sse/v1?count=1", json={"a": MANY}).status_code == 200


def test_a_form_is_no_longer_than_what_is_no_prompt(client: FlaskClient) -> None:
    """It takes a hundred times as long to read as JSON."""
    long = b"x" * 1_048_570
    part = b'--b\r\nContent-Disposition: form-data; name="user_message"\r\n\r\n%b\r\n--b--\r\n'
    bodies = {FORM: b"user_message=" + long, "multipart/form-data; boundary=b": part % long}
    for kind, body in bodies.items():
        response = client.post("/sse/openai_out", data=body, content_type=kind)
        assert (response.status_code, response.json["error"]["code"]) == (413, "form_too_long")  # type: ignore[index]


@pytest.mark.parametrize(
    "head", ["a: b\r\n" * 40, 'a: b"' + ";a=b" * 40 + "\r\n", "a" * 5000 + ": b\r\n"]
)
def test_the_head_of_a_part_is_short(client: FlaskClient, head: str) -> None:
    body = f'--b\r\nContent-Disposition: form-data; name="count"\r\n{head}\r\n1\r\n--b--\r\n'
    response = client.post("/sse/v1", data=body, content_type="multipart/form-data; boundary=b")
    assert (response.status_code, response.json["error"]["code"]) == (400, "invalid_body")  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (FORM, b"a=" + b"%41" * 100_000),
        (FORM, b"a=" + b"%ff" * 100_000),
        (FORM, b"%41" * 100_000),
        (FORM, b"a=" + b"+" * 300_000),
        (
            "multipart/form-data; boundary=b",
            b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
            + b"\r\n-" * 100_000
            + b"\r\n--b--\r\n",
        ),
    ],
)
def test_others_have_turns_while_a_form_is_read(app: Flask, kind: str, body: bytes) -> None:
    turns: list[None] = []
    with app.test_request_context(method="POST", content_type=kind, data=body):
        ((name, value),) = form_fields(body, lambda: turns.append(None))
    assert len(turns) >= len(body) // 16_384
    assert len(name) + len(value) in (100_001, 100_000, 300_001)


@pytest.mark.parametrize(
    ("encoded", "value"),
    [
        (b"a=1", "1"),
        (b"a", ""),
        (b"&a=&", ""),
        (b"a==", "="),
        (b"a=%c3%A4+%2B", "ä +"),
        (b"a=%zz%", "%zz%"),
        (b"a=\xc3\xa4", "ä"),
        (b"a=%ff", "\ufffd"),
        *((b"a=" + b"x" * n + b"%c3%a4", "x" * n + "ä") for n in range(16_370, 16_386)),
    ],
)
def test_a_form_is_decoded_as_the_standard_says(app: Flask, encoded: bytes, value: str) -> None:
    with app.test_request_context(method="POST", content_type=FORM):
        assert form_fields(encoded, lambda: None) == [("a", value)]

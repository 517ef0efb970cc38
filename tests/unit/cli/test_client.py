from __future__ import annotations

import httpx2
import pytest

from sseflask.cli.client import connected, error_of
from tests.unit.cli.commands import run


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (500, "500 Internal Server Error (x): It failed. [request abc]"),
        (404, "404 Not Found (x): It failed."),
    ],
)
def test_an_error_names_the_request_that_the_servers_log_names(status: int, expected: str) -> None:
    body = {"error": {"message": "It failed.", "code": "x"}}
    response = httpx2.Response(status, json=body, headers={"X-Request-Id": "abc"})
    assert error_of(response) == expected


def test_headers_are_sent_in_utf_8() -> None:
    with connected("é", [("X-Name", "ü")]) as client:
        sent = dict(client.headers.raw)
    assert (sent[b"Authorization"], sent[b"X-Name"]) == ("Bearer é".encode(), "ü".encode())


def test_a_header_whose_name_is_none() -> None:
    result = run("tail", "http://127.0.0.1:1/", "-H", "é: x")
    assert (result.exit_code, "'é: x' is not a header" in result.stderr) == (2, True)

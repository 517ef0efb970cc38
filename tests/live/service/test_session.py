"""The session cookie, and other origins' pages, on the service as a platform starts it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.live.kit.connection import Answer, fetch
from tests.live.kit.servers import Server, free_port
from tests.live.kit.services import KEY, SECRET, authorization, make_token, production

ORIGIN = "https://app.example.org"
#: Behind the service is an upstream that can't be reached: each request with the right fails.
LET_THROUGH = (502, 503)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "SSEFLASK_SECRET": SECRET,
        "SSEFLASK_CORS_ORIGINS": ORIGIN,
        "OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}/v1",
        "OPENAI_API_KEY": KEY,
    }
    with production(tmp_path_factory.mktemp("session"), settings) as running:
        yield running


def complete(server: Server, **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return fetch(server, "/sse/openai_out", headers=fields)


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded"])
def test_a_token_becomes_a_cookie_that_pages_of_this_server_may_use(
    server: Server, kind: str
) -> None:
    token = make_token("--sub", "somebody", "--complete")
    body = json.dumps({"token": token}) if kind.endswith("json") else f"token={token}"
    headers = {"Content-Type": kind, "Origin": server.url}
    opened = fetch(server, "/session", method="POST", headers=headers, body=body.encode())
    assert (opened.status, opened.body) == (204, b"")
    cookie, _, attributes = opened.headers["set-cookie"].partition("; ")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(attributes.split("; "))
    assert complete(server, Cookie=cookie, Sec_Fetch_Site="same-origin").status in LET_THROUGH
    assert complete(server, Cookie=cookie, Sec_Fetch_Site="same-site").status == 403
    assert complete(server, Cookie=cookie).status == 403
    assert complete(server, Cookie=cookie[:-4], Sec_Fetch_Site="same-origin").status == 401
    assert complete(server, Sec_Fetch_Site="same-origin").status == 401
    assert token not in server.log()


def test_another_site_opens_no_session(server: Server) -> None:
    token = make_token("--sub", "somebody", "--complete")
    for origin in (ORIGIN, "null"):
        headers = {**authorization(token), "Origin": origin}
        answer = fetch(server, "/session", method="POST", headers=headers)
        assert answer.status == 403
        assert "set-cookie" not in answer.headers


def test_a_stream_and_a_refusal_for_a_page_of_another_origin(server: Server) -> None:
    stream = fetch(server, "/sse/v1?count=2&interval=0", headers={"Origin": ORIGIN})
    assert stream.body == b"id: 0\ndata: 0\n\nid: 1\ndata: 1\n\n"
    refusal = complete(server, Origin=ORIGIN)
    assert refusal.status == 401
    for answer in (stream, refusal):
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert "access-control-allow-credentials" not in answer.headers
    elsewhere = fetch(server, "/sse/v1?count=1", headers={"Origin": "https://example.org"})
    assert elsewhere.status == 200
    assert "access-control-allow-origin" not in elsewhere.headers


def test_a_preflight_needs_no_token(server: Server) -> None:
    answer = fetch(
        server,
        "/sse/openai_out",
        method="OPTIONS",
        headers={
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,idempotency-key",
        },
    )
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-headers"] == "authorization, idempotency-key"
    assert "POST" in answer.headers["access-control-allow-methods"]

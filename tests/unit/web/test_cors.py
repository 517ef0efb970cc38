from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn

import pytest
from flask import Flask
from werkzeug.test import TestResponse

from sseflask.errors import Failure
from sseflask.event import Event
from sseflask.response import EventSourceResponse
from tests.service import KEY, LOCAL, SECRET, service

ALLOWED = ["https://app.example.org", "http://[::1]:3000", "http://127.0.0.1:3000"]
WHERE = {"REMOTE_ADDR": "192.0.2.7", "HTTP_HOST": "stream.example.org"}


def add_routes(app: Flask) -> None:
    """Where an event route can go: an endless stream, an error of every kind."""

    @app.get("/sse/late")
    def late() -> EventSourceResponse:
        def fail() -> Event:
            raise Failure("not today", status=503, headers={"Retry-After": "3"})

        return EventSourceResponse(fail() for _ in range(1))

    @app.get("/v1/broken")
    def broken() -> NoReturn:
        raise RuntimeError("broken")

    @app.get("/channelsandmore")
    def alike() -> str:
        return ""


@pytest.fixture
def app() -> Iterator[Flask]:
    with service(
        SSEFLASK_SECRET=SECRET,
        SSEFLASK_CORS_ORIGINS=",".join(ALLOWED),
        OPENAI_API_KEY=KEY,
        OPENAI_BASE_URL="http://127.0.0.1:1/v1",
    ) as made:
        add_routes(made)
        yield made


def ask(app: Flask, path: str, origin: str | None, method: str = "GET") -> TestResponse:
    headers = {"Origin": origin} if origin is not None else {}
    return app.test_client().open(path, method=method, headers=headers, environ_overrides=WHERE)


# Beside those of our protocol, what npm's openai and gateways' clients send.
ASKED = [
    "authorization",
    "content-type",
    "helicone-auth",
    "idempotency-key",
    "last-event-id",
    "openai-beta",
    "openai-organization",
    "openai-project",
    "user-agent",
    "x-stainless-arch",
    "x-stainless-retry-count",
]


def preflight(
    app: Flask, path: str, method: str = "POST", origin: str = ALLOWED[0]
) -> TestResponse:
    headers = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": ",".join(ASKED),
        "Access-Control-Request-Private-Network": "true",
    }
    return app.test_client().options(path, headers=headers, environ_overrides=WHERE)


def listed(response: TestResponse, name: str) -> set[str]:
    return {part.strip().lower() for part in response.headers.get(name, "").split(",")} - {""}


def granted(response: TestResponse) -> list[str]:
    assert "Access-Control-Allow-Credentials" not in response.headers
    return response.headers.getlist("Access-Control-Allow-Origin")


@pytest.mark.parametrize("origin", ALLOWED)
@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/sse/v1?count=2&interval=0", "GET", 200),
        ("/sse/no_sse", "GET", 200),
        ("/sse/v1?count=many", "GET", 400),
        ("/sse/openai_out", "POST", 401),
        ("/channels/a", "POST", 401),
        ("/sse/late", "GET", 503),
        ("/v1/broken", "GET", 500),
        ("/v1/nothing", "GET", 404),
        ("/sse/v1", "DELETE", 405),
    ],
)
def test_streams_answers_and_errors(
    app: Flask, path: str, method: str, status: int, origin: str
) -> None:
    response = ask(app, path, origin, method)
    assert response.status_code == status
    assert granted(response) == [origin]
    assert listed(response, "Access-Control-Expose-Headers") == {
        "idempotency-replayed",
        "last-event-id",
        "retry-after",
        "retry-after-ms",
        "x-ratelimit-limit-requests",
        "x-ratelimit-limit-tokens",
        "x-ratelimit-remaining-requests",
        "x-ratelimit-remaining-tokens",
        "x-ratelimit-reset-requests",
        "x-ratelimit-reset-tokens",
        "x-request-id",
        "x-run-id",
        "x-should-retry",
        "x-upstream-request-id",
        "x-vercel-ai-ui-message-stream",
    }
    assert response.headers.getlist("Vary") == ["Origin"]
    response.close()


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "https://example.org",
        "http://app.example.org",
        "https://app.example.org:8443",
        "https://app.example.org.evil.example",
        "https://appXexample.org",
        "https://app.example.org/",
        "http://127.0.0.1:30001",
        "http://:3000",
    ],
)
def test_other_origins_get_nothing(app: Flask, origin: str | None) -> None:
    response = ask(app, "/sse/no_sse", origin)
    assert response.status_code == 200
    assert granted(response) == []
    # What a cache keeps for this one is not for those that are allowed.
    assert response.headers.getlist("Vary") == ["Origin"]


@pytest.mark.parametrize(
    ("path", "method"),
    [("/channels/a", "POST"), ("/sse/openai_out", "GET"), ("/sse/v1", "POST")],
)
def test_a_preflight_needs_no_token(app: Flask, path: str, method: str) -> None:
    response = preflight(app, path, method)
    assert response.status_code == 200
    assert granted(response) == [ALLOWED[0]]
    assert listed(response, "Access-Control-Allow-Methods") == {"get", "head", "post", "delete"}
    assert listed(response, "Access-Control-Allow-Headers") == set(ASKED)
    assert response.headers["Access-Control-Allow-Private-Network"] == "true"
    assert response.headers["Access-Control-Max-Age"] == "600"


def test_a_preflight_from_elsewhere(app: Flask) -> None:
    response = preflight(app, "/channels/a", origin="https://example.org")
    assert granted(response) == []
    assert listed(response, "Access-Control-Allow-Methods") == set()
    assert listed(response, "Access-Control-Allow-Headers") == set()


@pytest.mark.parametrize("path", ["/session", "/healthz", "/readyz", "/", "/channelsandmore"])
def test_other_routes_are_not_for_others(app: Flask, path: str) -> None:
    for response in (ask(app, path, ALLOWED[0]), preflight(app, path)):
        assert granted(response) == []
        assert "Vary" not in response.headers


def test_allowed_origins_open_no_session(app: Flask) -> None:
    response = ask(app, "/session", ALLOWED[0], "POST")
    assert response.status_code == 403


def test_all_origins() -> None:
    with service(SSEFLASK_SECRET=SECRET, SSEFLASK_CORS_ORIGINS="*") as app:
        add_routes(app)
        for origin in ("https://example.org", "null", None):
            response = ask(app, "/sse/v1?count=1", origin)
            assert granted(response) == ["*"]
            assert "Vary" not in response.headers
            response.close()
        asked = preflight(app, "/channels/a", origin="https://example.org")
        assert granted(asked) == ["*"]
        assert asked.headers["Access-Control-Allow-Private-Network"] == "false"
        assert granted(ask(app, "/session", "https://example.org", "POST")) == []


def test_off_by_default() -> None:
    with service(SSEFLASK_SECRET=SECRET) as app:
        add_routes(app)
        for response in (
            ask(app, "/sse/v1?count=1", ALLOWED[0]),
            preflight(app, "/channels/a"),
        ):
            assert not [name for name, _ in response.headers if name.startswith("Access-")]
            assert "Vary" not in response.headers
            response.close()


def test_an_allowed_origin_is_not_trusted_with_this_machine() -> None:
    with service(
        development=True,
        SSEFLASK_CORS_ORIGINS="*",
        OPENAI_API_KEY=KEY,
        OPENAI_BASE_URL="http://127.0.0.1:1/v1",
    ) as app:
        response = app.test_client().get(
            "/sse/openai_out",
            headers={"Origin": "https://example.org"},
            environ_overrides=LOCAL,
        )
    assert response.status_code == 403

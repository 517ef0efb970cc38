"""A page's session: a token is traded for a cookie; which pages may use it; other origins."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.live.kit.clients import open_stream
from tests.live.kit.connection import Answer, Connection, fetch
from tests.live.kit.publishing import error_of
from tests.live.kit.servers import Server
from tests.live.kit.services import SECRET, authorization, make_token, production

ORIGIN = "https://app.example"


@pytest.fixture(scope="module", params=["", ORIGIN], ids=["no CORS", "CORS"])
def guarded(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("session")
    settings = {
        "SSEFLASK_SECRET": SECRET,
        "SSEFLASK_PUBLIC_CHANNELS": "lobby",
        "SSEFLASK_CORS_ORIGINS": request.param,
        "SSEFLASK_HEARTBEAT": "0.2",
        "SSEFLASK_TRUSTED_PROXIES": "1",
    }
    with production(directory, settings) as server:
        yield server


@pytest.fixture(scope="module")
def token() -> str:
    return make_token("--sub", "somebody", "--publish", "orders.*", "--subscribe", "orders.*")


def log_in(server: Server, token: str, **headers: str) -> Answer:
    # A 204 has no body, and on a connection that is kept nothing marks its end.
    fields = {**authorization(token), "Connection": "close", **headers}
    return fetch(server, "/session", method="POST", headers=fields, body=b"")


def cookie_of(answer: Answer) -> str:
    assert 200 <= answer.status < 300, f"{answer.status} {answer.body!r}"
    return answer.headers["set-cookie"].partition(";")[0]


def test_the_cookie(guarded: Server, token: str) -> None:
    attributes = [
        part.strip().lower() for part in log_in(guarded, token).headers["set-cookie"].split(";")[1:]
    ]
    assert "httponly" in attributes
    assert "samesite=strict" in attributes
    assert "secure" not in attributes, "it would not come back over plain HTTP"
    behind_tls = log_in(guarded, token, **{"X-Forwarded-Proto": "https", "X-Forwarded-For": "::1"})
    attributes = [part.strip().lower() for part in behind_tls.headers["set-cookie"].split(";")[1:]]
    assert "secure" in attributes
    assert not any(part.startswith("domain") for part in attributes)


def test_no_session_without_a_good_token(guarded: Server) -> None:
    error_of(fetch(guarded, "/session", method="POST", body=b""), 401)
    for bad in ("nonsense", "a.b.c"):
        answer = log_in(guarded, bad)
        error_of(answer, 401)
        assert "set-cookie" not in answer.headers


def test_a_page_subscribes_by_its_cookie(guarded: Server, token: str) -> None:
    cookie = {"Cookie": cookie_of(log_in(guarded, token))}
    bearer = authorization(token)
    with open_stream(guarded, "/channels/orders.1", headers=cookie) as stream:
        sent = fetch(guarded, "/channels/orders.1", method="POST", headers=bearer, body=b"hello")
        assert sent.status == 201
        assert stream.next().data == "hello"
    with Connection(guarded) as connection:
        connection.request("/channels/users.1", headers=cookie)
        head = connection.head()
        error_of(Answer(head.status, head.headers, connection.body(head)), 403)


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Origin": "{url}"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "{url}"}, True),
        ({}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": ORIGIN}, False),
        ({"Origin": "null"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "{url}"}, False),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"}, False),
    ],
)
def test_a_page_publishes_by_its_cookie_from_its_own_origin(
    guarded: Server, token: str, headers: dict[str, str], allowed: bool
) -> None:
    cookie = {"Cookie": cookie_of(log_in(guarded, token))}
    sent = {**cookie, **{name: value.format(url=guarded.url) for name, value in headers.items()}}
    answer = fetch(guarded, "/channels/orders.1", method="POST", headers=sent, body=b"hello")
    if allowed:
        assert answer.status == 201, answer.body
    else:
        error_of(answer, 401, 403)


def test_a_cookie_that_is_none(guarded: Server, token: str) -> None:
    name, _, value = cookie_of(log_in(guarded, token)).partition("=")
    for wrong in (value[:-4] + "AAAA", "nonsense", ""):
        answer = fetch(guarded, "/channels/orders.1", headers={"Cookie": f"{name}={wrong}"})
        error_of(answer, 401, 403)


def test_a_stream_ends_with_the_session(guarded: Server) -> None:
    """The cookie lives no longer than the token it was traded for."""
    short = make_token("--sub", "somebody", "--subscribe", "orders.*", "--ttl", "3s")
    cookie = {"Cookie": cookie_of(log_in(guarded, short))}
    with open_stream(guarded, "/channels/orders.7", headers=cookie) as stream:
        (failure,) = stream.rest()
    assert failure.event == "failure"
    assert json.loads(failure.data or "")["error"]["code"] == "token_expired"
    error_of(fetch(guarded, "/channels/orders.7", headers=cookie), 401)


def test_other_origins(guarded: Server, request: pytest.FixtureRequest) -> None:
    """Off by default; if it is on, for the named origins and for no others."""
    on = "[CORS]" in request.node.name
    for origin, allowed in ((ORIGIN, on), ("https://evil.example", False), ("null", False)):
        with open_stream(guarded, "/channels/lobby", headers={"Origin": origin}) as stream:
            given = stream.head.headers.get("access-control-allow-origin")
        assert given == (origin if allowed else None)
        preflight = fetch(
            guarded,
            "/channels/orders.1",
            method="OPTIONS",
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization, content-type, idempotency-key",
            },
        )
        assert preflight.headers.get("access-control-allow-origin") == given
        if allowed:
            said = preflight.headers["access-control-allow-headers"].lower()
            for name in ("authorization", "content-type", "idempotency-key"):
                assert name in said or said == "*"

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
import pytest
from flask import Request
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder, TestResponse

from sseflask.auth.access import require_complete
from sseflask.auth.sender import is_from_this_machine
from sseflask.auth.tokens import sign
from sseflask.errors import Failure
from tests.service import LOCAL, OLD_SECRET, SECRET
from tests.unit.auth.protected import REMOTE, make_app, refused, token


@pytest.fixture(params=[False, True], ids=["production", "development"])
def client(request: pytest.FixtureRequest) -> FlaskClient:
    return make_app(SECRET, OLD_SECRET, development=request.param).test_client()


@pytest.fixture
def development() -> FlaskClient:
    return make_app(SECRET, development=True).test_client()


def ask(client: FlaskClient, bearer: str | None = None, **more: Any) -> TestResponse:
    headers = {"Authorization": f"Bearer {bearer}"} if bearer is not None else {}
    return client.get("/", headers=headers, environ_overrides=REMOTE, **more)


@pytest.mark.parametrize("secret", [SECRET, OLD_SECRET])
def test_a_token_signed_with_any_of_the_secrets(client: FlaskClient, secret: str) -> None:
    expires = int(time.time()) + 60
    response = ask(client, token(secret, exp=expires))
    assert response.json == {"subject": "alice", "expires": expires}


def test_a_token_of_our_own_making(client: FlaskClient) -> None:
    made = sign(SECRET, "bob", time.time() + 60, complete=True)
    assert ask(client, made).json["subject"] == "bob"  # type: ignore[index]


def test_a_token_in_the_query(client: FlaskClient) -> None:
    assert ask(client, query_string={"access_token": token()}).status_code == 200


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "Bearer  "])
def test_the_scheme_is_case_insensitive(client: FlaskClient, scheme: str) -> None:
    headers = {"Authorization": f"{scheme} {token()}"}
    assert client.get("/", headers=headers, environ_overrides=REMOTE).status_code == 200


def unsigned(**header: str) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = {"sub": "alice", "exp": int(time.time()) + 3600, "complete": True}
    return f"{part(header)}.{part(claims)}."


def invalid_tokens() -> dict[str, str]:
    good = token()
    payload = jwt.decode(good, options={"verify_signature": False})
    return {
        "empty": "",
        "no token at all": "nonsense",
        "several words": f"{good} {good}",
        "another secret": token("somebody else's secret of 32 bytes, or more"),
        "signature cut": good[:-4],
        "signature missing": good.rpartition(".")[0] + ".",
        "alg none": unsigned(alg="none", typ="JWT"),
        "alg NONE": unsigned(alg="NONE", typ="JWT"),
        "alg HS512": jwt.encode(payload, SECRET, algorithm="HS512"),
        "alg HS384": jwt.encode(payload, SECRET, algorithm="HS384"),
        "without exp": jwt.encode({"sub": "a", "complete": True}, SECRET, algorithm="HS256"),
        "without sub": jwt.encode({"exp": payload["exp"], "complete": True}, SECRET, "HS256"),
        "empty sub": token(sub=""),
        "sub is a number": jwt.encode({**payload, "sub": 7}, SECRET, "HS256"),
        "exp is text": token(exp="tomorrow"),
        "exp is infinite": jwt.encode({**payload, "exp": float("inf")}, SECRET, "HS256"),
        "not yet valid": token(nbf=int(time.time()) + 3600),
        "for another audience": token(aud="somebody else"),
        "publish is a number": token(publish=7),
        "publish is null": token(publish=None),
        "publish is an object": token(publish={"orders": True}),
        "publish holds a number": token(publish=["orders", 7]),
        "publish is no pattern": token(publish=["or*ders"]),
        "publish is empty": token(publish=""),
        "subscribe is true": token(subscribe=True),
        "subscribe is no pattern": token(subscribe=["**.orders"]),
        "subscribe is two in one": token(subscribe="orders, news"),
        "payload is a list": jwt.api_jws.encode(b"[1]", SECRET, "HS256"),
        "not ASCII": "schlüssel",
    }


INVALID = invalid_tokens()


@pytest.mark.parametrize("bad", list(INVALID.values()), ids=list(INVALID))
def test_an_invalid_token(client: FlaskClient, bad: str) -> None:
    error = refused(ask(client, bad), 401, "token_invalid")
    # The same words for each: the client does not learn which check failed.
    assert error["message"] == (
        "The token is not valid: ask the server's operator for a new one (sseflask token)."
    )
    assert error["type"] == "authentication_error"


@pytest.mark.parametrize("bad", ["", "nonsense", token("x" * 32)])
def test_an_invalid_token_in_the_query(client: FlaskClient, bad: str) -> None:
    refused(ask(client, query_string={"access_token": bad}), 401, "token_invalid")


def test_an_invalid_token_does_not_fall_back_to_loopback(development: FlaskClient) -> None:
    headers = {"Authorization": "Bearer nonsense"}
    response = development.get("/", headers=headers, environ_overrides=LOCAL)
    refused(response, 401, "token_invalid")


def test_an_expired_token(client: FlaskClient) -> None:
    response = ask(client, token(exp=int(time.time()) - 1))
    error = refused(response, 401, "token_expired")
    assert error["message"].startswith("The token has expired:")
    assert response.headers["WWW-Authenticate"] == (
        'Bearer realm="sseflask", error="invalid_token", error_description="The token has expired"'
    )


def test_a_token_ends_also_where_it_is_known(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = token(exp=time.time() + 100)
    assert ask(client, known).status_code == 200
    later = time.time() + 101
    monkeypatch.setattr(time, "time", lambda: later)
    refused(ask(client, known), 401, "token_expired")


def test_an_expired_token_that_is_not_ours_is_only_not_valid(client: FlaskClient) -> None:
    forged = token("somebody else's secret of 32 bytes, or more", exp=int(time.time()) - 1)
    refused(ask(client, forged), 401, "token_invalid")


@pytest.mark.parametrize("complete", [False, None, "true", 1, ["complete"]])
def test_a_token_without_the_right(client: FlaskClient, complete: object) -> None:
    response = ask(client, token(complete=complete))
    refused(response, 403, "right_missing")
    assert 'error="insufficient_scope"' in response.headers["WWW-Authenticate"]


def test_no_token(client: FlaskClient) -> None:
    response = ask(client)
    assert "Authorization: Bearer" in refused(response, 401, "token_missing")["message"]
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="sseflask"'


def test_another_scheme_is_no_token(client: FlaskClient) -> None:
    response = client.get("/", headers={"Authorization": "Basic YTpi"}, environ_overrides=REMOTE)
    refused(response, 401, "token_missing")


def test_two_tokens(client: FlaskClient) -> None:
    query = {"access_token": token()}
    refused(ask(client, token(), query_string=query), 400, "duplicate_token")
    twice = f"access_token={token()}&access_token={token()}"
    refused(ask(client, query_string=twice), 400, "duplicate_token")


def test_without_a_secret_nothing_is_accepted(caplog: pytest.LogCaptureFixture) -> None:
    client = make_app().test_client()
    assert "SSEFLASK_SECRET is not set" in caplog.text
    assert "SSEFLASK_SECRET" in refused(ask(client), 401, "token_missing")["message"]
    # An empty key must not verify anything either.
    refused(ask(client, unsigned(alg="none")), 401, "token_invalid")
    refused(client.get("/", environ_overrides=LOCAL), 401, "token_missing")


def test_production_never_trusts_loopback() -> None:
    client = make_app(SECRET).test_client()
    refused(client.get("/", environ_overrides=LOCAL), 401, "token_missing")


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("127.0.0.1", "127.0.0.1:8000"),
        ("127.0.0.1", "127.0.0.1"),
        ("127.0.0.1", "127.8.9.10:80"),
        ("127.8.9.10", "localhost:8000"),
        ("127.0.0.1", "LocalHost"),
        ("::1", "[::1]:8000"),
        ("::1", "[::1]"),
        ("::ffff:127.0.0.1", "localhost"),
    ],
)
def test_development_trusts_this_machine(development: FlaskClient, peer: str, host: str) -> None:
    response = development.get("/", environ_overrides={"REMOTE_ADDR": peer, "HTTP_HOST": host})
    assert response.json == {"subject": "loopback", "expires": None}


@pytest.mark.parametrize(
    "peer", ["", "192.0.2.7", "10.0.0.1", "0.0.0.0", "::", "::ffff:10.0.0.1", "localhost", "127.1"]
)
def test_another_peer_is_not_trusted(development: FlaskClient, peer: str) -> None:
    response = development.get("/", environ_overrides={**LOCAL, "REMOTE_ADDR": peer})
    refused(response, 401, "token_missing")


@pytest.mark.parametrize(
    "host",
    [
        "",
        "example.org",
        "localhost.example.org",
        "127.0.0.1.example.org",
        "localhost.",
        "127.1",
        "127.0.0.1:",
        "127.0.0.1:port",
        "127.0.0.1:70000",
        "127.0.0.1:80:80",
        "127.0.0.1@example.org",
        "127.0.0.1,127.0.0.1",
        "128.0.0.1",
        "127.0.0.256",
        "0127.0.0.1",
        "2130706433",
        "0.0.0.0",
        "::1",
        "[::1",
        "[::2]",
        "[::ffff:127.0.0.1]",
        "localhost\n",
        "localhost/..",
        "\uff1127.0.0.1",
    ],
)
def test_another_host_is_not_trusted(host: str) -> None:
    # Called directly: some versions of Werkzeug refuse some of these before any view runs.
    environ = EnvironBuilder(environ_overrides={**LOCAL, "HTTP_HOST": host}).get_environ()
    assert not is_from_this_machine(Request(environ))


@pytest.mark.parametrize(
    "header",
    [
        "Forwarded",
        "Via",
        "X-Forwarded-For",
        "X-Forwarded-Host",
        "X-Forwarded-Proto",
        "X-Forwarded-Anything",
        "X-Real-IP",
        "X-Client-IP",
        "True-Client-IP",
        "CF-Connecting-IP",
    ],
)
@pytest.mark.parametrize("value", ["127.0.0.1", ""])
def test_a_forwarded_request_is_not_trusted(
    development: FlaskClient, header: str, value: str
) -> None:
    response = development.get("/", headers={header: value}, environ_overrides=LOCAL)
    refused(response, 401, "token_missing")


def test_a_proxy_cannot_claim_loopback() -> None:
    app = make_app(SECRET, development=True)
    # What ProxyFix leaves when it has put a loopback address in the place of the peer's.
    seen = {**LOCAL, "werkzeug.proxy_fix.orig": {"REMOTE_ADDR": "192.0.2.7"}}
    with (
        app.test_request_context("/", environ_overrides=seen),
        pytest.raises(Failure) as caught,
    ):
        require_complete()
    assert (caught.value.status, caught.value.code) == (401, "token_missing")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "same-origin"},
        {"Origin": "http://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://127.0.0.1:8000"},
    ],
)
def test_the_own_pages_are_trusted(development: FlaskClient, headers: dict[str, str]) -> None:
    response = development.post("/", headers=headers, environ_overrides=LOCAL)
    assert response.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": ""},
        {"Sec-Fetch-Site": "same-origin, cross-site"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8000"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "https://example.org"},
        {"Origin": "https://example.org"},
        {"Origin": "http://127.0.0.1:3000"},
        {"Origin": "http://localhost:8000"},
        {"Origin": "https://127.0.0.1:8000"},
        {"Origin": "http://127.0.0.1:8000.example.org"},
        {"Origin": "null"},
        {"Origin": ""},
    ],
)
def test_another_site_is_refused(development: FlaskClient, headers: dict[str, str]) -> None:
    response = development.post("/", headers=headers, environ_overrides=LOCAL)
    refused(response, 403, "cross_site")


def test_another_site_may_come_with_a_token(client: FlaskClient) -> None:
    headers = {
        "Authorization": f"Bearer {token()}",
        "Origin": "https://example.org",
        "Sec-Fetch-Site": "cross-site",
    }
    assert client.post("/", headers=headers, environ_overrides=REMOTE).status_code == 200

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from sseflask.auth.presented import LONGEST_TOKEN
from sseflask.auth.tokens import sign
from tests.service import KEY, LOCAL, SECRET, service

PATH = "/session"
WHERE = {"REMOTE_ADDR": "192.0.2.7"}
#: The test client asks for this host.
OWN = {"Sec-Fetch-Site": "same-origin", "Origin": "http://localhost"}


@pytest.fixture
def app() -> Iterator[Flask]:
    # With an upstream, so that there is a route that needs a token.
    with service(
        SSEFLASK_SECRET=SECRET, OPENAI_API_KEY=KEY, OPENAI_BASE_URL="http://127.0.0.1:1/v1"
    ) as made:
        yield made


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    made = app.test_client()
    made.environ_base.update(WHERE)
    return made


def token(seconds: float = 600, **rights: object) -> str:
    return sign(SECRET, "alice", time.time() + seconds, **rights)


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def refused(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status
    assert "Set-Cookie" not in response.headers
    error: dict[str, Any] = json.loads(response.data)["error"]
    assert error["code"] == code
    return error


def cookie_of(response: TestResponse) -> tuple[str, str, dict[str, str]]:
    """The name, the value and the attributes of the one cookie that is set."""
    assert (response.status_code, response.data) == (204, b"")
    assert response.headers["Cache-Control"] == "no-store"
    (header,) = response.headers.getlist("Set-Cookie")
    first, _, rest = header.partition("; ")
    name, _, value = first.partition("=")
    attributes = (each.partition("=") for each in rest.split("; "))
    return name, value, {key: set_to for key, _, set_to in attributes}


@pytest.mark.parametrize("how", ["header", "form", "json"])
def test_a_token_becomes_a_cookie(client: FlaskClient, how: str) -> None:
    text = token()
    asked: dict[str, dict[str, Any]] = {
        "header": {"headers": bearer(text)},
        "form": {"data": {"token": text}},
        "json": {"json": {"token": text}},
    }
    name, value, attributes = cookie_of(client.post(PATH, **asked[how]))
    assert (name, value) == ("sseflask_session", text)
    assert 590 <= int(attributes.pop("Max-Age")) <= 600
    assert attributes.pop("Expires")  # for what does not know Max-Age
    assert attributes == {"HttpOnly": "", "Path": "/", "SameSite": "Strict"}


def test_over_tls_it_is_secure(client: FlaskClient) -> None:
    text = token()
    response = client.post(
        PATH, headers=bearer(text), environ_overrides={"wsgi.url_scheme": "https"}
    )
    name, value, attributes = cookie_of(response)
    # The prefix is only accepted with Secure, Path=/ and no Domain.
    assert (name, value) == ("__Host-sseflask_session", text)
    assert attributes.keys() - {"Expires", "Max-Age", "SameSite"} == {"HttpOnly", "Path", "Secure"}
    assert attributes["Path"] == "/"


def test_a_proxy_that_speaks_tls() -> None:
    with service(SSEFLASK_SECRET=SECRET, SSEFLASK_TRUSTED_PROXIES="1") as app:
        headers = {
            **bearer(token()),
            "X-Forwarded-Proto": "https",
            "X-Forwarded-For": "203.0.113.9",
            "Origin": "https://localhost",
        }
        response = app.test_client().post(PATH, headers=headers, environ_overrides=WHERE)
    assert cookie_of(response)[0] == "__Host-sseflask_session"


def test_the_browser_is_let_in_with_it_and_out(client: FlaskClient) -> None:
    def ask() -> TestResponse:
        return client.post("/sse/openai_out", headers=OWN)

    refused(ask(), 401, "token_missing")
    assert client.post(PATH, headers={**bearer(token(complete=True)), **OWN}).status_code == 204
    refused(ask(), 502, "upstream_unreachable")
    name, value, attributes = cookie_of(client.delete(PATH, headers=OWN))
    assert (name, value, attributes["Max-Age"]) == ("sseflask_session", "", "0")
    refused(ask(), 401, "token_missing")


def test_the_rights_are_the_tokens(client: FlaskClient) -> None:
    client.post(PATH, headers=bearer(token()))
    refused(client.post("/sse/openai_out", headers=OWN), 403, "right_missing")


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://example.org"},
        {"Origin": "null"},
        {"Origin": "http://other.localhost", "Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_site_signs_nobody_in_or_out(client: FlaskClient, headers: dict[str, str]) -> None:
    form = {"token": token()}
    refused(client.post(PATH, data=form, headers=headers), 403, "cross_site")
    refused(client.post(PATH, headers={**bearer(token()), **headers}), 403, "cross_site")
    refused(client.delete(PATH, headers=headers), 403, "cross_site")


@pytest.mark.parametrize("text", ["", "nonsense", "a.b.c", "schlüssel", sign("x" * 32, "a", 2**40)])
def test_a_token_that_is_no_good(client: FlaskClient, text: str) -> None:
    refused(client.post(PATH, json={"token": text}), 401, "token_invalid")
    refused(client.post(PATH, data={"token": text}), 401, "token_invalid")


def test_an_expired_token(client: FlaskClient) -> None:
    refused(client.post(PATH, data={"token": token(-1)}), 401, "token_expired")


@pytest.mark.parametrize("asked", [{}, {"json": {}}, {"json": {"token": None}}, {"data": {}}])
def test_no_token(client: FlaskClient, asked: dict[str, Any]) -> None:
    response = client.post(PATH, **asked)
    refused(response, 401, "token_missing")
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="sseflask"'


def test_a_session_does_not_renew_itself(client: FlaskClient) -> None:
    client.post(PATH, headers=bearer(token()))
    refused(client.post(PATH, headers=OWN), 401, "token_missing")


def test_in_development_there_is_no_session_without_a_token() -> None:
    with service(development=True, SSEFLASK_SECRET=SECRET) as app:
        here = LOCAL
        response = app.test_client().post(PATH, environ_overrides=here)
        refused(response, 401, "token_missing")


def test_two_tokens(client: FlaskClient) -> None:
    response = client.post(PATH, headers=bearer(token()), data={"token": token()})
    refused(response, 400, "duplicate_token")
    response = client.post(PATH, data={"token": [token(), token()]})
    refused(response, 400, "duplicate_parameter")


@pytest.mark.parametrize("name", ["token", "access_token"])
def test_a_token_in_the_url(client: FlaskClient, name: str) -> None:
    response = client.post(PATH, query_string={name: token()})
    assert refused(response, 400, "token_in_url")["param"] == name


@pytest.mark.parametrize("value", [7, True, ["a"], {"a": 1}, "\ud800"])
def test_something_else_for_a_token(client: FlaskClient, value: object) -> None:
    error = refused(client.post(PATH, json={"token": value}), 400, "invalid_value")
    assert error["param"] == "token"


def test_a_body_of_another_kind(client: FlaskClient) -> None:
    response = client.post(PATH, data=b"token", content_type="text/plain")
    refused(response, 415, "unsupported_media_type")


def test_a_token_that_no_browser_would_keep(client: FlaskClient) -> None:
    many = ["a" * 128] * 40
    assert len(token(publish=many)) > LONGEST_TOKEN
    refused(client.post(PATH, headers=bearer(token(publish=many))), 400, "token_too_long")


def test_the_longest_cookie_is_one_that_browsers_keep(client: FlaskClient) -> None:
    texts = [token(1e12, padding="a" * size) for size in range(2600, 2900)]
    longest = max((text for text in texts if len(text) <= LONGEST_TOKEN), key=len)
    assert len(longest) > LONGEST_TOKEN - 4
    response = client.post(
        PATH, headers=bearer(longest), environ_overrides={"wsgi.url_scheme": "https"}
    )
    assert cookie_of(response)[1] == longest
    # RFC 6265, section 6.1, and Werkzeug warns above 4093.
    assert len(response.headers["Set-Cookie"]) <= 4093


def test_a_token_that_never_seems_to_end(client: FlaskClient) -> None:
    response = client.post(PATH, headers=bearer(token(1e12)))
    assert cookie_of(response)[2]["Max-Age"] == str(400 * 86_400)


@pytest.mark.parametrize("method", ["GET", "PUT"])
def test_other_methods(client: FlaskClient, method: str) -> None:
    refused(client.open(PATH, method=method), 405, "method_not_allowed")


def test_closing_needs_no_session(client: FlaskClient) -> None:
    cookie_of(client.delete(PATH))
    client.set_cookie("sseflask_session", "nonsense")
    cookie_of(client.delete(PATH))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


def test_any_body(client: FlaskClient) -> None:
    @given(st.one_of(JSON, st.fixed_dictionaries({"token": JSON}), st.binary(max_size=40)))
    def check(value: Any) -> None:
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        for kind in ("application/json", "application/x-www-form-urlencoded"):
            response = client.post(PATH, data=body, content_type=kind)
            assert response.status_code in (400, 401)
            assert "Set-Cookie" not in response.headers

    check()

"""The session cookie as a token, and whose pages may use it."""

from __future__ import annotations

import time
from collections.abc import Mapping

import pytest
from werkzeug.test import TestResponse

from tests.service import LOCAL, SECRET
from tests.unit.auth.protected import (
    COOKIE,
    OTHER,
    OWN,
    REMOTE,
    bearer,
    make_app,
    refused,
    token,
)

ALL = token(publish=["**"], subscribe=["**"])
ACTIONS = [("GET", "/"), ("POST", "/"), ("POST", "/channels/a")]
READING = ("GET", "/channels?c=a")


def ask(
    method: str,
    path: str,
    kept: str | None = ALL,
    headers: Mapping[str, str] | None = None,
    *,
    name: str = COOKIE,
    scheme: str = "http",
    public: tuple[str, ...] = (),
    development: bool = False,
) -> TestResponse:
    client = make_app(SECRET, public=public, development=development).test_client(use_cookies=False)
    fields = {**(headers or {}), **({"Cookie": f"{name}={kept}"} if kept is not None else {})}
    where = LOCAL if development else REMOTE
    environ = {**where, "wsgi.url_scheme": scheme}
    return client.open(path, method=method, headers=fields, environ_overrides=environ)


@pytest.mark.parametrize(("method", "path"), [*ACTIONS, READING])
@pytest.mark.parametrize(
    "headers",
    [
        OWN,
        {"Origin": "http://stream.example.org"},
        {"Origin": "http://stream.example.org", **OWN},
    ],
)
def test_the_own_pages_may(method: str, path: str, headers: dict[str, str]) -> None:
    response = ask(method, path, headers=headers)
    assert response.status_code == 200
    assert response.json is not None
    assert response.json["subject"] == "alice"
    assert response.json["expires"] > time.time()


ELSEWHERE = [
    OTHER,
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": ""},
    {"Sec-Fetch-Site": "Same-Origin"},
    {"Origin": "https://example.org"},
    {"Origin": "http://other.example.org"},
    {"Origin": "https://stream.example.org"},
    {"Origin": "http://stream.example.org:8080"},
    {"Origin": "http://stream.example.org/"},
    {"Origin": "null"},
    {"Origin": "null", **OWN},
]


@pytest.mark.parametrize(("method", "path"), [*ACTIONS, READING])
@pytest.mark.parametrize("headers", ELSEWHERE)
def test_other_sites_may_not(method: str, path: str, headers: dict[str, str]) -> None:
    message = refused(ask(method, path, headers=headers), 403, "cross_site")["message"]
    assert "no page of this server" in message


@pytest.mark.parametrize(("method", "path"), ACTIONS)
def test_a_cookie_alone_does_not_act(method: str, path: str) -> None:
    message = refused(ask(method, path), 403, "cross_site")["message"]
    assert "send Origin or Sec-Fetch-Site" in message


@pytest.mark.parametrize(("method", "path"), ACTIONS)
def test_a_typed_address_does_not_act(method: str, path: str) -> None:
    refused(ask(method, path, headers={"Sec-Fetch-Site": "none"}), 403, "cross_site")


@pytest.mark.parametrize("development", [False, True])
@pytest.mark.parametrize("headers", [{}, {"Sec-Fetch-Site": "none"}])
def test_a_cookie_alone_and_a_typed_address_may_read(
    headers: dict[str, str], development: bool
) -> None:
    assert ask(*READING, headers=headers).status_code == 200
    trusted = ask(*READING, kept=None, headers=headers, development=development)
    assert trusted.status_code == (200 if development else 401)


@pytest.mark.parametrize("headers", ELSEWHERE)
def test_other_sites_may_not_read_from_this_machine_either(headers: dict[str, str]) -> None:
    refused(ask(*READING, kept=None, headers=headers, development=True), 403, "cross_site")


def test_the_rights_are_the_tokens() -> None:
    narrow = token(publish=["b"], subscribe=["b"], complete=False)
    for method, path in [*ACTIONS, READING]:
        refused(ask(method, path, narrow, OWN), 403, "right_missing")


@pytest.mark.parametrize(
    ("kept", "code"),
    [
        ("", "token_invalid"),
        ("nonsense", "token_invalid"),
        (token("somebody else's secret of 32 bytes, or more"), "token_invalid"),
        (token(exp=int(time.time()) - 1), "token_expired"),
    ],
)
@pytest.mark.parametrize("development", [False, True])
def test_a_cookie_that_is_no_good(kept: str, code: str, development: bool) -> None:
    for method, path in [*ACTIONS, READING]:
        response = ask(method, path, kept, OWN, public=("a",), development=development)
        assert "DELETE /session" in refused(response, 401, code)["message"]


@pytest.mark.parametrize("headers", [OTHER, {"Sec-Fetch-Site": "same-site"}])
@pytest.mark.parametrize("kept", [ALL, "nonsense"])
def test_from_other_sites_a_cookie_counts_for_nothing_on_public_channels(
    kept: str, headers: dict[str, str]
) -> None:
    response = ask(*READING, kept, headers, public=("a",))
    assert response.json == {"subject": "", "expires": None}


def test_on_public_channels_it_gives_the_subject() -> None:
    response = ask(*READING, ALL, OWN, public=("a",))
    assert response.json == {"subject": "alice", "expires": None}


def test_a_token_of_its_own_wins_over_the_cookie() -> None:
    bob = token(sub="bob", publish=["a"])
    # Nor does it matter then who made the browser send it: a page has to know the token.
    response = ask("POST", "/channels/a", ALL, {**bearer(bob), **OTHER})
    assert response.json is not None
    assert response.json["subject"] == "bob"
    response = ask("POST", f"/channels/a?access_token={bob}", ALL, OTHER)
    assert response.json is not None
    assert response.json["subject"] == "bob"
    for bad in ({"Authorization": "Bearer"}, bearer("nonsense")):
        refused(ask("POST", "/channels/a", ALL, {**bad, **OWN}), 401, "token_invalid")


def test_header_and_query_are_two_with_a_cookie_too() -> None:
    response = ask("POST", f"/?access_token={ALL}", ALL, {**bearer(ALL), **OWN})
    refused(response, 400, "duplicate_token")


@pytest.mark.parametrize(
    ("scheme", "name", "status"),
    [
        ("http", COOKIE, 200),
        ("http", f"__Host-{COOKIE}", 401),
        ("https", f"__Host-{COOKIE}", 200),
        ("https", COOKIE, 401),
    ],
)
def test_over_tls_only_the_cookie_that_nobody_else_can_plant(
    scheme: str, name: str, status: int
) -> None:
    response = ask(*READING, headers=OWN, scheme=scheme, name=name)
    assert response.status_code == status


def test_another_cookie_is_no_token() -> None:
    refused(ask(*READING, headers=OWN, name="session"), 401, "token_missing")

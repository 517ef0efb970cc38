"""Tokens that anybody might make, with the secret or without: accepted or refused, never a 500."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.live.kit.clients import open_stream
from tests.live.kit.connection import Answer, Connection
from tests.live.kit.publishing import error_of, post
from tests.live.kit.servers import Server
from tests.live.kit.services import SECRET, authorization, production


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    directory = tmp_path_factory.mktemp("tokens")
    settings = {
        "SSEFLASK_SECRET": SECRET,
        "SSEFLASK_HEARTBEAT": "0.2",
    }
    with production(directory, settings) as server:
        yield server


def signed(**claims: Any) -> dict[str, str]:
    """A header with a well-signed token that has these claims, whatever they are."""
    known = {"sub": "tester", "exp": int(time.time()) + 600, "publish": ["a"], "subscribe": ["a"]}
    token = jwt.PyJWS().encode(json.dumps({**known, **claims}).encode(), SECRET, "HS256")
    return authorization(token)


def both(server: Server, headers: dict[str, str], query: str = "") -> tuple[Answer, Answer]:
    """The answers to publishing and to subscribing; a stream is left at once."""
    publishing = post(server, f"a{query}", b"x", "text/plain", headers)
    with Connection(server) as connection:
        connection.request(f"/channels/a{query}", headers=headers)
        head = connection.head()
        body = b"" if head.status == 200 else connection.body(head)
    return publishing, Answer(head.status, head.headers, body)


def test_a_good_one(guarded: Server) -> None:
    publishing, subscribing = both(guarded, signed())
    assert (publishing.status, subscribing.status) == (201, 200)


@pytest.mark.parametrize("right", ["publish", "subscribe"])
@pytest.mark.parametrize(
    "patterns",
    [
        *(1, True, None, {}, {"a": 1}, [1], [None], [["a"]], [""], ["a", 2], ["a**"], ["a b"]),
        *(["a\x00"], ["\ud800"], ["a" * 129], [" a"], ["a\n"], "a b", ""),
    ],
    ids=repr,
)
def test_rights_that_make_no_sense(guarded: Server, right: str, patterns: Any) -> None:
    """The token is no good at all, or without that right."""
    publishing, subscribing = both(guarded, signed(**{right: patterns}))
    error_of(publishing if right == "publish" else subscribing, 401, 403)
    assert publishing.status in (201, 401, 403)
    assert subscribing.status in (200, 401, 403)


NO_CLAIMS: dict[str, list[Any]] = {
    "exp": ["soon", None, -1, 0, [], {}, True],
    "sub": [5, None, [], "", {}],
    "nbf": ["x", 10**12, [], {}],
    "iat": ["x"],
}


@pytest.mark.parametrize(
    ("claim", "value"), [(claim, value) for claim, values in NO_CLAIMS.items() for value in values]
)
def test_claims_that_make_no_sense(guarded: Server, claim: str, value: Any) -> None:
    for answer in both(guarded, signed(**{claim: value})):
        error_of(answer, 401, 403)


@pytest.mark.parametrize("expiry", [10**10, 2**31, 2**53, 2**63, 10**18, 10**30, 1e300, 4e9 + 0.5])
def test_an_expiry_far_away(guarded: Server, expiry: float) -> None:
    """No timer overflows: the stream goes on, or the token is refused."""
    headers = signed(exp=expiry)
    publishing, subscribing = both(guarded, headers)
    if subscribing.status != 200:
        error_of(subscribing, 401)
        error_of(publishing, 401)
        return
    with open_stream(guarded, "/channels/a", headers=headers) as stream:
        stream.next_comments(2)
        assert post(guarded, "a", b"hello", "text/plain", headers).status == 201
        assert stream.next().data == "hello"


def test_an_expiry_within_a_second(guarded: Server) -> None:
    with open_stream(guarded, "/channels/a", headers=signed(exp=time.time() + 1.5)) as stream:
        (failure,) = stream.rest()
    assert failure.event == "failure"
    assert json.loads(failure.data or "")["error"]["code"] == "token_expired"


TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=200)
PARTS = st.lists(st.from_regex(r"[A-Za-z0-9_=-]{0,60}", fullmatch=True), min_size=1, max_size=6)


@settings(max_examples=150)
@given(token=TEXT | PARTS.map(".".join), where=st.sampled_from(["header", "query", "cookie"]))
def test_made_up_tokens(guarded: Server, token: str, where: str) -> None:
    headers, query = {}, ""
    if where == "header":
        headers = authorization(token)
    elif where == "query":
        query = f"?access_token={quote(token, safe='')}"
    else:
        headers = {"Cookie": f"sseflask_session={token}", "Sec-Fetch-Site": "same-origin"}
    for answer in both(guarded, headers, query):
        error_of(answer, 400, 401, 403)


CLAIMS = st.dictionaries(
    st.sampled_from(["publish", "subscribe", "exp", "sub", "complete", "aud", "iss", "nbf"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()),
)


@settings(max_examples=150)
@given(claims=CLAIMS)
def test_made_up_claims(guarded: Server, claims: dict[str, Any]) -> None:
    publishing, subscribing = both(guarded, signed(**claims))
    assert publishing.status in (201, 401, 403), publishing.body
    assert subscribing.status in (200, 401, 403), subscribing.body

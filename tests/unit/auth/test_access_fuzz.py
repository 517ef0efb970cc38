"""Whatever comes in: never a 500, and no access without the right."""

from __future__ import annotations

import base64
import itertools
import json
import time
from typing import Any

import jwt
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from sseflask.auth.tokens import TokenError, verify
from sseflask.errors import ChannelError
from sseflask.store.names import Pattern
from tests.service import LOCAL, SECRET
from tests.unit.auth.protected import COOKIE, REMOTE, bearer, make_app, patterns, token

PRODUCTION = make_app(SECRET).test_client(use_cookies=False)
DEVELOPMENT = make_app(SECRET, development=True).test_client(use_cookies=False)
PATHS = [("GET", "/"), ("POST", "/"), ("POST", "/channels/a.b"), ("GET", "/channels?c=a.*")]
REFUSED = (400, 401, 403)

#: Header values, as a server hands them over: any byte but line breaks and NUL.
VALUES = st.text(st.characters(max_codepoint=255, exclude_characters="\r\n\0"), max_size=60)
NUMBERS = st.one_of(st.integers(), st.floats(), st.integers(0, 10**400))
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
SEGMENTS = st.sampled_from(["a", "b", "*"])
PATTERNS = st.builds(
    lambda first, rest: ".".join([*first, *rest]),
    st.lists(SEGMENTS, min_size=1, max_size=2),
    st.sampled_from([[], ["**"], ["a"]]),
) | st.just("**")
#: Every name that such patterns can tell apart, and then some.
NAMES = [
    ".".join(parts) for size in (1, 2, 3, 4) for parts in itertools.product("abc", repeat=size)
]


def everything_refuses(text: str) -> None:
    for method, path in PATHS:
        for headers in (
            {"Authorization": f"Bearer {text}"},
            {"Authorization": text},
            {"Cookie": f"{COOKIE}={text}", "Sec-Fetch-Site": "same-origin"},
        ):
            response = PRODUCTION.open(
                path, method=method, environ_overrides=REMOTE, headers=headers
            )
            assert response.status_code in REFUSED


@given(VALUES)
@example(jwt.encode({"sub": "a", "exp": 1}, "x" * 32))
@example(
    base64.b64encode(b'{"alg":"HS256","x":' + b"[" * 5000 + b"]" * 5000 + b"}").decode() + ".e30.x"
)
@example(base64.b64encode(b"[" * 5000 + b"]" * 5000).decode() + ".e30.x")
@example(base64.b64encode(b'{"alg":["HS256"]}').decode() + ".e30.x")
def test_any_text_as_a_token(text: str) -> None:
    everything_refuses(text)


@given(st.text(max_size=60))
def test_any_text_as_a_token_in_the_query(text: str) -> None:
    for method, path in PATHS:
        target, _, query = path.partition("?")
        both = {"access_token": text, **({"c": "a"} if query else {})}
        response = PRODUCTION.open(
            target, method=method, query_string=both, environ_overrides=REMOTE
        )
        assert response.status_code in REFUSED


GOOD = token(publish=["**"], subscribe=["**"])


# Not the last character: it holds two bits that mean nothing.
@given(st.integers(0, len(GOOD) - 2), st.characters(codec="ascii", exclude_categories=["Cc"]))
def test_a_token_with_one_character_changed(place: int, character: str) -> None:
    changed = GOOD[:place] + character + GOOD[place + 1 :]
    if changed == GOOD:
        return
    with pytest.raises(TokenError):
        verify(changed, [SECRET])
    everything_refuses(changed)


#: Registered claims of which the library has its own view.
OTHERS = ("nbf", "iat", "aud", "iss", "jti")
TOMORROW = int(time.time()) + 86_400
CLAIMS = st.fixed_dictionaries(
    {},
    optional={
        "sub": st.just("alice") | JSON,
        "exp": st.just(TOMORROW) | JSON,
        "complete": JSON,
        "publish": st.lists(PATTERNS, max_size=3) | JSON,
        "subscribe": st.lists(PATTERNS, max_size=3) | JSON,
        **dict.fromkeys(OTHERS, JSON),
    },
)


def readable(claim: Any) -> list[Pattern] | None:
    """An oracle: the patterns of a claim, ``None`` if it makes no sense."""
    texts = [claim] if isinstance(claim, str) else claim
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return None
    try:
        return [Pattern.parse(text) for text in texts]
    except ChannelError:
        return None


def signed_ask(method: str, path: str, claims: dict[str, Any]) -> TestResponse:
    text = jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, algorithm="HS256")
    return PRODUCTION.open(path, method=method, headers=bearer(text), environ_overrides=REMOTE)


@given(CLAIMS)
@example({"sub": "a", "exp": []})
@example({"sub": "a", "exp": None})
@example({"sub": "a", "exp": 10**400})
@example({"sub": "a", "exp": TOMORROW, "publish": ["a.b", 1]})
@example({"sub": "\ud800", "exp": TOMORROW, "publish": "**"})
def test_any_claims_signed_with_our_secret(claims: dict[str, Any]) -> None:
    rights = {name: readable(claims.get(name, [])) for name in ("publish", "subscribe")}
    sound = (
        isinstance(claims.get("sub"), str)
        and claims["sub"] != ""
        and rights["publish"] is not None
        and rights["subscribe"] is not None
    )
    certain = sound and claims.get("exp") == TOMORROW and claims.keys().isdisjoint(OTHERS)
    asked = Pattern.parse("a.*")
    allowed = {
        ("GET", "/"): claims.get("complete") is True,
        ("POST", "/"): claims.get("complete") is True,
        ("POST", "/channels/a.b"): any(each.matches("a.b") for each in rights["publish"] or ()),
        ("GET", "/channels?c=a.*"): any(each.covers(asked) for each in rights["subscribe"] or ()),
    }
    for (method, path), right in allowed.items():
        status = signed_ask(method, path, claims).status_code
        assert status in (200, 401, 403)
        if not sound:
            assert status == 401
        elif not right:
            assert status in (401, 403)
        elif certain:
            assert status == 200


@given(st.lists(PATTERNS, max_size=3), st.lists(PATTERNS, min_size=1, max_size=3))
def test_no_channel_is_read_that_the_token_does_not_name(
    rights: list[str], asked: list[str]
) -> None:
    response = PRODUCTION.get(
        "/channels",
        query_string={"c": asked},
        headers=bearer(token(subscribe=rights)),
        environ_overrides=REMOTE,
    )
    assert response.status_code in (200, 403)
    read = {name for name in NAMES if any(each.matches(name) for each in patterns(*asked))}
    mine = {name for name in NAMES if any(each.matches(name) for each in patterns(*rights))}
    if response.status_code == 200:
        assert read <= mine
    else:
        assert not any(set(asked) <= {right} for right in rights)


@given(st.lists(PATTERNS, max_size=3), st.sampled_from(NAMES))
def test_publishing_is_let_through_for_exactly_what_the_token_names(
    rights: list[str], channel: str
) -> None:
    response = PRODUCTION.post(
        f"/channels/{channel}",
        headers=bearer(token(publish=rights)),
        environ_overrides=REMOTE,
    )
    named = any(each.matches(channel) for each in patterns(*rights))
    assert response.status_code == (200 if named else 403)


HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "Authorization": VALUES,
        "Cookie": VALUES | VALUES.map(lambda value: f"{COOKIE}={value}"),
        "Sec-Fetch-Site": VALUES | st.sampled_from(["same-origin", "same-site", "none"]),
        "Origin": VALUES | st.sampled_from(["null", "http://127.0.0.1:8000", "http://[::1"]),
        "Host": VALUES,
        "X-Forwarded-For": VALUES,
    },
)


@given(HEADERS)
def test_any_headers(headers: dict[str, str]) -> None:
    for method, path in PATHS:
        response = PRODUCTION.open(path, method=method, headers=headers, environ_overrides=REMOTE)
        assert response.status_code in REFUSED
        response = DEVELOPMENT.open(path, method=method, headers=headers, environ_overrides=LOCAL)
        assert response.status_code in (200, *REFUSED)
        # Who is trusted without a token may carry none, and only a page of ours may be behind it.
        if response.status_code == 200:
            assert "X-Forwarded-For" not in headers
            assert headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")
            assert headers.get("Origin", "http://127.0.0.1:8000") == "http://127.0.0.1:8000"
            assert not headers.get("Authorization", "").lower().startswith("bearer")

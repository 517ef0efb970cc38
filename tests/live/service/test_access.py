"""Which clients may run a completion on a real upstream, tried from outside.

Behind the service is an upstream that can't be reached: a client with the right gets 502 or 503,
one without it gets 401 or 403.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest

from tests.live.kit.clients import curl
from tests.live.kit.connection import Answer, fetch
from tests.live.kit.servers import Server, free_port
from tests.live.kit.services import KEY, SECRET, authorization, make_token, production, service

OTHER_SECRET = "another-secret-that-is-longer-than-thirty-two-bytes"
OLD_SECRET = "an-older-secret-that-is-longer-than-thirty-two-bytes"
LET_THROUGH = (502, 503)


def unreachable_upstream() -> dict[str, str]:
    return {"OPENAI_BASE_URL": f"http://127.0.0.1:{free_port()}/v1", "OPENAI_API_KEY": KEY}


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Production: loopback proves nothing, tokens of two secrets are accepted."""
    settings = {"SSEFLASK_SECRET": f"{SECRET},{OLD_SECRET}", **unreachable_upstream()}
    with production(tmp_path_factory.mktemp("guarded"), settings) as server:
        yield server


@pytest.fixture(scope="module")
def trusting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Development mode: this machine is trusted."""
    directory = tmp_path_factory.mktemp("trusting")
    with service(directory, settings=unreachable_upstream()) as server:
        yield server


def ask(server: Server, query: str = "", method: str = "POST", **headers: str) -> Answer:
    fields = {name.replace("_", "-"): value for name, value in headers.items()}
    return fetch(server, f"/sse/openai_out{query}", method=method, headers=fields)


def refused(answer: Answer, *statuses: int) -> dict[str, Any]:
    assert answer.status in (statuses or (401, 403)), answer.body
    assert answer.headers["content-type"] == "application/json"
    error: dict[str, Any] = json.loads(answer.body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    return error


def signed(secret: str = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    known = {"sub": "tester", "exp": int(time.time()) + 600, "complete": True}
    kept = {name: value for name, value in {**known, **claims}.items() if value is not None}
    return jwt.encode(kept, secret, algorithm=algorithm)


def unsigned(algorithm: str) -> str:
    def part(value: dict[str, Any]) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    claims = {"sub": "tester", "exp": int(time.time()) + 600, "complete": True}
    return f"{part({'alg': algorithm, 'typ': 'JWT'})}.{part(claims)}."


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("route", ["openai_out", "async_openai_out"])
def test_no_token(guarded: Server, route: str, method: str) -> None:
    answer = fetch(guarded, f"/sse/{route}", method=method)
    refused(answer, 401)
    assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("options", [("--ttl", "1h"), ("--ttl", "30d"), ()])
def test_a_token_of_the_command_line_is_let_through(
    guarded: Server, options: tuple[str, ...]
) -> None:
    token = make_token("--sub", "somebody", "--complete", *options)
    assert ask(guarded, **authorization(token)).status in LET_THROUGH
    assert ask(guarded, f"?access_token={token}", method="GET").status in LET_THROUGH


def test_a_token_signed_with_the_older_secret_is_let_through(guarded: Server) -> None:
    assert ask(guarded, **authorization(signed(OLD_SECRET))).status in LET_THROUGH


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(signed(OTHER_SECRET), id="another secret"),
        pytest.param(signed(exp=int(time.time()) - 60), id="expired"),
        pytest.param(signed(exp=None), id="no exp"),
        pytest.param(signed(sub=None), id="no sub"),
        pytest.param(signed(sub=""), id="empty sub"),
        pytest.param(signed(complete=None), id="without the right"),
        pytest.param(signed(complete=False), id="the right denied"),
        pytest.param(signed(complete="true"), id="the right as text"),
        pytest.param(signed(nbf=int(time.time()) + 600), id="not yet valid"),
        pytest.param(signed(algorithm="HS384"), id="HS384"),
        pytest.param(signed(algorithm="HS512"), id="HS512"),
        pytest.param(unsigned("none"), id="alg none"),
        pytest.param(unsigned("None"), id="alg None"),
        pytest.param(unsigned("HS256"), id="no signature"),
        pytest.param(signed()[:-4] + "AAAA", id="forged signature"),
        pytest.param("nonsense", id="nonsense"),
        pytest.param("a.b.c", id="three parts of nonsense"),
    ],
)
def test_tokens_that_are_no_good(guarded: Server, trusting: Server, token: str) -> None:
    refused(ask(guarded, **authorization(token)))
    refused(ask(guarded, f"?access_token={token}"))
    assert token not in guarded.log()
    # Whoever presents a token is judged by it, on a trusted machine too.
    refused(ask(trusting, **authorization(token)))


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic dGVzdGVyOng=", "bearer x"])
def test_headers_that_are_no_token(guarded: Server, value: str) -> None:
    refused(ask(guarded, Authorization=value), 401)


def test_two_tokens_are_one_too_many(guarded: Server) -> None:
    token = signed()
    refused(ask(guarded, f"?access_token={token}", **authorization(token)), 400)


def test_without_a_secret_every_token_is_refused_and_the_log_says_why(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    settings = unreachable_upstream()
    with production(tmp_path_factory.mktemp("no-secret"), settings) as server:
        for token in (signed(), signed(OTHER_SECRET), unsigned("none")):
            refused(ask(server, **authorization(token)), 401)
        refused(ask(server), 401)
        assert "SSEFLASK_SECRET" in server.log()
        assert fetch(server, "/sse/no_sse").status == 200


def test_production_never_trusts_loopback(guarded: Server) -> None:
    refused(ask(guarded, Host=f"localhost:{guarded.port}"), 401)
    refused(ask(guarded, Host="127.0.0.1"), 401)


def test_development_trusts_this_machine(trusting: Server) -> None:
    assert ask(trusting).status in LET_THROUGH
    for host in ("localhost", "127.0.0.1", "[::1]"):
        assert ask(trusting, Host=f"{host}:{trusting.port}").status in LET_THROUGH
    assert ask(trusting, Origin=trusting.url).status in LET_THROUGH
    assert ask(trusting, Sec_Fetch_Site="same-origin").status in LET_THROUGH
    assert curl(trusting, "/sse/openai_out", "-X", "POST", "-f").returncode == 22


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Forwarded-For", "127.0.0.1"),
        ("X-Forwarded-For", ""),
        ("X-Forwarded-Host", "127.0.0.1"),
        ("X-Forwarded-Proto", "http"),
        ("Forwarded", "for=127.0.0.1"),
        ("Via", "1.1 proxy"),
        ("X-Real-IP", "127.0.0.1"),
        ("CF-Connecting-IP", "127.0.0.1"),
        ("True-Client-IP", "127.0.0.1"),
        ("Host", "example.org"),
        ("Host", "127.0.0.1.example.org"),
        ("Host", "localhost.example.org"),
        ("Host", "0.0.0.0"),
        ("Host", "192.168.0.1"),
        ("Host", ""),
        ("Origin", "https://example.org"),
        ("Origin", "null"),
        ("Origin", "http://127.0.0.1:1"),
        ("Origin", "http://localhost"),
        ("Sec-Fetch-Site", "cross-site"),
        ("Sec-Fetch-Site", "same-site"),
        ("Sec-Fetch-Site", "none"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_development_does_not_trust_whoever_came_through_others(
    trusting: Server, method: str, name: str, value: str
) -> None:
    refused(fetch(trusting, "/sse/openai_out", method=method, headers={name: value}))


def test_a_token_does_for_whoever_came_through_others(guarded: Server) -> None:
    token = signed()
    answer = ask(
        guarded,
        Host="example.org",
        X_Forwarded_For="10.0.0.1",
        Origin="https://a.b",
        **authorization(token),
    )
    assert answer.status in LET_THROUGH


@pytest.mark.parametrize("path", ["/sse/v1?count=1", "/sse/no_sse", "/healthz", "/readyz"])
def test_what_is_open_to_all(guarded: Server, path: str) -> None:
    headers = {"Host": "example.org", "Origin": "https://example.org", "X-Forwarded-For": "1.2.3.4"}
    assert fetch(guarded, path, headers=headers).status == 200


def test_the_demo_model_is_open_to_all(tmp_path_factory: pytest.TempPathFactory) -> None:
    with production(tmp_path_factory.mktemp("demo")) as server:
        answer = fetch(server, "/sse/openai_out", headers={"X-Forwarded-For": "1.2.3.4"})
        assert answer.status == 200
        *chunks, done = [
            block.partition("data: ")[2] for block in answer.body.decode().split("\n\n")[:-1]
        ]
        assert done == "[DONE]"
        deltas = [choice["delta"] for chunk in chunks for choice in json.loads(chunk)["choices"]]
        text = "".join(delta.get("content") or "" for delta in deltas)
        assert "demo" in text.lower(), "it says what it is"

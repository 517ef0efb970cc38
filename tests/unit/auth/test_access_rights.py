"""What a token lets its holder publish and subscribe to, and what is public."""

from __future__ import annotations

import time
from typing import Any

import pytest
from werkzeug.test import TestResponse

from sseflask.auth.access import require_subscribe
from sseflask.auth.tokens import TokenError, verify
from tests.service import LOCAL, SECRET
from tests.unit.auth.protected import REMOTE, bearer, make_app, patterns, refused, token

ORDERS = token(publish=["orders.*"], subscribe=["orders.**", "news"])


def publish(channel: str, text: str | None = None, **access: Any) -> TestResponse:
    client = make_app(SECRET, **access).test_client()
    return client.post(
        f"/channels/{channel}", headers=bearer(text) if text else {}, environ_overrides=REMOTE
    )


def subscribe(*channels: str, text: str | None = None, **access: Any) -> TestResponse:
    client = make_app(SECRET, **access).test_client()
    return client.get(
        "/channels",
        query_string={"c": list(channels)},
        headers=bearer(text) if text else {},
        environ_overrides=REMOTE,
    )


def test_publishing_what_the_token_names() -> None:
    response = publish("orders.eu", ORDERS)
    assert response.status_code == 200
    assert response.json is not None
    assert response.json["subject"] == "alice"
    assert response.json["expires"] > time.time()


@pytest.mark.parametrize("channel", ["orders", "orders.eu.7", "news", "ORDERS.eu", "x"])
def test_publishing_what_it_does_not(channel: str) -> None:
    response = publish(channel, ORDERS)
    message = refused(response, 403, "right_missing")["message"]
    assert f"does not carry the right publish for {channel}:" in message
    assert response.headers["WWW-Authenticate"] == (
        'Bearer realm="sseflask", error="insufficient_scope"'
    )


@pytest.mark.parametrize("channels", [["orders.eu"], ["orders.*"], ["orders.**", "news"]])
def test_subscribing_to_what_the_token_names(channels: list[str]) -> None:
    response = subscribe(*channels, text=ORDERS)
    assert response.status_code == 200
    assert response.json is not None
    assert response.json["subject"] == "alice"
    assert response.json["expires"] > time.time()


@pytest.mark.parametrize(
    ("channels", "named"),
    [
        (["orders"], "orders"),
        (["**"], "**"),
        (["*"], "*"),
        (["orders.eu", "secret", "news"], "secret"),
        (["news.*"], "news.*"),
        (["*.eu"], "*.eu"),
    ],
)
def test_subscribing_to_more(channels: list[str], named: str) -> None:
    message = refused(subscribe(*channels, text=ORDERS), 403, "right_missing")["message"]
    assert f"does not carry the right subscribe for {named}:" in message


def test_one_right_is_not_another() -> None:
    refused(publish("a", token(subscribe=["**"])), 403, "right_missing")
    refused(subscribe("a", text=token(publish=["**"])), 403, "right_missing")
    client = make_app(SECRET).test_client()
    both = token(publish=["**"], subscribe=["**"], complete=False)
    response = client.get("/", headers=bearer(both), environ_overrides=REMOTE)
    refused(response, 403, "right_missing")


@pytest.mark.parametrize("claim", [[], "other", ["other.*"]])
def test_a_right_to_something_else(claim: object) -> None:
    refused(publish("a", token(publish=claim)), 403, "right_missing")
    refused(subscribe("a", text=token(subscribe=claim)), 403, "right_missing")


def test_a_single_pattern_may_stand_without_a_list() -> None:
    assert publish("a.b", token(publish="a.*")).status_code == 200


def test_without_a_token() -> None:
    for response in (publish("orders.eu"), subscribe("orders.eu")):
        refused(response, 401, "token_missing")
        assert response.headers["WWW-Authenticate"] == 'Bearer realm="sseflask"'


def test_public_channels_need_no_token() -> None:
    response = subscribe("news", "scores.*", public=("news", "scores.**"))
    assert response.json == {"subject": "", "expires": None}


@pytest.mark.parametrize("channels", [["scores"], ["**"], ["news", "secret"]])
def test_what_is_not_public_still_needs_one(channels: list[str]) -> None:
    refused(subscribe(*channels, public=("news", "scores.**")), 401, "token_missing")


def test_nothing_is_public_without_being_asked_for() -> None:
    refused(subscribe("news"), 401, "token_missing")


def test_publishing_is_never_public() -> None:
    refused(publish("news", public=("**",)), 401, "token_missing")
    refused(publish("news", token(subscribe=["**"]), public=("**",)), 403, "right_missing")


def test_a_token_on_a_public_channel_gives_the_subject_but_no_end() -> None:
    response = subscribe("news", text=token(), public=("news",))
    assert response.json == {"subject": "alice", "expires": None}


def test_public_channels_add_to_those_of_the_token() -> None:
    mine = token(subscribe=["mine"], exp=int(time.time()) + 60)
    response = subscribe("mine", "news", text=mine, public=("news",))
    assert response.json is not None
    assert response.json["subject"] == "alice"
    assert response.json["expires"] <= time.time() + 60
    refused(subscribe("theirs", "news", text=mine, public=("news",)), 403, "right_missing")


def test_a_bad_token_is_refused_on_public_channels_too() -> None:
    refused(subscribe("news", text="nonsense", public=("news",)), 401, "token_invalid")
    old = token(exp=int(time.time()) - 1)
    refused(subscribe("news", text=old, public=("news",)), 401, "token_expired")


def test_public_channels_without_a_secret() -> None:
    client = make_app(public=("news",)).test_client()
    assert client.get("/channels?c=news", environ_overrides=REMOTE).status_code == 200
    refused(client.get("/channels?c=x", environ_overrides=REMOTE), 401, "token_missing")


def test_in_development_this_machine_may_do_everything() -> None:
    client = make_app(SECRET, development=True).test_client()
    everything = client.get("/channels?c=**", environ_overrides=LOCAL)
    assert everything.json == {"subject": "loopback", "expires": None}
    assert client.post("/channels/any.thing", environ_overrides=LOCAL).status_code == 200


def test_subscribing_to_nothing_is_a_mistake_of_the_route() -> None:
    app = make_app(SECRET, public=("**",))
    with (
        app.test_request_context("/"),
        pytest.raises(ValueError, match="nothing to subscribe to"),
    ):
        require_subscribe([])


def test_what_a_caller_learns_about_itself() -> None:
    caller = verify(ORDERS, ["another secret of at least 32 bytes", SECRET])
    assert caller.publish == patterns("orders.*")
    assert caller.subscribe == patterns("orders.**", "news")
    assert caller.complete


@pytest.mark.parametrize("junk", ["\r\n\r\n", "    ", ";;;;", "!@,\t", "\0\0\0\0", "éé"])
def test_what_a_decoder_of_base64_would_skip(junk: str) -> None:
    # PyJWT 2.10 takes the signature for the right one all the same.
    with pytest.raises(TokenError):
        verify(f"{ORDERS[:-9]}{junk}{ORDERS[-9:]}", [SECRET])

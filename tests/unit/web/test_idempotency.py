"""Keys of repetitions, and what makes two requests the same."""

from __future__ import annotations

from typing import Any

import pytest
from flask import Flask, request

from sseflask.errors import Failure
from sseflask.web.idempotency import check_key, digest_of, given_key, scoped

APP = Flask("keys")


def digest(path: str, *, form: bool = False, read: bool = True, **asked: Any) -> bytes:
    with APP.test_request_context(path, method="POST", **asked):
        if form:
            assert request.form is not None
        elif read:
            request.get_data()
        return digest_of(request._get_current_object())  # type: ignore[attr-defined]  # LocalProxy


@pytest.mark.parametrize("key", ["a", "!~", "x" * 255])
def test_keys(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "x" * 256, "a b", "a\n", "ü", "\x7f", "\x20", 7, None, b"a"])
def test_what_is_no_key(key: Any) -> None:
    with pytest.raises(Failure) as caught:
        check_key(key, "idempotency_key")
    assert caught.value.status == 400
    assert caught.value.body()["error"]["param"] == "idempotency_key"
    assert caught.value.body()["error"]["code"] == "invalid_idempotency_key"


def test_the_header_wins_over_the_query() -> None:
    with APP.test_request_context(headers={"Idempotency-Key": "h"}):
        assert given_key(request, "q") == "h"
    with APP.test_request_context():
        assert given_key(request, "q") == "q"
        assert given_key(request) is None
        with pytest.raises(Failure) as caught:
            given_key(request, "")
    assert caught.value.body()["error"]["param"] == "idempotency_key"
    with APP.test_request_context(headers={"Idempotency-Key": ""}), pytest.raises(Failure):
        given_key(request, "q")


def test_a_key_counts_for_one_sender_in_one_place() -> None:
    found = {scoped(*each) for each in [("a", "b", "c"), ("b", "a", "c"), ("ab", "", "c")]}
    assert len(found | {scoped("a", "b", "cc")}) == 4
    assert scoped("a", "b", "c") == scoped("a", "b", "c")
    assert scoped("a", "b", None) is None


@pytest.mark.parametrize(
    "asked",
    [
        {"path": "/b"},
        {"path": "/a?x=2"},
        {"path": "/a?x=1&x=1"},
        {"path": "/a", "data": "body"},
        {"path": "/a", "data": {"x": "1"}, "form": True},
        {"path": "/a", "data": {"x": "2"}, "form": True},
    ],
)
def test_other_content(asked: dict[str, Any]) -> None:
    assert digest(**asked) != digest("/a?x=1")
    assert digest(**asked) == digest(**asked)


def test_where_the_client_is_is_no_content() -> None:
    """A client that comes back with the id of what it has got sends the same request."""
    cursors = "&last_event_id=5&lastEventId=7&idempotency_key=k"
    assert digest(f"/a?x=1{cursors}") == digest("/a?x=1")
    assert digest("/a?x=1", headers={"Last-Event-ID": "5"}) == digest("/a?x=1")


def test_forms_are_compared_by_their_fields() -> None:
    """However they are encoded: the boundary of a multipart form is another one each time."""
    fields = {"b": "2", "a": "1"}
    multipart: dict[str, Any] = {
        "data": fields,
        "content_type": "multipart/form-data",
        "form": True,
    }
    assert digest("/a", **multipart) == digest("/a", **multipart)
    assert digest(
        "/a", data="a=1&b=2", content_type="application/x-www-form-urlencoded", form=True
    ) == digest("/a", **multipart)


def test_a_body_that_nobody_has_read_does_not_count() -> None:
    assert digest("/a", data="x", read=False) == digest("/a", data="y", read=False)

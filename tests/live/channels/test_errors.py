"""What channels refuse, how they say so, and that nothing makes them fail."""

from __future__ import annotations

import json
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.live.kit.clients import open_stream
from tests.live.kit.connection import Connection, fetch
from tests.live.kit.publishing import JSON, error_of, post, publish
from tests.live.kit.servers import Server

TEXT = "text/plain"
FORM = "application/x-www-form-urlencoded"
BAD_NAMES = [
    *("%20", "a%20b", "a%00b", "a%0Ab", "a%0D%0Ab", "%C3%A4", "%FF", "a%25b", "a+b", "a,b", "a;b"),
    *("a@b", "a~b", "a%22", "a'b", "a" * 129, "%F0%9F%98%80"),
]
#: The service is started once for all tests, though its fixture depends on the test's store.
SHARED = [HealthCheck.function_scoped_fixture]
BAD_PATTERNS = ["***", "a**", "**a", "a.b*", "*a.b", "a.***", "*" * 129]


@pytest.mark.parametrize("name", [*BAD_NAMES, *BAD_PATTERNS, "*", "**", "a.*", "*.a", "a.**"])
def test_names_nobody_publishes_to(channels: Server, name: str) -> None:
    error_of(post(channels, name, b'{"data": 1}'), 400)


@pytest.mark.parametrize("name", [*BAD_NAMES, *BAD_PATTERNS])
def test_names_nobody_subscribes_to(channels: Server, name: str) -> None:
    error_of(fetch(channels, f"/channels/{name}"), 400)
    error_of(fetch(channels, f"/channels?c={name}"), 400)
    error_of(fetch(channels, f"/channels?c=fine&c={name}"), 400)


@pytest.mark.parametrize(
    "query",
    ["", "?", "?c=", "?c", "?d=a", "?" + "&".join(f"c=a{n}" for n in range(101))],
    ids=["nothing", "empty", "no name", "no value", "another parameter", "101 names"],
)
def test_how_many_one_can_subscribe_to(channels: Server, query: str) -> None:
    error_of(fetch(channels, f"/channels{query}"), 400)


def test_a_name_of_128_characters_will_do(channels: Server, tag: str) -> None:
    name = (tag + "n" * 128)[:128]
    with open_stream(channels, f"/channels/{name}") as stream:
        sent = publish(channels, name, "long")
        assert stream.next().id == sent


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"{}",
        b'{"event": "no data"}',
        b'{"data": 1, "id": "7"}',
        b'{"data": 1, "channel": "other"}',
        b'{"data": 1, "Data": 2}',
        b'{"data": 1, "event": "gap"}',
        b'{"data": 1, "event": "failure"}',
        b'{"data": 1, "event": "two\\nlines"}',
        b'{"data": 1, "event": "two\\rlines"}',
        b'{"data": 1, "event": 7}',
        b'{"data": 1, "event": ["a"]}',
        b'{"data": 1, "retry": -1}',
        b'{"data": 1, "retry": "5"}',
        b'{"data": 1, "retry": 1.5}',
        b'{"data": 1, "retry": true}',
        b'{"data": 1, "retry": {}}',
        b'{"data": "\\ud800"}',
        b'{"data": 1, "event": "\\udfff"}',
        b'{"data": {"\\ud800": 1}}',
        b'{"data": "\xff"}',
        b'{"data": NaN}',
        b'{"data": [Infinity]}',
        b'[{"data": 1}, {"event": "no data"}]',
        b'[{"data": 1}, 2]',
        b'[{"data": 1}, {"data": 1, "event": "gap"}]',
        b'[[{"data": 1}]]',
        b"[" * 40_000,
        b'{"data":' * 20_000,
        b"[%s]" % b",".join([b'{"data": 1}'] * 1001),
    ],
    ids=lambda body: repr(body[:40]),
)
def test_json_that_is_no_event(channels: Server, channel: str, body: bytes) -> None:
    """Nothing of it is published, of an array neither what comes before the mistake."""
    error_of(post(channels, channel, body), 400)
    with open_stream(channels, f"/channels/{channel}?last_event_id=earliest") as stream:
        sent = publish(channels, channel, "only")
        assert stream.next().id == sent


@pytest.mark.parametrize("kind", [TEXT, FORM])
def test_text_that_is_none(channels: Server, channel: str, kind: str) -> None:
    error_of(post(channels, channel, b"\xff\xfe", kind), 400)


@pytest.mark.parametrize("body", [b'{"data": "x"}', b' [{"data": 1}]'])
def test_json_that_is_said_to_be_a_form(channels: Server, channel: str, body: bytes) -> None:
    """curl -d without a header: the answer says what to add."""
    error = error_of(post(channels, channel, body, FORM), 400)
    assert JSON in error["message"]


@pytest.mark.parametrize("kind", [TEXT, FORM, JSON])
def test_too_large_a_body(channels: Server, channel: str, kind: str) -> None:
    """The fixture's limit is 400,000 bytes."""
    body = json.dumps({"data": "x" * 400_000}).encode()
    error_of(post(channels, channel, body, kind), 413)
    assert post(channels, channel, b"x" * 399_999, TEXT).status == 201


def test_a_key_used_again(channels: Server, channel: str) -> None:
    key = {"Idempotency-Key": channel}
    publish(channels, channel, 1, headers=key)
    for body in (b'{"data": 2}', b'{"data": 1, "event": "a"}', b'[{"data": 1}, {"data": 1}]'):
        error_of(post(channels, channel, body, headers=key), 409)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/channels/a", "/channels?c=a"])
def test_methods(channels: Server, path: str, method: str) -> None:
    error_of(fetch(channels, path, method=method, body=b""), 405)


def test_one_publishes_to_one_channel(channels: Server) -> None:
    answer = fetch(channels, "/channels?c=a", method="POST", headers={"Content-Type": JSON})
    error_of(answer, 400, 404, 405)


@pytest.mark.parametrize("path", ["/channels/", "/channels/a/b", "/channels/a%2Fb", "/channels//"])
def test_paths_that_are_none(channels: Server, path: str) -> None:
    error_of(fetch(channels, path), 400, 404)
    error_of(fetch(channels, path, method="POST", body=b"x"), 400, 404, 405)


# Everything below is made up by Hypothesis: whatever is asked, the answer is no 500, and when the
# fixture ends there is no traceback in the server's log.

#: What a header's value may hold; gunicorn refuses all else by itself.
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"))
KINDS = st.sampled_from([JSON, TEXT, FORM, "application/json; charset=latin-1", "multipart/x", "/"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
ANYTHING = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=10
)
EVENTS = st.fixed_dictionaries(
    {"data": ANYTHING},
    optional={"event": ANYTHING | st.text(), "retry": ANYTHING | st.integers(), "other": SCALARS},
)
BODIES = st.binary() | (EVENTS | st.lists(EVENTS) | ANYTHING).map(
    lambda content: json.dumps(content).encode()
)


def status_of(server: Server, path: str, method: str, headers: dict[str, str], body: bytes) -> int:
    """The answer's status; an error's shape is checked, a stream is left."""
    with Connection(server) as connection:
        sent = {name: value.encode("utf-8", "replace").decode() for name, value in headers.items()}
        connection.request(path, method=method, headers=sent, body=body or None)
        head = connection.head()
        if head.status >= 400 and head.headers["content-type"] == JSON:
            said = json.loads(connection.body(head))
            assert set(said["error"]) == {"message", "type", "param", "code"}
        return head.status


@settings(max_examples=300, suppress_health_check=SHARED)
@given(body=BODIES, kind=KINDS, key=st.none() | VALUES)
def test_fuzzed_publishing(channels: Server, body: bytes, kind: str, key: str | None) -> None:
    headers = {"Content-Type": kind, **({} if key is None else {"Idempotency-Key": key})}
    status = status_of(channels, "/channels/fuzzed.a", "POST", headers, body)
    assert status in (201, 400, 409, 413, 415), (status, body, headers)


@settings(max_examples=200, suppress_health_check=SHARED)
@given(name=st.binary(min_size=1, max_size=140), query=st.booleans(), last=st.none() | VALUES)
def test_fuzzed_subscribing(channels: Server, name: bytes, query: bool, last: str | None) -> None:
    quoted = quote_from_bytes(name, safe="*")
    path = f"/channels?c={quoted}" if query else f"/channels/{quoted}"
    headers = {} if last is None else {"Last-Event-ID": last}
    status = status_of(channels, path, "GET", headers, b"")
    # 308: where a slash comes first, Flask's routing leaves out one of two.
    assert status in (200, 308, 400, 404), (status, path)


@settings(max_examples=200, suppress_health_check=SHARED)
@given(last=st.binary(max_size=100) | st.from_regex(r"[0-9a-zA-Z_-]*-?[0-9]{0,40}").map(str.encode))
def test_fuzzed_ids(channels: Server, last: bytes) -> None:
    """Whatever id a client has, it is served, or gets an error that says what is wrong."""
    path = f"/channels/fuzzed.ids?last_event_id={quote_from_bytes(last)}"
    status = status_of(channels, path, "GET", {}, b"")
    assert status in (200, 400), (status, path)


@settings(max_examples=100, suppress_health_check=SHARED)
@given(name=st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True))
def test_every_name_of_the_alphabet_is_either_good_or_bad(channels: Server, name: str) -> None:
    """A name that one can publish to is one that one can subscribe to."""
    status = post(channels, name, b'{"data": 1}').status
    assert status in (201, 400)
    reading = status_of(channels, f"/channels/{name}", "GET", {}, b"")
    assert (status, reading) in ((201, 200), (400, 400))

"""Who may publish and subscribe to what, tried from outside; what becomes of a stream's token."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator

import pytest

from tests.live.kit.clients import open_stream
from tests.live.kit.connection import Answer, Connection, fetch
from tests.live.kit.publishing import error_of, number, post
from tests.live.kit.servers import Server
from tests.live.kit.services import SECRET, authorization, make_token, production
from tests.live.kit.subscribers import Subscriber
from tests.live.kit.swarm import Swarm
from tests.live.kit.waiting import until

PUBLIC = "public.**,lobby"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Production, some channels of which everybody may read."""
    directory = tmp_path_factory.mktemp("guarded")
    settings = {
        "SSEFLASK_SECRET": SECRET,
        "SSEFLASK_PUBLIC_CHANNELS": PUBLIC,
        "SSEFLASK_HEARTBEAT": "0.2",
        "GUNICORN_CMD_ARGS": "--access-logfile -",
    }
    with production(directory, settings) as server:
        yield server
        assert "eyJ" not in server.log(), "a token is in the log"


@functools.cache
def header(*options: str) -> dict[str, str]:
    """The header with a token by the command line; each is made once."""
    return authorization(make_token("--sub", "somebody", *options)) if options else {}


def subscribe(server: Server, target: str, headers: dict[str, str]) -> Answer:
    """Request a stream, and leave it as soon as its status is known."""
    path = f"/channels{target}" if target.startswith("?") else f"/channels/{target}"
    with Connection(server) as connection:
        connection.request(path, headers=headers)
        head = connection.head()
        body = b"" if head.status == 200 else connection.body(head)
        return Answer(head.status, head.headers, body)


def say(server: Server, channel: str, headers: dict[str, str], text: str = "x") -> Answer:
    return post(server, channel, text.encode(), "text/plain", headers)


NOBODY: tuple[str, ...] = ()
READER = ("--subscribe", "orders.*")
WRITER = ("--publish", "orders.*")
BOTH = ("--publish", "orders.**", "--subscribe", "orders.**")
ALL = ("--publish", "**", "--subscribe", "**")
OTHER = ("--complete",)


@pytest.mark.parametrize(
    ("rights", "target", "status"),
    [
        (NOBODY, "orders.1", 401),
        (NOBODY, "**", 401),
        (NOBODY, "public.1", 200),
        (NOBODY, "public.**", 200),
        (NOBODY, "public.*", 200),
        (NOBODY, "lobby", 200),
        (NOBODY, "lobby.1", 401),
        (NOBODY, "publicity", 401),
        (NOBODY, "?c=lobby&c=public.a", 200),
        (NOBODY, "?c=lobby&c=orders.1", 401),
        (READER, "orders.1", 200),
        (READER, "orders.*", 200),
        (READER, "orders.1.2", 403),
        (READER, "orders.**", 403),
        (READER, "*.1", 403),
        (READER, "*", 403),
        (READER, "**", 403),
        (READER, "users.1", 403),
        (READER, "orders", 403),
        (READER, "ordersx.1", 403),
        (READER, "Orders.1", 403),
        (READER, "?c=orders.1&c=orders.2", 200),
        (READER, "?c=orders.1&c=users.1", 403),
        (READER, "?c=orders.1&c=lobby&c=public.**", 200),
        (READER, "lobby", 200),
        (WRITER, "orders.1", 403),
        (WRITER, "lobby", 200),
        (OTHER, "orders.1", 403),
        (OTHER, "public.1", 200),
        (BOTH, "orders.1.2", 200),
        (BOTH, "orders.*.2", 200),
        (BOTH, "orders.**", 200),
        (BOTH, "*.1.2", 403),
        (ALL, "**", 200),
        (ALL, "a.*", 200),
        (("--subscribe", "a", "--subscribe", "b.*"), "?c=a&c=b.1", 200),
        (("--subscribe", "a", "--subscribe", "b.*"), "?c=a&c=c", 403),
    ],
)
def test_subscribing(guarded: Server, rights: tuple[str, ...], target: str, status: int) -> None:
    answer = subscribe(guarded, target, header(*rights))
    assert answer.status == status, answer.body
    if status != 200:
        error_of(answer, status)
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize(
    ("rights", "channel", "status"),
    [
        (NOBODY, "orders.1", 401),
        (NOBODY, "public.1", 401),
        (NOBODY, "lobby", 401),
        (READER, "orders.1", 403),
        (READER, "lobby", 403),
        (WRITER, "orders.1", 201),
        (WRITER, "orders.1.2", 403),
        (WRITER, "orders", 403),
        (WRITER, "users.1", 403),
        (WRITER, "lobby", 403),
        (OTHER, "orders.1", 403),
        (BOTH, "orders.1.2", 201),
        (ALL, "lobby", 201),
    ],
)
def test_publishing(guarded: Server, rights: tuple[str, ...], channel: str, status: int) -> None:
    answer = say(guarded, channel, header(*rights))
    assert answer.status == status, answer.body
    if status != 201:
        error_of(answer, status)
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_no_hint_of_what_exists(guarded: Server) -> None:
    """A channel with events and one that never existed are refused in the same words."""
    assert say(guarded, "secret.known", header(*ALL)).status == 201
    for headers in ({}, header(*READER)):
        for ask in (subscribe, say):
            known = ask(guarded, "secret.known", headers)
            unknown = ask(guarded, "secret.never", headers)
            assert known.status == unknown.status
            assert known.body.replace(b"known", b"never") == unknown.body
    wrong = {"Last-Event-ID": "nonsense"}
    error_of(subscribe(guarded, "secret.known", wrong), 401)


def test_one_does_not_get_what_one_may_not_read(guarded: Server) -> None:
    """A pattern that is allowed does not lead to more than itself."""
    everything, reader = header(*ALL), header(*READER)
    with open_stream(guarded, "/channels?c=orders.*&c=lobby", headers=reader) as stream:
        for channel in ("orders.1.2", "users.1", "orders", "lobby", "orders.2"):
            assert say(guarded, channel, everything, channel).status == 201
        assert stream.data(2) == ["lobby", "orders.2"]


def test_a_token_in_the_query(guarded: Server) -> None:
    token = make_token("--sub", "somebody", *BOTH)
    path = f"/channels/orders.1?access_token={token}"
    with open_stream(guarded, path) as stream:
        answer = fetch(guarded, path, method="POST", body=b"with a token in the query")
        assert answer.status == 201, answer.body
        assert stream.next().data == "with a token in the query"
    error_of(subscribe(guarded, f"?c=users.1&access_token={token}", {}), 403)
    until(lambda: "/channels/orders.1" in guarded.log(), "the access is logged")


@pytest.mark.parametrize("value", ["Bearer nonsense", "Bearer a.b.c", "Basic dGVzdGVyOng="])
def test_a_bad_token_does_not_make_one_anybody(guarded: Server, value: str) -> None:
    error_of(subscribe(guarded, "orders.1", {"Authorization": value}), 401, 403)
    error_of(say(guarded, "orders.1", {"Authorization": value}), 401, 403)


def test_a_stream_ends_when_its_token_does(guarded: Server) -> None:
    """What is published until then is received. Public channels alone do not need the token."""
    token = authorization(make_token("--sub", "somebody", *BOTH, "--ttl", "4s"))
    paths = ("/channels/orders.1", "/channels?c=orders.1&c=lobby", "/channels/lobby")
    subscribers = [Subscriber(path, headers=token) for path in paths]
    *ending, public = subscribers
    with Swarm(guarded.port, subscribers, coming_back=False) as swarm:
        swarm.wait_until_connected()
        for channel in ("lobby", "orders.1"):
            assert say(guarded, channel, header(*ALL), "before").status == 201
        until(lambda: all(each.proper_ends == 1 for each in ending), "ended", seconds=20)
        assert say(guarded, "lobby", header(*ALL), "after").status == 201
        until(lambda: public.data() == ["before", "after"], "the public one goes on")
        assert (public.proper_ends, public.truncated, public.failures) == (0, 0, [])
    assert [each.data() for each in ending] == [["before"], ["before"] * 2]
    for subscriber in ending:
        ((name, error),) = subscriber.failures[0].items()
        assert (name, error["code"]) == ("error", "token_expired")
        assert set(error) == {"message", "type", "param", "code"}
    for target in ("orders.1", "lobby"):
        error_of(subscribe(guarded, target, token), 401)


def test_many_streams_of_several_tokens(guarded: Server) -> None:
    """Each ends with its own token, the others go on."""
    short = make_token("--sub", "short", *READER, "--ttl", "3s")
    with open_stream(guarded, "/channels/orders.1", headers=header(*READER)) as going_on:
        headers = authorization(short)
        ending = [open_stream(guarded, "/channels/orders.1", headers=headers) for _ in range(20)]
        for stream in ending:
            with stream:
                (failure,) = stream.rest()
                assert failure.event == "failure"
        assert say(guarded, "orders.1", header(*WRITER), "still").status == 201
        assert going_on.next().data == "still"


def test_ids_are_in_order_whoever_publishes(guarded: Server) -> None:
    ids = [
        json.loads(say(guarded, "orders.9", header(*rights)).body)["id"]
        for rights in (WRITER, ALL, BOTH, WRITER)
    ]
    assert ids == sorted(ids, key=number)

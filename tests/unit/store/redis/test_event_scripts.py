"""The scripts of events on a real server, as hours go by, or as its clock is put back."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from sseflask.store.redis.script import Script
from tests.redis_server import RedisServerProcess

SECONDS = 6400
BEGIN = 1_000_000


class Server:
    """Runs scripts with a clock that the test sets."""

    def __init__(self, client: Redis) -> None:
        self.client = client
        self.nonces = itertools.count()
        self.set_clock(BEGIN)
        self.generation = self.open()[1].decode()

    def set_clock(self, seconds: int) -> None:
        self.client.set("clock", seconds)

    def run(self, name: str, *arguments: Any) -> Any:
        text = Script("events.lua", f"{name}.lua").text
        text = text.replace("redis.call('TIME')", "{redis.call('GET', 'clock'), 0}")
        return self.client.eval(text, 1, "{test}:e:meta", *arguments)

    def open(self, identity: str = "one", own: int = 0) -> Any:
        known = (self.generation, "epoch") if own else ("", "")
        return self.run("open_events", identity, "epoch", "gen", 10**9, *known, own, "", "process")

    def append(self, channel: str, *frames: bytes, keep: int = 1000, young: float = 5) -> Any:
        before = (self.generation, "process", f"nonce{next(self.nonces)}", young, SECONDS)
        append = (channel, "", "digest", keep, len(frames), *frames)
        return self.run("append_events", *before, *append)

    def known(self, field: str) -> int:
        return int(self.meta(field))

    def meta(self, field: str) -> bytes:
        value = self.client.hget("{test}:e:meta", field)
        assert isinstance(value, bytes)
        return value

    def key(self, name: str) -> str:
        return f"{{test}}:e:{self.generation}:{name}"


@pytest.fixture
def scripts(server: RedisServerProcess) -> Iterator[Server]:
    with server.client() as client:
        yield Server(client)


def test_what_is_too_old_is_forgotten_while_events_come_all_the_time(scripts: Server) -> None:
    scripts.append("quiet", b"x")
    for at in range(BEGIN, BEGIN + 2 * SECONDS, 10):
        scripts.set_clock(at)
        scripts.append("loud", b"x", keep=10**6)
    assert scripts.known("a") > 0
    assert scripts.client.zscore(scripts.key("last"), "quiet") is None
    assert scripts.client.xlen(scripts.key("channel:loud")) < 1.3 * SECONDS / 10
    assert scripts.client.zcard(scripts.key("times")) < 300


def test_a_clock_that_is_put_back(scripts: Server) -> None:
    for at in range(BEGIN, BEGIN + 10):
        scripts.set_clock(at)
        scripts.append("a", b"x")
    marks = scripts.client.zcard(scripts.key("times"))
    for at in range(BEGIN - 1000, BEGIN - 990):
        scripts.set_clock(at)
        scripts.append("a", b"x", keep=3, young=2)
    assert scripts.client.zcard(scripts.key("times")) == marks + 10, "it is noted as before"
    assert scripts.client.xlen(scripts.key("channel:a")) <= 4, "and so it is trimmed"


def test_a_channel_does_not_grow_with_large_appends(scripts: Server) -> None:
    for at in range(10):
        scripts.set_clock(BEGIN + 10 * at)
        scripts.append("many", *[b"x"] * 1000, keep=100)
        scripts.append("large", *[b"x" * 400_000] * 2, keep=5)
    assert scripts.client.xlen(scripts.key("channel:many")) <= 2100
    assert scripts.client.xlen(scripts.key("channel:large")) <= 9


def test_numbers_go_on_elsewhere_after_a_save_before_the_first_event(scripts: Server) -> None:
    _, _, newest, *_ = scripts.open("another")
    assert newest == 0
    first = scripts.append("a", b"x")[4]
    assert first > 10**9, "others may have seen lower numbers before"
    epoch, *_ = scripts.open("another", own=7)
    assert epoch == b"epoch"
    assert scripts.known("m") == 1, "an event that this process has seen was lost"


def test_many_restarts(scripts: Server) -> None:
    holes = []
    for number in range(100):
        scripts.append("a", b"x")
        holes.append(scripts.known("n"))
        scripts.open(f"identity {number}")
    noted = scripts.meta("h").decode().split()
    assert 20 < len(noted) < 100
    assert [int(hole.partition(":")[0]) for hole in noted] == holes[-len(noted) :], "whole ones"


def test_a_full_server_can_be_opened(scripts: Server) -> None:
    scripts.append("a", b"x")
    scripts.client.config_set("maxmemory", 1)
    assert scripts.open("another")[2] == 1
    assert scripts.known("j") > 10**9
    with pytest.raises(ResponseError, match=r"OOM|maxmemory"):
        scripts.append("a", b"x")
    assert scripts.known("n") == scripts.client.xlen(scripts.key("tail")) == 1


def test_without_the_right_to_measure_memory(scripts: Server) -> None:
    user = ("on", "nopass", "~*", "+@all", "-memory")
    scripts.client.execute_command("ACL", "SETUSER", "shop", *user)
    scripts.client.execute_command("AUTH", "shop", "")
    for at in range(3):
        scripts.set_clock(BEGIN + 10 * at)
        scripts.append("a", b"x")
    assert scripts.known("n") == 3


def test_large_events_of_many_channels_are_not_read_in_vain(scripts: Server) -> None:
    names = [f"c{number:02}" for number in range(100)]
    for name in names:
        scripts.append(name, *[b"x" * 200_000] * 2)
    calls = lacking = 0
    while names:
        reply = scripts.run("read_events", 0, 1000, 262_144, 2**53, len(names), *names)
        frames = [row[1][3] for rows in reply[8::3] for row in rows]
        assert sum(map(len, frames)) < 1_000_000
        names = names[reply[4] :]
        lacking += len(reply[6::3])
        calls += 1
    assert lacking == 100
    assert calls <= 50


def test_a_page_of_few_loud_channels_is_read_in_one_call(scripts: Server) -> None:
    """Each gets the same room: none that was read a little keeps the page short."""
    for _ in range(40):
        for name in "abcde":
            scripts.append(name, *[b"x" * 300] * 10, keep=10**6)
    reply = scripts.run("read_events", 0, 1000, 262_144, 2**53, 5, *"abcde")
    read = [[int(row[0].partition(b"-")[0]) for row in rows] for rows in reply[8::3]]
    upto = min(numbers[-1] for numbers in read)
    assert upto > 500
    assert sum(map(len, read)) < 2500


def test_what_a_call_trims_is_bounded_for_all_its_channels_together(scripts: Server) -> None:
    names = [f"c{number}" for number in range(20)]
    for name in names:
        scripts.append(name, *[b"x"] * 200)
    scripts.set_clock(BEGIN + 1)
    scripts.append("mark", b"x")
    scripts.set_clock(BEGIN + 10)  # so that they are not young any more
    before = (scripts.generation, "process", "first", 5, SECONDS)
    appends = [each for name in names for each in (name, "", "digest", 10, 1, b"x")]
    scripts.run("append_events", *before, *appends)
    left = sum(scripts.client.xlen(scripts.key(f"channel:{name}")) for name in names)
    assert left == 20 * 201 - 500 - 2 * 20
    for at in range(20):
        scripts.run("append_events", *before[:2], f"more{at}", *before[3:], *appends)
    assert max(scripts.client.xlen(scripts.key(f"channel:{name}")) for name in names) < 60


@pytest.mark.parametrize("lost", ["", "first", "last"])
def test_the_ends_of_channels_are_those_of_their_streams(scripts: Server, lost: str) -> None:
    for _ in range(3):
        scripts.append("a", *[b"x"] * 10, keep=10, young=0)
        scripts.append("b", b"x")
    scripts.append("gone", b"x")
    scripts.client.delete(scripts.key("channel:gone"))
    if lost:
        scripts.client.delete(scripts.key(lost))
    reply = scripts.run("find_ends", "n", "a", "n", "b", "n", "gone", "n", "none", "p", "^.*$")
    found = [23, 32, 11, 33, 0, 0, 0, 0, 11, 33]
    if lost:  # a pattern finds what the index has
        found[8 if lost == "first" else 9] = 0
    assert reply == found

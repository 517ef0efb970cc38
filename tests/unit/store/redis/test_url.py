"""What operators may write into the URL of a Redis server by mistake."""

from __future__ import annotations

import pytest

from sseflask.store.redis.url import parse


@pytest.mark.parametrize(
    ("url", "hosts", "name", "database"),
    [
        ("redis://", [("localhost", 6379)], "", 0),
        ("redis://h/", [("h", 6379)], "", 0),
        ("redis://u:p%40%3A%2F@h:7/3", [("h", 7)], "", 3),
        ("redis://[fe80::1]", [("fe80::1", 6379)], "", 0),
        ("redis://h?db=4", [("h", 6379)], "", 4),
        ("redis+sentinel://[::1]:7,[::2]/main/2", [("::1", 7), ("::2", 26379)], "main", 2),
        ("redis+cluster://[::1]:7,b", [("::1", 7), ("b", 6379)], "", 0),
    ],
)
def test_the_parts_of_a_url(
    url: str, hosts: list[tuple[str, int]], name: str, database: int
) -> None:
    parsed = parse(url)
    assert [*parsed.hosts] == hosts
    assert (parsed.name, parsed.database) == (name, database)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://h", "no URL"),
        ("memory://", "no URL"),
        ("redis+other://h", "no URL"),
        ("unix+sentinel:///h/main", "no URL"),
        (" redis://h", "space"),
        ("redis://h\n", "line break"),
        ("redis://:hunter 2@h", "space"),
        # These characters of a password are not written as they should be.
        ("redis://:hunter2@:/w@h", "host|port"),
        ("redis://:hunter2/w@h", "lacks a host|port"),
        ("redis://u:hunter2/w@h:6379/0", "port"),
        ("redis://u:1234/hunter2@h", "database"),
        ("redis://u:hunter2?w@h", "argument"),
        ("redis://u:1#hunter2@h:6379/0", "#"),
        ("redis://u:hunter2[@h", "malformed|host"),
        ("redis://:hunter2@", "lacks a host"),
        ("redis://::1:6379", "brackets|port"),
        ("redis://h:port", "port"),
        ("redis://h:99999", "port"),
        ("redis://h:0", "port"),
        ("redis://h/main", "database"),
        ("redis://h?db=main", "db"),
        ("redis://h?prefix=", "prefix"),
        ("redis://h?prefix={a}", "prefix"),
        ("redis://h?prefix=a%0Ab", "prefix"),
        ("redis://h?hunter2=1", "argument"),
        ("redis://h?decode_responses=true", "argument"),
        ("redis://h?retry_on_timeout=true", "argument"),
        ("redis://h?protocol=3", "argument"),
        ("redis://h?socket_timeout=hunter2", "socket_timeout"),
        ("redis://h?socket_timeout=0", "socket_timeout"),
        ("redis://h?socket_timeout=2", "socket_timeout"),
        ("redis://h?socket_timeout=inf", "socket_timeout"),
        ("rediss://h?ssl_cert_reqs=hunter2", "ssl_cert_reqs"),
        ("redis+cluster://h:port", "port"),
        ("redis+cluster://", "lacks a host"),
        ("redis+cluster://h/3", "databases"),
        ("redis+sentinel://h", "name"),
        ("redis+sentinel://,h/main", "lacks a host"),
        ("unix://", "path"),
    ],
)
def test_urls_that_mean_nothing(url: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        parse(url)
    assert "hunter" not in str(caught.value)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None

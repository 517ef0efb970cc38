from __future__ import annotations

import pytest

from sseflask.web.origins import parse_origin


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("https://example.org", "https://example.org"),
        ("HTTPS://Example.ORG", "https://example.org"),
        ("https://example.org:443", "https://example.org"),
        ("http://example.org:80", "http://example.org"),
        ("http://example.org:443", "http://example.org:443"),
        ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example"),
        ("http://my_host", "http://my_host"),
        ("capacitor://localhost", "capacitor://localhost"),
    ],
)
def test_origins(text: str, normal: str) -> None:
    assert parse_origin(text) == normal
    assert parse_origin(normal) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "*",
        "example.org",
        "//example.org",
        "https://",
        "https://example.org/",
        "https://example.org/path",
        "https://example.org?a",
        "https://example.org#a",
        "https://*.example.org",
        "https://me@example.org",
        "https://example.org:",
        "https://example.org:0",
        "https://example.org:65536",
        "https://example.org:http",
        "https://example.org\n",
        " https://example.org",
        "https://bücher.example",
        "https://example.org:\uff11",
        "http://[::1",
        "http://[localhost]",
        "https://a.example, https://b.example",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="an origin is written"):
        parse_origin(text)
